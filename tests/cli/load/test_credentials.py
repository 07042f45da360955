"""As whom connections sign on."""

from __future__ import annotations

from pathlib import Path

import click
import jwt
import pytest

from realtime_communication.cli.load import credentials

SECRET = "0123456789abcdef0123456789abcdef"


def test_each_connection_gets_a_user_of_its_own() -> None:
    made = credentials.signed(2 * SECRET, 3, issuer="i", audience="a", algorithm="HS384")
    read = [jwt.decode(token, 2 * SECRET, ["HS384"], issuer="i", audience="a") for token in made.values]
    assert [claims["user_id"] for claims in read] == ["rtc-bench-0", "rtc-bench-1", "rtc-bench-2"]
    assert made.users and not made.header


def test_a_secret_that_is_too_short() -> None:
    with pytest.raises(click.UsageError, match="31 bytes; at least 32"):
        credentials.signed(SECRET[1:], 1, issuer="i", audience="a", algorithm="HS256")


def test_tokens_of_somebody_else() -> None:
    made = credentials.tokens(["one", "", " two "], "'--token'")
    assert (made.values, made.users) == (("one", "two"), False)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ([], "is empty"),
        ([" "], "is empty"),
        (["a", "b c"], "line 2"),
        (["é"], "line 1"),
        (["a" * 4097], "at most 4096"),
    ],
)
def test_what_is_no_token(values: list[str], why: str) -> None:
    with pytest.raises(click.UsageError, match=why):
        credentials.tokens(values, "'--token'")


def test_an_api_key_has_its_header() -> None:
    made = credentials.api_key("key", "X-API-Key", "'--api-key'")
    assert (made.values, made.header) == (("key",), "X-API-Key")


@pytest.mark.parametrize("header", ["", "A: b", "A\r\nB", "é"])
def test_what_is_no_header(header: str) -> None:
    with pytest.raises(click.UsageError, match="name of a header"):
        credentials.api_key("key", header, "'--api-key'")


def test_nothing_of_it_is_shown() -> None:
    assert SECRET not in repr(credentials.tokens([SECRET], "'--token'"))


def test_a_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    assert credentials.text_of(tmp_path / "secret", "'--secret'") == SECRET


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with (tmp_path / "large").open("wb") as file:
        file.truncate(credentials.LARGEST_FILE + 1)
    for name, why in (("bytes", "not UTF-8"), ("large", "larger than"), ("missing", "No such file")):
        with pytest.raises(click.UsageError, match=why):
            credentials.text_of(tmp_path / name, "'--secret'")
