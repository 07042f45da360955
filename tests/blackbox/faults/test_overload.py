"""FAULTS.md: Rate, Process: more than the server takes, and a hook that holds it up: it sheds as it is told to, tells
what is going on, and is well again when that is over.
"""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from serving.asking import ask, health, until
from serving.notices import noticed, total
from serving.peer import Peer, unique, unique_user
from serving.processes import ROOT, ServerProcess, StartServer, free_port
from serving.raw import RawSocket, envelope, upgrade
from serving.tokens import ADMIN_KEY, ADMIN_KEYS

PLACES = 30
RATE = 200
"""Requests a second for all clients together."""
MULTIPLE = 3
ADMIN = {"X-API-Key": ADMIN_KEY}


def settings() -> dict[str, Any]:
    every = {"requests_per_second": 10_000.0, "burst_size": 10_000}
    return {
        "websocket": {"max_connections": PLACES},
        "rate_limiting": {
            "enabled": True,
            "connection": every,
            "user": every,
            "global": {"requests_per_second": float(RATE), "burst_size": RATE},
        },
        "metrics": {"enabled": True, "port": free_port()},
        "auth": {"providers": [{"type": "jwt", "priority": 1}, {"type": "api_key", "priority": 2, "keys": ADMIN_KEYS}]},
    }


class Pushing(threading.Thread):
    """Publishes at a rate, whatever is answered."""

    def __init__(self, port: int, topic: str, rate: float, over: threading.Event) -> None:
        super().__init__()
        self.raw = RawSocket.upgraded(port, user=unique_user())
        self.taken = self.refused = 0
        self._request = envelope(type="Broadcast", id=1, topic=topic, payload="x" * 100)
        self._pause = 1 / rate
        self._over = over

    def run(self) -> None:
        with self.raw:
            while not self._over.wait(self._pause):
                self.raw.send(self._request)
                reply = self.raw.json()
                if reply["type"] == "Ack":
                    self.taken += 1
                else:
                    assert (reply["code"], reply["scope"]) == ("rate_limited", "global"), reply
                    assert reply["retry_after_ms"] > 0
                    self.refused += 1


def test_three_times_what_it_takes(start_server: StartServer) -> None:
    """Connections and requests alike: what is too much is refused by name, and the rest is served."""
    server = start_server(settings())
    topic, over = unique(), threading.Event()
    pushing = [Pushing(server.port, topic, RATE * MULTIPLE / 10, over) for _ in range(10)]
    held = [RawSocket.upgraded(server.port, user=unique_user()) for _ in range(PLACES - len(pushing))]
    for thread in pushing:
        thread.start()
    try:
        for _ in range(PLACES * (MULTIPLE - 1)):
            with RawSocket(server.port) as raw:
                raw.send(upgrade(user=unique_user()))
                answer = raw.answer()
                assert answer.status == 503
                assert int(answer.headers["retry-after"]) >= 0
        until(lambda: sum(each.refused for each in pushing) > RATE * (MULTIPLE - 1))
        assert health(server.port)["connections"] == PLACES
        for path in ("/admin/stats", "/admin/config"):
            assert ask(server.port, "GET", path, ADMIN).status == 200
        assert ask(server.port, "GET", "/health/ready").status == 200
        assert total(server, "requests_rate_limited_total") > 0
    finally:
        over.set()
        for thread in pushing:
            thread.join()
    assert all(each.taken for each in pushing), "nobody got through"
    for raw in held:
        raw.socket.close()
    until(lambda: health(server.port)["connections"] == 0)
    with Peer(server.url, unique_user()) as reader, Peer(server.url, unique_user()) as writer:
        until(lambda: reader.request("Subscribe", topic=topic)["type"] == "Subscribed")
        until(lambda: writer.request("Broadcast", topic=topic, payload="after")["type"] == "Ack")
        assert reader.event()["payload"] == "after"


@pytest.fixture(scope="module")
def held_up() -> Iterator[ServerProcess]:
    """A server with a hook that blocks for as long as it is told to."""
    transforms = [{"topic": "blocks:*", "callable": "serving.hooks:blocks"}]
    routing = {"enable_message_transformation": True, "transforms": transforms}
    server = ServerProcess(
        "product",
        free_port(),
        {"message_routing": routing},
        None,
        environment={"PYTHONPATH": str(ROOT / "tests")},
    )
    try:
        server.start()
        yield server
        assert server.stop() == 0
    finally:
        server.dispose()


def test_a_hook_that_blocks_is_named_in_the_log(held_up: ServerProcess) -> None:
    """While nobody is served, and without the payload."""
    with Peer(held_up.url, unique_user()) as peer:
        with noticed(held_up, "the event loop is held up") as found:
            answer = peer.ok("Broadcast", topic=unique("blocks"), payload=3.5)
        assert answer["offset"] == 1
        assert " blocks < " in f" {found[0]['where']}"
        assert "serving/hooks.py:" in found[0]["where"]
        assert found[0]["level"] == "error"
        assert peer.ok("Ping")["type"] == "Pong"
