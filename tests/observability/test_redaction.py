"""No secret and no control character in a log."""

from __future__ import annotations

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
    ],
)
def test_secrets_go_and_the_rest_stays(text: str, kept: str) -> None:
    redacted = redact(text)
    assert "hush" not in redacted and REDACTED in redacted and kept in redacted


@pytest.mark.parametrize("text", [JWT, f"bad token {JWT}!", f"/x/{JWT}", JWT.rpartition(".")[0], JWT.split(".")[0]])
def test_what_looks_like_a_jwt_goes_wherever_it_stands(text: str) -> None:
    assert "eyJ" not in redact(text)


@pytest.mark.parametrize(
    "text", ["tokens in the bucket: 5 of 10", "the secret of success", "topic room:42", "https://host:8081/path", ""]
)
def test_harmless_text_stays(text: str) -> None:
    assert redact(text) == text


def test_redacting_twice_changes_nothing() -> None:
    for text in (f"/ws?token={JWT}&a=b", "Authorization: Bearer x", "redis://a:b@c"):
        assert redact(redact(text)) == redact(text)


def test_long_values_are_cut_with_a_note() -> None:
    assert clean("x" * MAX_VALUE_LENGTH) == "x" * MAX_VALUE_LENGTH
    assert clean("x" * (1 << 20)) == "x" * MAX_VALUE_LENGTH + f"… ({(1 << 20) - MAX_VALUE_LENGTH} more)"


def test_a_secret_at_the_cut_is_gone_too() -> None:
    for length in range(MAX_VALUE_LENGTH - 80, MAX_VALUE_LENGTH + 10):
        assert "hush" not in clean("x" * (length - 8) + " token=" + "hush" * 20)


@pytest.mark.parametrize(
    "text", ["eyJ" * 3000, "a.b." * 3000, "token" * 3000, "=" * 9000, "x_" * 5000, "a://" * 3000, "bearer " * 2000]
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


@pytest.mark.parametrize("name", ["token", "Authorization", "x-api-key", "JWT_SECRET", "password", "set-cookie"])
def test_secret_fields(name: str) -> None:
    assert is_secret_field(name)


@pytest.mark.parametrize("name", ["topic", "user_id", "tokens_left", "path"])
def test_other_fields(name: str) -> None:
    assert not is_secret_field(name)
