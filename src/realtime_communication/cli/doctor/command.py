"""The command `doctor`."""

from __future__ import annotations

import datetime
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec

from realtime_communication.cli.doctor.finding import Finding, Level, fail, ok, warn
from realtime_communication.cli.serve import PASS_ON, WithKeys
from realtime_communication.config import Config, LoadedConfig, load
from realtime_communication.errors import ConfigurationError

_COLOURS = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "red"}


@click.command(cls=WithKeys, context_settings=PASS_ON)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list of {level, subject, text, mend}.")
@click.option("--host-name", metavar="NAME", help="Name that clients connect to, for the certificate.")
@click.option("--quiet", is_flag=True, help="Print only what is not ok.")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[--KEY=VALUE]...")
def doctor(words: tuple[str, ...], as_json: bool, host_name: str | None, quiet: bool) -> None:
    """Look for what would keep the server from running well here, and say what mends it.

    Looks at the configuration, limits of the process and the kernel, processors, ports, Redis, certificates, the clock,
    issuers of tokens and libraries. Exit status 1 when something fails.

    \b
    rtc doctor --config=/etc/rtc/config.toml
    rtc doctor --profile=dev --quiet
    rtc doctor --json | jq '.[] | select(.level == "fail")'
    """
    found: list[Finding] = []
    for finding in _findings(words, host_name):
        found.append(finding)
        if not as_json and not (quiet and finding.level is Level.OK):
            _show(finding)
    if as_json:
        click.echo(json.dumps([msgspec.to_builtins(finding) for finding in found], indent=2))
    elif not quiet:
        counts = [f"{sum(finding.level is level for finding in found)} {level.value}" for level in Level]
        click.echo(", ".join(counts))
    sys.exit(1 if any(finding.level is Level.FAIL for finding in found) else 0)


def _findings(words: tuple[str, ...], host_name: str | None) -> Iterator[Finding]:
    """All of them, one by one: some take a while."""
    from realtime_communication.cli.doctor import certificate, machine, ports, services

    loaded: LoadedConfig | None = None
    try:
        loaded = load(words)
    except ConfigurationError as error:
        for problem in error.problems:
            yield fail("configuration", str(problem), "rtc config reference  # what each key may be")
    else:
        yield from _about(loaded)
    # What does not depend on the keys at fault can still be looked at, as the defaults want it.
    config = loaded.config if loaded is not None else Config()
    yield from machine.findings(machine.Machine.here(), config)
    files = loaded.files if loaded is not None else ()
    yield from services.clock([*files, Path(__file__)])
    yield from services.libraries(config)
    if loaded is not None:
        yield from ports.findings(config)
        yield from certificate.findings(config.security.tls, host_name, datetime.datetime.now(datetime.UTC))
        yield from services.redis(config)
        yield from services.issuers(config)


def _about(loaded: LoadedConfig) -> Iterator[Finding]:
    files = ", ".join(map(str, loaded.files)) or "no file"
    yield ok("configuration", f"is valid (profile {loaded.profile}; {files})")
    for warning in loaded.warnings:
        key = warning.partition(" ")[0]
        yield warn("configuration", warning, f"rtc config show | grep {key}" if "." in key else "rtc config show")


def _show(finding: Finding) -> None:
    level = click.style(f"{finding.level.value:<5}", fg=_COLOURS[finding.level])
    click.echo(f"{level} {finding.subject}: {finding.text}")
    if finding.mend:
        click.echo(f"      mend: {finding.mend}")
