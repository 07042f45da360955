"""What is generated from the schema: the effective configuration, the JSON Schema, the reference for docs."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from realtime_communication.config.catalogue import KEYS
from realtime_communication.config.changes import value_of
from realtime_communication.config.examples import EXAMPLES
from realtime_communication.config.keys import REDACTED, REQUIRED, Key, Kind, Section
from realtime_communication.config.loader import LoadedConfig
from realtime_communication.config.schema import Config
from realtime_communication.config.values import allowed, plain, without_secrets

_EXPANSION = {"type": "string", "pattern": r"\$\{"}
"""Any value of a file may be a string with `${VAR}` in it, whatever the key's type."""


def effective(loaded: LoadedConfig) -> Iterator[tuple[Key, object, str]]:
    """Each key with its effective value, secrets redacted, and the words for its origin."""
    for path, key in KEYS.items():
        value: Any = value_of(loaded.config, path)
        if key.secret:
            value = REDACTED if value else type(value)()
        yield key, without_secrets(msgspec.to_builtins(value)), str(loaded.origins[path])


def show(loaded: LoadedConfig) -> str:
    """The effective configuration as TOML, the origin of each value in a comment."""
    lines = [f"# profile {loaded.profile}; files: {', '.join(map(str, loaded.files)) or 'none'}"]
    lines += [f"{key.path} = {toml(value)}  # {origin}" for key, value, origin in effective(loaded)]
    return "\n".join(lines)


def show_json(loaded: LoadedConfig) -> str:
    """The effective configuration and origins as JSON."""
    return json.dumps(as_object(loaded), indent=2)


def as_object(loaded: LoadedConfig) -> dict[str, object]:
    """Profile, files, and each key with its value and origin; secrets redacted."""
    keys = {key.path: {"value": value, "origin": origin} for key, value, origin in effective(loaded)}
    return {"profile": loaded.profile, "files": [str(path) for path in loaded.files], "keys": keys}


def toml(value: object) -> str:
    """A value as TOML, tables inline."""
    if isinstance(value, float):
        return plain(value)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(toml(item) for item in value) + "]"
    if isinstance(value, dict):
        inner = ", ".join(f"{name} = {toml(item)}" for name, item in value.items() if item is not None)
        return "{ " + inner + " }" if inner else "{}"
    # TOML's basic strings, integers and booleans are written like JSON's, but for surrogate pairs and DEL.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def json_schema() -> dict[str, object]:
    """JSON Schema (2020-12) of a configuration file."""
    root: dict[str, Any] = _object()
    for key in KEYS.values():
        for path in (key.path, *key.aliases):
            *sections, name = path.split(".")
            place = root
            for section in sections:
                place = place["properties"].setdefault(section, _object())
            place["properties"][name] = _key_schema(key.spelled(path))
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "realtime_communication configuration",
        **root,
    }


def _object() -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": {}}


def _key_schema(key: Key) -> dict[str, object]:
    schema = _value_schema(key)
    if key.kind is not Kind.STRING:
        schema = {"anyOf": [schema, _EXPANSION]}
    schema["description"] = key.effect
    if key.path in EXAMPLES:
        schema["examples"] = [EXAMPLES[key.path]]
    if key.default is not REQUIRED and not key.secret:
        schema["default"] = msgspec.to_builtins(key.default)
    return schema


def _value_schema(key: Key) -> dict[str, object]:
    if key.kind is Kind.BOOLEAN:
        return {"type": "boolean"}
    if key.kind is Kind.CHOICE:
        return {"enum": list(key.choices)}
    if key.kind is Kind.STRING:
        # The bounds count bytes and hold after expansion, so a schema of characters can only say "not empty".
        return {"type": "string", **({"minLength": 1} if key.minimum else {})}
    if key.kind is Kind.STRINGS:
        return {"type": "array", "items": {"type": "string"}}
    if key.kind is Kind.NUMBERS:
        return {"type": "array", "items": {"type": "number"}}
    if key.kind is Kind.STRING_MAP:
        return {"type": "object", "additionalProperties": {"type": "string"}}
    if key.kind is Kind.TABLES:
        return {"type": "array", "items": _table_schema(key)}
    bounds = {"minimum": key.minimum, "maximum": key.maximum, "exclusiveMinimum": key.above}
    return {
        "type": "integer" if key.kind is Kind.INTEGER else "number",
        **{name: bound for name, bound in bounds.items() if bound is not None},
    }


