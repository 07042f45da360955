"""FAULTS.md: Logs, Process: what peers put into the log, a log that cannot be written, hooks that fail."""

import json
import os
import urllib.request
from typing import Any

import pytest

from serving.asking import until
from serving.notices import lines, noticed, total
from serving.peer import Peer, unique, unique_user
from serving.processes import ROOT, ServerProcess, StartServer, free_port
from serving.raw import RawSocket, close_frame, exchange, upgrade
from serving.scrapes import scrape
from serving.tokens import ADMIN_KEY, ADMIN_KEYS
from serving.witness import Witness

HOSTILE = ["\r\n", "\n", "\r", "\x1b[31m", "\x1b]0;title\x07", "\x08\x08", "\u2028", "\u202e", "\x9b31m", "\x7f"]
LONGEST_LINE = 8192


def assert_lines_are_whole(server: ServerProcess, mark: str) -> None:
    """No line begins with what a peer sent, and none moves a cursor or is long."""
    for line in server.log.splitlines():
        assert not line.startswith(mark)
        assert len(line) < LONGEST_LINE
        assert line.isprintable()
        assert line.isascii() or not line.startswith("{")


@pytest.fixture(scope="module", params=["json", "pretty"])
def talkative(request: pytest.FixtureRequest) -> Any:
    """A server that logs as much as it can, in either form."""
    settings = {
        "logging": {"level": "trace", "format": request.param},
        "message_routing": {
            "enable_message_transformation": True,
            "transforms": [{"topic": "fails:*", "callable": "serving.hooks:fails"}],
        },
        "auth": {"providers": [{"type": "jwt"}, {"type": "api_key", "priority": 2, "keys": ADMIN_KEYS}]},
    }
    server = ServerProcess("product", free_port(), settings, None, environment=HOOKS)
    server.start()
    try:
        yield server
    finally:
        server.dispose()


HOOKS = {"PYTHONPATH": str(ROOT / "tests")}


