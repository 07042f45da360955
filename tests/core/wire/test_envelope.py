"""Protocol section 2: which requests are read, with what in them, and what is said of the others."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime_communication._core.wire import envelope

JSON, MSGPACK = 0, 1
BROADCAST, DIRECT_MESSAGE = 4, 5
TYPES = [
    "Authenticate",
    "Subscribe",
    "Unsubscribe",
    "Broadcast",
    "DirectMessage",
    "Presence",
    "History",
    "Refresh",
    "Ping",
]
attack = settings(max_examples=200, deadline=None, derandomize=True)
text = st.text(st.characters(exclude_categories=["Cs"]))
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(text, inner, max_size=5),
    max_leaves=10,
)
both = pytest.mark.parametrize("encoding", [JSON, MSGPACK], ids=["json", "msgpack"])


def encode(encoding: int, value: object) -> bytes:
    return msgspec.msgpack.encode(value) if encoding == MSGPACK else json.dumps(value).encode()


def parse(encoding: int, /, **fields: object) -> dict[str, Any]:
    return envelope.parse(encode(encoding, fields), encoding)


def refused(request: dict[str, Any]) -> tuple[str, str]:
    """Code and field; the message has to name the field."""
    assert request["error_field"] in request["error_message"]
    return request["error"], request["error_field"]


def bad(field: str) -> tuple[str, str]:
    return "bad_request", field


@both
class TestRequests:
    """Each type with all its fields."""

    def test_authenticate(self, encoding: int) -> None:
        assert parse(encoding, type="Authenticate", token="a.b.c") == {"type": "Authenticate", "token": "a.b.c"}
        assert parse(encoding, type="Authenticate", api_key="é") == {"type": "Authenticate", "api_key": "é"}
        assert refused(parse(encoding, type="Authenticate")) == bad("token")
        assert refused(parse(encoding, type="Authenticate", api_key=5)) == bad("api_key")

    def test_subscribe(self, encoding: int) -> None:
        request = parse(
            encoding,
            type="Subscribe",
            topic="room:é",
            recover={"epoch": "e1", "offset": 2**53 - 1, "more": []},
            history=1000,
            presence=True,
        )
        assert request == {"type": "Subscribe", "topic": "room:é", "position": ("e1", 2**53 - 1), "history": 1000,
                           "presence": True}  # fmt: skip
        assert parse(encoding, type="Subscribe", topic="t", history=0, presence=False) == {
            "type": "Subscribe", "topic": "t", "history": 0,
        }  # fmt: skip

    def test_unsubscribe(self, encoding: int) -> None:
        assert parse(encoding, type="Unsubscribe", topic="t") == {"type": "Unsubscribe", "topic": "t"}

    def test_broadcast(self, encoding: int) -> None:
        payload = {"text": ["é", None, 1.5]}
        request = parse(
            encoding, type="Broadcast", id=5, topic="t", payload=payload, exclude_self=True, idempotency_key="k"
        )
        assert request == {
            "type": "Broadcast",
            "id": encode(encoding, 5),
            "topic": "t",
            "payload": encode(encoding, payload),
            "exclude_self": True,
            "idempotency_key": "k",
        }

    def test_broadcast_to_all(self, encoding: int) -> None:
        request = parse(encoding, type="Broadcast", topic="*", payload=None)
        assert request == {"type": "Broadcast", "topic": "*", "topic_is_all": True, "payload": encode(encoding, None)}
        for other in ("Subscribe", "Unsubscribe", "Presence", "History"):
            assert refused(parse(encoding, type=other, topic="*")) == ("topic_invalid", "topic")

    def test_direct_message(self, encoding: int) -> None:
        request = parse(encoding, type="DirectMessage", to="bob", payload=1, idempotency_key="k" * 128)
        assert request["to"] == ["bob"]
        assert request["idempotency_key"] == "k" * 128
        users = [f"user {number} é" for number in range(3000)]
        assert parse(encoding, type="DirectMessage", to=users, payload=1)["to"] == users

    def test_presence(self, encoding: int) -> None:
        assert parse(encoding, type="Presence", topic="t") == {"type": "Presence", "topic": "t"}

    def test_history(self, encoding: int) -> None:
        request = parse(
            encoding, type="History", topic="t", after={"offset": 0, "epoch": "e" * 64}, limit=0, reverse=True
        )
        assert request == {"type": "History", "topic": "t", "position": ("e" * 64, 0), "limit": 0, "reverse": True}

    def test_refresh(self, encoding: int) -> None:
        assert parse(encoding, type="Refresh", token="t", api_key="ignored") == {"type": "Refresh", "token": "t"}
        assert refused(parse(encoding, type="Refresh", api_key="k")) == bad("token")

    def test_ping(self, encoding: int) -> None:
        assert parse(encoding, type="Ping") == {"type": "Ping"}

    def test_fields_of_other_types_and_of_the_server_are_ignored(self, encoding: int) -> None:
        request = parse(encoding, type="Ping", topic=5, payload=1, to={}, sender="x", offset=-1, roles=["admin"])
        assert request == {"type": "Ping"}


@both
class TestIds:
    @pytest.mark.parametrize("value", [0, 1, 2**53 - 1, "", "a", "é" * 32, 'quote " \\ \n', "x" * 64])
    def test_come_back_as_they_came(self, encoding: int, value: object) -> None:
        assert parse(encoding, type="Ping", id=value)["id"] == encode(encoding, value)

    @pytest.mark.parametrize("value", [-1, 2**53, 1.0, None, True, [], {}, "x" * 65, "é" * 33, "x" * 1_000_000],
                             ids=lambda value: repr(value)[:16])  # fmt: skip
    def test_refused_without_id(self, encoding: int, value: object) -> None:
        request = parse(encoding, type="Ping", id=value)
        assert refused(request) == bad("id")
        assert "id" not in request
        assert request["type"] == "Ping"

    def test_kept_when_something_else_is_wrong(self, encoding: int) -> None:
        for fields in ({"type": "Nonsense"}, {"type": 5}, {"type": "Subscribe", "topic": ""}, {}):
            assert parse(encoding, id=7, **fields)["id"] == encode(encoding, 7)
        broken = encode(encoding, {"id": 7, "type": "Ping", "x": [1]})[:-2]
        request = envelope.parse(broken, encoding)
        assert (request["id"], request["type"], request["error"]) == (encode(encoding, 7), "Ping", "bad_request")


class TestIdTokens:
    def test_json_as_written(self) -> None:
        assert envelope.parse(b'{"type":"Ping","id": "\\u0061\\/" }', JSON)["id"] == b'"\\u0061\\/"'
        assert "error" in envelope.parse(b'{"type":"Ping","id":-0}', JSON)
        assert "error" in envelope.parse(b'{"type":"Ping","id":1e2}', JSON)

    def test_msgpack_as_written(self) -> None:
        for token in (b"\xcf" + bytes(7) + b"\x05", b"\xd0\x05", b"\xda\x00\x01a"):
            assert envelope.parse(b"\x82\xa4type\xa4Ping\xa2id" + token, MSGPACK)["id"] == token
        assert "error" in envelope.parse(b"\x82\xa4type\xa4Ping\xa2id\xc4\x01a", MSGPACK)


INVALID_TOPICS = ["", "x" * 256, "é" * 128, "x" * 65536, "a*b", "room:*", "room\n1", "\x00", "a\x7f", "a\x80b", "\x9f",
                  "{tag}", "a{tag}b", "**"]  # fmt: skip
VALID_TOPICS = [
    "x",
    "x" * 255,
    "é" * 127,
    "a/b.c:d",
    "room \U0001f600",
    "@alice",
    "$system",
    "\xa0",
    "}a{",
    "{",
    'quo"te\\',
]


@both
class TestTopics:
    @pytest.mark.parametrize("name", VALID_TOPICS, ids=lambda name: repr(name)[:12])
    def test_valid(self, encoding: int, name: str) -> None:
        assert parse(encoding, type="Subscribe", topic=name) == {"type": "Subscribe", "topic": name}

    @pytest.mark.parametrize("name", INVALID_TOPICS, ids=lambda name: repr(name)[:12])
    @pytest.mark.parametrize("kind", ["Subscribe", "Unsubscribe", "Broadcast", "Presence", "History"])
    def test_invalid(self, encoding: int, kind: str, name: str) -> None:
        assert refused(parse(encoding, type=kind, topic=name, payload=1)) == ("topic_invalid", "topic")

    @pytest.mark.parametrize("value", [5, None, ["t"], {"t": 1}, True, 1.5])
    def test_no_name_at_all(self, encoding: int, value: object) -> None:
        assert refused(parse(encoding, type="Subscribe", topic=value)) == bad("topic")
        assert refused(parse(encoding, type="Subscribe")) == bad("topic")


def changed(kind: str, field: str, value: object) -> dict[str, object]:
    whole: dict[str, object] = {"type": kind, "topic": "t", "to": "bob", "payload": 1}
    return whole | {field: value}


@both
class TestWrongFields:
    @pytest.mark.parametrize(
        ("kind", "field", "wrong"),
        [
            ("Subscribe", "history", [-1, 1001, 1.0, "5", None, True, 2**64 - 1, []]),
            ("Subscribe", "presence", [0, 1, "true", None, []]),
            ("Broadcast", "exclude_self", [0, "yes", None, {}]),
            ("Broadcast", "idempotency_key", ["", "k" * 129, "é" * 65, 7, None, []]),
            ("DirectMessage", "idempotency_key", ["", "k" * 129, 7]),
            (
                "DirectMessage",
                "to",
                ["", [], [""], 7, None, {}, ["a", 7], ["a", ["b"]], "u" * 129, ["a\n"], "a\x7f", "\x85"],
            ),
            ("History", "limit", [-1, 1001, 5.0, "5", None]),
            ("History", "reverse", [1, "no", None]),
            ("Authenticate", "token", [1, None, [], {}]),
            ("Refresh", "token", [1, None]),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_named(self, encoding: int, kind: str, field: str, wrong: list[object]) -> None:
        for value in wrong:
            request = envelope.parse(encode(encoding, changed(kind, field, value)), encoding)
            assert refused(request) == bad(field), value

    @pytest.mark.parametrize(("kind", "field"), [("Subscribe", "recover"), ("History", "after")])
    @pytest.mark.parametrize(
        "position",
        [
            5,
            "e",
            None,
            [],
            {},
            {"epoch": "e"},
            {"offset": 1},
            {"epoch": "", "offset": 1},
            {"epoch": "e" * 65, "offset": 1},
            {"epoch": 1, "offset": 1},
            {"epoch": "e", "offset": -1},
            {"epoch": "e", "offset": 2**53},
            {"epoch": "e", "offset": 1.0},
            {"epoch": "e", "offset": "1"},
            {"epoch": "e", "offset": None},
        ],
        ids=str,
    )
    def test_positions(self, encoding: int, kind: str, field: str, position: object) -> None:
        assert refused(envelope.parse(encode(encoding, changed(kind, field, position)), encoding)) == bad(field)

    @pytest.mark.parametrize(
        ("kind", "field"), [("Broadcast", "payload"), ("DirectMessage", "payload"), ("DirectMessage", "to")]
    )
    def test_missing(self, encoding: int, kind: str, field: str) -> None:
        whole = changed(kind, "type", kind)
        del whole[field]
        assert refused(envelope.parse(encode(encoding, whole), encoding)) == bad(field)

    @pytest.mark.parametrize(
        "kind",
        ["Nonsense", "ping", "Ping ", "", "Pin", "Subscribed", "Message", 7, None, ["Ping"], "x" * 1000],
        ids=repr,
    )
    def test_type(self, encoding: int, kind: object) -> None:
        assert refused(parse(encoding, type=kind)) == bad("type")
        assert refused(parse(encoding, topic="t")) == bad("type")

    def test_keys(self, encoding: int) -> None:
        most = {"type": "Ping", **{f"key {number}": number for number in range(63)}}
        assert envelope.parse(encode(encoding, most), encoding) == {"type": "Ping"}
        assert refused(envelope.parse(encode(encoding, most | {"more": 1}), encoding)) == bad("")
        many = {f"key {number}": number for number in range(100_000)}
        assert refused(envelope.parse(encode(encoding, many), encoding)) == bad("")


class TestNotOneMap:
    @pytest.mark.parametrize(
        "data",
        [
            "",
            " ",
            "7",
            "null",
            '"text"',
            "[]",
            '[{"type":"Ping"}]',
            '{"type":"Ping"',
            "{",
            '{"type":"Ping"} x',
            '{"type":"Ping"}{}',
            '{"type":"Ping",}',
            '{,"type":"Ping"}',
            '{"type" "Ping"}',
            '{"type":"Ping" "id":1}',
            "{'type':'Ping'}",
            '{"type":"Ping"}\x00',
            '\ufeff{"type":"Ping"}',
            '{"type":}',
            "{1:2}",
            '{"type":"Ping"/**/}',
        ],
    )
    def test_json(self, data: str) -> None:
        assert refused(envelope.parse(data.encode(), JSON)) == bad("")

    @pytest.mark.parametrize(
        "data",
        [
            "",
            "07",
            "c0",
            "a0",
            "9107",
            "9181a0c0",
            "81",
            "81a474797065a4",
            "c1",
            "0181",
            "df00000001",
            "dfffffffff",
            "ddffffffff",
            "810102",
            "81c0c0",
            "d40100",
        ],
    )
    def test_msgpack(self, data: str) -> None:
        assert refused(envelope.parse(bytes.fromhex(data), MSGPACK)) == bad("")

    def test_trailing_bytes(self) -> None:
        assert refused(envelope.parse(encode(MSGPACK, {"type": "Ping"}) + b"\xc0", MSGPACK)) == bad("")

    def test_space_around_it(self) -> None:
        assert envelope.parse(b' \r\n\t{ "type" : "Ping" , "x" : [ ] }\n ', JSON) == {"type": "Ping"}

    def test_unknown_fields_are_validated(self) -> None:
        for value in ("NaN", "1e400", "9" * 100_000, "01", '"\\ud800"', "[" * 100_000, "[1,]", '"\n"'):
            assert refused(envelope.parse(f'{{"type":"Ping","x":{value}}}'.encode(), JSON)) == bad("")

    def test_depth(self) -> None:
        for opening, closing in (("[", "]"), ('{"a":', "}")):
            for levels in (127, 128):
                data = f'{{"type":"Broadcast","topic":"t","payload":{opening * levels}1{closing * levels}}}'
                assert ("error" in envelope.parse(data.encode(), JSON)) is (levels > 127)
        head = b"\x83\xa4type\xa9Broadcast\xa5topic\xa1t\xa7payload"
        assert "error" not in envelope.parse(head + b"\x91" * 127 + b"\xc0", MSGPACK)
        assert "error" in envelope.parse(head + b"\x91" * 128 + b"\xc0", MSGPACK)
        assert "error" in envelope.parse(head + b"\x91" * 100_000 + b"\xc0", MSGPACK)


class TestRepeatedKeys:
    @pytest.mark.parametrize(
        ("data", "field"),
        [
            ('{"type":"Ping","type":"Ping"}', "type"),
            ('{"type":"Subscribe","topic":"a","topic":"b"}', "topic"),
            ('{"type":"Ping","x":1,"x":2}', ""),
            ('{"type":"Ping","t\\u0079pe":1}', "type"),
            ('{"type":"Ping","":1,"":1}', ""),
            ('{"type":"Ping","x":1,"\\u0078":2}', ""),
            ('{"type":"Ping","id":1,"id":1}', "id"),
        ],
    )
    def test_json(self, data: str, field: str) -> None:
        assert refused(envelope.parse(data.encode(), JSON)) == bad(field)

    def test_msgpack(self) -> None:
        assert refused(envelope.parse(b"\x82\xa4type\xa4Ping\xd9\x04type\xa4Ping", MSGPACK)) == bad("type")
        assert refused(envelope.parse(b"\x83\xa4type\xa4Ping\xa1x\x01\xa1x\x01", MSGPACK)) == bad("")

    def test_within_a_position(self) -> None:
        data = b'{"type":"Subscribe","topic":"t","recover":{"epoch":"e","offset":1,"epoch":"f"}}'
        assert refused(envelope.parse(data, JSON)) == bad("recover")

    def test_within_a_payload_they_are_relayed(self) -> None:
        data = b'{"type":"Broadcast","topic":"t","payload":{"a":1,"a":2}}'
        assert envelope.parse(data, JSON)["payload"] == b'{"a":1,"a":2}'


def escaped(value: object) -> str:
    """JSON with an escape for every character of every string."""
    if isinstance(value, str):
        units = value.encode("utf-16-be")
        return '"' + "".join(f"\\u{units[at]:02x}{units[at + 1]:02X}" for at in range(0, len(units), 2)) + '"'
    if isinstance(value, dict):
        return "{" + ",".join(f"{escaped(key)}:{escaped(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(escaped, value)) + "]"
    return json.dumps(value)


class TestJsonOnly:
    def test_escapes_everywhere(self) -> None:
        """Many unescaped strings at once: none moves when the next one is unescaped."""
        users = [f"user {number} é \U0001f600" for number in range(50)]
        request = {"type": "DirectMessage", "payload": 1, "to": users, "idempotency_key": 'k"\\\n', "unknown é": "x"}
        data = escaped(request).encode()
        assert json.loads(data) == request
        assert envelope.parse(data, JSON) == {
            "type": "DirectMessage",
            "payload": b"1",
            "to": users,
            "idempotency_key": 'k"\\\n',
        }
        recover = {"type": "Subscribe", "topic": "té", "recover": {"epoch": "e\n", "offset": 5, "x": ["y"]}}
        assert envelope.parse(escaped(recover).encode(), JSON)["position"] == ("e\n", 5)

    def test_payload_is_relayed_byte_for_byte(self) -> None:
        for payload in ('{"a" :  1.50,"b":[ ]}', "1e2", "0.10", '"\\u00e9\\/"', "-0", "null"):
            data = f'{{"type":"Broadcast","topic":"t","payload" : {payload} }}'.encode()
            assert envelope.parse(data, JSON)["payload"] == payload.encode()


class TestMsgpackOnly:
    def test_payload_is_relayed_byte_for_byte(self) -> None:
        payload = b"\xdd\x00\x00\x00\x02\xd3\x00\x00\x00\x00\x00\x00\x00\x05\xc4\x01\xff"
        assert (
            envelope.parse(b"\x83\xa4type\xa9Broadcast\xa5topic\xa1t\xa7payload" + payload, MSGPACK)["payload"]
            == payload
        )

    def test_binary_is_no_text(self) -> None:
        data = {"type": "Broadcast", "topic": b"t", "payload": 1}
        assert refused(envelope.parse(encode(MSGPACK, data), MSGPACK)) == bad("topic")
        assert refused(envelope.parse(encode(MSGPACK, {"type": b"Ping"}), MSGPACK)) == bad("type")

    def test_wide_forms_of_integers(self) -> None:
        data = b"\x83\xa4type\xa9Subscribe\xa5topic\xa1t\xa7history\xd3" + bytes(7) + b"\x05"
        assert envelope.parse(data, MSGPACK)["history"] == 5


@both
class TestBodies:
    """HTTP bodies: the type is known, `type` and `id` mean nothing."""

    def test_publish(self, encoding: int) -> None:
        body = encode(encoding, {"topic": "t", "payload": [1], "type": 5, "id": []})
        assert envelope.parse(body, encoding, BROADCAST) == {
            "type": "Broadcast",
            "topic": "t",
            "payload": encode(encoding, [1]),
        }

    def test_send(self, encoding: int) -> None:
        body = encode(encoding, {"to": ["a", "b"], "payload": None, "idempotency_key": "k"})
        assert envelope.parse(body, encoding, DIRECT_MESSAGE)["to"] == ["a", "b"]
        assert refused(envelope.parse(encode(encoding, []), encoding, DIRECT_MESSAGE)) == bad("")

    def test_text_is_checked(self, encoding: int) -> None:
        body = encode(encoding, {"topic": "t", "payload": "abc"}).replace(b"abc", b"a\xffc")
        assert refused(envelope.parse(body, encoding, BROADCAST)) == bad("")


@both
@attack
@given(
    request=st.dictionaries(
        st.sampled_from(["id", "topic", "payload", "to", "recover", "history", "presence", "token", "x"]),
        values,
        max_size=6,
    ),
    kind=st.sampled_from(TYPES),
)
def test_any_values(encoding: int, request: dict[str, object], kind: str) -> None:
    """Either it says what is wrong, or everything that came is there."""
    out = parse(encoding, **{**request, "type": kind})
    assert out["type"] == kind
    if "error" in out:
        assert out["error"] in ("bad_request", "topic_invalid")
        assert out["error_message"]
    elif kind in ("Broadcast", "DirectMessage"):
        assert out["payload"] == encode(encoding, request["payload"])


@both
@settings(attack, max_examples=500)
@given(data=st.binary(max_size=60), at=st.integers(0, 120), forced=st.sampled_from([0, 0, 2, 4, 5]))
def test_mutants_do_no_harm(encoding: int, data: bytes, at: int, forced: int) -> None:
    whole = encode(
        encoding, {"type": "DirectMessage", "id": "x", "to": ["a", "b"], "payload": {"a": [1, "é"]}, "topic": "t"}
    )
    mutant = whole[:at] + data + whole[at + len(data) // 2 :]
    try:
        if encoding == JSON:
            mutant.decode()  # what the frame parser has checked
    except UnicodeDecodeError:
        return
    out = envelope.parse(mutant, encoding, forced)
    assert "error" not in out or out["error_message"]
