"""All keys by every name they have: path, alias, variable, short option."""

from __future__ import annotations

from realtime_communication.config.keys import Key, keys_of
from realtime_communication.config.later import LATER, LaterKey
from realtime_communication.config.schema import Config

KEYS: dict[str, Key] = {key.path: key for key in keys_of(Config)}
"""Keys this version acts on, by path, in the order of the schema."""

LATER_KEYS: dict[str, LaterKey] = {later.key.path: later for later in LATER}

ALL_KEYS: dict[str, Key] = {**KEYS, **{path: later.key for path, later in LATER_KEYS.items()}}

ALIASES: dict[str, tuple[str, float]] = {
    **{alias: (key.path, 1.0) for key in KEYS.values() for alias in key.aliases},
    **{alias: (later.key.path, factor) for later in LATER for alias, factor in later.aliases},
}
"""Other spellings: the path they mean and the factor from their unit to the key's."""

VARIABLES: dict[str, Key] = {variable: key for key in ALL_KEYS.values() for variable in key.variables}

_OPTIONS: dict[str, Key] = {variable.lower(): key for variable, key in VARIABLES.items()}

SECTIONS: frozenset[str] = frozenset(
    path[:at] for path in (*ALL_KEYS, *ALIASES) for at in range(len(path)) if path[at] == "."
)
"""Paths of the tables that hold keys."""


def resolve(path: str) -> tuple[Key, float] | None:
    """The key a dotted path means, and the factor to its unit; None when there is no such key."""
    canonical, factor = ALIASES.get(path, (path, 1.0))
    key = ALL_KEYS.get(canonical)
    return (key, factor) if key is not None else None


def find_option(name: str) -> Key | None:
    """The key of an option without its dashes: a dotted path or a short option, `_` for `-`."""
    resolved = resolve(name)
    return resolved[0] if resolved is not None else _OPTIONS.get(name)


def option_names() -> tuple[str, ...]:
    """Every name an option can have, without its dashes, for suggestions."""
    return (*ALL_KEYS, *ALIASES, *(name.replace("_", "-") for name in _OPTIONS), "profile", "config")
