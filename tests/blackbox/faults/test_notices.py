"""FAULTS.md, what every row also expects: one clear line in the log, and a metric. One fault of each class."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from serving.notices import lines, noticed, total
from serving.peer import Peer, unique_user
from serving.processes import ServerProcess, StartServer, free_port
from serving.raw import RawSocket, envelope, exchange, frame, upgrade
from serving.tokens import token
from serving.witness import Witness

REFUSED, CLOSED, HTTP = "request refused", "connection closed for a fault", "HTTP request refused"
UPGRADES, CUT, CREDENTIALS = "upgrades_refused_total", "connections_cut_total", "authentication_failures_total"
REQUESTS = "http_request_duration_seconds_count"
WRONG = "Authorization: Bearer " + token(key="another secret of more than 32 bytes")

SMUGGLED = (
    b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    b"POST /api/publish HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
)


def says(data: bytes) -> Callable[[ServerProcess], Any]:
    return lambda server: exchange(server.port, data)


def upgraded(data: bytes) -> Callable[[ServerProcess], Any]:
    def run(server: ServerProcess) -> None:
        with RawSocket.upgraded(server.port) as raw:
            raw.send(data)
            raw.closed_with()

    return run


def message(**fields: Any) -> Callable[[ServerProcess], Any]:
    def run(server: ServerProcess) -> None:
        with Peer(server.url, greet=False) as peer:
            peer.send(fields)
            peer.close_code()

    return run


def silence(server: ServerProcess) -> None:
    with RawSocket(server.port) as raw:
        raw.send(upgrade(user=None))
        raw.answer()
        raw.closed_with()


def expiry(server: ServerProcess) -> None:
    with Peer(server.url, token_text=token(exp=int(time.time()) + 1)) as peer:
        peer.close_code(10)


NOTICED = {
    "handshake": (says(upgrade(sec_websocket_version="8")), REFUSED, {"status": 426}, UPGRADES, {}),
    "head": (says(b"GET /ws HTTP/1.1\r\nbroken\r\n\r\n"), REFUSED, {"status": 400}, UPGRADES, {}),
    "large head": (says(upgrade(extra=("X: " + "x" * 20_000,))), REFUSED, {"status": 431}, UPGRADES, {}),
    "origin": (says(upgrade(extra=("Origin: null",))), REFUSED, {"status": 403}, UPGRADES, {}),
    "token": (says(upgrade(user=None, extra=(WRONG,))), REFUSED, {"status": 401}, CREDENTIALS, {}),
    "message token": (message(type="Authenticate", token="x"), CLOSED, {"code": 4401}, CREDENTIALS, {}),
    "no credentials": (silence, CLOSED, {"code": 4408}, CUT, {"reason": "timeout"}),
    "expiry": (expiry, CLOSED, {"code": 4401}, CUT, {"reason": "token_expired"}),
    "mask": (upgraded(frame(1, b"{}", masked=False)), CLOSED, {"code": 1002}, CUT, {"reason": "protocol_error"}),
    "frame type": (upgraded(frame(2, b"{}")), CLOSED, {"code": 1003}, CUT, {"reason": "protocol_error"}),
    "utf-8": (upgraded(frame(1, b"\xff")), CLOSED, {"code": 1007}, CUT, {"reason": "protocol_error"}),
    "size": (upgraded(frame(1, declared=1 << 30)), CLOSED, {"code": 1009}, CUT, {"reason": "protocol_error"}),
    "smuggling": (
        says(SMUGGLED),
        HTTP,
        {"status": 400},
        REQUESTS,
        {"status": "4xx"},
    ),
    "admin": (
        says(b"GET /admin/stats HTTP/1.1\r\nHost: x\r\nX-API-Key: wrong\r\n\r\n"),
        HTTP,
        {"status": 401, "path": "/admin/stats"},
        REQUESTS,
        {"route": "/admin/stats", "status": "4xx"},
    ),
}


@pytest.mark.parametrize(("provoke", "event", "fields", "metric", "labels"), NOTICED.values(), ids=NOTICED.keys())
def test_each_class_has_a_line_and_a_metric(
    watched: ServerProcess,
    provoke: Callable[[ServerProcess], Any],
    event: str,
    fields: dict[str, Any],
    metric: str,
    labels: dict[str, str],
) -> None:
    with noticed(watched, event, metric, labels, **fields) as found:
        provoke(watched)
    assert len(found) == 1
    assert found[0].get("peer", found[0].get("address", "")).startswith("127.0.0.1")


def test_invalid_messages_are_counted(watched: ServerProcess) -> None:
    before = total(watched, "requests_invalid_total")
    with Peer(watched.url, unique_user()) as peer:
        peer.error("NoSuchType")
    assert total(watched, "requests_invalid_total") == before + 1


def test_a_full_server(start_server: StartServer) -> None:
    server = start_server({"metrics": {"enabled": True, "port": free_port()}, "websocket": {"max_connections": 1}})
    with (
        Peer(server.url, unique_user()) as peer,
        noticed(server, REFUSED, UPGRADES, status=503, reason="websocket.max_connections is reached"),
    ):
        assert exchange(server.port, upgrade()).status == 503
        peer.ok("Ping")


def test_who_goes_on_breaking_limits(start_server: StartServer) -> None:
    limits = {"connection": {"requests_per_second": 10.0, "burst_size": 20}}
    server = start_server(
        {"metrics": {"enabled": True, "port": free_port()}, "rate_limiting": {"enabled": True, **limits}}
    )
    with noticed(server, CLOSED, CUT, {"reason": "rate_limit_abuse"}, code=4429):
        with RawSocket.upgraded(server.port) as raw:
            raw.send(envelope(type="Ping") * 500)
            assert raw.closed_with() == 4429
        assert total(server, "requests_rate_limited_total") >= 40


def test_a_flood_of_faults_is_not_a_flood_of_lines(start_server: StartServer) -> None:
    server = start_server({"metrics": {"enabled": True, "port": free_port()}})
    with Witness(server.url) as witness:
        began = time.monotonic()
        for _ in range(500):
            exchange(server.port, upgrade(sec_websocket_version="8"))
        seconds = time.monotonic() - began
        found = [line for line in lines(server.log) if line["event"] == REFUSED]
        assert 10 <= len(found) <= 10 * (seconds + 2)
        assert total(server, UPGRADES) == 500
        witness.check()
        with noticed(server, REFUSED):
            time.sleep(1)  # lines are bounded by the second
            exchange(server.port, upgrade(sec_websocket_version="8"))
        found = [line for line in lines(server.log) if line["event"] == REFUSED]
        assert sum(line.get("not_logged", 0) for line in found) + len(found) == 501
