"""No secret and no control character in a log."""

from __future__ import annotations

import json
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime_communication.observability.redaction import (
    MAX_VALUE_LENGTH,
    REDACTED,
    clean,
    escape,
    is_secret_field,
    redact,
)

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("GET /ws?token=hush&room=1 HTTP/1.1", "room=1"),
        ("/ws?room=1&api_key=hush", "room=1"),
        ("/ws?API_KEY=hush", "/ws"),
        ("/ws?access_token=hush#x", "/ws"),
        ("Authorization: Bearer hush", "Authorization"),
        ("authorization='Basic hush'", "authorization"),
        ("{'Authorization': 'hush hush'}", "Authorization"),
        ("Cookie: session=hush; other=hush", "Cookie"),
        ("X-API-Key: hush", "X-API-Key"),
        ("sent bearer hush to me", "to me"),
        ('jwt_secret = "hush"', "jwt_secret"),
        ("JWT_SECRET=hush", "JWT_SECRET"),
        ("REDIS_PASSWORD=hush", "PASSWORD"),
        ('{"refresh_token": "hush"}', "refresh_token"),
        ("redis://user:hush@host:6379/0", "host:6379"),
        ("redis://:hush@host", "@host"),
        ("token%3Dhush", "token"),
        ("/ws?token%253Dhush", "/ws"),
        ("/ws?%74oken=hush", "/ws"),
        ("Authorization%3A%20Bearer%20hush%20hush", "Authorization"),
        ("redis%3A%2F%2Fuser%3Ahush%40host", "host"),
        ("b'GET /ws?token=hush&room=1'", "room=1"),
        ("[(b'host', b'h'), (b'authorization', b'Bearer hush'), (b'x-api-key', b'hush')]", "host"),
        ("[(b'cookie', b'a=hush; b=hush'), (b'accept', b'*/*')]", "accept"),
        ("{b'x-api-key': b'hush', b'accept': b'*/*'}", "accept"),
        ("[('X-API-Key', 'hush'), ('Host', 'h')]", "Host"),
        ('["Authorization: Bearer hush"]', "Authorization"),
        ('Authorization: Digest username="x", response="hush"', "Authorization"),
        ("Sec-WebSocket-Protocol: rtc.v1.json, bearer.hush, hush", "rtc.v1.json"),
        ("(b'sec-websocket-protocol', b'hush, rtc.v1.msgpack+zstd')", "rtc.v1.msgpack+zstd"),
        ("{'Sec-WebSocket-Protocol': 'hush'}", "Protocol"),
        ('{"a": [{"token": "hush"}, {"b": 1}]}', '"b": 1'),
        ("{'client_secret': ['hush', 'x]hush', ['hush']], 'room': 1}", "'room': 1"),
        ("{'password': {'old': 'hush', 'new': ['hush}']}, 'room': 1}", "'room': 1"),
        ("{'credentials': ('hush', 'hush'), 'room': 1}", "'room': 1"),
        ('{"body": "{\\"token\\": \\"hush\\", \\"room\\": 1}"}', "room"),
        ('{"a": "{\\"b\\": \\"{\\\\\\"api_key\\\\\\": \\\\\\"hush\\\\\\"}\\"}"}', "api_key"),
        ('POST body {"password":"hush', "POST"),
        ("password='two words hush' user='bob'", "user='bob'"),
        ("token='it\\'s hush' user='bob'", "user='bob'"),
        ('"token": 42, "password" : "hush", "room": 1', '"room": 1'),
        ("Auth(jwt_secret='hush', issuer='i')", "issuer='i'"),
        ("refreshToken: hush", "refreshToken"),
        ("clientSecret=hush", "clientSecret"),
        ('params["token"] = "hush"', "params"),
        ("token => hush", "token"),
        ("passphrase: hush", "passphrase"),
        ("redis://user:p/hush@host/0", "@host/0"),
        ("rediss://user:p@hush@host", "@host"),
        ("https://hush@host/path", "host/path"),
        ("Basic aHVzaDpodXNohush", "Basic"),
        ("-----BEGIN PRIVATE KEY-----\nhush\n-----END PRIVATE KEY-----\nafter", "after"),
        ("-----BEGIN RSA PRIVATE KEY-----\\nhush\\n-----END RSA PRIVATE KEY-----'after", "after"),
        ("before -----BEGIN EC PRIVATE KEY-----\nhush that was cut", "before"),
        ("before -----BEGIN%20PRIVATE%20KEY-----%0Ahush", "before"),
    ],
)
def test_secrets_go_and_the_rest_stays(text: str, kept: str) -> None:
    redacted = redact(text)
    assert "hush" not in redacted and REDACTED in redacted and kept in redacted


@pytest.mark.parametrize(
    "text",
    [
        JWT,
        f"bad token {JWT}!",
        f"/x/{JWT}",
        f"x%3D{JWT}",
        f"x=%22{JWT.replace('.', '%2E')}",
        JWT.rpartition(".")[0],
        JWT.split(".")[0],
    ],
)
def test_what_looks_like_a_jwt_goes_wherever_it_stands(text: str) -> None:
    redacted = redact(text)
    assert "eyJ" not in redacted
    assert JWT.rpartition(".")[2] not in redacted


