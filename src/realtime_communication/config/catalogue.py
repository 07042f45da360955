"""All keys by every name they have: path, alias, variable, short option."""

from __future__ import annotations

from realtime_communication.config.keys import Key, keys_of
from realtime_communication.config.schema import Config

KEYS: dict[str, Key] = {key.path: key for key in keys_of(Config)}
"""By path, in the order of the schema."""

ALIASES: dict[str, str] = {alias: key.path for key in KEYS.values() for alias in key.aliases}
"""Other spellings, and the path they mean."""

VARIABLES: dict[str, Key] = {variable: key for key in KEYS.values() for variable in key.variables}

_OPTIONS: dict[str, Key] = {variable.lower(): key for variable, key in VARIABLES.items()}

SECTIONS: frozenset[str] = frozenset(
    path[:at] for path in (*KEYS, *ALIASES) for at in range(len(path)) if path[at] == "."
)
"""Paths of the tables that hold keys."""


def resolve(path: str) -> Key | None:
    """The key a dotted path means; None when there is no such key."""
    return KEYS.get(ALIASES.get(path, path))


def find_option(name: str) -> Key | None:
    """The key of an option without its dashes: a dotted path or a short option, `_` for `-`."""
    return resolve(name) or _OPTIONS.get(name)


def option_names() -> tuple[str, ...]:
    """Every name an option can have, without its dashes, for suggestions."""
    return (*KEYS, *ALIASES, *(name.replace("_", "-") for name in _OPTIONS), "profile", "config")
