"""What a check of `doctor` found: a line that says how it is, and the command or key that mends it."""

from __future__ import annotations

import enum

import msgspec


class Level(enum.StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Finding(msgspec.Struct, frozen=True):
    """`mend` is a command, or a line of configuration, as it is to be written; empty where nothing is to be done."""

    level: Level
    subject: str
    text: str
    mend: str = ""


def ok(subject: str, text: str) -> Finding:
    """As it should be."""
    return Finding(Level.OK, subject, text)


def warn(subject: str, text: str, mend: str) -> Finding:
    """It works, with less than what was asked for."""
    return Finding(Level.WARN, subject, text, mend)


def fail(subject: str, text: str, mend: str) -> Finding:
    """The server does not start so, or does not do what it is to do."""
    return Finding(Level.FAIL, subject, text, mend)
