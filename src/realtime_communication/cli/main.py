"""Entry point of `realtime_communication` and `rtc`.

Without a subcommand the server runs, so that `realtime_communication --profile=dev --port=8082` works as it always
did. Options that are configuration keys are not declared here: they are handed to the loader as they are.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

import click

from realtime_communication.errors import EXIT_OS, ConfigurationError, RealtimeError

_PLAIN_OPTIONS = frozenset({"--help", "-h", "--version"})

COMMANDS = {
    "serve": ("serve", "serve", "Run the server until SIGTERM or SIGINT."),
    "config": ("configuration", "config", "Look into the configuration."),
    "doctor": ("doctor.command", "doctor", "Look for what would keep the server from running well here."),
    "token": ("credentials", "token", "Print an access token, signed with the configured secret."),
    "keys": ("keys", "keys", "Make a signing secret, a key pair or an API key."),
    "api-key": ("credentials", "api_key", "Make an API key, and the lines of configuration that accept it."),
    "pub": ("publish", "publish", "Publish a message, or each line of standard input."),
    "sub": ("subscribe", "subscribe", "Print what comes on topics, a line of JSON for each event."),
    "presence": ("lookup", "presence", "Print who is on a topic."),
    "history": ("lookup", "history", "Print the messages in a topic's history."),
    "top": ("top.command", "top", "Watch a running server."),
    "bench": ("bench", "bench", "Put a server under load and check every message."),
    "completion": ("completion", "completion", "Print a script that completes commands in a shell."),
}
"""Each command's module below `cli`, its name there, and what the list of commands says of it.

The module is loaded when the command is called for.
"""


class _Commands(click.Group):
    """The commands of `COMMANDS`; anything that does not begin with one's name goes to `serve`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, name, _ = COMMANDS[cmd_name]
        found: click.Command = getattr(importlib.import_module(f"realtime_communication.cli.{module}"), name)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        completing = ctx.resilient_parsing  # what stands before the word that is to be completed
        if not completing and (not args or (args[0].startswith("-") and args[0] not in _PLAIN_OPTIONS)):
            args = ["serve", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="realtime_communication", prog_name="realtime_communication")
def cli() -> None:
    """A real-time messaging server. Without a command it serves.

    \b
    realtime_communication --profile=dev               a server to try things on
    realtime_communication --config=/etc/rtc/config.toml --port=8082
    realtime_communication config show --profile=prod  what is in force, and why
    realtime_communication serve --help                the options
    realtime_communication sub room:42                 what comes on a topic of a running server
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 78 for a bad configuration, 71 when the machine refuses, 2 for a bad command."""
    _hold_standard_descriptors()
    try:
        cli.main(args=None if arguments is None else list(arguments), prog_name=_program_name())
    except ConfigurationError as error:
        _report(error)
        sys.exit(error.exit_status)
    except RealtimeError as error:
        _say(f"error: {error}")
        sys.exit(error.exit_status)
    except OSError as error:  # such as a full disk below standard output
        _say(f"error: {error}")
        sys.exit(EXIT_OS)


def _hold_standard_descriptors() -> None:
    """Put /dev/null where a standard stream is closed.

    A socket would get its number otherwise: what a library writes to standard error would go to a client, and libuv
    aborts the process when it closes one of the three.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one


def _program_name() -> str:
    name = sys.argv[0].rpartition("/")[2]
    return name if name in ("rtc", "realtime_communication") else "realtime_communication"


def _report(error: ConfigurationError) -> None:
    for problem in error.problems:
        _say(f"error: {problem}")
    count = len(error.problems)
    _say(f"The configuration has {count} problem{'s' if count > 1 else ''}; nothing was started.")


def _say(text: str) -> None:
    """Print a line to standard error; a closed one is no reason for another exit status."""
    try:
        click.echo(text.encode("utf-8", "backslashreplace").decode(), err=True)
    except (OSError, ValueError):
        return


if __name__ == "__main__":
    main()
