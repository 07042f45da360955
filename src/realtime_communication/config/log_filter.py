"""Log filters in the form of RUST_LOG: `info`, `info,realtime_communication::auth=debug`.

Grammar: directives separated by commas; each is a level, a target, or `target=level`. A target names a module, with
`::` or `.` between its parts, and reaches everything below it; a target alone means all its messages. Spans and
regular expressions, which some RUST_LOG readers know, are refused.
"""

from __future__ import annotations

import re

import msgspec

LEVELS: dict[str, int] = {
    "trace": 5,
    "debug": 10,
    "info": 20,
    "warn": 30,
    "warning": 30,
    "error": 40,
    "off": 100,
}
"""Names of levels and their numbers in the standard `logging` module; `trace` and `off` are this project's."""

_TARGET = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:(?:::|\.)[A-Za-z_][A-Za-z0-9_]*)*\Z")
_PACKAGE = "realtime_communication"


class LogFilter(msgspec.Struct, frozen=True):
    """A parsed filter: the level of everything, and the levels of single loggers, by logger name."""

    level: int
    targets: dict[str, int]


def parse_filter(text: str, default: int = LEVELS["info"]) -> LogFilter:
    """Parse a filter. `default` holds where no directive gives a general level.

    Raises ValueError, with a message that names the directive at fault, for anything outside the grammar.
    """
    level = default
    targets: dict[str, int] = {}
    for directive in text.split(","):
        name, equals, level_name = (part.strip() for part in directive.partition("="))
        if not equals and name.lower() in LEVELS:
            level = LEVELS[name.lower()]
        elif not _TARGET.match(name) or (not equals and not _is_target(name)):
            raise ValueError(f"{directive.strip()!r} is neither a level ({', '.join(LEVELS)}) nor target=level")
        elif equals and level_name.lower() not in LEVELS:
            raise ValueError(f"{level_name!r} is no level: {', '.join(LEVELS)}")
        else:
            targets[name.replace("::", ".")] = LEVELS[level_name.lower()] if equals else LEVELS["trace"]
    return LogFilter(level, targets)


def _is_target(name: str) -> bool:
    """Whether a bare word is a target; any other is more likely a misspelt level."""
    return "::" in name or "." in name or name == _PACKAGE
