"""WebSocket upgrades on connections that carried requests over HTTP before, as those that a proxy keeps."""

import contextlib
import http.client
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from realtime_communication.auth.api_key import hashed
from serving.asking import bearer
from serving.certificates import trusted
from serving.peer import unique, unique_user
from serving.processes import ServerProcess, ended_cleanly
from serving.raw import TEXT, RawSocket, envelope, frame, upgrade
from serving.tokens import token

from .conftest import running

KEY = "the key of a robot, 32 bytes or longer"
SETTINGS: dict[str, Any] = {
    "auth": {
        "providers": [
            {"type": "jwt", "priority": 1},
            {"type": "api_key", "priority": 2, "keys": [{"key": hashed(KEY), "user": "robot"}]},
        ]
    },
    "rate_limiting": {"enabled": True, "connection": {"requests_per_second": 0.001, "burst_size": 4}},
}
GET = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(scope="module", params=["product", "tls", "workers"])
def kept_by(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    """A server whose connections are kept: plain, over TLS, and with two workers."""
    server = running(request.param, SETTINGS)
    with ended_cleanly(server):
        yield server


@pytest.fixture
def kept(kept_by: ServerProcess) -> Iterator[Callable[[], RawSocket]]:
    """Connections that have carried requests."""
    with contextlib.ExitStack() as stack:

        def make() -> RawSocket:
            raw = stack.enter_context(RawSocket(kept_by.port, tls=trusted(kept_by.url)))
            for _ in range(2):
                raw.send(GET)
                assert raw.answer().status == 200
            return raw

        yield make


def connected(raw: RawSocket) -> Any:
    """What the 101 is followed by."""
    answer = raw.answer()
    assert answer.status == 101, answer
    return raw.json()


def authenticate(user: str) -> bytes:
    return envelope(type="Authenticate", id=1, token=token(user))


CREDENTIALS: dict[str, Callable[[str], bytes]] = {
    "header": lambda user: upgrade(user=user),
    "query": lambda user: upgrade(target=f"/ws?token={token(user)}", user=None),
    "message": lambda user: upgrade(user=None) + authenticate(user),
}


@pytest.mark.parametrize("way", CREDENTIALS)
def test_every_credential(kept: Callable[[], RawSocket], way: str) -> None:
    user = unique_user()
    raw = kept()
    raw.send(CREDENTIALS[way](user))
    assert connected(raw)["user_id"] == user
    assert raw.ping_works()


def test_an_api_key(kept: Callable[[], RawSocket]) -> None:
    raw = kept()
    raw.send(upgrade(user=None, x_api_key=KEY))
    assert connected(raw)["user_id"] == "robot"


@pytest.mark.parametrize("subprotocol", ["rtc.v1.msgpack", "rtc.v1.json+zstd"])
def test_every_form(kept: Callable[[], RawSocket], subprotocol: str) -> None:
    raw = kept()
    raw.send(upgrade(subprotocol=subprotocol))
    answer = raw.answer()
    assert (answer.status, answer.headers["sec-websocket-protocol"]) == (101, subprotocol)
    assert raw.frame().payload


def test_all_in_one_go(kept: Callable[[], RawSocket]) -> None:
    """Requests, the upgrade and messages, sent before anything is answered."""
    topic = unique()
    raw = kept()
    pings = envelope(type="Ping", id=1) + envelope(type="Ping", id=2)
    raw.send(GET * 3 + upgrade() + pings + envelope(type="Subscribe", id=3, topic=topic))
    assert [raw.answer().status for _ in range(3)] == [200, 200, 200]
    connected(raw)
    assert [raw.json()["id"] for _ in range(3)] == [1, 2, 3]


def test_limits_hold(kept: Callable[[], RawSocket]) -> None:
    raw = kept()
    raw.send(upgrade(user=unique_user()))
    connected(raw)
    for number in range(6):
        raw.send(envelope(type="Ping", id=number))
    assert [raw.json().get("code") for _ in range(6)].count("rate_limited") == 2


def test_refusals_are_those_of_any_upgrade(kept: Callable[[], RawSocket]) -> None:
    for request, status in (
        (upgrade(user=None, authorization="Bearer wrong"), 401),
        (upgrade(sec_websocket_version="8"), 426),
        (upgrade(sec_websocket_key="short"), 400),
        (upgrade(subprotocol="chat"), 400),
    ):
        raw = kept()
        raw.send(request)
        answer = raw.answer()
        assert (answer.status, answer.headers["connection"].split(", ")[-1]) == (status, "close")
        assert raw.at_end()


def test_the_echo_endpoint(kept: Callable[[], RawSocket]) -> None:
    raw = kept()
    raw.send(upgrade(target="/debug/echo", user=None, subprotocol=None) + frame(TEXT, b"once more"))
    assert raw.answer().status == 101
    assert raw.frame().payload == b"once more"


def test_messages_reach_who_came_that_way(kept_by: ServerProcess, kept: Callable[[], RawSocket]) -> None:
    """What is published over one kept connection comes on another."""
    topic = unique()
    raw = kept()
    raw.send(upgrade())
    connected(raw)
    raw.send(envelope(type="Subscribe", id=1, topic=topic))
    assert raw.json()["type"] == "Subscribed"
    context = trusted(kept_by.url)
    client = (
        http.client.HTTPSConnection("127.0.0.1", kept_by.port, timeout=20, context=context)
        if context
        else http.client.HTTPConnection("127.0.0.1", kept_by.port, timeout=20)
    )
    with contextlib.closing(client):
        headers = bearer() | {"Content-Type": "application/json"}
        client.request("POST", "/api/publish", json.dumps({"topic": topic, "payload": 1}), headers)
        assert client.getresponse().status == 200
    message = raw.json()
    assert (message["type"], message["payload"]) == ("Message", 1)
