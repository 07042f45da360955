"""Credentials that are answered for later: the same conversation as with an answer at once, and nothing left behind."""

import gc
import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.hub.sans_io import CLOSE, KEY, PING, Server, client_frame, identity, make_hub, settings, split_frames
from realtime_communication._core.hub.memory_driver import Connection
from realtime_communication._core.hub.pending import Pending

HEAD = (
    b"GET /ws%b HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + KEY + b"\r\n\r\n"
)
REFUSED = (401, "unauthorized", "token: expired", [("WWW-Authenticate", "Bearer")])


def message(kind: str, **fields: Any) -> bytes:
    return client_frame(json.dumps({"type": kind, **fields}).encode())


def upgrade_answer(query: str) -> Any:
    """What there is to say about an upgrade."""
    if query == "none":
        return None
    return REFUSED if query == "bad" else identity(query)


def message_answer(token: str | None) -> Any:
    return ("unauthorized", "token: not valid") if token in (None, "bad") else identity(token)


class Deferred:
    """A hub whose credentials are answered for in the order in which they came, by `settle`; or at once."""

    def __init__(self, *, at_once: bool = False, **changes: Any) -> None:
        self.server: Server = make_hub(**changes)
        self.at_once = at_once
        self.waiting: list[tuple[Pending, Any]] = []
        self.server.hub.set_callbacks(
            lambda headers, query, peer, secure: self.answer(upgrade_answer(query.decode() or "none")),
            lambda token, api_key, peer: self.answer(message_answer(token)),
        )

    def answer(self, known: Any) -> Any:
        if self.at_once:
            return known
        pending = Pending()
        self.waiting.append((pending, known))
        return pending

    def settle(self, index: int = 0) -> bool:
        pending, known = self.waiting.pop(index)
        waited = pending.settle(known)
        self.server.flush()
        return waited

    def connect(self, query: str = "", rest: bytes = b"") -> Connection:
        connection = self.server.driver.connect()
        connection.feed(HEAD % (f"?{query}" if query else "").encode() + rest)
        return connection

    def stats(self) -> dict[str, int]:
        return self.server.stats()


def envelopes(data: bytes) -> list[dict[str, Any]]:
    """The messages behind a 101 answer, or all of `data`."""
    if data.startswith(b"HTTP/"):
        data = data.partition(b"\r\n\r\n")[2]
    frames, rest = split_frames(data)
    assert rest == b""
    return [json.loads(payload) for opcode, _, payload in frames if opcode == 1]


def close_code(data: bytes) -> int:
    frames, _ = split_frames(data)
    (code,) = [int.from_bytes(payload[:2], "big") for opcode, _, payload in frames if opcode == CLOSE]
    return code


