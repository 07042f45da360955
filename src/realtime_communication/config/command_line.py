"""Configuration on the command line: `--section.key=value` for every key, and short options for the common ones.

Forms: `--key=value` and `--key value`; a boolean alone means true; `-` and `_` are the same in names. `--profile` and
`--config` choose the profile and the file. The last of two equal options wins, as usual.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from realtime_communication.config.keys import Key, Kind
from realtime_communication.errors import ConfigurationProblem

_BOOLEAN_WORDS = frozenset({"true", "false", "yes", "no", "on", "off", "1", "0"})


class Argument(msgspec.Struct, frozen=True):
    """One option as given: `option` without its value, `name` the key's path or the short option's name."""

    option: str
    name: str
    text: str


class Arguments(msgspec.Struct, frozen=True):
    """A command line taken apart. `problems` are options without a value and words that are no option."""

    profile: str | None
    config_file: Path | None
    arguments: tuple[Argument, ...]
    problems: tuple[ConfigurationProblem, ...]


def parse_arguments(words: Sequence[str], find: Callable[[str], Key | None]) -> Arguments:
    """Take a command line apart. `find` tells the key of a dotted path or of a short option without its dashes."""
    chosen: dict[str, str] = {}
    arguments: dict[str, Argument] = {}
    problems: list[ConfigurationProblem] = []
    at = 0
    while at < len(words):
        word = words[at]
        at += 1
        if not word.startswith("--") or word == "--":
            problems.append(_problem(word, "is no option: options are --key=value"))
            continue
        option, equals, text = word.partition("=")
        name = option[2:].replace("-", "_")
        key = find(name)
        if not equals:
            following = words[at] if at < len(words) else None
            if key is not None and key.kind is Kind.BOOLEAN and (following or "").lower() not in _BOOLEAN_WORDS:
                text = "true"
            elif following is None or following.startswith("--"):
                problems.append(_problem(option, "has no value: write it as " + option + "=value"))
                continue
            else:
                text = following
                at += 1
        if name in ("profile", "config"):
            chosen[name] = text
        else:
            arguments[name] = Argument(option, name, text)
    config = chosen.get("config")
    return Arguments(
        chosen.get("profile"), Path(config) if config is not None else None, tuple(arguments.values()), tuple(problems)
    )


def _problem(word: str, message: str) -> ConfigurationProblem:
    return ConfigurationProblem(word.partition("=")[0][:80], "", "command line", message)
