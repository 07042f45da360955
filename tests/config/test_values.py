"""Values of each kind, from TOML and from text."""

from __future__ import annotations

import math
from typing import Any

import pytest

from realtime_communication.config.catalogue import KEYS
from realtime_communication.config.keys import REDACTED, Key, Kind
from realtime_communication.config.schema import AuthProvider
from realtime_communication.config.traffic import CustomLimit
from realtime_communication.config.values import (
    INVALID,
    allowed,
    convert,
    convert_text,
    did_you_mean,
    plain,
    shown,
)


def _key(kind: Kind, **spec: Any) -> Key:
    return Key(path="a.b", kind=kind, default=None, effect="Does.", **spec)


def _complaints(key: Key, value: object, *, text: bool = False) -> list[tuple[str, object, str]]:
    found: list[tuple[str, object, str]] = []

    def complain(path: str, value: object, message: str) -> None:
        found.append((path, value, message))

    converted = convert_text(key, str(value), complain) if text else convert(key, value, complain)
    assert (converted is INVALID) == bool(found)
    return found


def _good(key: Key, value: object, *, text: bool = False) -> object:
    def complain(path: str, value: object, message: str) -> None:
        raise AssertionError((path, value, message))

    return convert_text(key, str(value), complain) if text else convert(key, value, complain)


PORT = _key(Kind.INTEGER, minimum=1, maximum=65535)
RATE = _key(Kind.NUMBER, above=0, maximum=100)
WORD = _key(Kind.STRING, minimum=1, maximum=4)
CHOICE = _key(Kind.CHOICE, choices=("json", "pretty"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (PORT, 1),
        (PORT, 65535),
        (RATE, 0.5),
        (RATE, 100),
        (WORD, "a"),
        (WORD, "éé"),
        (CHOICE, "json"),
        (_key(Kind.BOOLEAN), True),
        (_key(Kind.STRINGS), ["a", "b"]),
        (_key(Kind.NUMBERS), [1, 2.5]),
        (_key(Kind.STRING_MAP), {"a": "b"}),
    ],
)
def test_good_toml_values(key: Key, value: object) -> None:
    assert _good(key, value) == (tuple(value) if isinstance(value, list) else value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (PORT, 0),
        (PORT, 65536),
        (PORT, -1),
        (PORT, 2**31),
        (PORT, 10**4000),
        (PORT, 1.0),
        (PORT, "1"),
        (PORT, True),
        (RATE, 0),
        (RATE, 100.1),
        (RATE, math.nan),
        (RATE, math.inf),
        (RATE, 10**400),
        (RATE, "1"),
        (RATE, False),
        (WORD, ""),
        (WORD, "abcde"),
        (WORD, "ééé"),
        (WORD, 1),
        (CHOICE, "JSON"),
        (CHOICE, ["json"]),
        (_key(Kind.BOOLEAN), 1),
        (_key(Kind.BOOLEAN), "true"),
        (_key(Kind.STRINGS), "a"),
        (_key(Kind.STRINGS), ["a", 1]),
        (_key(Kind.NUMBERS), [1, "2"]),
        (_key(Kind.STRING_MAP), {"a": 1}),
        (_key(Kind.STRING_MAP), []),
        (_key(Kind.TABLES, shape=CustomLimit), {"name": "x"}),
        (_key(Kind.TABLES, shape=CustomLimit), ["x"]),
    ],
)
def test_bad_toml_values(key: Key, value: object) -> None:
    ((path, at_fault, message),) = _complaints(key, value)
    assert path == "" and at_fault is value
    assert message == f"must be {allowed(key)}"


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        (PORT, " 8081 ", 8081),
        (PORT, "+1", 1),
        (RATE, "1", 1.0),
        (RATE, ".5", 0.5),
        (RATE, "5e-1", 0.5),
        (WORD, " a ", " a "),
        (CHOICE, "pretty", "pretty"),
        (_key(Kind.BOOLEAN), "TRUE", True),
        (_key(Kind.BOOLEAN), "on", True),
        (_key(Kind.BOOLEAN), "0", False),
        (_key(Kind.BOOLEAN), "no", False),
        (_key(Kind.STRINGS), "a, b,", ("a", "b")),
        (_key(Kind.STRINGS), '["a,b", "c"]', ("a,b", "c")),
        (_key(Kind.STRINGS), "", ()),
        (_key(Kind.NUMBERS), "[1, 2.5]", (1.0, 2.5)),
        (_key(Kind.STRING_MAP), '{ a = "b" }', {"a": "b"}),
    ],
)
def test_good_text(key: Key, text: str, value: object) -> None:
    assert _good(key, text, text=True) == value


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (PORT, ""),
        (PORT, "0x10"),
        (PORT, "1_000"),
        (PORT, "8081s"),
        (PORT, "٣"),
        (PORT, "9" * 5000),
        (RATE, "nan"),
        (RATE, "inf"),
        (RATE, "1e999"),
        (RATE, "1,5"),
        (CHOICE, "xml"),
        (WORD, "\udcff"),
        (_key(Kind.BOOLEAN), "maybe"),
        (_key(Kind.STRINGS), '["a"'),
        (_key(Kind.STRINGS), "[1]"),
        (_key(Kind.NUMBERS), "1"),
        (_key(Kind.STRING_MAP), 'x\nb = "1"'),
        (_key(Kind.NUMBERS), "[1]\nother = 2"),
        (_key(Kind.NUMBERS), "[" * 5000),
        (_key(Kind.NUMBERS), "9" * 5000),
    ],
)
def test_bad_text(key: Key, text: str) -> None:
    assert _complaints(key, text, text=True)


