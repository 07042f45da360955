"""Whether the ports of the configuration are free, and who has them if not."""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from realtime_communication.cli.doctor.finding import Finding, fail, ok
from realtime_communication.config.schema import Config

_LISTENING: Final = "0A"  # TCP_LISTEN of include/net/tcp_states.h, as /proc/net/tcp shows it
_UNIX: Final = "unix:"
_OWN_NAMES: Final = ("rtc", "realtime_communication")
_LONGEST_COMMAND: Final = 80


def findings(config: Config) -> Iterator[Finding]:
    """Of the main port, and of that of the metrics."""
    host = config.server.host
    if host.startswith(_UNIX):
        yield _socket_file(Path(host.removeprefix(_UNIX)))
        host = "127.0.0.1"
    elif config.server.port:
        yield port("server.port", host, config.server.port)
    metrics = config.monitoring.prometheus
    if metrics.enabled and config.logging.enable_metrics:
        yield port("metrics.port", host, metrics.port)


def port(key: str, host: str, number: int) -> Finding:
    """Whether a server could listen there."""
    try:
        addresses = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        return fail(key, f"{host} is no address of this machine: {error}", 'server.host = "0.0.0.0"')
    for family, kind, protocol, _, address in addresses:
        with socket.socket(family, kind, protocol) as probe:
            try:
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that ended a moment ago
                probe.bind(address)
            except OSError as error:
                return _refused(key, host, number, error)
    return ok(key, f"{number} is free")


def _refused(key: str, host: str, number: int, error: OSError) -> Finding:
    if error.errno == errno.EACCES:
        return fail(
            key,
            f"only root may listen on {number}",
            "AmbientCapabilities=CAP_NET_BIND_SERVICE in the systemd unit, or a port from 1024 on",
        )
    if error.errno != errno.EADDRINUSE:
        return fail(key, f"{host}:{number}: {error.strerror}", 'server.host = "0.0.0.0"')
    who = owner_of(number)
    if who is None:
        return fail(key, f"{number} is in use, by whom only root can see", f"sudo ss -ltnp 'sport = :{number}'")
    pid, command = who
    if any(os.path.basename(word) in _OWN_NAMES for word in command.split()[:3]):
        return ok(key, f"{number} is in use by this program already (process {pid})")
    return fail(key, f"{number} is in use by process {pid}: {command}", f"stop it, or choose another {key}")


def _socket_file(path: Path) -> Finding:
    if path.is_socket():
        return ok("server.host", f"{path} is there; the server replaces one that nobody listens on")
    if path.exists():
        return fail("server.host", f"{path} is there and no socket", f"rm {path}")
    if not os.access(path.parent, os.W_OK):
        return fail("server.host", f"{path.parent} cannot be written", f"install -d -o $USER {path.parent}")
    return ok("server.host", f"{path} can be made")


def owner_of(number: int) -> tuple[int, str] | None:
    """The process that listens on a port, and its command; None where this user may not see it."""
    inodes = {f"socket:[{inode}]" for inode in _listening_inodes(number)}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and _has_open(entry.name, inodes):
            return int(entry.name), _command_of(entry.name)
    return None


def _listening_inodes(number: int) -> Iterator[str]:
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == number:
                yield fields[9]


def _has_open(pid: str, links: set[str]) -> bool:
    folder = f"/proc/{pid}/fd"
    try:
        return any(os.readlink(f"{folder}/{name}") in links for name in os.listdir(folder))
    except OSError:  # somebody else's, or it ended meanwhile
        return False


def _command_of(pid: str) -> str:
    """Without what looks like a credential: it is shown to people."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    except OSError:
        return "?"
    return re.sub(r"(?i)((?:token|secret|password|key)[^=\s]*=)\S+", r"\1…", " ".join(words).strip())[:_LONGEST_COMMAND]
