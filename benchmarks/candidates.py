"""The servers that are measured beside each other: how each is started and what it can be asked for.

Each is in the best configuration that its own documentation has for one core, without compression and without a log of
single messages; README.md says which that is.
"""

import secrets
import shutil
import sys
from pathlib import Path
from typing import Literal

import msgspec

from . import prepare

SECRET = secrets.token_hex(32)
"""Signs every token of this run."""

PRODUCT_CONFIGURATION = """
[server]
host = "127.0.0.1"
workers = 1

[websocket]
max_connections = 15000

[actor_system]
mailbox_capacity = 10000

[rate_limiting]
enabled = false

[logging]
level = "warn"

[development]
enable_debug_endpoints = true
"""

WITHOUT_REDIS = """
[testing]
use_in_memory_storage = true
"""
"""More of it where there is no Redis: a server that misses one keeps what is published for it."""

NATS_CONFIGURATION = """
host: "127.0.0.1"
port: -1
websocket {
  host: "127.0.0.1"
  port: @PORT@
  no_tls: true
  compression: false
}
"""

Protocol = Literal["rtc", "text", "nats", "centrifugo", "socketio"]


class Need(msgspec.Struct, frozen=True):
    """Something a server does not run without: a command or a file, and what to say when it is not there."""

    path: str
    otherwise: str

    def is_there(self) -> bool:
        return shutil.which(self.path) is not None or Path(self.path).is_dir()


class Candidate(msgspec.Struct, frozen=True):
    """A server that can be started.

    `{port}` in its command is a free port, `{config}` a file with its `configuration`, in which `@PORT@` is the port;
    `figures` are those it can be asked for.
    """

    name: str
    title: str
    protocol: Protocol
    command: tuple[str, ...]
    figures: frozenset[str]
    echo_path: str | None = None
    configuration: str = PRODUCT_CONFIGURATION + WITHOUT_REDIS
    environment: tuple[tuple[str, str], ...] = ()
    checks_tokens: bool = False
    needs: tuple[Need, ...] = ()

    def missing(self) -> str | None:
        """What it lacks on this machine."""
        lacks = [need.otherwise for need in self.needs if not need.is_there()]
        return "; ".join(lacks) or None


PEER_FIGURES = frozenset({"fanout", "latency", "echo", "connect", "idle"})
LIMIT = "limit"
PRODUCT = "product"
UWEBSOCKETS = "uwebsockets"

ONE_CORE_IN_GO = (("GOMAXPROCS", "1"),)


def peer(name: str, title: str, module: str) -> Candidate:
    """A peer in Python."""
    command = (sys.executable, "-m", f"benchmarks.peers.{module}", "--port", "{port}")
    return Candidate(name, title, "text", command, PEER_FIGURES)


def node_peer(name: str, title: str, protocol: Protocol, script: str, package: str) -> Candidate:
    """A peer on Node.js, which needs that package."""
    return Candidate(
        name,
        title,
        protocol,
        ("node", str(prepare.PEERS / script), "{port}"),
        PEER_FIGURES,
        environment=(("NODE_PATH", str(prepare.NODE_MODULES)), ("NODE_ENV", "production")),
        needs=(
            Need("node", "Node.js is not installed"),
            Need(str(prepare.NODE_MODULES / package), f"the npm package {package} could not be installed"),
        ),
    )


def centrifugo(name: str, title: str, history: bool) -> Candidate:
    channel: dict[str, object] = {"allow_subscribe_for_client": True, "allow_publish_for_client": True}
    if history:
        channel |= {"history_size": 10_000, "history_ttl": "300s", "force_recovery": True}
    configuration = {
        "http_server": {"address": "127.0.0.1", "port": "@PORT@"},
        "websocket": {"use_write_buffer_pool": True},
        "client": {"ping_interval": "25s", "pong_timeout": "24s"},
        "channel": {"without_namespace": channel},
        "usage_stats": {"disabled": True},
        "log": {"level": "warn"},
    }
    return Candidate(
        name,
        title,
        "centrifugo",
        (str(prepare.CENTRIFUGO), "--config={config}"),
        PEER_FIGURES,
        configuration=msgspec.json.encode(configuration).decode(),
        environment=(*ONE_CORE_IN_GO, ("CENTRIFUGO_CLIENT_TOKEN_HMAC_SECRET_KEY", SECRET)),
        checks_tokens=True,
        needs=(Need(str(prepare.CENTRIFUGO), "Centrifugo could not be built, which needs Go"),),
    )


CANDIDATES = (
    Candidate(
        LIMIT,
        "bare C loop",
        "text",
        (str(prepare.CACHE / "limit"), "{port}"),
        frozenset({"fanout", "latency", "echo", "connect"}),
    ),
    Candidate(
        PRODUCT,
        "**this build**",
        "rtc",
        (
            str(Path(sys.executable).with_name("rtc")),
            "serve",
            "--profile=test",
            "--config={config}",
            "--port={port}",
        ),
        frozenset({"fanout", "latency", "echo", "direct", "connect", "idle"}),
        echo_path="/debug/echo",
        checks_tokens=True,
    ),
    peer(UWEBSOCKETS, "uWebSockets (C++), `publish`", "uwebsockets_publish"),
    peer("picows", "picows listener under uvloop", "picows_listener"),
    peer("websockets", "`websockets` under uvloop", "websockets_broadcast"),
    node_peer("ws", "`ws` on Node.js", "text", "ws_broadcast.cjs", "ws"),
    node_peer("socketio", "Socket.IO on Node.js", "socketio", "socketio_rooms.cjs", "socket.io"),
    Candidate(
        "nats",
        "NATS over WebSocket",
        "nats",
        (prepare.nats_server(), "--config={config}"),
        PEER_FIGURES,
        configuration=NATS_CONFIGURATION,
        environment=ONE_CORE_IN_GO,
        needs=(Need(prepare.nats_server(), "nats-server could not be installed"),),
    ),
    centrifugo("centrifugo", "Centrifugo", history=True),
    centrifugo("centrifugo-plain", "Centrifugo without history", history=False),
    Candidate(
        "baseline",
        "baseline: plain-Python `rtc.v1`",
        "rtc",
        (sys.executable, "-m", "benchmarks.baseline", "--port", "{port}"),
        frozenset({"fanout", "latency", "direct", "connect", "idle"}),
        checks_tokens=True,
    ),
)
