"""JSON and MessagePack side by side; what a payload looks like on the other side; broken messages of both."""

import json
from typing import Any

import msgspec
import pytest
from websockets.exceptions import ConnectionClosed

from serving.peer import JSON, MSGPACK, Peer, unique, unique_user
from serving.processes import ServerProcess

VALUES: list[Any] = [
    None,
    True,
    -(2**63),
    2**64 - 1,
    1.25,
    -0.0,
    1e300,
    "",
    "ünïcödé \U0001f600 \x00 \u2028",
    "x" * 300,
    list(range(70_000 // 40)),
    {f"key {number}": [number, {"deep": [None, "é"]}] for number in range(40)},
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:20])
@pytest.mark.parametrize(("source", "target"), [(JSON, MSGPACK), (MSGPACK, JSON), (JSON, JSON), (MSGPACK, MSGPACK)])
def test_payload_arrives_in_the_subscribers_encoding(
    server: ServerProcess, source: str, target: str, value: Any
) -> None:
    topic = unique()
    with (
        Peer(server.url, unique_user(), subprotocol=source) as alice,
        Peer(server.url, unique_user(), subprotocol=target) as bob,
    ):
        bob.ok("Subscribe", topic=topic)
        alice.ok("Broadcast", topic=topic, payload=value)
        received = bob.event()["payload"]
        assert received == value
        assert type(received) is type(value)
        page = bob.ok("History", topic=topic)
        assert [message["payload"] for message in page["messages"]] == [value]
        alice.ok("DirectMessage", to=bob.user, payload=value)
        assert bob.event()["payload"] == value


@pytest.mark.parametrize(
    "payload",
    ['{"a" :  1.50,"b":[ ]}', "1e2", "0.10", '"\\u00e9\\/"', "-0", '{"z":1,"a":2}', "12345678901234567890"],
)
def test_json_payload_is_relayed_byte_for_byte(server: ServerProcess, payload: str) -> None:
    topic = unique()
    with Peer(server.url, unique_user()) as alice, Peer(server.url, unique_user()) as bob:
        bob.ok("Subscribe", topic=topic)
        alice.send(f'{{"type":"Broadcast","id":1,"topic":{json.dumps(topic)},"payload":{payload}}}')
        assert alice.receive()["type"] == "Ack"
        text = bob.connection.recv(5)
        assert isinstance(text, str)
        assert text.endswith(f'"payload":{payload}}}'), text


def test_msgpack_payload_is_relayed_byte_for_byte(server: ServerProcess) -> None:
    topic = unique()
    wide = b"\xdd\x00\x00\x00\x02\xd3\x00\x00\x00\x00\x00\x00\x00\x05\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00"
    with (
        Peer(server.url, unique_user(), subprotocol=MSGPACK) as alice,
        Peer(server.url, unique_user(), subprotocol=MSGPACK) as bob,
    ):
        bob.ok("Subscribe", topic=topic)
        request = {"type": "Broadcast", "id": 1, "topic": topic, "payload": msgspec.Raw(wide)}
        alice.send(msgspec.msgpack.encode(request))
        assert alice.receive()["type"] == "Ack"
        data = bob.connection.recv(5)
        assert isinstance(data, bytes)
        assert data.endswith(wide)


def test_msgpack_bytes_stay_bytes(server: ServerProcess) -> None:
    topic = unique()
    with Peer(server.url, unique_user(), subprotocol=MSGPACK) as alice:
        alice.ok("Subscribe", topic=topic)
        alice.ok("Broadcast", topic=topic, payload=b"\x00\xff")
        assert alice.settle()[0]["payload"] == b"\x00\xff"


class TestWrongFrameType:
    def test_binary_frame_on_json(self, server: ServerProcess) -> None:
        with Peer(server.url, unique_user()) as peer:
            peer.send(b'{"type":"Ping"}')
            assert peer.close_code() == 1003

    def test_text_frame_on_msgpack(self, server: ServerProcess) -> None:
        with Peer(server.url, unique_user(), subprotocol=MSGPACK) as peer:
            peer.connection.send("text")
            assert peer.close_code() == 1003


BROKEN_JSON = {
    "empty": "",
    "blank": "  ",
    "scalar": "7",
    "array": "[1]",
    "open object": '{"type":"Ping"',
    "trailing text": '{"type":"Ping","id":1} x',
    "two values": '{"type":"Ping"}{"type":"Ping"}',
    "trailing comma": '{"type":"Ping",}',
    "single quotes": "{'type':'Ping'}",
    "NaN": '{"type":"Broadcast","topic":"t","payload":NaN}',
    "Infinity": '{"type":"Broadcast","topic":"t","payload":-Infinity}',
    "leading zero": '{"type":"Broadcast","topic":"t","payload":01}',
    "plus": '{"type":"Broadcast","topic":"t","payload":+1}',
    "bare point": '{"type":"Broadcast","topic":"t","payload":1.}',
    "control character": '{"type":"Broadcast","topic":"t","payload":"a\nb"}',
    "bad escape": '{"type":"Broadcast","topic":"t","payload":"\\x"}',
    "comment": '{"type":"Ping"/* */}',
}


@pytest.mark.parametrize("text", BROKEN_JSON.values(), ids=BROKEN_JSON.keys())
def test_broken_json_is_a_bad_request_and_the_connection_stays(server: ServerProcess, text: str) -> None:
    with Peer(server.url, unique_user()) as peer:
        peer.send(text)
        error = peer.receive()
        assert (error["type"], error["code"]) == ("Error", "bad_request")
        assert peer.ok("Ping")["type"] == "Pong"


BROKEN_MSGPACK = {
    "empty": b"",
    "scalar": b"\x07",
    "array": b"\x91\x07",
    "truncated": msgspec.msgpack.encode({"type": "Ping", "id": 1})[:-1],
    "trailing byte": msgspec.msgpack.encode({"type": "Ping", "id": 1}) + b"\x00",
    "never used byte": b"\xc1",
    "4 G array": b"\xdd\xff\xff\xff\xff",
    "4 G map": b"\xdf\xff\xff\xff\xff",
    "4 G string": b"\xdb\xff\xff\xff\xff",
    "4 G bytes": b"\xc6\xff\xff\xff\xff",
    "number as key": b"\x81\x01\x02",
    "4 G array inside": b"\x81\xa4type\xdd\xff\xff\xff\xff",
}


@pytest.mark.parametrize("data", BROKEN_MSGPACK.values(), ids=BROKEN_MSGPACK.keys())
def test_broken_msgpack_is_a_bad_request_and_the_connection_stays(server: ServerProcess, data: bytes) -> None:
    with Peer(server.url, unique_user(), subprotocol=MSGPACK) as peer:
        peer.send(data)
        error = peer.receive()
        assert (error["type"], error["code"]) == ("Error", "bad_request")
        assert peer.ok("Ping")["type"] == "Pong"


class TestDepth:
    """Nesting is bounded at 128 levels; deeper messages are refused in no time."""

    @pytest.mark.parametrize("depth", [100, 30_000])
    def test_json(self, product: ServerProcess, depth: int) -> None:
        with Peer(product.url, unique_user()) as peer:
            peer.send('{"type":"Broadcast","id":1,"topic":"deep","payload":' + "[" * depth + "]" * depth + "}")
            try:
                reply = peer.receive()
            except ConnectionClosed:
                pytest.fail("the connection must stay open")
            assert reply["type"] == ("Ack" if depth == 100 else "Error")
            assert peer.ok("Ping")["type"] == "Pong"

    @pytest.mark.parametrize("depth", [100, 60_000])
    def test_msgpack(self, product: ServerProcess, depth: int) -> None:
        with Peer(product.url, unique_user(), subprotocol=MSGPACK) as peer:
            head = b"\x84\xa4type\xa9Broadcast\xa2id\x01\xa5topic\xa4deep\xa7payload"
            peer.send(head + b"\x91" * depth + b"\xc0")
            assert peer.receive()["type"] == ("Ack" if depth == 100 else "Error")
            assert peer.ok("Ping")["type"] == "Pong"


class TestDuplicateKeys:
    """A request that says something twice says nothing."""

    def test_json(self, product: ServerProcess) -> None:
        with Peer(product.url, unique_user()) as peer:
            peer.send('{"type":"Subscribe","id":1,"topic":"a","topic":"b"}')
            assert peer.receive()["code"] == "bad_request"

    def test_msgpack(self, product: ServerProcess) -> None:
        with Peer(product.url, unique_user(), subprotocol=MSGPACK) as peer:
            peer.send(b"\x83\xa4type\xa9Subscribe\xa5topic\xa1a\xa5topic\xa1b")
            assert peer.receive()["code"] == "bad_request"


@pytest.mark.parametrize(
    "payload", ["1" * 60_000, "1e400", "-1e400", "1" + "0" * 400, "1e-400"], ids=lambda text: text[:8]
)
def test_numbers_beyond_all_bounds_do_not_stall(product: ServerProcess, payload: str) -> None:
    with Peer(product.url, unique_user()) as peer, Peer(product.url, unique_user(), subprotocol=MSGPACK) as other:
        topic = unique()
        other.ok("Subscribe", topic=topic)
        peer.send(f'{{"type":"Broadcast","id":1,"topic":"{topic}","payload":{payload}}}')
        assert peer.receive()["type"] in ("Ack", "Error")
        assert peer.ok("Ping")["type"] == "Pong"
        assert other.ok("Ping")["type"] == "Pong"