class TestTables:
    limits = KEYS["rate_limiting.custom_limits"]
    providers = KEYS["auth.providers"]

    def test_tables_become_structs(self) -> None:
        table = {"name": "a", "pattern": "Subscribe", "requests_per_second": 1, "burst_size": 2}
        expected = CustomLimit(name="a", pattern="Subscribe", requests_per_second=1.0, burst_size=2)
        assert _good(self.limits, [table]) == (expected,)

    def test_text_is_toml(self) -> None:
        assert _good(self.providers, '[{ type = "jwt" }]', text=True) == (AuthProvider(type="jwt"),)

    def test_every_mistake_is_told_with_its_place(self) -> None:
        tables = [{"name": "a", "patern": "x", "requests_per_second": 0, "burst_size": True}, {}]
        places = {path for path, _, _ in _complaints(self.limits, tables)}
        assert places == {
            "[0].patern",
            "[0].requests_per_second",
            "[0].burst_size",
            "[0].pattern",
            "[1].name",
            "[1].pattern",
            "[1].requests_per_second",
            "[1].burst_size",
        }

    def test_a_misspelt_key_is_recognised(self) -> None:
        messages = [message for _, _, message in _complaints(self.limits, [{"patern": "x"}])]
        assert "unknown key; did you mean pattern?" in messages

    def test_secrets_inside_are_not_shown(self) -> None:
        tables = [{"type": "api_key", "keys": [{"key": 12345, "user": "a"}]}]
        ((_, value, _),) = _complaints(self.providers, tables)
        assert shown(value) == REDACTED

    def test_two_spellings(self) -> None:
        def keys(**entry: str) -> list[object]:
            return [{"type": "api_key", "keys": [{"key": "x", **entry}]}]

        assert _good(self.providers, keys(user_id="a")) == _good(self.providers, keys(user="a", user_id="a"))
        ((_, _, message),) = _complaints(self.providers, keys(user="a", user_id="b"))
        assert "disagree" in message


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a\n\x1b[31mb", '"a\\n\\u001b[31mb"'),
        (True, "true"),
        (30.0, "30"),
        (0.5, "0.5"),
        (10**4000, "an integer of many digits"),
        ("", ""),
        (["a", 1], '["a", 1]'),
        ({"password": "x", "url": "y"}, f'{{"password": "{REDACTED}", "url": "y"}}'),
        ([{"key": "x"}], f'[{{"key": "{REDACTED}"}}]'),
    ],
)
def test_shown_values(value: object, text: str) -> None:
    assert shown(value) == text


def test_a_list_that_cannot_be_written_is_no_fault() -> None:
    assert shown([1 << 100_000]) == "…"


def test_long_values_are_cut() -> None:
    assert len(shown("x" * 10_000)) < 200


def test_secrets_are_never_shown() -> None:
    assert shown("hush", secret=True) == REDACTED


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("http://joe:hush@collector:4317/x", f"http://{REDACTED}@collector:4317/x"),
        ("https://hush@host", f"https://{REDACTED}@host"),
        ("http://joe:hu@sh@host", f"http://{REDACTED}@host"),
        ("http://host/path@here?mail=a@b", "http://host/path@here?mail=a@b"),
    ],
)
def test_credentials_in_urls_are_not_shown(url: str, text: str) -> None:
    assert shown(url) == f'"{text}"'
    assert shown([{"issuer": url}]) == f'[{{"issuer": "{text}"}}]'


def test_suggestions() -> None:
    assert did_you_mean("prot", ["port", "host"]) == "; did you mean port?"
    assert did_you_mean("zzz", ["port", "host"]) == ""


@pytest.mark.parametrize(("number", "text"), [(1.0, "1"), (0.1, "0.1"), (1e9, "1000000000"), (5, "5"), (None, "")])
def test_plain_numbers(number: float | None, text: str) -> None:
    assert plain(number) == text
