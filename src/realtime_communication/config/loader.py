"""Loading the configuration: layers, origins, and all that is wrong with them in one go.

Theory of operation. Each layer is a list of entries (path, raw value, origin): `config.toml`, `config.{profile}.toml`
beside it, the environment, the command line. An entry is expanded, converted and checked on its own, in its own layer,
so a mistake is reported even where a higher layer would have hidden it. Then the layers are laid over each other on
top of the defaults, a few values are derived, the struct is built, and the rules over several keys run. Lists and
tables of strings are replaced whole, never merged.
"""

from __future__ import annotations

import functools
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec

from realtime_communication.config.catalogue import (
    ALIASES,
    KEYS,
    SECTIONS,
    VARIABLES,
    find_option,
    option_names,
    resolve,
)
from realtime_communication.config.command_line import Arguments, parse_arguments
from realtime_communication.config.keys import Key, Kind, Section
from realtime_communication.config.origins import DEFAULT, Layer, Origin
from realtime_communication.config.profiles import DEFAULT_PROFILE, PROFILE_DEFAULTS, is_profile_name
from realtime_communication.config.schema import Config
from realtime_communication.config.sources import TomlFile, UnreadableFileError, UnsetVariableError, expand, read_toml
from realtime_communication.config.validation import Subject, advice, check
from realtime_communication.config.values import INVALID, convert, convert_text, did_you_mean, shown, without_secrets
from realtime_communication.errors import ConfigurationError, ConfigurationProblem

_FILE_NAME = "config.toml"
_LONGEST_PART = 1000
_REDIS_SCHEMES = ("redis://", "rediss://", "unix://")
_fields_of = functools.cache(msgspec.structs.fields)  # which evaluates every annotation again at each call


class LoadedConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A configuration that passed every check, and how it came about.

    - `config`: the values
    - `profile`: name of the profile
    - `origins`: where each value came from, by path, for every key of the schema
    - `files`: the files that were read, in order
    - `warnings`: lines to log at start, about settings that are allowed and still seldom meant
    - `secret_made`: the signing secret was made for this run
    - `words`, `directory`: the command line and the working directory, to load the same again
    """

    config: Config
    profile: str
    origins: Mapping[str, Origin]
    files: tuple[Path, ...] = ()
    warnings: tuple[str, ...] = ()
    secret_made: bool = False
    words: tuple[str, ...] = ()
    directory: Path | None = None


class _Entry(msgspec.Struct, frozen=True):
    """A value as found in one layer. `path` is as spelled there; `is_text`: it needs parsing, not only checking."""

    path: str
    raw: object
    origin: Origin
    is_text: bool
    file: TomlFile | None = None


def load(
    words: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    directory: Path | None = None,
    *,
    made_secret: str | None = None,
) -> LoadedConfig:
    """Load and check the configuration.

    `words` is a command line without program name and subcommand, `environ` defaults to the process environment, and
    `directory` (default: the working directory) is where config.toml is looked for when --config names no file.
    `made_secret` is the signing secret that an earlier load made for this run, to be kept.
    Raises ConfigurationError, and nothing else, with everything that is wrong.
    """
    return _Loader(words, os.environ if environ is None else environ, directory or Path(), made_secret).load()


class _Loader:
    """One load. `values` and `origins` fill up layer by layer; `wrong` holds the paths with a faulty value."""

    def __init__(
        self, words: Sequence[str], environ: Mapping[str, str], directory: Path, made_secret: str | None
    ) -> None:
        self.words = tuple(words)
        self.made_secret = made_secret
        self.environ = environ
        self.directory = directory
        self.problems: list[ConfigurationProblem] = []
        self.values: dict[str, object] = {path: key.default for path, key in KEYS.items()}
        self.origins: dict[str, Origin] = dict.fromkeys(KEYS, DEFAULT)
        self.wrong: set[str] = set()
        self.files: list[Path] = []
        self.unread = False  # a file could not be read
        self.secret_made = False
        self.profile = DEFAULT_PROFILE

    def load(self) -> LoadedConfig:
        arguments = parse_arguments(self.words, find_option)
        profile = self.profile = self._profile(arguments)
        self._lay([(path, value, Origin(Layer.PROFILE, profile)) for path, value in _profile_defaults(profile)])
        for entries in self._file_layers(arguments, profile):
            self._lay(self._layer(entries))
        self._lay(self._layer(self._environment()))
        for problem in arguments.problems:
            self._problem(problem.key, problem.value, problem.origin, problem.message)
        self._lay(self._layer(self._command_line(arguments)))
        self._derive()
        config = self._build(Config, "")
        subject = Subject(config, profile, self.secret_made)
        for path, message in check(subject, self.wrong):
            if self._is_known(path):
                self._complain_about(path, message)
        if self.problems:
            raise ConfigurationError(self.problems)
        return LoadedConfig(
            config=config,
            profile=profile,
            origins={path: self.origins[path] for path in KEYS},
            files=tuple(self.files),
            warnings=(*advice(subject), *self._exposed()),
            secret_made=self.secret_made,
            words=self.words,
            directory=self.directory,
        )

    def _is_known(self, place: str) -> bool:
        """Whether the value at a place is what was configured: a file that cannot be read may say something else."""
        return not self.unread or self.origins[place.partition("[")[0]].layer > Layer.PROFILE

    # Layers

    def _profile(self, arguments: Arguments) -> str:
        name = arguments.profile if arguments.profile is not None else DEFAULT_PROFILE
        if is_profile_name(name) and (name in PROFILE_DEFAULTS or self._profile_path(arguments, name).exists()):
            return name
        hint = did_you_mean(name, PROFILE_DEFAULTS)
        message = f"must be one of {', '.join(PROFILE_DEFAULTS)}, or have a file config.<profile>.toml{hint}"
        self._problem("profile", shown(name), "command line --profile", message)
        return DEFAULT_PROFILE

    def _profile_path(self, arguments: Arguments, profile: str) -> Path:
        beside = arguments.config_file.parent if arguments.config_file is not None else self.directory
        return beside / f"config.{profile}.toml"

    def _file_layers(self, arguments: Arguments, profile: str) -> Iterator[list[_Entry]]:
        named = arguments.config_file
        main = named if named is not None else self.directory / _FILE_NAME
        for layer, path, required in (
            (Layer.FILE, main, named is not None),
            (Layer.PROFILE_FILE, self._profile_path(arguments, profile), False),
        ):
            if not required and not os.path.lexists(path):
                continue
            try:
                file = read_toml(path)
            except UnreadableFileError as error:
                self.unread = True
                self._problem("", "", str(path), str(error))
                continue
            self.files.append(path)
            yield list(self._file_entries(file, layer, file.content, ()))

    def _file_entries(
        self, file: TomlFile, layer: Layer, table: Mapping[str, object], above: tuple[str, ...]
    ) -> Iterator[_Entry]:
        for name, value in table.items():
            place = (*above, name)
            path = ".".join(place)
            origin = Origin(layer, file.name, file.line(place))
            if "." in name or (path not in SECTIONS and resolve(path) is None):
                self._problem(path, "", str(origin), _unknown(path, is_section=isinstance(value, dict)))
            elif path not in SECTIONS:
                yield _Entry(path, value, origin, is_text=False, file=file)
            elif isinstance(value, dict):
                yield from self._file_entries(file, layer, value, place)
            else:
                self._problem(path, shown(value), str(origin), "is a section: must be a table of keys")

    def _environment(self) -> Iterator[_Entry]:
        for variable, key in VARIABLES.items():
            text = self.environ.get(variable)
            if text:  # an empty variable counts as not set: container tools cannot leave one out
                yield _Entry(key.path, text, Origin(Layer.ENVIRONMENT, variable), is_text=True)

    def _command_line(self, arguments: Arguments) -> Iterator[_Entry]:
        for argument in arguments.arguments:
            origin = Origin(Layer.COMMAND_LINE, argument.option[:80])
            key = find_option(argument.name)
            if key is None:
                hint = did_you_mean(argument.name, option_names()) or did_you_mean(argument.option[2:], option_names())
                self._problem(argument.option, "", "command line", "unknown option" + hint)
                continue
            path = argument.name if resolve(argument.name) is not None else key.path
            yield _Entry(path, argument.text, origin, is_text=True)

    # One layer

    def _layer(self, entries: Iterator[_Entry] | list[_Entry]) -> list[tuple[str, object, Origin]]:
        """Convert the entries of a layer; two spellings of one key that disagree are a problem."""
        found: dict[str, tuple[object, Origin, str]] = {}
        for entry in entries:
            key = resolve(entry.path)
            assert key is not None, "entries are made for known keys only"
            value = self._convert(entry, key.spelled(entry.path))
            factor = key.aliases.get(entry.path, 1.0)
            if factor != 1.0 and isinstance(value, float):
                value *= factor
            if value is INVALID:
                self.wrong.add(key.path)
                continue
            earlier = found.get(key.path)
            if earlier is not None and earlier[0] != value:
                self.wrong.add(key.path)
                message = f"is another spelling of {_other_name(earlier, entry)} ({earlier[1]}), and the two disagree"
                self._problem(entry.path, shown(entry.raw, secret=key.secret), str(entry.origin), message)
            found[key.path] = (value, entry.origin, entry.path)
        return [(path, value, origin) for path, (value, origin, _) in found.items()]

    def _convert(self, entry: _Entry, key: Key) -> object:
        """The value in the unit in which it is spelled, or INVALID after complaining."""
        raw, is_text = entry.raw, entry.is_text
        if entry.file is not None:
            if self._secret_left_open(entry, key):
                return ""
            try:
                raw = expand(raw, self.environ)
            except UnsetVariableError as error:
                self._problem(entry.path, shown(entry.raw, secret=key.secret), str(entry.origin), str(error))
                return INVALID
            is_text = isinstance(raw, str) and raw != entry.raw

        def complain(below: str, value: object, message: str) -> None:
            origin = entry.origin
            if entry.file is not None and below:
                line = entry.file.line((*entry.path.split("."), *_place(below)))
                origin = msgspec.structs.replace(origin, line=line)
            text = shown(value, secret=key.secret)
            self._problem(entry.path + below, text, str(origin), message)

        return convert_text(key, raw, complain) if isinstance(raw, str) and is_text else convert(key, raw, complain)

    def _secret_left_open(self, entry: _Entry, key: Key) -> bool:
        """Whether a file takes the secret from a JWT_SECRET that is not set, in the profile that needs none."""
        return (
            self.profile == "dev"
            and key.path == "auth.jwt_secret"
            and entry.raw == "${JWT_SECRET}"
            and "JWT_SECRET" not in self.environ
        )

    def _lay(self, layer: list[tuple[str, object, Origin]]) -> None:
        for path, value, origin in layer:
            self.values[path] = value
            self.origins[path] = origin

    # What follows from the values

    def _derive(self) -> None:
        """Defaults that bend to what was set, and the secret a development run makes for itself."""
        self._bend("websocket.max_frame_size", "websocket.max_message_size", 1)
        self._bend("websocket.heartbeat_interval_secs", "websocket.client_timeout_secs", 0.5)
        self._bend("redis.pool.max_size", "redis.pool_size", 1, raised=True)
        self._bend("redis.pool_size", "redis.pool.max_size", 1)
        self._bend("redis.pool.min_idle", "redis.pool_size", 1)
        needs_none = self.profile == "dev" or (self.profile == "test" and self.values["testing.bypass_auth"] is True)
        if needs_none and not self.values["auth.jwt_secret"] and "auth.jwt_secret" not in self.wrong:
            self.values["auth.jwt_secret"] = self.made_secret or secrets.token_urlsafe(48)
            self.origins["auth.jwt_secret"] = Origin(Layer.DERIVED, "made for this run")
            self.secret_made = True

    def _bend(self, path: str, other: str, share: float, *, raised: bool = False) -> None:
        """Bring a default to a share of the value it must not exceed (`raised`: not fall below); a value somebody set
        stays as it is."""
        value, bound = cast("float", self.values[path]), cast("float", self.values[other]) * share
        wrong = value < bound if raised else value > bound
        if self.origins[path] is DEFAULT and self.origins[other] is not DEFAULT and wrong:
            self.values[path] = int(bound) if KEYS[path].kind is Kind.INTEGER else bound
            self.origins[path] = Origin(Layer.DERIVED, f"default, {'raised' if raised else 'lowered'} to fit {other}")

    def _build(self, shape: Any, prefix: str) -> Any:
        """The struct of a section, values that are wrong left at their defaults."""
        arguments: dict[str, object] = {}
        for field in _fields_of(shape):
            path = prefix + field.encode_name
            if path in KEYS:
                arguments[field.name] = self.values[path]
            else:
                section = cast("type[Section]", field.default_factory)
                arguments[field.name] = self._build(section, path + ".")
        return shape(**arguments)

    def _exposed(self) -> Iterator[str]:
        """Warnings about secrets that every user of this machine can read."""
        for path, origin in self.origins.items():
            if origin.layer is Layer.COMMAND_LINE and _holds_secret(path, self.values[path]):
                yield (
                    f"{_printable(origin.name)} holds a secret, and every user of this machine sees command lines: "
                    f"use a file or the environment for {path}"
                )

    # Problems

    def _problem(self, key: str, value: str, origin: str, message: str) -> None:
        self.problems.append(ConfigurationProblem(*map(_printable, (key, value, origin, message))))

    def _complain_about(self, place: str, message: str) -> None:
        """Report what a rule found, with the value and the origin of the key it names."""
        path = place.partition("[")[0]
        key, origin, value = KEYS[path], self.origins[path], self.values[path]
        if path == place:
            text = shown(value, secret=key.secret) if value not in ("", ()) else ""
        else:
            text = shown(_at(value, _place(place.removeprefix(path))), secret=place.endswith("].key"))
        where = "" if origin is DEFAULT and text == "" else str(origin)
        self._problem(place, text, where, message)


def _profile_defaults(profile: str) -> Iterator[tuple[str, object]]:
    yield from PROFILE_DEFAULTS.get(profile, {}).items()


def _other_name(earlier: tuple[object, Origin, str], entry: _Entry) -> str:
    return earlier[2] if earlier[2] != entry.path else earlier[1].name


def _unknown(path: str, *, is_section: bool) -> str:
    if is_section:
        return "unknown section" + did_you_mean(path, SECTIONS)
    parent = path.rpartition(".")[0]
    siblings = [name for name in (*KEYS, *ALIASES) if name.rpartition(".")[0] == parent]
    return "unknown key" + (did_you_mean(path, siblings) or did_you_mean(path, (*KEYS, *ALIASES)))


def _place(below: str) -> tuple[str | int, ...]:
    """`[0].keys[1].hash` as ("0", "keys", "1", "hash") with the indices as integers."""
    parts = below.replace("[", ".").replace("]", "").split(".")
    return tuple(int(part) if part.isdigit() else part for part in parts if part)


def _at(value: object, place: tuple[str | int, ...]) -> object:
    for part in place:
        value = cast("Sequence[object]", value)[part] if isinstance(part, int) else getattr(value, part)
    return value


def _printable(text: str) -> str:
    """Part of a problem as one line of bounded length, whatever a name from outside holds."""
    return "".join(character if character.isprintable() else "?" for character in text[:_LONGEST_PART])


def _holds_secret(path: str, value: object) -> bool:
    """Whether a value says what nobody else should know; an address of Redis does so only with a password in it."""
    if not KEYS[path].secret:
        plain = msgspec.to_builtins(value)
        return bool(without_secrets(plain) != plain)
    texts = value if isinstance(value, tuple) else (value,)
    return any(
        text and (not str(text).startswith(_REDIS_SCHEMES) or "@" in str(text) or "password=" in str(text))
        for text in texts
    )
