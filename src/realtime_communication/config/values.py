"""Turning what a layer holds into the value of a key.

TOML gives typed values, the environment and the command line give text. Both end as the key's Python type, checked
against its range, or as a complaint that says what is allowed. Also: how values are shown to people.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping

import msgspec

from realtime_communication.config.keys import REDACTED, REQUIRED, Key, Kind

Complain = Callable[[str, object, str], None]
"""Called with the dotted path below the key, the value at fault and what is allowed."""

INVALID = object()
"""Stands for a value that was complained about."""


class Hidden:
    """Stands for a secret where a message would show the value."""


_SECRET_NAMES = ("secret", "password", "token", "hash")
_SHOWN_LENGTH = 120
"""Longest value repeated in a message; longer ones are cut."""

_CREDENTIALS = re.compile(r"(?<=://)[^/?#\s]*(?=@)")
"""User and password in a URL. Of several `@` the last one ends them."""

_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})
_INTEGER = re.compile(r"[+-]?[0-9]{1,40}\Z")
_NUMBER = re.compile(r"[+-]?([0-9]{1,40}(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?\Z")


def convert(key: Key, value: object, complain: Complain) -> object:
    """The key's value made from what TOML holds, or INVALID after complaining."""
    if key.kind is Kind.TABLES:
        return _tables(key, value, complain)
    converted = _plain(key, value)
    if converted is INVALID:
        complain("", value, f"must be {allowed(key)}")
    return converted


def convert_text(key: Key, text: str, complain: Complain) -> object:
    """The key's value made from the text of a variable, an option or an expansion, or INVALID after complaining."""
    value = _read(key, text)
    if value is INVALID:
        complain("", text, f"must be {allowed(key)}")
        return INVALID
    return convert(key, value, complain)


def _read(key: Key, text: str) -> object:
    """Text to the type TOML would have given."""
    stripped = text.strip()
    if key.kind in (Kind.STRING, Kind.CHOICE):
        return text
    if key.kind is Kind.BOOLEAN:
        lowered = stripped.lower()
        return True if lowered in _TRUE else False if lowered in _FALSE else INVALID
    if key.kind is Kind.INTEGER:
        return int(stripped) if _INTEGER.match(stripped) else INVALID
    if key.kind is Kind.NUMBER:
        return float(stripped) if _NUMBER.match(stripped) else INVALID
    if key.kind is Kind.STRINGS and not stripped.startswith("["):
        return [item.strip() for item in text.split(",") if item.strip()]
    return _toml_value(stripped)


def _toml_value(text: str) -> object:
    try:
        table = tomllib.loads("value = " + text)
    except (ValueError, RecursionError):
        return INVALID
    return table["value"] if len(table) == 1 else INVALID


def _plain(key: Key, value: object) -> object:
    if key.kind is Kind.BOOLEAN:
        return value if isinstance(value, bool) else INVALID
    if key.kind is Kind.INTEGER:
        return value if isinstance(value, int) and not isinstance(value, bool) and _within(key, value) else INVALID
    if key.kind is Kind.NUMBER:
        return _number(key, value)
    if key.kind is Kind.STRING:
        return value if isinstance(value, str) and _fits(key, value) else INVALID
    if key.kind is Kind.CHOICE:
        return value if isinstance(value, str) and value in key.choices else INVALID
    if key.kind is Kind.STRING_MAP:
        good = isinstance(value, dict) and all(isinstance(item, str) for item in value.values())
        return value if good else INVALID
    if not isinstance(value, (list, tuple)):
        return INVALID
    if key.kind is Kind.STRINGS:
        return tuple(value) if all(isinstance(item, str) for item in value) else INVALID
    numbers = tuple(_number(key, item) for item in value)
    return INVALID if any(item is INVALID for item in numbers) else numbers


