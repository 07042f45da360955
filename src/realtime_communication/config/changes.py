"""Changes of a configuration that is in force: from its files read again, or from an administrator.

Only keys that are `live` can change without a restart. Nothing here applies anything: the result is a new
`LoadedConfig` and the list of what is different.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from realtime_communication.config.catalogue import KEYS
from realtime_communication.config.keys import Key, Section
from realtime_communication.config.loader import LoadedConfig
from realtime_communication.config.origins import DEFAULT, Layer, Origin
from realtime_communication.config.schema import Config
from realtime_communication.config.validation import Subject, check
from realtime_communication.config.values import INVALID, convert, shown
from realtime_communication.errors import ConfigurationError, ConfigurationProblem


class Difference(msgspec.Struct, frozen=True):
    """A key whose value is another one, both as shown to people: secrets are redacted."""

    path: str
    before: str
    after: str


class Merged(msgspec.Struct, frozen=True):
    """What comes of reading the configuration again: `loaded` has the new values of live keys and the old ones of all
    others; `live` and `restart` name the keys that differ."""

    loaded: LoadedConfig
    live: tuple[Difference, ...]
    restart: tuple[Difference, ...]


def merge(current: LoadedConfig, fresh: LoadedConfig) -> Merged:
    """Take over from `fresh` what can change while the server runs.

    Raises ConfigurationError when that contradicts what cannot.
    """
    live: dict[str, object] = {}
    origins = dict(current.origins)
    differences: dict[bool, list[Difference]] = {True: [], False: []}
    for path, key in KEYS.items():
        before, after = value_of(current.config, path), value_of(fresh.config, path)
        if before != after:
            differences[key.live].append(_difference(key, before, after))
        if key.live or before == after:
            live[path] = after
            origins[path] = fresh.origins[path]
    config = replaced(current.config, live)
    _check(config, current, live, origins)
    loaded = msgspec.structs.replace(fresh, config=config, profile=current.profile, origins=origins)
    return Merged(loaded, tuple(differences[True]), tuple(differences[False]))


def changed(current: LoadedConfig, values: Mapping[str, object], who: str) -> Merged:
    """The configuration with the `values` of some keys, by dotted path, that `who` asked for.

    Raises ConfigurationError that names each key that does not exist, is not live, or whose value is not allowed.
    """
    problems: list[ConfigurationProblem] = []
    converted: dict[str, object] = {}
    for path, value in values.items():
        key = KEYS.get(path)
        if key is None or not key.live:
            message = "unknown key" if key is None else "cannot change while the server runs"
            problems.append(ConfigurationProblem(path, "", "", message))
            continue
        converted[path] = convert(key, value, _Complaints(problems, key))
    if problems or any(value is INVALID for value in converted.values()):
        raise ConfigurationError(problems)
    config = replaced(current.config, converted)
    origins = {**current.origins, **dict.fromkeys(converted, Origin(Layer.ADMINISTRATOR, who))}
    _check(config, current, converted, origins)
    differences = tuple(
        _difference(KEYS[path], before, value)
        for path, value in converted.items()
        if (before := value_of(current.config, path)) != value
    )
    return Merged(msgspec.structs.replace(current, config=config, origins=origins), differences, ())


def _check(config: Config, current: LoadedConfig, keys: Collection[str], origins: Mapping[str, Origin]) -> None:
    subject = Subject(config, current.profile, current.secret_made)
    problems = [
        ConfigurationProblem(place, "", _told(origins.get(place.partition("[")[0], DEFAULT)), message)
        for place, message in check(subject, changed=keys)
    ]
    if problems:
        raise ConfigurationError(problems)


def _told(origin: Origin) -> str:
    """As a problem tells it: a default is nobody's line."""
    return "" if origin.layer is Layer.DEFAULT else str(origin)


def value_of(config: Config, path: str) -> object:
    """The value of the key at a dotted path."""
    value: Any = config
    for name in path.split("."):
        value = getattr(value, attribute(value, name))
    return value


def attribute(section: Section, name: str) -> str:
    """Name of the attribute of a key: the same but for Python's keywords."""
    return name if hasattr(section, name) else name + "_"


def replaced(config: Config, values: Mapping[str, object]) -> Config:
    """A configuration with other values at some dotted paths."""
    made: Config = _replaced(config, [(path.split("."), value) for path, value in values.items()])
    return made


def _replaced(section: Any, values: list[tuple[list[str], object]]) -> Any:
    own: dict[str, object] = {}
    below: dict[str, list[tuple[list[str], object]]] = {}
    for (name, *rest), value in values:
        field = attribute(section, name)
        if rest:
            below.setdefault(field, []).append((rest, value))
        else:
            own[field] = value
    for field, inner in below.items():
        own[field] = _replaced(getattr(section, field), inner)
    return msgspec.structs.replace(section, **own)


class _Complaints:
    """Collects what `convert` complains about."""

    def __init__(self, problems: list[ConfigurationProblem], key: Key) -> None:
        self._problems = problems
        self._key = key

    def __call__(self, below: str, value: object, message: str) -> None:
        text = shown(value, secret=self._key.secret)
        self._problems.append(ConfigurationProblem(self._key.path + below, text, "", message))


def _difference(key: Key, before: object, after: object) -> Difference:
    return Difference(key.path, shown(before, secret=key.secret), shown(after, secret=key.secret))
