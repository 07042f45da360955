"""Server-Sent Events from running servers, read by clients that nobody here wrote: httpx-sse and curl."""

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import httpx
import httpx_sse
import pytest

from serving.certificates import trusted
from serving.peer import unique, unique_user
from serving.processes import ServerProcess, StartServer, free_port
from serving.redis import RedisServer
from serving.tokens import token
from serving.workers import all_ready, until

ADMIN = {"Authorization": f"Bearer {token('root', roles=['admin'])}"}


class Reader:
    """A stream being read. `next()` is its next event, comments left out."""

    def __init__(self, source: httpx_sse.EventSource) -> None:
        self.response = source.response
        self._events = source.iter_sse()

    def next(self, kind: str = "") -> httpx_sse.ServerSentEvent:
        event = next(self._events)
        assert not kind or event.event == kind, (event.event, event.data)
        return event

    def rest(self) -> list[httpx_sse.ServerSentEvent]:
        return list(self._events)


class Server:
    """A server as a reader and a publisher see it."""

    def __init__(self, process: ServerProcess) -> None:
        self.process = process
        verify: Any = trusted(process.http_url) or True
        self.client = httpx.Client(base_url=process.http_url, timeout=20, verify=verify)

    @contextlib.contextmanager
    def read(self, *topics: str, user: str = "", last_id: str = "", **query: Any) -> Iterator[Reader]:
        headers = {"Last-Event-ID": last_id} if last_id else {}
        path = {"topics": ",".join(topics), "token": token(user or unique_user()), **query}
        with httpx_sse.connect_sse(self.client, "GET", "/sse", params=path, headers=headers) as source:
            assert source.response.status_code == 200, source.response.read()
            reader = Reader(source)
            reader.next("Connected")
            yield reader

    def publish(self, topic: str, *payloads: Any) -> None:
        for payload in payloads:
            answer = self.client.post("/api/publish", json={"topic": topic, "payload": payload}, headers=ADMIN)
            assert answer.status_code == 200, answer.text

    def ask(self, method: str, path: str, **body: Any) -> Any:
        answer = self.client.request(method, path, headers=ADMIN, **({"json": body} if body else {}))
        assert answer.status_code == 200, answer.text
        return answer.json()


@contextlib.contextmanager
def running(target: str, settings: dict[str, Any] | None = None) -> Iterator[Server]:
    process = ServerProcess(target, free_port(), settings, None)
    try:
        process.start()
        if target == "workers":
            all_ready(process)
        server = Server(process)
        with contextlib.closing(server.client):
            yield server
    finally:
        process.dispose()


@pytest.fixture(scope="module", params=["product", "workers", "tls"])
def anywhere(request: pytest.FixtureRequest) -> Iterator[Server]:
    with running(request.param) as server:
        yield server


@pytest.fixture(scope="module")
def lively() -> Iterator[Server]:
    """A server with heartbeats each second, whose clients may be silent for two."""
    with running("product", {"websocket": {"heartbeat_interval_secs": 1, "client_timeout_secs": 2}}) as server:
        yield server


def data(event: httpx_sse.ServerSentEvent) -> Any:
    return json.loads(event.data)


def test_messages_of_several_topics(anywhere: Server) -> None:
    server = anywhere
    one, other = unique("a"), unique("b")
    with server.read(one, other) as reader:
        assert {data(reader.next("Subscribed"))["topic"] for _ in range(2)} == {one, other}
        server.publish(one, {"text": "hello"})
        server.publish(other, 2)
        events = [reader.next("message") for _ in range(2)]
        assert {data(event)["topic"]: data(event)["payload"] for event in events} == {one: {"text": "hello"}, other: 2}
        assert data(events[0])["from"] == "root"


def test_a_reader_that_comes_back_misses_nothing(anywhere: Server) -> None:
    server = anywhere
    one, other = unique("a"), unique("b")
    with server.read(one, other) as reader:
        for _ in range(2):
            reader.next("Subscribed")
        server.publish(one, 1, 2)
        last = [reader.next("message") for _ in range(2)][-1].id
    server.publish(one, 3)
    server.publish(other, 4)
    with server.read(one, other, last_id=last) as reader:
        events = [reader.next() for _ in range(4)]
        assert all(data(event)["recovered"] for event in events if event.event == "Subscribed")
        assert sorted(data(event)["payload"] for event in events if event.event == "message") == [3, 4]
        server.publish(other, 5)
        assert data(reader.next("message"))["payload"] == 5


def test_direct_messages_of_the_time_between(anywhere: Server) -> None:
    server, topic, user = anywhere, unique("a"), unique_user()

    def send(*payloads: int) -> None:
        for payload in payloads:
            server.ask("POST", "/api/send", to=user, payload=payload)

    send(0)
    with server.read(topic, user=user) as reader:
        reader.next("Subscribed")
        send(1)
        direct = reader.next("DirectMessage")
        assert data(direct)["payload"] == 1
    send(2, 3)
    with server.read(topic, user=user, last_id=direct.id) as reader:
        events = [reader.next() for _ in range(3)]
        send(4)
        events.append(reader.next("DirectMessage"))
    directs = [event for event in events if event.event == "DirectMessage"]
    assert [data(event)["payload"] for event in directs] == [2, 3, 4]
    with server.read(topic, user=user, last_id=directs[-1].id) as reader:  # each came once
        reader.next("Subscribed")
        server.publish(topic, 5)
        reader.next("message")