class TestUpgrade:
    """A request waits for its 101 or its refusal."""

    def test_let_in(self) -> None:
        hub = Deferred()
        connection = hub.connect("alice", message("Ping", id=1))
        assert connection.drain() == b""
        assert not connection.reading
        assert (hub.stats()["pending"], hub.stats()["connections"]) == (1, 0)
        assert hub.settle()
        out = connection.drain()
        assert out.startswith(b"HTTP/1.1 101 ")
        assert [reply["type"] for reply in envelopes(out)] == ["Connected", "Pong"]
        assert connection.reading
        assert (hub.stats()["pending"], hub.stats()["connections"]) == (0, 1)

    def test_refused(self) -> None:
        hub = Deferred()
        connection = hub.connect("bad", message("Ping", id=1))
        hub.settle()
        out = connection.drain()
        assert out.startswith(b"HTTP/1.1 401 ")
        assert b"101" not in out
        assert connection.lingering
        assert connection.reading
        stats = hub.stats()
        assert (stats["auth_failures"], stats["refused"], stats["pending"], stats["connections"]) == (1, 1, 0, 0)
        connection.end()
        assert hub.stats()["sessions"] == 0

    def test_without_a_credential_after_all(self) -> None:
        hub = Deferred()
        connection = hub.connect("none")
        hub.settle()
        connection.feed(message("Authenticate", id=1, token="alice"))
        hub.settle()
        assert [reply["type"] for reply in envelopes(connection.drain())] == ["Connected"]

    @pytest.mark.parametrize("full", [True, False])
    def test_the_server_is_looked_at_again(self, full: bool) -> None:
        hub = Deferred(max_connections=1)
        first, second = hub.connect("alice"), hub.connect("bob")
        if full:
            hub.settle()
            assert first.drain().startswith(b"HTTP/1.1 101 ")
            hub.settle()
        else:
            hub.server.hub.begin_drain(1000)
            hub.settle(1)
        out = second.drain()
        assert out.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After" in out
        assert (b"max_connections" if full else b"shutting down") in out

    @pytest.mark.parametrize("answer", [(1,), object(), identity("x" * 300)])
    def test_an_answer_that_is_none(self, answer: Any) -> None:
        hub = Deferred()
        connection = hub.connect("alice")
        hub.waiting.pop()[0].settle(answer)
        hub.server.flush()
        out = connection.drain()
        assert out.startswith(b"HTTP/1.1 500 ") or close_code(out.partition(b"\r\n\r\n")[2]) == 1011
        connection.end()
        assert hub.stats()["connections"] == 0

    def test_too_much_behind_the_request(self) -> None:
        hub = Deferred()
        connection = hub.connect("alice", b"x" * 65536)
        assert connection.drain() == b""
        connection.feed(b"x")
        assert connection.drain().startswith(b"HTTP/1.1 413 ")
        ((pending, known),) = hub.waiting
        assert pending.cancelled
        assert not pending.settle(known)
        assert connection.drain() == b""

    def test_not_answered_in_time(self) -> None:
        hub = Deferred()
        connection = hub.connect("alice", message("Ping", id=1))
        hub.server.advance(9_000)
        assert connection.drain() == b""
        hub.server.advance(600)
        out = connection.drain()
        assert out.startswith(b"HTTP/1.1 503 ")
        assert connection.lingering
        assert not hub.settle()
        assert connection.drain() == b""
        hub.server.advance(6_000)
        assert not connection.open
        stats = hub.stats()
        assert (stats["timed_out"], stats["pending"], stats["sessions"], stats["timers"]) == (1, 0, 0, 0)


class TestMessages:
    """Authenticate and Refresh wait for their reply, and what was sent behind them waits with them."""

    def test_authenticate(self) -> None:
        hub = Deferred(auth_timeout_secs=10)
        hub.at_once = True
        connection = hub.connect()
        hub.at_once = False
        connection.feed(message("Authenticate", id=7, token="alice") + message("Ping", id="8"))
        connection.feed(message("Ping", id=9))
        assert connection.drain().count(b"\r\n\r\n") == 1
        hub.settle()
        assert [(reply["type"], reply["id"]) for reply in envelopes(connection.drain())] == [
            ("Connected", 7),
            ("Pong", "8"),
            ("Pong", 9),
        ]

    def test_refused(self) -> None:
        hub = Deferred(at_once=True)
        connection = hub.connect()
        hub.at_once = False
        connection.drain()
        connection.feed(message("Authenticate", id=7, token="bad") + message("Ping", id=8))
        hub.settle()
        out = connection.drain()
        assert [(reply["code"], reply["id"]) for reply in envelopes(out)] == [("unauthorized", 7)]
        assert close_code(out) == 4401
        assert hub.stats()["auth_failures"] == 1

    def test_authenticate_not_answered_in_time(self) -> None:
        hub = Deferred(at_once=True)
        connection = hub.connect()
        hub.at_once = False
        connection.drain()
        connection.feed(message("Authenticate", id=7, token="alice"))
        hub.server.advance(9_000)
        assert connection.drain() == b""
        hub.server.advance(1_100)
        out = connection.drain()
        assert [(reply["code"], reply["id"]) for reply in envelopes(out)] == [("unavailable", 7)]
        assert close_code(out) == 4408
        assert not hub.settle()

    def test_too_much_behind_authenticate(self) -> None:
        hub = Deferred(at_once=True)
        connection = hub.connect()
        hub.at_once = False
        connection.drain()
        connection.feed(message("Authenticate", id=7, token="alice"))
        connection.feed(b"x" * 65537)
        assert close_code(connection.drain()) == 1009
        assert not hub.settle()

    def test_an_answer_that_is_none(self) -> None:
        hub = Deferred(at_once=True)
        connection = hub.connect("alice")
        hub.at_once = False
        connection.drain()
        for answer, code in (((1, 2, 3), "internal"), ((), "internal"), (None, "unavailable")):
            connection.feed(message("Refresh", id=1, token="alice"))
            hub.waiting.pop()[0].settle(answer)
            hub.server.flush()
            assert [reply["code"] for reply in envelopes(connection.drain())] == [code]

    def test_refresh(self) -> None:
        hub = Deferred(at_once=True)
        connection = hub.connect("alice")
        hub.at_once = False
        connection.drain()
        for token, reply in (("alice", "Refreshed"), ("bad", "Error"), ("bob", "Error")):
            connection.feed(message("Refresh", id=1, token=token) + message("Ping", id=2))
            assert connection.drain() == b""
            assert not connection.reading
            hub.settle()
            assert [message["type"] for message in envelopes(connection.drain())] == [reply, "Pong"]
            assert connection.reading

    def test_refresh_not_answered_in_time(self) -> None:
        """The connection goes on with the rights it has; it is not blamed for the silence."""
        hub = Deferred(at_once=True, heartbeat_interval_secs=2, client_timeout_secs=5)
        connection = hub.connect("alice")
        hub.at_once = False
        connection.drain()
        connection.feed(message("Refresh", id=1, token="alice") + message("Ping", id=2))
        for _ in range(9):
            hub.server.advance(1_000)
        assert connection.drain() == b""
        hub.server.advance(1_100)
        assert [(reply["type"], reply.get("code")) for reply in envelopes(connection.drain())] == [
            ("Error", "unavailable"),
            ("Pong", None),
        ]
        assert not hub.settle()
        hub.server.advance(2_100)
        assert [opcode for opcode, _, _ in split_frames(connection.drain())[0]] == [PING]

    def test_a_token_that_expires_while_its_refresh_is_looked_at(self) -> None:
        server = make_hub()
        wall = 1_767_220_000
        peer = server.connect("alice", expires_at=wall + 5)
        pending = Pending()
        server.hub.set_callbacks(None, lambda token, api_key, peer: pending)
        peer.send({"type": "Refresh", "id": 1, "token": "x"})
        server.advance(5_100)
        peer.frames()
        assert peer.close == (4401, "token expired")
        assert not pending.settle(identity("alice"))

    def test_a_peer_that_reads_nothing_is_read_again_only_once_it_does(self) -> None:
        hub = Deferred(at_once=True, priority_mailbox_size=2)
        connection = hub.connect("alice")
        connection.drain()
        connection.stall()
        hub.at_once = False
        connection.feed(message("Ping", id=1) + message("Ping", id=2) + message("Refresh", id=3, token="alice"))
        connection.feed(message("Ping", id=4))
        while hub.waiting:
            hub.settle()
        assert not connection.reading
        connection.resume()
        while hub.waiting:
            hub.settle()
        assert [reply["id"] for reply in envelopes(connection.drain())] == [1, 2, 3, 4]
        assert connection.reading


