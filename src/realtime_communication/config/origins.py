"""Where a value came from, in words an operator can act on."""

from __future__ import annotations

import enum

import msgspec


class Layer(enum.IntEnum):
    """The layers, lowest first: a value of a higher layer wins."""

    DEFAULT = 0
    PROFILE = 1
    FILE = 2
    PROFILE_FILE = 3
    ENVIRONMENT = 4
    COMMAND_LINE = 5
    DERIVED = 6
    """Made by the loader itself, such as the secret of the dev profile."""
    ADMINISTRATOR = 7
    """Changed while the server runs, until it reads its configuration again."""


class Origin(msgspec.Struct, frozen=True):
    """`name` is the file, variable, option or reason; `line` counts from 1, 0 where there is none."""

    layer: Layer
    name: str = ""
    line: int = 0

    def __str__(self) -> str:
        if self.layer in (Layer.FILE, Layer.PROFILE_FILE):
            return f"{self.name}:{self.line}" if self.line else self.name
        words = {
            Layer.DEFAULT: "default",
            Layer.PROFILE: f"profile {self.name}",
            Layer.ENVIRONMENT: f"environment variable {self.name}",
            Layer.COMMAND_LINE: f"command line {self.name}",
            Layer.DERIVED: self.name,
            Layer.ADMINISTRATOR: f"changed by {self.name}",
        }
        return words[self.layer]


DEFAULT = Origin(Layer.DEFAULT)