class TestWhatPeersWrite:
    @pytest.mark.parametrize("text", HOSTILE, ids=ascii)
    def test_in_each_place(self, talkative: ServerProcess, text: str) -> None:
        server, mark = talkative, unique("mark")
        quoted = "".join(f"%{byte:02x}" for byte in text.encode())
        exchange(server.port, upgrade(user=None, target=f"/{quoted}{mark}"))
        exchange(server.port, f"GET /{quoted}{mark}?x={quoted}{mark} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        raw = f"GET /{text}{mark} HTTP/1.1\r\nHost: x\r\nUser-Agent: {text}{mark}\r\nX: y\r\n\r\n"
        exchange(server.port, raw.encode())
        exchange(server.port, upgrade(extra=(f"User-Agent: {mark}", f"Origin: {quoted}{mark}")))
        with Peer(server.url, token_text=None, user=unique_user()) as peer:
            peer.request("Subscribe", topic=f"{text}{mark}")
            peer.request("Broadcast", topic=f"fails:{mark}", payload=f"{text}{mark}")
            peer.request("DirectMessage", to=f"{text}{mark}", payload=1)
        with RawSocket.upgraded(server.port) as socket:
            socket.send(close_frame(4000, f"{text}{mark}".encode()))
            socket.closed_with()
        with Peer(server.url, greet=False) as peer:
            peer.error("Authenticate", token=f"{text}{mark}")
        disconnect(server, reason=f"{text}{mark}")
        assert_lines_are_whole(server, mark)

    def test_a_megabyte(self, talkative: ServerProcess) -> None:
        server, mark = talkative, unique("mark")
        size = len(server.log)
        exchange(server.port, f"GET /{mark}{'x' * 1_000_000} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        exchange(server.port, f"GET /{mark}{'x' * 12_000} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        exchange(server.port, upgrade(extra=(f"User-Agent: {mark}{'x' * 12_000}",)))
        disconnect(server, reason=mark + "x" * 12_000)
        with Peer(server.url, unique_user()) as peer:
            peer.error("Subscribe", topic=mark + "x" * 50_000)
            peer.request("Broadcast", topic=f"fails:{mark}", payload="x" * 60_000)
        assert len(server.log) - size < 64 * 1024
        assert_lines_are_whole(server, mark)


def disconnect(server: ServerProcess, reason: str) -> None:
    body = json.dumps({"user_id": "nobody", "reason": reason}).encode()
    head = f"POST /api/disconnect HTTP/1.1\r\nHost: x\r\nX-API-Key: {ADMIN_KEY}\r\nContent-Type: application/json\r\n"
    assert exchange(server.port, f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body).status in (200, 422)


class TestOutputsThatFail:
    @pytest.mark.parametrize("output", ["/dev/full"])
    def test_a_full_disk_is_counted_and_stops_nobody(self, start_server: StartServer, output: str) -> None:
        server = start_server({"metrics": {"enabled": True, "port": free_port()}}, output=output)
        with Witness(server.url) as witness:
            for _ in range(5):
                exchange(server.port, upgrade(sec_websocket_version="8"))
            until(lambda: total(server, "log_lines_dropped") > 0, lambda: scrape(server.metrics_port).text)
            with urllib.request.urlopen(f"{server.http_url}/health", timeout=5) as answer:
                report = json.load(answer)
            assert report["status"] == "degraded"
            assert report["dependencies"]["log"]["dropped_lines"] > 0
            witness.check()
        assert server.stop() == 0

    def test_nobody_reads_the_log(self, start_server: StartServer, tmp_path: Any) -> None:
        pipe = tmp_path / "log"
        os.mkfifo(pipe)
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        try:
            settings = {"metrics": {"enabled": True, "port": free_port()}, "logging": {"level": "trace"}}
            server = start_server(settings, output=str(pipe))
            with Witness(server.url) as witness:
                before = server.resident_kib()
                for number in range(1000):
                    exchange(server.port, f"GET /{number}{'x' * 5000} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                witness.check()
            assert server.resident_kib() - before < 16 * 1024
        finally:
            os.close(reader)
        assert server.stop() == 0


@pytest.fixture(scope="module")
def hooked() -> Any:
    names = ["fails", "exits", "recurses", "grows", "unencodable", "endless", "out_of_memory"]
    settings = {
        "metrics": {"enabled": True, "port": free_port()},
        "message_routing": {
            "enable_message_transformation": True,
            "transforms": [{"topic": f"{name}:*", "callable": f"serving.hooks:{name}"} for name in names],
        },
    }
    server = ServerProcess("product", free_port(), settings, None, environment=HOOKS)
    server.start()
    try:
        with Witness(server.url) as witness:
            yield server
            witness.check()
        assert server.stop() == 0
        assert all(line["level"] != "error" or line["event"] == "a transform failed" for line in lines(server.log))
    finally:
        server.dispose()


class TestHooks:
    """An exception in a hook is its publisher's alone."""

    @pytest.mark.parametrize("name", ["fails", "exits", "recurses", "grows", "unencodable", "endless", "out_of_memory"])
    def test_transforms(self, hooked: ServerProcess, name: str) -> None:
        with (
            noticed(hooked, "a transform failed", "transform_errors_total", transform=f"serving.hooks:{name}"),
            Peer(hooked.url, unique_user()) as peer,
        ):
            peer.ok("Subscribe", topic=f"{name}:room")
            assert peer.error("Broadcast", topic=f"{name}:room", payload="hush")["code"] == "internal"
            assert peer.ok("Broadcast", topic=unique(), payload=1)["offset"] == 1
            assert peer.settle() == []
        with Peer(hooked.url, unique_user()) as peer:
            peer.ok("Ping")

    def test_one_that_cannot_be_imported_stops_the_start(self) -> None:
        transforms = [{"topic": "*", "callable": "serving.no_such_module:function"}]
        settings = {"message_routing": {"enable_message_transformation": True, "transforms": transforms}}
        server = ServerProcess("product", free_port(), settings, None)
        try:
            server.launch()
            assert server.wait() == 78
            assert "message_routing.transforms[0].callable" in server.log
            assert "Traceback" not in server.log
        finally:
            server.dispose()
