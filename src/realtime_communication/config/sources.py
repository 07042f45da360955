"""Reading configuration files, and expanding `${VAR}` in their strings."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from realtime_communication.config.toml_positions import Place, key_lines, line_of

MAX_FILE_BYTES = 4 << 20
"""A larger file is not a configuration."""

_EXPANSION = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}|\$\{")


class UnreadableFileError(Exception):
    """A file that cannot be used; the text says why, with a line where there is one."""


class TomlFile(msgspec.Struct, frozen=True):
    """A parsed file and the lines of its keys."""

    name: str
    content: dict[str, object]
    lines: dict[Place, int]

    def line(self, place: Place) -> int:
        """Line of a place or of the nearest one above it, 0 when unknown."""
        return line_of(self.lines, place)


def read_toml(path: Path) -> TomlFile:
    """Read a file. Raises UnreadableFileError when it is missing, no file, too large, not UTF-8 or not TOML."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise UnreadableFileError(f"cannot be read: {error.strerror or error}") from None
    except ValueError:
        raise UnreadableFileError("cannot be read: no such name can exist") from None
    if len(data) > MAX_FILE_BYTES:
        raise UnreadableFileError(f"is larger than {MAX_FILE_BYTES >> 20} MiB")
    try:
        text = data.decode().replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise UnreadableFileError(f"is not UTF-8 (at line {data[: error.start].count(10) + 1})") from None
    try:
        content = tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, or a number of more digits than Python converts
        raise UnreadableFileError(f"is not valid TOML: {error}") from None
    except RecursionError:
        raise UnreadableFileError("is nested too deeply") from None
    return TomlFile(str(path), content, key_lines(text))


class UnsetVariableError(Exception):
    """A string asks for variables that are not set; the text says which."""


def expand(value: object, environ: Mapping[str, str]) -> object:
    """Replace `${VAR}` and `${VAR:-default}` in every string of a TOML value; `$${` stands for a plain `${`.

    As in a shell, the default also stands in for an empty variable. Raises UnsetVariableError for a variable that is
    missing and has no default, and for a `${` that is not closed.
    """
    if isinstance(value, str):
        return _EXPANSION.sub(lambda match: _expanded(match, environ), value)
    if isinstance(value, list):
        return [expand(item, environ) for item in value]
    if isinstance(value, dict):
        return {name: expand(item, environ) for name, item in value.items()}
    return value


def _expanded(match: re.Match[str], environ: Mapping[str, str]) -> str:
    if match.group() == "$${":
        return "${"
    name, default = match.groups()
    if name is None:
        raise UnsetVariableError("holds a ${ that is no ${VAR} or ${VAR:-default}; write $${ for a plain one")
    found = environ.get(name)
    if default is not None:
        return found or default
    if found is None:
        raise UnsetVariableError(
            f"asks for environment variable {name}, which is not set and has no ${{{name}:-default}}"
        )
    return found
