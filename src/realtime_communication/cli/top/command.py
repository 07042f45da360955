"""The command `top`."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from realtime_communication.cli.remote import Remote, with_remote

if TYPE_CHECKING:
    from realtime_communication.cli.top.sample import Sample, Sampler

PLAIN_WIDTH = 120
PLAIN_HEIGHT = 60


@click.command()
@click.option(
    "--interval", type=click.FloatRange(0.1, 3600), default=2.0, show_default=True, help="Seconds between two looks."
)
@click.option("--once", is_flag=True, help="Print one picture, of one interval, and end.")
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each interval; with --once, one.")
@click.option("--metrics-url", help="Where its metrics are; default: the port that /health tells, path /metrics.")
@with_remote
def top(remote: Remote, interval: float, once: bool, as_json: bool, metrics_url: str | None) -> None:
    """Watch a running server: rates, latencies, the busiest topics, the slowest consumers, workers, dependencies.

    Needs credentials with the role admin. Keys: q ends, p pauses, s sorts the topics by something else.

    \b
    rtc top --url=https://rtc.example.com
    rtc top --once
    rtc top --once --json | jq .rates.deliveries
    """
    from realtime_communication.cli.endings import plain_endings
    from realtime_communication.cli.top.sample import Sampler
    from realtime_communication.client.http_pool import Endpoint

    if metrics_url is not None:
        try:
            Endpoint.of(metrics_url)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="'--metrics-url'") from None
    live = not once and not as_json
    if live and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("this is no terminal: give --once or --json")
    with plain_endings(remote.endpoint.url), remote.publisher() as publisher:
        sampler = Sampler(publisher, remote.endpoint.host, metrics_url)
        try:
            if live:
                _watch(sampler, remote.endpoint.url, interval)
            else:
                _print(sampler, remote.endpoint.url, interval, once, as_json)
        finally:
            sampler.close()


def _print(sampler: Sampler, url: str, interval: float, once: bool, as_json: bool) -> None:
    from realtime_communication.cli.top.figures import TOPIC_ORDERS, figures
    from realtime_communication.cli.top.view import view

    before = sampler.take()
    while True:
        time.sleep(interval)
        now = sampler.take()
        found = figures(before, now)
        if as_json:
            click.echo(json.dumps({"url": url, **found}))
        else:
            for line in view(found, url, PLAIN_WIDTH, PLAIN_HEIGHT, order=TOPIC_ORDERS[0], keys=False):
                click.echo(line)  # without its colours where there is no terminal
        if once:
            return
        before = now


def _watch(sampler: Sampler, url: str, interval: float) -> None:
    from realtime_communication.cli.top.figures import TOPIC_ORDERS, figures
    from realtime_communication.cli.top.screen import Screen
    from realtime_communication.cli.top.view import view

    order, paused = 0, False
    before: Sample | None = None
    now = sampler.take()  # what fails at first is told on the ordinary screen
    with Screen() as screen:
        while True:
            due = time.monotonic() + interval
            found: dict[str, Any] = figures(before, now, TOPIC_ORDERS[order])
            if paused:
                found["missing"] = [*found["missing"], "what is new: paused, p goes on"]
            while True:
                width, height = screen.size
                screen.draw(view(found, url, width, height, order=TOPIC_ORDERS[order], keys=True))
                key = screen.key(due)
                if key == "q":
                    return
                if key == "s":
                    order = (order + 1) % len(TOPIC_ORDERS)
                    found = figures(before, now, TOPIC_ORDERS[order])
                if key == "p":
                    paused = not paused
                if key in ("", "p"):
                    break
            if not paused:
                before, now = _next(sampler, before, now)


def _next(sampler: Sampler, before: Sample | None, now: Sample) -> tuple[Sample | None, Sample]:
    """The next two samples; while the server does not answer, those there were, with a word about it."""
    import msgspec

    from realtime_communication.client.errors import ClientError

    try:
        return now, sampler.take()
    except ClientError as error:
        return before, msgspec.structs.replace(now, missing=(f"an answer: {error}",))