@pytest.mark.parametrize(
    "text",
    [
        "tokens in the bucket: 5 of 10",
        "max_tokens: 5",
        "token_precision = 100",
        "the secret of success",
        "topic room:42",
        "https://host:8081/path",
        "https://host:8081/api/topics/@alice/presence",
        "keyJournalEntries",
        "50% of it, %zz and 100%",
        "caf%C3%A9",
        "",
    ],
)
def test_harmless_text_stays(text: str) -> None:
    assert redact(text) == text


def test_redacting_twice_changes_nothing() -> None:
    for text in (
        f"/ws?token={JWT}&a=b",
        "Authorization: Bearer x",
        "{'Authorization': 'Bearer x', 'Cookie': 'a=b'}",
        "redis://a:b@c",
        "token=['a', 'b']",
        "Sec-WebSocket-Protocol: a, rtc.v1.json",
        "token%3Da",
    ):
        assert redact(redact(text)) == redact(text)


NAMES = ("token", "accessToken", "api_key", "X-API-Key", "password", "JWT_SECRET", "Authorization", "Set-Cookie")
FORMS: dict[str, Callable[[str, str], str]] = {
    "query": lambda name, secret: f"/ws?a=1&{name}={quote(secret, safe='')}&b=2",
    "json": lambda name, secret: json.dumps({"a": {name: secret}, "z": 1}),
    "list": lambda name, secret: json.dumps({name: [secret, {"x": secret}]}),
    "repr": lambda name, secret: repr({name: secret, "z": 1}),
    "pairs": lambda name, secret: repr([(name, secret), ("z", 1)]),
    "field": lambda name, secret: f"Body({name}={secret!r}, z=1)",
    "header": lambda _, secret: f"Host: x\r\nAuthorization: {secret}\r\nAccept: y",
}
WRAPPINGS: dict[str, Callable[[str], str]] = {
    "json": lambda text: json.dumps({"body": text}),
    "repr": repr,
    "percent": quote,
    "list": lambda text: str([text, 1]),
    "bytes": lambda text: repr(text.encode()),
}


@settings(max_examples=1000, deadline=None, derandomize=True)
@given(
    st.sampled_from(NAMES),
    st.text(alphabet="ab -_.:/@,;'\"{}[]()&=\\%", max_size=6),
    st.sampled_from(sorted(FORMS)),
    st.lists(st.sampled_from(sorted(WRAPPINGS)), max_size=3),
)
def test_however_it_is_wrapped(name: str, middle: str, form: str, wrappings: list[str]) -> None:
    text = FORMS[form](name, f"hush{middle}hush")
    for wrapping in wrappings:
        text = WRAPPINGS[wrapping](text)
    assert "hush" not in redact(text)


def test_long_values_are_cut_with_a_note() -> None:
    assert clean("x" * MAX_VALUE_LENGTH) == "x" * MAX_VALUE_LENGTH
    assert clean("x" * (1 << 20)) == "x" * MAX_VALUE_LENGTH + f"… ({(1 << 20) - MAX_VALUE_LENGTH} more)"


def test_a_secret_at_the_cut_is_gone_too() -> None:
    for length in range(MAX_VALUE_LENGTH - 80, MAX_VALUE_LENGTH + 10):
        assert "hush" not in clean("x" * (length - 8) + " token=" + "hush" * 20)


@pytest.mark.parametrize(
    "text",
    [
        *("eyJ" * 3000, "a.b." * 3000, "token" * 3000, "=" * 9000, "x_" * 5000, "a://" * 3000, "bearer " * 2000),
        *("token=" * 2000, "token=[" * 2000, "token='" * 2000, "'\\" * 5000, 'token="\\' * 2000, "%25" * 3000),
        *("-----BEGIN A-----" * 600, "cookie:" * 2000, "token" + "\\" * 9000, "basic " * 2000, "token" + " " * 9000),
        *("://" + "a" * 9000, "redis://:" * 1000 + "@", "token='" + "\\" * 8000 + "'", "token=(" + "'\\" * 4000),
        "sec-websocket-protocol:" * 500,
    ],
)
def test_text_made_to_be_slow_to_search(text: str) -> None:
    assert len(clean(text)) < 2 * MAX_VALUE_LENGTH


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text())
def test_nothing_unprintable_is_left(text: str) -> None:
    escaped = escape(text)
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 or c in "\u2028\u2029\u202e" for c in escaped)
    escaped.encode()


def test_escapes_are_readable() -> None:
    assert escape("a\r\n\t\x1b[31m\u2028é") == "a\\r\\n\\t\\x1b[31m\\u2028é"


@pytest.mark.parametrize(
    "name",
    [
        *("token", "Authorization", "x-api-key", "JWT_SECRET", "password", "set-cookie", "id_token", "jwt"),
        *("redis_password", "webhook_secret", "private_key", "Proxy-Authorization", "credentials", "client_passphrase"),
    ],
)
def test_secret_fields(name: str) -> None:
    assert is_secret_field(name)


@pytest.mark.parametrize("name", ["topic", "user_id", "tokens_left", "path", "key_file", "secretary"])
def test_other_fields(name: str) -> None:
    assert not is_secret_field(name)
