"""FAULTS.md: Process: memory that runs out while the server runs, and outputs that are closed."""

import os
import re
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.asking import health, until
from serving.notices import total
from serving.peer import Peer, unique_user
from serving.processes import ServerProcess, StartServer, free_port
from serving.raw import CONTINUATION, TEXT, RawSocket, close_frame, exchange, frame, upgrade
from serving.witness import Witness

MESSAGE = 16 << 20
SPARE = 48 << 20
PIECE = b"x" * 65_000
GREEDY = 8


@pytest.fixture
def narrow(start_server: StartServer) -> Iterator[ServerProcess]:
    """A server that has room for some messages of the largest size, not for one of each client."""
    server = start_server(
        {
            "websocket": {"max_message_size": MESSAGE, "auth_timeout_secs": 10},
            "metrics": {"enabled": True, "port": free_port()},
        }
    )
    with Peer(server.url, unique_user()) as peer:
        peer.ok("Ping")
    assert health(server.port)["status"] in ("ok", "degraded")
    yield server


def address_space(server: ServerProcess) -> int:
    """Bytes of it that the process uses."""
    found = re.search(r"VmSize:\s+(\d+) kB", Path(f"/proc/{server.pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def test_who_finds_no_memory_is_closed_and_others_live(narrow: ServerProcess) -> None:
    with Witness(narrow.url) as witness:
        greedy = [RawSocket.upgraded(narrow.port, user=unique_user()) for _ in range(GREEDY)]
        limit = address_space(narrow) + SPARE
        resource.prlimit(narrow.pid, resource.RLIMIT_AS, (limit, limit))
        codes = []
        for raw in greedy:
            for number in range(MESSAGE // len(PIECE) - 1):
                raw.send(frame(CONTINUATION if number else TEXT, PIECE, fin=False))
        witness.check()
        for raw in greedy:
            raw.send(close_frame(1000))
            codes.append(raw.closed_with())
            raw.socket.close()
        assert set(codes) == {1000, 1011}, f"all of them, or none: {codes}"
        witness.check()
        with Peer(narrow.url, unique_user()) as peer:
            peer.ok("Ping")


def test_closed_outputs_stop_nobody(start_server: StartServer, tmp_path: Path) -> None:
    """Whoever read standard output and standard error has gone."""
    pipe = tmp_path / "log"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    server = start_server({"metrics": {"enabled": True, "port": free_port()}}, output=str(pipe))
    os.close(reader)
    with Witness(server.url) as witness:
        for _ in range(5):
            exchange(server.port, upgrade(sec_websocket_version="8"))
        until(lambda: total(server, "log_lines_dropped") > 0)
        assert health(server.port)["dependencies"]["log"]["dropped_lines"] > 0
        witness.check()
    assert server.stop() == 0