class TestLife:
    """A Pending and its connection may end in any order."""

    @pytest.mark.parametrize("kind", ["upgrade", "message", "refresh"])
    def test_the_connection_ends_first(self, kind: str) -> None:
        hub = Deferred(at_once=kind != "upgrade")
        connection = hub.connect("" if kind == "message" else "alice")
        hub.at_once = False
        if kind != "upgrade":
            connection.feed(message("Refresh" if kind == "refresh" else "Authenticate", token="alice"))
        ((pending, known),) = hub.waiting
        assert not pending.cancelled
        connection.end()
        assert pending.cancelled
        assert not pending.settle(known)
        assert not pending.settled
        stats = hub.stats()
        assert (stats["pending"], stats["sessions"], stats["timers"], stats["users"]) == (0, 0, 0, 0)

    def test_a_hub_lives_as_long_as_its_connections(self) -> None:
        hub = Deferred()
        connection = hub.connect("alice")
        ((pending, known),) = hub.waiting
        del hub
        gc.collect()
        assert pending.settle(known)
        connection.end()

    def test_only_the_first_answer_counts(self) -> None:
        hub = Deferred()
        connection = hub.connect("alice")
        ((pending, _),) = hub.waiting
        assert pending.settle(identity("alice"))
        assert not pending.settle(REFUSED)
        assert pending.settled
        assert not pending.cancelled
        hub.server.flush()
        assert connection.drain().startswith(b"HTTP/1.1 101 ")

    def test_an_answer_that_is_there_when_the_callback_returns(self) -> None:
        server = make_hub()

        def known(answer: Any) -> Pending:
            pending = Pending()
            assert pending.settle(answer)
            return pending

        server.hub.set_callbacks(
            lambda headers, query, peer, secure: known(None), lambda token, api_key, peer: known(identity("alice"))
        )
        peer = server.connect(None)
        assert peer.request({"type": "Authenticate", "id": 1, "token": "x"})["user_id"] == "alice"

    def test_one_pending_is_good_for_one_connection(self) -> None:
        server = make_hub()
        pending = Pending()
        server.hub.set_callbacks(lambda headers, query, peer, secure: pending, None)
        server.driver.connect().feed(HEAD % b"")
        second = server.driver.connect()
        second.feed(HEAD % b"")
        assert second.drain().startswith(b"HTTP/1.1 500 ")

    @pytest.mark.parametrize("upgraded", [True, False])
    def test_an_administrator_or_a_shutdown_ends_it(self, upgraded: bool) -> None:
        hub = Deferred(at_once=upgraded)
        connection = hub.connect("alice")
        hub.at_once = False
        connection.drain()
        if upgraded:
            connection.feed(message("Refresh", token="alice"))
        hub.server.hub.close_all(1001, "bye")
        hub.server.flush()
        assert not hub.settle()
        assert close_code(connection.drain()) == 1001 if upgraded else not connection.open
        assert hub.stats()["pending"] == 0

    def test_new_settings_meanwhile(self) -> None:
        hub = Deferred()
        connection = hub.connect("alice")
        hub.server.hub.configure(settings(compression_algorithm="none"))
        hub.settle()
        assert [reply["type"] for reply in envelopes(connection.drain())] == ["Connected"]


