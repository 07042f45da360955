"""`bench`: put a server under load, by the compiled load generator that comes with this package."""

from __future__ import annotations

import os
import secrets
import sys
from datetime import UTC, datetime
from functools import reduce
from pathlib import Path
from typing import Any

import click

from realtime_communication.cli.load import credentials, display, generator, outcome, page, target
from realtime_communication.config.catalogue import KEYS

MOST_CONNECTIONS = 100_000
MOST_IN_FLIGHT = 32_768
MOST_BYTES = 1 << 20
LEAST_BYTES = 24
MOST_SECONDS = 3600.0
POINTS = 60
"""Intervals that a run is told in."""

LONGEST_TOPIC = 200
INTERRUPTED = 130
UNSOUND = 1
_SECRET_VARIABLE, _TOKEN_VARIABLE, _KEY_VARIABLE = "RTC_BENCH_SECRET", "RTC_BENCH_TOKEN", "RTC_BENCH_API_KEY"
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_OUTPUT = click.Path(dir_okay=False, path_type=Path)

_WHERE = (
    click.option("--url", required=True, help="The server: ws://host:port/ws, or wss:// for TLS."),
    click.option("--ca-file", type=_FILE, help="PEM file of who signed the server's certificate; else the system's."),
    click.option("--insecure", is_flag=True, help="With wss: take any certificate."),
    click.option("--secret-file", type=_FILE, help="File with the secret that signs a token for each connection."),
    click.option(
        "--secret", help=f"The secret itself; better in {_SECRET_VARIABLE}, where no list of processes shows it."
    ),
    click.option("--issuer", default=KEYS["auth.jwt_issuer"].default, show_default=True, help="Claim iss."),
    click.option("--audience", default=KEYS["auth.jwt_audience"].default, show_default=True, help="Claim aud."),
    click.option("--algorithm", type=click.Choice(["HS256", "HS384", "HS512"]), default="HS256", show_default=True),
    click.option("--token-file", type=_FILE, help="File with a token a line, used in turn."),
    click.option("--token", help=f"One token for all connections; better in {_TOKEN_VARIABLE}."),
    click.option("--api-key-file", type=_FILE, help="File with an API key for all connections."),
    click.option("--api-key", help=f"The key itself; better in {_KEY_VARIABLE}."),
    click.option("--api-key-header", default="X-API-Key", show_default=True, help="Header that carries the key."),
    click.option("--json", "json_file", type=_OUTPUT, help="Write the run to this file as JSON."),
    click.option("--html", "html_file", type=_OUTPUT, help="Write a report with plots to this file."),
    click.option("--quiet", is_flag=True, help="Show nothing while the run goes on."),
)


def _connections(default: int) -> Any:
    return click.option(
        "--connections",
        type=click.IntRange(1, MOST_CONNECTIONS),
        default=default,
        show_default=True,
        help="Connections; of fanout and latency: subscribers, beside one that publishes.",
    )


def _seconds(default: float) -> Any:
    return click.option(
        "--seconds", type=click.FloatRange(0.1, MOST_SECONDS), default=default, show_default=True, help="Measured time."
    )