def _table_schema(key: Key) -> dict[str, Any]:
    names = {name: member for member in key.element for name in (member.path, *member.aliases)}
    required = [member.path for member in key.element if member.default is REQUIRED and not member.aliases]
    schema = {**_object(), "properties": {name: _key_schema(member) for name, member in names.items()}}
    return {**schema, "required": required} if required else schema


_HEAD = """\
# Configuration reference

Every key, generated from the schema by `rtc config reference`. Values come in layers, later ones win: defaults,
the profile, `config.toml`, `config.{profile}.toml` beside it, environment variables, command line.

- The file is `config.toml` in the working directory, or the one `--config` names. `${VAR}` and `${VAR:-default}` are
  expanded in its strings; `$${` is a plain `${`. A variable that is not set and has no default is an error.
- On the command line every key is `--section.key=value`; a key with an environment variable has a short option too, the
  variable's name in lower case with dashes: `MAX_CONNECTIONS`, `--max-connections`. Lists are written with commas or as
  TOML.
- A list or table in a higher layer replaces the one below it as a whole.
- An environment variable that is empty counts as not set.
- Profiles are `dev`, `test` and `prod` (the default); any other name needs its `config.<name>.toml`.
- Whatever is wrong is reported in one go on standard error, and the exit status is 78.

`rtc config check` validates, `rtc config show` prints the effective values and where each came from, and
`rtc config schema` prints the JSON Schema that lies beside this page as `configuration.schema.json`. Editors that know
TOML schemas take it from a first line `#:schema ./configuration.schema.json` in the file.

*Live* keys change while the server runs: SIGHUP (`kill -HUP`) reads the files again, puts those that are live into
force and names the others, which need a restart, in the log. A file with a mistake changes nothing. TLS certificates
and keys are read again too; connections that are open stay. After a change of `auth.jwt_secret` tokens signed with the
one before are accepted until they expire. Limits and the log level can be changed over HTTP too, until the next reload.
"""


def markdown() -> str:
    """The reference as Markdown."""
    parts = [_HEAD]
    for title, section, keys in _sections(Config, ""):
        parts.append(f"## `[{title}]`\n\n{inspect.getdoc(section)}\n\n" + _table(keys))
        for key in keys:
            if key.element:
                parts += _element(key.path, key)
    for path, key in KEYS.items():
        if "." not in path:
            parts += _element(path, key, level="##")
    return "\n".join(parts)


def _sections(shape: type[Section], prefix: str) -> Iterator[tuple[str, type[Section], list[Key]]]:
    for field in msgspec.structs.fields(shape):
        path = prefix + field.encode_name
        if path in KEYS:
            continue
        section: Any = field.default_factory
        own = [key for name, key in KEYS.items() if name.rpartition(".")[0] == path]
        if own:
            yield path, section, own
        yield from _sections(section, path + ".")


def _element(path: str, key: Key, level: str = "###") -> Iterator[str]:
    assert key.shape is not None
    yield f"{level} `[[{path.replace('[]', '')}]]`\n\n{inspect.getdoc(key.shape)}\n\n" + _table(
        key.element, path + "[]."
    )
    for member in key.element:
        if member.element:
            yield from _element(f"{path}[].{member.path}", member)


def example(path: str, key: Key) -> str:
    """A line of a configuration file that sets the key at `path`, which may lead into lists of tables."""
    value = EXAMPLES[path] if path in EXAMPLES else msgspec.to_builtins(key.default)
    return f"{key.path.rpartition('.')[2]} = {toml(value)}"


def _table(keys: Iterable[Key], inside: str = "") -> str:
    rows = ["| key | type | default | allowed | effect | example |", "|---|---|---|---|---|---|"]
    for key in keys:
        names = [f"`{key.path.rpartition('.')[2]}`"]
        names += [f"`{variable}`" for variable in key.variables]
        names += [f"also `{alias}`" for alias in key.aliases]
        effect = key.effect + (" *Live.*" if key.live else "")
        cells = ["<br>".join(names), key.kind.value, _default(key), allowed(key), effect, _code(inside, key)]
        rows.append(f"| {' | '.join(cells)} |".replace("|  |", "| |"))
    return "\n".join(rows) + "\n"


def _code(inside: str, key: Key) -> str:
    return f"`{example(inside + key.path, key)}`"


def _default(key: Key) -> str:
    if key.default is REQUIRED:
        return "required"
    if key.default == "" or key.default is None:
        return ""
    return f"`{toml(msgspec.to_builtins(key.default))}`"
