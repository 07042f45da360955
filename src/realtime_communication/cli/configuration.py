"""`config check | show | schema | reference | metrics`: look into the configuration without running a server."""

from __future__ import annotations

import json

import click

from realtime_communication.cli.serve import PASS_ON, WithKeys
from realtime_communication.config import load, reference
from realtime_communication.observability import metrics_reference


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def config() -> None:
    """Look into the configuration."""


@config.command(cls=WithKeys, context_settings=PASS_ON)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[--KEY=VALUE]...")
def check(words: tuple[str, ...]) -> None:
    """Validate the configuration: exit status 0, or 78 with every problem.

    \b
    rtc config check --profile=prod --config=/etc/rtc/config.toml
    """
    loaded = load(words)
    for warning in loaded.warnings:
        click.echo(f"warning: {warning}", err=True)
    files = ", ".join(map(str, loaded.files)) or "none"
    click.echo(f"The configuration is valid (profile {loaded.profile}; files: {files}).")


@config.command(cls=WithKeys, context_settings=PASS_ON)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of TOML.")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[--KEY=VALUE]...")
def show(words: tuple[str, ...], as_json: bool) -> None:
    """Print every value in force and where it came from, secrets redacted.

    \b
    rtc config show --profile=dev
    rtc config show --json --config=/etc/rtc/config.toml
    """
    loaded = load(words)
    click.echo(reference.show_json(loaded) if as_json else reference.show(loaded))


@config.command()
def schema() -> None:
    """Print a JSON Schema of the configuration file, for editors.

    \b
    rtc config schema > config.schema.json
    """
    click.echo(json.dumps(reference.json_schema(), indent=2))


@config.command("reference")
def print_reference() -> None:
    """Print the reference of all keys as Markdown; docs/configuration.md is made with it."""
    click.echo(reference.markdown(), nl=False)


@config.command("metrics")
def print_metrics() -> None:
    """Print the reference of all metrics as Markdown; docs/metrics.md is made with it."""
    click.echo(metrics_reference.markdown(), nl=False)
