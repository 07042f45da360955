"""Where a worker stands among the workers of its node, and what it gets from the supervisor to begin with."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from realtime_communication.config import Config, LoadedConfig
from realtime_communication.server.listening import Listener

SEATS: Final = 64  # on the bus and in shared memory


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A worker's number on its node, from 0, and that of the workers; the defaults are those of a worker alone.

    - `seat`: its number on the bus and in shared memory. While a worker is replaced, both have seats of their own
    - `incarnation`: grows with every process that is started on the node
    - `node_id`: that of the node, the same in all its workers; empty: the worker makes one
    - `run`: a random text for one run of the node, the same in all its workers
    - `bus_dir`: the folder, of this node alone, for the sockets between its workers; empty: there are no others
    - `shared_memory`: the descriptor of what all workers share, -1 without others
    - `metrics_port`: where the metrics of the node are, when another process serves them
    - `mock_keys`: what a mock issuer signs with in all workers
    - `drained`: the process before it had been drained by an administrator, and this one goes on so
    """

    slot: int = 0
    seat: int = 0
    workers: int = 1
    incarnation: int = 1
    node_id: str = ""
    run: str = ""
    bus_dir: str = ""
    shared_memory: int = -1
    metrics_port: int | None = None
    mock_keys: tuple[bytes, ...] = ()
    drained: bool = False


ALONE = Place()


def made_node_id(config: Config) -> str:
    """A name for a node that starts."""
    return "node-1" if config.testing.deterministic_ids else uuid.uuid4().hex[:16]


class Handed(msgspec.Struct, frozen=True):
    """A listening socket that is inherited: its descriptor, and the path of a Unix socket."""

    descriptor: int
    path: str | None

    @classmethod
    def of(cls, listener: Listener) -> Handed:
        """What to tell a process that inherits the socket of `listener`."""
        return cls(listener.sock.fileno(), listener.path)

    def listener(self) -> Listener:
        """The socket in the process that inherited it. Raises OSError when it did not."""
        sock = socket.socket(fileno=self.descriptor)
        sock.setblocking(False)
        sock.set_inheritable(False)
        return Listener(sock, self.path)


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """All a worker needs to begin."""

    place: Place
    loaded: LoadedConfig
    listeners: tuple[Handed, ...]
    metrics_listeners: tuple[Handed, ...] = ()


class Fault(msgspec.Struct, frozen=True):
    """Why a worker ended by itself: its exit status, and what to tell people, a line each.

    `problems` are those of a configuration: key, value, origin and message of each.
    """

    status: int
    lines: tuple[str, ...]
    problems: tuple[tuple[str, str, str, str], ...] = ()


def packed(message: Assignment | LoadedConfig) -> bytes:
    """As bytes for another process of this server. They hold secrets: for a channel between the two alone."""
    return msgspec.msgpack.encode(message, enc_hook=_plain)


def unpacked_assignment(data: bytes) -> Assignment:
    """What `packed` made of an Assignment. Raises msgspec.ValidationError."""
    return msgspec.msgpack.decode(data, type=Assignment, dec_hook=_rich)


def unpacked_configuration(data: bytes) -> LoadedConfig:
    """What `packed` made of a LoadedConfig. Raises msgspec.ValidationError."""
    return msgspec.msgpack.decode(data, type=LoadedConfig, dec_hook=_rich)


def handed(listeners: Sequence[Listener]) -> tuple[Handed, ...]:
    """Each of them, as `Handed.of`."""
    return tuple(Handed.of(listener) for listener in listeners)


def _plain(value: object) -> str:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"a {type(value).__name__} does not travel")


def _rich(kind: type, value: Any) -> Any:
    if kind is Path:
        return Path(value)
    raise TypeError(f"a {kind.__name__} does not travel")
