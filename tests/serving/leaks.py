"""Secrets in what the servers under test write: each server's log is looked through when the server is disposed of.

What is found is kept until the test that disposed of the server ends, and fails it then (`tests/conftest.py`): so
every server is stopped all the same, and the one that wrote too much is told with its test, in whatever process.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from realtime_communication.config.catalogue import KEYS
from realtime_communication.config.keys import Key
from serving.tokens import ADMIN_KEY, SECRET

SHORTEST = 8
"""Characters of a secret that is looked for: what is shorter may stand in a log by chance."""

_ALWAYS = (SECRET, ADMIN_KEY)
_TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_GIVEN_AWAY = re.compile(r"^token of 'demo': .*$", re.MULTILINE)  # by a server of the profile dev, for trying it

_found: list[str] = []


def secrets_of(settings: Mapping[str, Any]) -> set[str]:
    """The values of secret keys in a configuration, and the passwords in its URLs."""
    return {value for value in _walk(settings) if len(value) >= SHORTEST and "${" not in value}


def _walk(value: Any, name: str = "") -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _walk(inner, key)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _walk(inner, name)
    elif isinstance(value, str):
        if name in _SECRET_NAMES:
            yield value
        if "://" in value and (password := _password_of(value)):
            yield password


def _password_of(url: str) -> str | None:
    try:
        password = urlsplit(url).password
    except ValueError:
        return None
    return None if password is None else unquote(password)


def _secret_names(keys: Iterator[Key]) -> Iterator[str]:
    for key in keys:
        if key.secret:
            yield key.path.rpartition(".")[2]
        yield from _secret_names(iter(key.element))


_SECRET_NAMES = frozenset(_secret_names(iter(KEYS.values())))


def look(log: str, secrets: set[str], whose: str) -> None:
    """Keep what the log tells of the secrets, and of any token, for `raise_found`."""
    log = _GIVEN_AWAY.sub("", log)
    shown = [(secret, "a secret of its configuration") for secret in {*_ALWAYS, *secrets} if secret in log]
    shown += [(found[0], "a token") for found in _TOKEN.finditer(log)]
    for text, kind in shown[:10]:
        at = log.index(text)
        line = log[log.rfind("\n", 0, at) + 1 :].partition("\n")[0]
        _found.append(f"{whose} wrote {kind}: {line.replace(text, '<here>')[:1000]}")


def raise_found() -> None:
    """Raises AssertionError with what was found since the last call."""
    found, _found[:] = list(_found), []
    assert not found, "\n".join(found)
