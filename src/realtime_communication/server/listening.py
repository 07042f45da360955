"""Listening sockets from `server.host` and `server.port`.

Rules: a socket is bound before anything else of the server exists, so that a port in use is told at once and nothing
has to be undone. A server of one process listens when it is ready to take connections, not before: while it starts,
clients that come back in thousands would overflow the backlog, and the kernel lets those whose SYN it drops wait for a
second, while a refused client knows at once.

Workers get sockets of their own on one port (SO_REUSEPORT, socket(7)), among which the kernel spreads the connections;
the process that opens them keeps them, so that connections wait while a worker is replaced. They listen from the
beginning: until then another server could share the port unnoticed.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import socket
import stat
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

from realtime_communication.errors import EnvironmentFault

BACKLOG: Final = 65_535  # the kernel lowers it to net.core.somaxconn
UNIX_PREFIX: Final = "unix:"
UNIX_MODE: Final = 0o660
_PORT_ATTEMPTS: Final = 20  # for a free port that is free on every address of a host name

_Address = tuple[socket.AddressFamily, tuple[str, int]]
T = TypeVar("T")


class Listener(msgspec.Struct):
    """A bound, non-blocking socket; it may listen already.

    `path` and `inode` tell a Unix socket's file, `secure` whether its connections speak TLS.
    """

    sock: socket.socket
    path: str | None = None
    inode: int | None = None
    secure: bool = False

    @property
    def port(self) -> int | None:
        """The TCP port; None on a Unix socket."""
        return None if self.path is not None else int(self.sock.getsockname()[1])

    @property
    def url(self) -> str:
        """The address as people write it."""
        if self.path is not None:
            return f"{UNIX_PREFIX}{self.path}"
        host, port = self.sock.getsockname()[:2]
        scheme = "https" if self.secure else "http"
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

    def listen(self) -> None:
        """Let connections come; again does nothing. Raises EnvironmentFault."""
        try:
            self.sock.listen(BACKLOG)
        except OSError as error:
            raise EnvironmentFault(_reason(self.url, error)) from None

    def close(self) -> None:
        """Close the socket, and remove the file of a Unix socket when it is still this one's."""
        self.sock.close()
        if self.path is not None:
            with contextlib.suppress(OSError):
                if os.stat(self.path).st_ino == self.inode:
                    os.unlink(self.path)


def open_listeners(host: str, port: int, *, listening: bool = True) -> list[Listener]:
    """Listen on every address of `host`; with port 0 on one free port for all of them.

    Without `listening` the caller does so later, by `Listener.listen`; a Unix socket listens all the same.

    Raises EnvironmentFault that names the address and the reason.
    """
    if host.startswith(UNIX_PREFIX):
        return [_open_unix(host.removeprefix(UNIX_PREFIX))]
    return _open_on(host, port, functools.partial(_open_all, listening=listening))


def open_shared_listeners(host: str, port: int, workers: int) -> list[list[Listener]]:
    """As `open_listeners`, a list for each worker, all on the same addresses and the same port.

    A Unix socket is one for all; only the first list's `close` removes its file. Raises EnvironmentFault.
    """
    if host.startswith(UNIX_PREFIX):
        only = _open_unix(host.removeprefix(UNIX_PREFIX))
        return [[only], *([Listener(only.sock, only.path)] for _ in range(workers - 1))]

    def open_for_all(addresses: list[_Address], port: int) -> list[list[Listener]]:
        # Another server's sockets that share their port would let these in: one that does not share finds out.
        probes = _open_all(addresses, port, listening=False)
        port = probes[0].port or port
        for probe in probes:
            probe.close()
        opened: list[list[Listener]] = []
        try:
            for _ in range(workers):
                opened.append(_open_all(addresses, port, shared=True))
        except OSError:
            for listener in (listener for listeners in opened for listener in listeners):
                listener.close()
            raise
        return opened

    return _open_on(host, port, open_for_all)


def _open_on(host: str, port: int, open_at: Callable[[list[_Address], int], T]) -> T:
    """What `open_at` opens on the addresses of `host`; with port 0 it is tried anew when a port was not free."""
    addresses = _addresses_of(host, port)
    for _ in range(_PORT_ATTEMPTS):
        try:
            return open_at(addresses, port)
        except OSError as error:
            # A port the kernel chose on one address may be taken on the next: choose again.
            if port == 0 and error.errno == errno.EADDRINUSE:
                continue
            raise EnvironmentFault(_reason(f"{host}:{port}", error)) from None
    raise EnvironmentFault(f"cannot listen on {host}: no port is free on all its addresses")


def _addresses_of(host: str, port: int) -> list[_Address]:
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        reason = error.strerror if isinstance(error, socket.gaierror) else "it is no host name"
        raise EnvironmentFault(f"cannot listen on {host}: {reason} (server.host)") from None
    # IPv4 first: what is printed as the server's address is the first one.
    found.sort(key=lambda row: row[0] != socket.AF_INET)
    return list(dict.fromkeys((family, (str(address[0]), port)) for family, *_, address in found))


def _open_all(addresses: list[_Address], port: int, *, shared: bool = False, listening: bool = True) -> list[Listener]:
    listeners: list[Listener] = []
    missing: OSError | None = None
    try:
        for family, (address, _) in addresses:
            try:
                sock = _bound(family, address, port, alone=len(addresses) == 1, shared=shared)
                listeners.append(Listener(sock))
                if listening:
                    sock.listen(BACKLOG)
            except OSError as error:
                # A host name may have an IPv6 address on a machine that has no IPv6.
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                missing = error
                continue
            port = listeners[0].port or port
    except OSError:
        for listener in listeners:
            listener.close()
        raise
    if not listeners and missing is not None:
        raise missing
    return listeners


def _bound(family: socket.AddressFamily, address: str, port: int, *, alone: bool, shared: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        # The port can be taken again at once after a restart, while old connections are in TIME_WAIT.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if alone and address == "::" else 1)
        sock.bind((address, port))
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def _open_unix(path: str) -> Listener:
    try:
        _remove_stale(path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    except OSError as error:
        raise EnvironmentFault(_reason(f"{UNIX_PREFIX}{path}", error)) from None
    try:
        before = os.umask(0o777 & ~UNIX_MODE)
        try:
            sock.bind(path)
        finally:
            os.umask(before)
        sock.listen(BACKLOG)
        sock.setblocking(False)
        return Listener(sock, path, os.stat(path).st_ino)
    except OSError as error:
        sock.close()
        raise EnvironmentFault(_reason(f"{UNIX_PREFIX}{path}", error)) from None


def _remove_stale(path: str) -> None:
    """Remove the socket a server left behind that is no longer there. Raises OSError when one is, or it is a file."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(errno.EEXIST, "a file that is no socket is there")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _reason(address: str, error: OSError) -> str:
    on_disk = address.startswith(UNIX_PREFIX)
    reasons = {
        errno.EADDRINUSE: "the address is in use by another process",
        errno.EACCES: "no permission for the path" if on_disk else "no permission (ports under 1024 need it)",
        errno.EADDRNOTAVAIL: "this machine does not have the address",
        errno.ENOENT: "the folder does not exist",
    }
    return f"cannot listen on {address}: {reasons.get(error.errno or 0, error.strerror or str(error))}"