PIECES = st.sampled_from(
    [
        message("Ping", id=1),
        message("Subscribe", id=2, topic="room"),
        message("Broadcast", id=3, topic="room", payload={"n": 1}),
        message("Authenticate", id=4, token="alice"),
        message("Authenticate", id=5, token="bad"),
        message("Authenticate", token="alice"),
        message("Refresh", id=6, token="alice"),
        message("Refresh", id=7, token="bad"),
        message("Refresh", id=8, token="bob"),
        client_frame(b"[]"),
        client_frame(b"hello", PING),
        client_frame(b"\x03\xe8", CLOSE),
        b"\xff\xff",
    ]
)


def lanes(data: bytes) -> tuple[bytes, list[Any], list[Any]]:
    """Head, replies and messages apart: which of the two lanes goes first depends on where turns end."""
    head, _, rest = data.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 101 "):
        return data, [], []
    frames, left = split_frames(rest)
    assert left == b""
    return head, [f for f in frames if b'"Message"' not in f[2]], [f for f in frames if b'"Message"' in f[2]]


def begins(parts: tuple[Any, ...], whole: tuple[Any, ...]) -> bool:
    return all(part == entire[: len(part)] for part, entire in zip(parts, whole, strict=True))


@given(
    scripts=st.lists(
        st.tuples(st.sampled_from(["", "alice", "bad"]), st.lists(PIECES, max_size=8)), min_size=1, max_size=3
    ),
    seed=st.integers(0, 2**32),
    ending=st.sampled_from(["settled", "ended", "late"]),
)
def test_the_same_bytes_as_with_answers_at_once(scripts: list[tuple[str, list[bytes]]], seed: int, ending: str) -> None:
    """Whatever comes first, input or answers; and what ends early has said a beginning of it."""
    chance = random.Random(seed)
    expected = []
    for number in range(len(scripts)):
        # The others are opened too, so that session ids are the same; the topic is shared, so each has its own hub.
        at_once = Deferred(at_once=True)
        connections = [at_once.server.driver.connect() for _ in scripts]
        query, pieces = scripts[number]
        connections[number].feed(HEAD % (f"?{query}" if query else "").encode() + b"".join(pieces))
        expected.append(lanes(connections[number].drain()))
    for number, (query, pieces) in enumerate(scripts):
        hub = Deferred()
        connection = [hub.server.driver.connect() for _ in scripts][number]
        data = HEAD % (f"?{query}" if query else "").encode() + b"".join(pieces)
        out = b""
        while data or hub.waiting:
            if hub.waiting and chance.random() < 0.4:
                hub.settle()
            elif data:
                size = chance.choice([1, 7, 50, 200, 1000])
                connection.feed(data[:size])
                data = data[size:]
            elif ending == "ended":
                connection.end()
                hub.settle()
            elif ending == "late":
                hub.server.advance(10_100)
                hub.settle()
            out += connection.drain()
            if ending == "late" and not connection.open:
                break
        if ending == "settled":
            assert lanes(out) == expected[number]
        elif ending == "ended":
            assert begins(lanes(out), expected[number])
        connection.end()
        while hub.waiting:
            assert not hub.settle()
        assert hub.stats()["pending"] == 0
        assert hub.stats()["connections"] == 0
