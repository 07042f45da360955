"""`GET /sse` with streams that follow a script: what HTTP adds. `blackbox/test_event_streams.py` has the real ones."""

import http.client
import json

import pytest

from realtime_communication._core.hub.hub import RequestError
from realtime_communication.http.event_ids import Position, Positions
from realtime_communication.http.sse import MAX_TOPICS

EPOCH = "0123456789abcdef"
TEXT, CLOSE = 1, 8


class ScriptedStream:
    """Answers every Subscribe, or as `Script` says; `end` is noted."""

    def __init__(self, script, address, on_ready, *, secure):
        self.script, self.address, self.on_ready, self.secure = script, address, on_ready, secure
        self.open = False
        self.asked = []
        self.waiting = []
        self.identity = None
        script.streams.append(self)

    def begin(self, identity):
        if self.script.refusal is not None:
            raise self.script.refusal
        self.identity = identity
        self.open = True

    def ask(self, envelope):
        asked = json.loads(envelope)
        self.asked.append(asked)
        answer = {"type": "Subscribed", "id": asked["id"], "topic": asked["topic"], "epoch": EPOCH, "offset": 3}
        if asked["type"] == "History":
            answer = {"type": "HistoryPage", "id": asked["id"], "topic": asked["topic"], "epoch": EPOCH, "offset": 7}
        if asked["topic"] in self.script.refused:
            answer = {"type": "Error", "id": asked["id"], **self.script.refused[asked["topic"]]}
        self.push((TEXT, json.dumps(answer).encode()))

    def push(self, *frames):
        self.waiting += frames
        self.on_ready()

    def take(self):
        taken, self.waiting = self.waiting, []
        return taken

    def end(self):
        self.open = False


class Script:
    def __init__(self):
        self.streams = []
        self.refusal = None
        self.refused = {}

    def __call__(self, address, on_ready, *, secure):
        return ScriptedStream(self, address, on_ready, secure=secure)


@pytest.fixture
def script():
    return Script()


@pytest.fixture
def streaming(make_server, script):
    def make(**changes):
        return make_server(changes={name.replace("__", "."): value for name, value in changes.items()}, streams=script)

    return make


def refused(server, path, status, headers):
    answer = server.request("GET", path, headers=headers)
    assert answer.status == status, answer.body
    assert answer.headers["Content-Type"].startswith("application/json")
    return answer.json["error"]


def closing(script):
    return (CLOSE, (4403).to_bytes(2, "big") + b"enough")


def test_a_stream_to_its_end(streaming, script, bearer):
    server = streaming()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("GET", "/sse?topics=a,b&history=5&presence=true", headers=bearer())
    response = connection.getresponse()
    assert response.status == 200
    assert response.getheader("Content-Type") == "text/event-stream; charset=utf-8"
    assert (response.getheader("Cache-Control"), response.getheader("X-Accel-Buffering")) == ("no-store", "no")
    (stream,) = script.streams
    assert [asked["topic"] for asked in stream.asked] == ["a", "b", "@alice"]
    assert all(asked["history"] == 5 and asked["presence"] for asked in stream.asked[:2])
    assert (stream.identity.user_id, stream.address) == ("alice", "127.0.0.1")
    assert server.services.open_streams == 1
    server._loop.call_soon_threadsafe(stream.push, closing(script))
    text = response.read().decode()
    assert text.startswith("retry: ")
    assert text.count("event: Subscribed") == 2
    assert text.endswith("\n\n") and '"code":4403' in text
    assert not stream.open
    # The connection goes on with the next request.
    connection.request("GET", "/health/live")
    assert connection.getresponse().status == 200
    assert server.services.open_streams == 0
    connection.close()


