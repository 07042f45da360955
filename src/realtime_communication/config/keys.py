"""What a configuration key is, and how keys are read out of the structs that declare them.

A section is a frozen struct; each of its fields is annotated with a `Spec` that says everything about the key which
the Python type does not: effect, range, unit, environment variables. `keys_of` turns a struct into a flat list of
`Key`, and everything else works from that list: the loader, `config show`, the JSON Schema, the reference in docs.
This module knows no particular key.
"""

from __future__ import annotations

import enum
import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec

REDACTED = "[redacted]"
REQUIRED = msgspec.NODEFAULT
"""Default of a key that has none: a table is incomplete without it."""


DAY_SECONDS = 86_400
MAX_BYTES = 1 << 30
"""No frame, message or pool can be configured above 1 GiB: a larger value is a slip, not a wish."""


_UNITS = {("seconds", 0.001): "milliseconds"}
"""Units of aliases, by the key's unit and the factor to it."""


class Kind(enum.Enum):
    """Shapes a value can have."""

    BOOLEAN = "boolean"
    INTEGER = "integer"
    NUMBER = "number"
    STRING = "string"
    CHOICE = "choice"
    STRINGS = "list of strings"
    NUMBERS = "list of numbers"
    STRING_MAP = "table of strings"
    TABLES = "list of tables"


class Spec(msgspec.Struct, frozen=True):
    """The part of a key that is not its Python type. See `Key` for the fields."""

    effect: str
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    unit: str = ""
    secret: bool = False
    live: bool = False
    variables: tuple[str, ...] = ()
    aliases: tuple[str | tuple[str, float], ...] = ()


def signing_key(*, live: bool) -> Spec:
    """The key that requests to a service of the operator's are signed with."""
    return Spec(
        "Key of the signature; empty: made from auth.jwt_secret, as docs/webhooks.md says.",
        maximum=4096,
        secret=True,
        live=live,
    )


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """One configuration key.

    - `path`: dotted, as in TOML: `websocket.max_connections`
    - `kind`, `choices`: shape of the value; `choices` only for `Kind.CHOICE`
    - `default`: value of the lowest layer, `REQUIRED` in tables for what must be given
    - `minimum`, `maximum`: inclusive bounds of numbers, of the length of strings and of the items of lists of numbers
    - `above`: exclusive lower bound
    - `unit`: of numbers, for people
    - `secret`: never shown
    - `live`: a reload can change it without a restart
    - `variables`: environment variables; each also gives a short option (`MAX_CONNECTIONS`, `--max-connections`)
    - `aliases`: other dotted paths that mean the same key, each with the factor from its unit to the key's
    - `element`: keys of one table of a `Kind.TABLES`, relative to it; `shape` is its struct
    """

    path: str
    kind: Kind
    default: object
    effect: str
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    unit: str = ""
    secret: bool = False
    live: bool = False
    variables: tuple[str, ...] = ()
    aliases: Mapping[str, float] = {}
    element: tuple[Key, ...] = ()
    shape: type[msgspec.Struct] | None = None

    @property
    def options(self) -> tuple[str, ...]:
        """Short command line options, made from the names of the variables."""
        return tuple("--" + variable.lower().replace("_", "-") for variable in self.variables)

    def spelled(self, alias: str) -> Key:
        """The key as one of its aliases shows it: bounds and default in the alias' unit."""
        factor = self.aliases.get(alias, 1.0)
        if factor == 1.0:
            return self
        changed: dict[str, Any] = {
            name: round(value / factor, 9)
            for name in ("minimum", "maximum", "above", "default")
            if isinstance(value := getattr(self, name), (int, float))
        }
        return msgspec.structs.replace(self, unit=_UNITS.get((self.unit, factor), self.unit), **changed)


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the sections. Its representation redacts secrets, so a section can be logged by mistake."""

    def __repr__(self) -> str:
        secrets = {key.path for key in keys_of(type(self), follow_sections=False) if key.secret}
        parts = (
            f"{field.name}={REDACTED if field.encode_name in secrets else repr(getattr(self, field.name))}"
            for field in msgspec.structs.fields(self)
        )
        return f"{type(self).__name__}({', '.join(parts)})"


def keys_of(shape: type[msgspec.Struct], prefix: str = "", *, follow_sections: bool = True) -> Iterator[Key]:
    """Yield the keys a struct declares, sections in depth-first order of declaration.

    Raises TypeError for a field that is neither a section nor annotated with a `Spec`: a fault of the declaration.
    """
    hints = get_type_hints(shape, include_extras=True)
    for field in msgspec.structs.fields(shape):
        annotation = hints[field.name]
        path = prefix + field.encode_name
        if isinstance(annotation, type) and issubclass(annotation, Section):
            if follow_sections:
                yield from keys_of(annotation, path + ".")
            continue
        yield _key(path, annotation, _default(field))


def _default(field: msgspec.structs.FieldInfo) -> object:
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return field.default


def _key(path: str, annotation: Any, default: object) -> Key:
    if get_origin(annotation) is not Annotated:
        raise TypeError(f"{path} is declared without a Spec")
    python_type, spec = get_args(annotation)[:2]
    kind, choices, element_shape = kind_of(python_type)
    aliases = dict((alias, 1.0) if isinstance(alias, str) else alias for alias in spec.aliases)
    return Key(
        path=path,
        kind=kind,
        choices=choices,
        default=default,
        element=tuple(keys_of(element_shape)) if element_shape is not None else (),
        shape=element_shape,
        **msgspec.structs.asdict(spec) | {"aliases": aliases},
    )


def kind_of(python_type: Any) -> tuple[Kind, tuple[str, ...], type[msgspec.Struct] | None]:
    """Kind of a Python type, with its choices and the struct of its tables. Raises TypeError for any other type."""
    simple = {bool: Kind.BOOLEAN, int: Kind.INTEGER, float: Kind.NUMBER, str: Kind.STRING}
    if python_type in simple:
        return simple[python_type], (), None
    arguments = get_args(python_type)
    origin = get_origin(python_type)
    if origin is Literal:
        return Kind.CHOICE, arguments, None
    if origin is dict and arguments == (str, str):
        return Kind.STRING_MAP, (), None
    if origin is tuple and arguments[1:] == (Ellipsis,):
        item = arguments[0]
        if item is str:
            return Kind.STRINGS, (), None
        if item is float:
            return Kind.NUMBERS, (), None
        if isinstance(item, type) and issubclass(item, msgspec.Struct):
            return Kind.TABLES, (), item
    if origin is types.UnionType and arguments[1:] == (types.NoneType,):
        return kind_of(arguments[0])
    raise TypeError(f"no kind of configuration value: {python_type!r}")
