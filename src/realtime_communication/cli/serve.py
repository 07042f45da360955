"""`serve`: load the configuration, set up logs, run the server."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Iterator

import click
from click.shell_completion import CompletionItem

from realtime_communication.config import LoadedConfig, load
from realtime_communication.config.catalogue import KEYS
from realtime_communication.config.keys import Kind
from realtime_communication.config.schema import MAX_WORKERS
from realtime_communication.observability import logs
from realtime_communication.server.hang_up import hold_hang_ups

PASS_ON = {"ignore_unknown_options": True, "help_option_names": ["-h", "--help"]}
"""Context settings of a command that hands unknown options to the configuration loader."""

_log = logs.get_logger(__name__)


class WithKeys(click.Command):
    """A command whose help lists the short options of the configuration keys."""

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Options of keys are none that the parser knows: they go to the loader as they are."""
        names = ["--profile", "--config", *(option for key in KEYS.values() for option in key.options)]
        found = [CompletionItem(name) for name in names if incomplete and name.startswith(incomplete)]
        return [*super().shell_complete(ctx, incomplete), *found]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_options(ctx, formatter)
        rows = [
            ("--profile NAME", "dev, test or prod (the default)."),
            ("--config FILE", "Configuration file; config.{profile}.toml beside it is read too."),
        ]
        for key in KEYS.values():
            if key.variables:
                word = "BOOLEAN" if key.kind is Kind.BOOLEAN else "VALUE"
                rows.append((f"{', '.join(key.options)} {word}", key.effect))
        rows.append(("--SECTION.KEY VALUE", "Any other key, such as --websocket.auth_timeout_secs=5."))
        with formatter.section("Configuration"):
            formatter.write_dl(rows)


@click.command(cls=WithKeys, context_settings=PASS_ON)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[--KEY=VALUE]...")
def serve(words: tuple[str, ...]) -> None:
    """Run the server until SIGTERM or SIGINT.

    \b
    rtc serve --profile=dev
    rtc serve --config=/etc/rtc/config.toml --port=8082 --max-connections=5000
    RUST_LOG=debug PORT=8082 rtc serve
    """
    hold_hang_ups()
    loaded = load(words)
    settings = loaded.config.logging
    logs.configure(settings.level, settings.format)
    _announce(loaded)
    # The server pulls in the event loop, HTTP and the compiled core: `config check` should not pay for them.
    workers = wanted_workers(loaded)
    try:
        if workers == 1:
            with _no_collections():
                from realtime_communication.server.worker import run

            status = run(loaded)
        else:
            with _no_collections():
                from realtime_communication.server.supervisor import run as run_all

            status = run_all(loaded, workers)
    finally:
        logs.shutdown()
    sys.exit(status)


@contextlib.contextmanager
def _no_collections() -> Iterator[None]:
    """Keep the cyclic collector off modules while they load: it would walk all of them, to free next to nothing."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _announce(loaded: LoadedConfig) -> None:
    files = [str(path) for path in loaded.files]
    _log.info("configuration loaded", profile=loaded.profile, files=", ".join(files) or "none")
    for warning in loaded.warnings:
        _log.warning(warning)


def wanted_workers(loaded: LoadedConfig) -> int:
    """How many worker processes `server.workers` stands for."""
    return loaded.config.server.workers or min(len(os.sched_getaffinity(0)), MAX_WORKERS)
