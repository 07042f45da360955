"""docs/commands.md names the commands and options that there are."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click

from realtime_communication.cli.main import COMMANDS, cli
from serving.processes import ROOT

TEXT = (ROOT / "docs" / "commands.md").read_text()


def commands() -> Iterator[click.Command]:
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        yield command
        if isinstance(command, click.Group):
            yield from command.commands.values()


def test_every_command_is_there() -> None:
    missing = [name for name in COMMANDS if f"`rtc {name}" not in TEXT and f"`{name}`" not in TEXT]
    assert missing == ["api-key"]  # as `rtc keys api-key`


def test_every_option_exists() -> None:
    known = {option for command in commands() for parameter in command.params for option in parameter.opts}
    assert set(re.findall(r"--[a-z][a-z-]*", TEXT)) - known <= {"--help"}
