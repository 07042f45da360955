"""What a server does on its way up, with one worker or many: file limits, and the lines that say it is there."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import sys
import time
from collections.abc import Sequence
from typing import Final

from realtime_communication import __version__
from realtime_communication.auth.tokens import TokenIssuer
from realtime_communication.config import Config
from realtime_communication.observability.logs import get_logger
from realtime_communication.server.listening import Listener

DEMO_USER: Final = "demo"
MOST_RESERVED_FILES: Final = 65_536  # half a megabyte of the kernel's memory
SPARE_FILES: Final = 64  # descriptors beside those of connections: logs, epoll, listeners, HTTP

_log = get_logger(__name__)


def announce(
    config: Config, listeners: Sequence[Listener], metrics_listeners: Sequence[Listener], issuer: TokenIssuer | None
) -> None:
    """Say in the log and on standard output where the server is; with an `issuer`, how to try it."""
    for listener in listeners:
        _log.info("listening", url=listener.url, port=listener.port, version=__version__)
    path = config.monitoring.prometheus.path
    for listener in metrics_listeners:
        _log.info("metrics listening", url=f"{listener.url}{path}", port=listener.port)
    url = listeners[0].url
    lines = [f"realtime_communication {__version__} listening on {url}"]
    if issuer is not None:
        lines.append(f"demo page: {url}/")
        lines.append(f"token of {DEMO_USER!r}: {issuer.access_token(DEMO_USER, time.time())}")
    # One write: where the log goes to the same file, its lines must not come between a text and its line end.
    _print("\n".join(lines) + "\n")


def raise_file_limit(connections: int) -> None:
    """Use as many file descriptors as the system allows this process; say so when that is too few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    if soft != resource.RLIM_INFINITY and soft < connections + SPARE_FILES:
        _log.warning("fewer file descriptors than connections are allowed", files=soft, max_connections=connections)


def reserve_files(connections: int) -> None:
    """Let the kernel make its table of this process's file descriptors as large as so many connections need, at once.

    It doubles the table when it is full, and a process with threads waits some 15 ms for it each time: while clients
    come back by the thousand, their SYNs overflow the backlog meanwhile.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(connections + SPARE_FILES, MOST_RESERVED_FILES)
    highest = wanted if soft == resource.RLIM_INFINITY else min(wanted, soft)
    with contextlib.suppress(OSError, ValueError), open(os.devnull, "rb") as file:
        os.close(fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, highest - 1))


def _print(text: str) -> None:
    """To standard output. Where that is closed or full the text is lost: no reason to stop or to end in failure."""
    try:
        print(text, end="", flush=True)
    except ValueError:  # closed by this process itself
        return
    except OSError:
        # The interpreter would try to write what is left of it once more at the end, and exit with 120.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