def test_what_cannot_be_recovered_is_told(anywhere: Server) -> None:
    server = anywhere
    topic = unique("a")
    server.publish(topic, 1, 2, 3)
    with server.read(topic, last_id="from another server", history=2) as reader:
        subscribed = data(reader.next("Subscribed"))
        assert (subscribed["recovered"], subscribed["offset"]) == (False, 3)
        assert [data(reader.next("message"))["payload"] for _ in range(2)] == [2, 3]


def test_direct_messages_and_presence(lively: Server) -> None:
    server, topic, user, other = lively, unique("a"), unique_user(), unique_user()
    with server.read(topic, user=user, presence="true") as reader:
        reader.next("Subscribed")
        with server.read(topic, user=other):
            assert data(reader.next("Join"))["user_id"] == other
            assert server.ask("POST", "/api/send", to=user, payload={"n": 1})["delivered"] == [user]
            assert data(reader.next("DirectMessage"))["payload"] == {"n": 1}
        left = data(reader.next("Leave"))
        assert (left["user_id"], left["topic"]) == (other, topic)


def test_an_administrator_sees_and_ends_it(anywhere: Server) -> None:
    server = anywhere
    user = unique_user()
    with server.read(unique("a"), user=user) as reader:
        reader.next("Subscribed")
        (row,) = server.ask("GET", f"/api/connections?user_id={user}")["connections"]
        assert (row["transport"], row["subscriptions"]) == ("sse", 1)
        assert server.ask("POST", "/api/disconnect", session_id=row["session_id"], reason="enough")["disconnected"] == 1
        (event,) = reader.rest()
        told = data(event)
        assert (told["type"], told["code"], told["reason"], told["reconnect"]) == ("Closing", 4403, "enough", False)


def test_topics_that_are_not_allowed(anywhere: Server) -> None:
    server = anywhere
    narrow = token(unique_user(), topics={"subscribe": ["room:*"]})
    answer = server.client.get("/sse", params={"topics": "room:1,hall", "token": narrow})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")
    answer = server.client.get("/sse", params={"topics": "$system", "token": token("alice")})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")
    answer = server.client.get("/sse", params={"topics": "a*", "token": token("alice")})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "topic_invalid")


def test_curl_and_heartbeats(lively: Server) -> None:
    command = [
        "curl",
        "-sN",
        f"{lively.process.http_url}/sse?topics=a",
        "-H",
        f"Authorization: Bearer {token('alice')}",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as curl:
        assert curl.stdout is not None
        beats = 0
        for line in curl.stdout:
            beats += line == b":\n"
            if beats == 3:  # it lives longer than a client that says nothing may
                break
        curl.terminate()
    until(lambda: not _rows(lively), "the stream ends with its reader")


def test_a_token_that_ends(lively: Server) -> None:
    server = lively
    short = token("alice", exp=int(time.time()) + 2, refresh_threshold=None)
    with httpx_sse.connect_sse(server.client, "GET", "/sse", params={"topics": "a", "token": short}) as source:
        kinds = [(event.event, data(event).get("code")) for event in source.iter_sse()]
    assert ("TokenExpiring", None) in kinds
    assert kinds[-2:] == [("Error", "token_expired"), ("Closing", 4401)]


def test_a_reader_that_does_not_read(lively: Server) -> None:
    server = lively
    with server.read("big") as reader:
        reader.next("Subscribed")
        for _ in range(40):
            server.publish("big", "x" * 200_000)
        (row,) = _rows(lively)
        assert row["blocked"]
        until(lambda: not _rows(lively), "it is given up")


def test_a_server_that_is_full_or_ends(start_server: StartServer) -> None:
    process = start_server({"websocket": {"max_connections": 1}})
    server = Server(process)
    with server.read("a") as reader:
        reader.next("Subscribed")
        answer = server.client.get("/sse", params={"topics": "a", "token": token("bob")})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
        assert int(answer.headers["Retry-After"]) >= 1
        process.terminate()
        (event,) = reader.rest()
        told = data(event)
        assert (told["type"], told["code"], told["reconnect"]) == ("Closing", 1001, True)
        assert event.retry is not None and event.retry >= 1000
    assert process.wait() == 0
    server.client.close()


def test_nodes_that_redis_joins(start_server: StartServer) -> None:
    with RedisServer() as redis:
        settings = {"redis": {"url": redis.url}, "testing": {"use_in_memory_storage": False}}
        one, other = (Server(start_server(settings)) for _ in range(2))
        with one.read("a") as reader:
            reader.next("Subscribed")
            other.publish("a", 1)
            event = reader.next("message")
            assert data(event)["payload"] == 1
        other.publish("a", 2)
        with other.read("a", last_id=event.id) as reader:
            assert data(reader.next("Subscribed"))["recovered"]
            assert data(reader.next("message"))["payload"] == 2
        one.client.close()
        other.client.close()


def _rows(server: Server) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = server.ask("GET", "/api/connections")["connections"]
    return rows