def _number(key: Key, value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return INVALID
    try:
        number = float(value)
    except OverflowError:
        return INVALID
    return number if math.isfinite(number) and _within(key, number) else INVALID


def _fits(key: Key, text: str) -> bool:
    """Whether a string is of the right length in UTF-8; bytes of a variable that are no UTF-8 never are."""
    try:
        return _within(key, len(text.encode()))
    except UnicodeEncodeError:
        return False


def _within(key: Key, number: float) -> bool:
    return (
        (key.minimum is None or number >= key.minimum)
        and (key.maximum is None or number <= key.maximum)
        and (key.above is None or number > key.above)
    )


def _tables(key: Key, value: object, complain: Complain) -> object:
    if not isinstance(value, (list, tuple)) or not all(isinstance(table, dict) for table in value):
        complain("", value, f"must be {allowed(key)}")
        return INVALID
    assert key.shape is not None, "every list of tables has a struct"
    built = []
    for index, table in enumerate(value):
        fields = _fields(key, table, _below(complain, f"[{index}]"))
        built.append(INVALID if fields is None else key.shape(**fields))
    return INVALID if any(table is INVALID for table in built) else tuple(built)


def _below(complain: Complain, place: str) -> Complain:
    return lambda path, value, message: complain(place + path, value, message)


def _hide(complain: Complain) -> Complain:
    return lambda path, value, message: complain(path, Hidden(), message)


def _fields(key: Key, table: Mapping[str, object], complain: Complain) -> dict[str, object] | None:
    """Arguments of the struct of one table, None after complaining about any of its keys."""
    by_name = {name: member for member in key.element for name in (member.path, *member.aliases)}
    fields: dict[str, object] = {}
    good = True
    for name, value in table.items():
        member = by_name.get(name)
        if member is None:
            complain(f".{name}", "", "unknown key" + did_you_mean(name, by_name))
            good = False
            continue
        converted = convert(member, value, _below(_hide(complain) if member.secret else complain, f".{name}"))
        if member.path in fields and converted is not INVALID and fields[member.path] != converted:
            complain(f".{name}", value, f"is another spelling of {member.path}, and the two disagree")
            good = False
        fields[member.path] = converted
        good = good and converted is not INVALID
    for member in key.element:
        if member.default is REQUIRED and member.path not in fields:
            complain(f".{member.path}", "", f"is missing: must be {allowed(member)}")
            good = False
    return fields if good else None


def allowed(key: Key) -> str:
    """What a value of this key may be, in words that fit after "must be"."""
    if key.kind is Kind.BOOLEAN:
        return "true or false"
    if key.kind is Kind.CHOICE:
        return "one of " + ", ".join(f'"{choice}"' for choice in key.choices)
    if key.kind is Kind.INTEGER:
        return "an integer" + _range(key)
    if key.kind is Kind.NUMBER:
        return "a number" + _range(key)
    if key.kind is Kind.STRING:
        return "a string" + _length(key)
    if key.kind is Kind.NUMBERS:
        return "a list of numbers"
    if key.kind is Kind.STRINGS:
        return "a list of strings"
    if key.kind is Kind.STRING_MAP:
        return "a table of strings"
    return "a list of tables" + (" with " + ", ".join(member.path for member in key.element) if key.element else "")


def _range(key: Key) -> str:
    unit = f" ({key.unit})" if key.unit else ""
    if key.above is not None:
        top = f" and at most {plain(key.maximum)}" if key.maximum is not None else ""
        return f" above {plain(key.above)}{top}{unit}"
    if key.minimum is not None and key.maximum is not None:
        return f" from {plain(key.minimum)} to {plain(key.maximum)}{unit}"
    return unit


def _length(key: Key) -> str:
    if key.minimum is not None and key.maximum is not None:
        return f" of {plain(key.minimum)} to {plain(key.maximum)} bytes of UTF-8"
    return f" of at most {plain(key.maximum)} bytes of UTF-8" if key.maximum is not None else ""


def plain(number: float | None) -> str:
    """A number without a needless `.0` or exponent."""
    if number is None:
        return ""
    return str(int(number)) if float(number).is_integer() else repr(number)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean ...?` for the known name nearest to an unknown one, or nothing."""
    near = difflib.get_close_matches(name[:_SHOWN_LENGTH], list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


def shown(value: object, *, secret: bool = False) -> str:
    """A value as messages show it: TOML-like, one line, cut, secrets redacted."""
    if secret or isinstance(value, Hidden):
        return REDACTED
    if isinstance(value, str) and not value:
        return ""
    if isinstance(value, float):
        text = plain(value) if math.isfinite(value) else str(value)
    elif isinstance(value, (dict, list, tuple)):
        text = _nested(value)
    elif isinstance(value, (str, bool)):
        text = json.dumps(without_secrets(value))
    elif isinstance(value, int) and value.bit_length() > 512:
        text = "an integer of many digits"
    else:
        text = str(value)
    return text if len(text) <= _SHOWN_LENGTH else text[:_SHOWN_LENGTH] + "…"


def _nested(value: object) -> str:
    try:
        return json.dumps(without_secrets(msgspec.to_builtins(value)), default=str)
    except (ValueError, RecursionError, OverflowError):
        return "…"


def without_secrets(value: object) -> object:
    """A value with whatever is secret by its name redacted, and the credentials in URLs, however deep it is nested."""
    if isinstance(value, str):
        return _CREDENTIALS.sub(REDACTED, value)
    if isinstance(value, dict):
        return {name: REDACTED if _is_secret(name) else without_secrets(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_secrets(item) for item in value]
    return value


def _is_secret(name: object) -> bool:
    return isinstance(name, str) and (name == "key" or any(word in name for word in _SECRET_NAMES))
