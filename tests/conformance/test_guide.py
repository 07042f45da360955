"""Every key and variable that the configuration guide names does what it says.

`guide.toml` holds what the guide names. Each entry must be known, have the promised type and default, and have a test
of its effect in the table of `effects/test_every_key.py`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from effects.test_every_key import EFFECTS
from realtime_communication.config import load
from realtime_communication.config.catalogue import ALIASES, KEYS, VARIABLES, resolve
from realtime_communication.config.changes import value_of
from realtime_communication.config.keys import Key, Kind
from realtime_communication.config.reference import toml
from realtime_communication.errors import ConfigurationError

GUIDE = tomllib.loads(Path(__file__).with_name("guide.toml").read_text())
SECRET = {"JWT_SECRET": "s" * 32}
KINDS = {
    "boolean": {Kind.BOOLEAN},
    "integer": {Kind.INTEGER, Kind.NUMBER},
    "number": {Kind.NUMBER},
    "string": {Kind.STRING, Kind.CHOICE},
    "list": {Kind.STRINGS, Kind.NUMBERS, Kind.TABLES},
    "table of strings": {Kind.STRING_MAP},
}
# What the guide's first file says instead of a default: where a secret comes from, and files that are examples.
EXAMPLES = {"auth.jwt_secret", "redis.url", "tls.cert_file", "tls.key_file", "tls.ca_file"}
SPELLINGS = [(alias, path) for alias, path in ALIASES.items()]
# What must be said too where one key alone is refused.
ALSO = {
    "redis.cluster.enabled": 'redis.cluster.nodes = ["redis://node1:6379"]',
    "security.tls.enabled": "",
}

every_key = pytest.mark.parametrize("entry", GUIDE["keys"], ids=lambda entry: entry["path"])


def members(path: str) -> Iterator[Key]:
    """The keys on the way to `path`, which may lead into lists of tables: `auth.providers[].name`."""
    first, *rest = path.split("[].")
    key = resolve(first)
    assert key is not None, f"{first} is no key"
    yield key
    for name in rest:
        key = next(member for member in key.element if name in (member.path, *member.aliases))
        yield key


def canonical(path: str) -> str:
    return "[].".join(key.path for key in members(path))


@every_key
def test_known_with_the_promised_type(entry: dict[str, Any]) -> None:
    *_, key = members(entry["path"])
    assert key.kind in KINDS[entry["type"]]


@every_key
def test_default(entry: dict[str, Any]) -> None:
    path = entry["path"]
    if "default" not in entry or path in EXAMPLES:
        return
    *_, key = members(path)
    assert key.spelled(path).default == entry["default"]


@every_key
def test_has_a_test_of_its_effect(entry: dict[str, Any]) -> None:
    assert canonical(entry["path"]) in EFFECTS


@pytest.mark.parametrize("entry", GUIDE["variables"], ids=lambda entry: entry["name"])
def test_variable(entry: dict[str, Any]) -> None:
    key = VARIABLES[entry["name"]]
    if entry.get("required"):
        assert key.path == "auth.jwt_secret"
    elif "default" in entry:
        promised = entry["default"]
        expected = promised if isinstance(key.default, str) else tomllib.loads(f"value = {promised}")["value"]
        assert key.default == expected


def value(key: Key) -> object:
    """A value that is allowed, and not the default, in the unit of the spelling `key` was made for."""
    if key.kind is Kind.BOOLEAN:
        return not key.default
    if key.kind is Kind.CHOICE:
        return key.choices[-1] if key.default != key.choices[-1] else key.choices[0]
    if key.kind in (Kind.INTEGER, Kind.NUMBER):
        return key.default + 1  # type: ignore[operator]
    lists = {Kind.STRINGS: ["ECDHE-RSA-AES128-GCM-SHA256"], Kind.NUMBERS: [0.5, 1.5]}
    return lists.get(key.kind, "/other" if key.path.endswith(("path", "_file")) else "other")


@pytest.mark.parametrize(("alias", "path"), SPELLINGS, ids=list(ALIASES))
class TestBothSpellings:
    """Each alias and the key it means."""

    def test_mean_the_same(self, alias: str, path: str, tmp_path: Path) -> None:
        key = KEYS[path]
        given = value(key.spelled(alias))
        text = f"{alias} = {toml(given)}\n" + ALSO.get(path, "")
        if path == "security.tls.enabled":
            text = f"{alias} = true\n"
        (tmp_path / "config.toml").write_text(text)
        if path == "security.tls.enabled":  # its files are missing, which shows that it is understood
            with pytest.raises(ConfigurationError) as caught:
                load([], SECRET, tmp_path)
            assert {problem.key for problem in caught.value.problems} == {
                "security.tls.cert_file",
                "security.tls.key_file",
            }
            return
        loaded = load([], SECRET, tmp_path)
        expected = given * key.aliases[alias] if isinstance(given, float) else given  # type: ignore[operator]
        found = value_of(loaded.config, path)
        assert (list(found) if isinstance(found, tuple) else found) == expected

    def test_that_disagree_are_refused(self, alias: str, path: str, tmp_path: Path) -> None:
        key = KEYS[path]
        one, other = value(key.spelled(alias)), key.default
        (tmp_path / "config.toml").write_text(f"{alias} = {toml(one)}\n{path} = {toml(other)}\n")
        with pytest.raises(ConfigurationError) as caught:
            load([], SECRET, tmp_path)
        (problem,) = [problem for problem in caught.value.problems if "disagree" in problem.message]
        assert {problem.key} < {alias, path} and problem.origin.endswith("config.toml:2")