def test_http_1_0_is_ended_by_the_connection(streaming, script, bearer):
    server = streaming()
    token = bearer()["Authorization"]
    script.refused = {}

    def push():
        script.streams[0].push(closing(script))

    server._loop.call_soon_threadsafe(server._loop.call_later, 0.2, push)
    answer = server.raw(f"GET /sse?topics=a HTTP/1.0\r\nAuthorization: {token}\r\n\r\n".encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b" 200 " in head and b"chunked" not in head.lower()
    assert body.startswith(b"retry: ")


def test_a_reader_that_goes_away(streaming, script, bearer):
    server = streaming()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("GET", "/sse?topics=a", headers=bearer())
    connection.getresponse()
    connection.sock.close()
    connection.close()
    # The same loop serves this, a turn or two later.
    for _ in range(1000):
        if not server.services.open_streams:
            break
        assert server.request("GET", "/health/live").status == 200
    assert server.services.open_streams == 0
    assert not script.streams[0].open


def test_streams_leave_room_for_requests(streaming, script, bearer, monkeypatch):
    monkeypatch.setattr("realtime_communication.http.connection.MAX_CONNECTIONS", 2)
    server = streaming()
    connections = [http.client.HTTPConnection("127.0.0.1", server.port, timeout=30) for _ in range(3)]
    for connection in connections:
        connection.request("GET", "/sse?topics=a", headers=bearer())
        assert connection.getresponse().status == 200
    assert server.request("GET", "/health/live").status == 200
    for stream in script.streams:
        server._loop.call_soon_threadsafe(stream.push, closing(script))
    for connection in connections:
        connection.close()


def test_the_last_id(streaming, script, bearer):
    server = streaming()
    known, newer = Positions(), Positions()
    known.set("a", Position(EPOCH, 3))
    newer.set("a", Position(EPOCH, 9))
    cases = [
        (f"&last_event_id={known.id}", {}, {"epoch": EPOCH, "offset": 3}),
        ("", {"Last-Event-ID": known.id}, {"epoch": EPOCH, "offset": 3}),
        (f"&last_event_id={known.id}", {"Last-Event-ID": newer.id}, {"epoch": EPOCH, "offset": 9}),
        ("", {"Last-Event-ID": "17"}, {"epoch": "0" * 16, "offset": 0}),
        ("", {}, None),
    ]
    script.refused = {"a": {"code": "forbidden", "message": "no"}}
    for query, headers, recover in cases:
        refused(server, f"/sse?topics=a{query}", 403, bearer() | headers)
        assert script.streams[-1].asked[0].get("recover") == recover


def test_what_was_sent_to_the_reader_meanwhile_is_asked_for(streaming, script, bearer):
    server = streaming()
    known = Positions()
    known.set("@alice", Position(EPOCH, 3))
    known.set("@bob", Position(EPOCH, 4))
    script.refused = {"a": {"code": "forbidden", "message": "no"}}
    for headers, asked in (
        (bearer() | {"Last-Event-ID": known.id}, {"after": {"epoch": EPOCH, "offset": 3}, "limit": 1000}),
        (bearer(), {"limit": 1, "reverse": True}),
        (bearer() | {"Last-Event-ID": "17"}, {"limit": 1, "reverse": True}),
    ):
        refused(server, "/sse?topics=a", 403, headers)
        assert script.streams[-1].asked[-1] == {"id": "inbox", "type": "History", "topic": "@alice", **asked}
    refused(server, "/sse?topics=a", 403, bearer(permissions=("subscribe",)))
    assert [asked["topic"] for asked in script.streams[-1].asked] == ["a"]


def test_a_topic_that_is_refused(streaming, script, bearer):
    server = streaming()
    script.refused = {"b": {"code": "rate_limited", "message": "more requests", "retry_after_ms": 1200}}
    answer = server.request("GET", "/sse?topics=a,b", headers=bearer())
    assert (answer.status, answer.json["error"]["code"]) == (429, "rate_limited")
    assert answer.headers["Retry-After"] == "2"
    assert not script.streams[0].open
    assert server.services.open_streams == 0


def test_a_server_that_takes_no_more(streaming, script, bearer):
    server = streaming()
    script.refusal = RequestError("unavailable", "the server is shutting down")
    answer = server.request("GET", "/sse?topics=a", headers=bearer())
    assert answer.status == 503
    assert answer.headers["Retry-After"] == "1"
    assert answer.json["error"] == {"code": "unavailable", "message": "the server is shutting down"}


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "topics"),
        ("topics=", "topics"),
        ("topics=a,,b", "topics"),
        ("topics=" + "x" * 256, "topics"),
        ("topics=a%0Ab", "topics"),
        ("topics=" + ",".join(map(str, range(MAX_TOPICS + 1))), "topics"),
        ("topics=a&history=1001", "history"),
        ("topics=a&history=-1", "history"),
        ("topics=a&history=%D9%A1", "history"),
        ("topics=a&presence=1", "presence"),
        ("topics=a&unknown=1", "unknown"),
    ],
)
def test_a_query_that_is_wrong(streaming, script, bearer, query, field):
    error = refused(streaming(), f"/sse?{query}", 400, bearer())
    assert error["code"] == "bad_request"
    assert error["message"].startswith(f"{field}: ")
    assert not script.streams


def test_who_may_listen(streaming, script, bearer, api_key):
    server = streaming()
    assert refused(server, "/sse?topics=a", 401, {})["code"] == "unauthorized"
    assert refused(server, "/sse?topics=a", 401, {"Authorization": "Bearer x"})["code"] == "unauthorized"
    assert refused(server, "/sse?topics=a", 403, api_key)["code"] == "forbidden"
    assert refused(server, "/sse?topics=a", 403, bearer(permissions=["read"]))["code"] == "forbidden"
    assert not script.streams
    script.refusal = RequestError("unavailable", "full")
    token = bearer()["Authorization"].removeprefix("Bearer ")
    refused(server, f"/sse?topics=a&token={token}", 503, {})


def test_pages_of_other_origins(streaming, script, bearer):
    server = streaming(security__cors__enabled=True, security__cors__allowed_origins=("https://a.example",))
    script.refusal = RequestError("unavailable", "full")
    for origin in ("https://b.example", "null", "https://a.example.b.example"):
        assert refused(server, "/sse?topics=a", 403, bearer() | {"Origin": origin})["code"] == "forbidden"
    refused(server, "/sse?topics=a", 503, bearer() | {"Origin": "https://a.example"})
    refused(server, "/sse?topics=a", 503, bearer())


def test_head_and_other_methods(streaming, script, bearer):
    server = streaming()
    answer = server.request("HEAD", "/sse?topics=a", headers=bearer())
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert not script.streams
    answer = server.request("POST", "/sse?topics=a", headers=bearer())
    assert answer.status == 405
    assert set(answer.headers["Allow"].split(",")) == {"GET", "HEAD"}


def test_there_is_none_without_streams(server, bearer):
    assert server.request("GET", "/sse?topics=a", headers=bearer()).status == 404