_WARMUP = click.option(
    "--warmup", type=click.FloatRange(0, MOST_SECONDS), default=1.0, show_default=True, help="Seconds before it."
)
_BYTES = click.option(
    "--message-bytes",
    type=click.IntRange(LEAST_BYTES, MOST_BYTES),
    default=100,
    show_default=True,
    help="Size of a payload.",
)
_TOPIC = click.option("--topic", help="Topic, or what topics begin with. Default: one that nobody else uses.")
_TOPICS = click.option(
    "--topics",
    type=click.IntRange(0, 1_000_000),
    default=1,
    show_default=True,
    help="Topics that connections subscribe to in turn; 0: none.",
)
_OPENING = click.option(
    "--opening",
    type=click.IntRange(1, 10_000),
    default=64,
    show_default=True,
    help="Connections that are being opened at any time.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def bench() -> None:
    """Put a server under load and measure it.

    Exit status 0; 1 when something was lost, doubled, out of order or refused, so that the figures do not count; 2 for
    wrong use.

    \b
    RTC_BENCH_SECRET=… rtc bench fanout --url=ws://localhost:8080/ws --connections=1000
    rtc bench latency --url=ws://localhost:8080/ws --token-file=tokens --rate=500 --html=report.html
    """


def _add(mode: str, help_text: str, *options: Any) -> None:
    """Adds the command of a mode, with the options of all modes and its own."""
    command: Any = bench.command(mode, help=help_text)
    parameters = reversed((*_WHERE, *options))
    command(reduce(lambda made, option: option(made), parameters, lambda **values: _run(mode, values)))


_add(
    "fanout",
    "One connection publishes, all others get it: deliveries a second with so many publications in flight.",
    _connections(100),
    click.option(
        "--in-flight",
        type=click.IntRange(1, MOST_IN_FLIGHT),
        default=16,
        show_default=True,
        help="Publications that are on their way at any time.",
    ),
    *(_BYTES, _seconds(5.0), _WARMUP, _TOPIC),
)
_add(
    "latency",
    "The same at a fixed rate: how late each delivery is, counted from when its publication was due.",
    _connections(100),
    click.option(
        "--rate", type=click.FloatRange(0.1, 1e6), default=100.0, show_default=True, help="Publications a second."
    ),
    *(_BYTES, _seconds(5.0), _WARMUP, _TOPIC),
)
_add(
    "echo",
    "Each connection publishes on a topic of its own and gets it back: round trips a second, one at a time.",
    *(_connections(100), _BYTES, _seconds(5.0), _WARMUP, _TOPIC),
)
_add(
    "direct",
    "Pairs of users send each other direct messages. Needs a secret, since each connection is a user of its own.",
    *(_connections(100), _BYTES, _seconds(5.0), _WARMUP),
)
_add("connect", "Opens connections: how many a second.", _connections(1000), _OPENING, _TOPIC, _TOPICS)
_add(
    "idle",
    "Opens connections and holds them, with nothing to do: for looking at the server meanwhile.",
    *(_connections(1000), _OPENING, _seconds(10.0), _TOPIC, _TOPICS),
)


def _run(mode: str, values: dict[str, Any]) -> None:
    where = target.read(values["url"], values["ca_file"], values["insecure"])
    plan = _plan(mode, values)
    opened = plan.connections + (mode in ("fanout", "latency"))
    generator.check_descriptors(opened)
    who = _who(values, opened)
    if mode == "direct" and not who.users:
        raise click.UsageError("direct needs a secret: --secret-file, or the variable " + _SECRET_VARIABLE)
    for path in (values["json_file"], values["html_file"]):
        _check_output(path)
    where = target.reached(where)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    series: list[generator.Running] = []
    try:
        with display.Display(plan, outcome.unit_of(mode), values["quiet"]) as shown:

            def tell(said: generator.Opening | generator.Running) -> None:
                if isinstance(said, generator.Running):
                    series.append(said)
                shown.tell(said)

            report = generator.run(plan, where, who, tell)
    except KeyboardInterrupt:
        click.echo("stopped", err=True)
        sys.exit(INTERRUPTED)
    done = outcome.Outcome(plan, where.url, started, report, series)
    click.echo(display.table(done))
    _write(values["json_file"], outcome.document(done))
    _write(values["html_file"], page.page(done).encode())
    sys.exit(0 if done.is_sound else UNSOUND)


def _plan(mode: str, values: dict[str, Any]) -> generator.Plan:
    fields = {name: values[name] for name in generator.Plan.__struct_fields__ if values.get(name) is not None}
    topic = fields.setdefault("topic", f"rtc-bench:{secrets.token_hex(4)}")
    if (
        not topic
        or len(topic) > LONGEST_TOPIC
        or not all("!" <= letter <= "~" and letter not in '"\\' for letter in topic)
    ):
        raise click.BadParameter(
            f"must be 1 to {LONGEST_TOPIC} printable ASCII characters without blanks, quotes and backslashes",
            param_hint="'--topic'",
        )
    if mode == "direct" and fields["connections"] % 2:
        raise click.BadParameter("must be even: two make a pair", param_hint="'--connections'")
    whole = fields.get("seconds", 0.0) + fields.get("warmup", 0.0)
    interval = min(max(int(1000 * whole / POINTS), 50), 1000)
    return generator.Plan(mode=mode, progress_ms=interval, **fields)


def _who(values: dict[str, Any], count: int) -> credentials.Credentials:
    """The one kind of credentials that was given. An option goes before a variable. Raises click.UsageError."""
    given = [name for name in ("secret", "token", "api_key") if values[name] or values[f"{name}_file"]]
    if not given:
        variables = {"secret": _SECRET_VARIABLE, "token": _TOKEN_VARIABLE, "api_key": _KEY_VARIABLE}
        found = {name: os.environ[variable] for name, variable in variables.items() if os.environ.get(variable)}
        values, given = {**values, **found}, list(found)
    if not given:
        return credentials.Credentials()
    (name, *others) = given
    if others or (values[name] and values[f"{name}_file"]):
        raise click.UsageError("give one of --secret-file, --token-file, --api-key-file, or of what they stand for")
    hint = f"'--{name.replace('_', '-')}'"
    text = values[name] or credentials.text_of(values[f"{name}_file"], hint)
    if name == "secret":
        chosen = {key: values[key] for key in ("issuer", "audience", "algorithm")}
        return credentials.signed(text, count, **chosen)
    if name == "token":
        return credentials.tokens(text.splitlines(), hint)
    return credentials.api_key(text, values["api_key_header"], hint)


def _check_output(path: Path | None) -> None:
    """Raises click.UsageError before the run rather than after it."""
    if path is not None and not path.parent.is_dir():
        raise click.UsageError(f"{path} cannot be written: there is no folder {path.parent}")


def _write(path: Path | None, content: bytes) -> None:
    if path is None:
        return
    try:
        path.write_bytes(content)
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error.strerror}") from None
