"""The command `top`."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from realtime_communication.cli.remote import Remote, with_remote

if TYPE_CHECKING:
    from realtime_communication.cli.top.nodes import Nodes

PLAIN_WIDTH = 120
PLAIN_HEIGHT = 60
MOST_NODES = 50


@click.command()
@click.option(
    "--interval", type=click.FloatRange(0.1, 3600), default=2.0, show_default=True, help="Seconds between two looks."
)
@click.option("--once", is_flag=True, help="Print one picture, of one interval, and end.")
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each interval; with --once, one.")
@click.option("--metrics-url", help="Where its metrics are; default: the port that /health tells, path /metrics.")
@click.option("--node", "nodes", multiple=True, metavar="URL", help="Another node, to be shown in a line; repeatable.")
@with_remote
def top(
    remote: Remote, interval: float, once: bool, as_json: bool, metrics_url: str | None, nodes: tuple[str, ...]
) -> None:
    """Watch a running server: rates, latencies, the busiest topics, the slowest consumers, workers, dependencies.

    Needs credentials with the role admin. Keys: q ends, p pauses, s sorts the topics by something else.

    \b
    rtc top --url=https://rtc.example.com
    rtc top --url=http://rtc-1:8081 --node=http://rtc-2:8081
    rtc top --once --json | jq .rates.deliveries
    """
    from realtime_communication.cli.endings import plain_endings

    _check_url(metrics_url, "'--metrics-url'")
    for url in nodes:
        _check_url(url, "'--node'")
    if len(nodes) > MOST_NODES:
        raise click.BadParameter(f"at most {MOST_NODES} are shown", param_hint="'--node'")
    live = not once and not as_json
    if live and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("this is no terminal: give --once or --json")
    with plain_endings(remote.endpoint.url), _asked(remote, metrics_url, nodes) as asked:
        if live:
            _watch(asked, remote.endpoint.url, interval)
        else:
            _print(asked, remote.endpoint.url, interval, once, as_json)


def _check_url(url: str | None, hint: str) -> None:
    from realtime_communication.client.http_pool import Endpoint

    if url is not None:
        try:
            Endpoint.of(url)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint=hint) from None


@contextlib.contextmanager
def _asked(remote: Remote, metrics_url: str | None, others: tuple[str, ...]) -> Iterator[Nodes]:
    """The server and the other nodes, with the same credentials."""
    from realtime_communication.cli.top.nodes import Nodes
    from realtime_communication.cli.top.sample import Sampler

    with contextlib.ExitStack() as stack:
        samplers = []
        for number, one in enumerate((remote, *(remote.at(url) for url in others))):
            publisher = stack.enter_context(one.publisher())
            sampler = Sampler(publisher, one.endpoint.host, metrics_url if number == 0 else None)
            samplers.append((one.endpoint.url, sampler))
        nodes = Nodes(samplers)
        stack.callback(nodes.close)
        yield nodes


def _print(nodes: Nodes, url: str, interval: float, once: bool, as_json: bool) -> None:
    from realtime_communication.cli.top.figures import TOPIC_ORDERS
    from realtime_communication.cli.top.view import view

    nodes.take()
    while True:
        time.sleep(interval)
        nodes.take()
        found = nodes.figures(TOPIC_ORDERS[0])
        if as_json:
            click.echo(json.dumps({"url": url, **found}))
        else:
            for line in view(found, url, PLAIN_WIDTH, PLAIN_HEIGHT, order=TOPIC_ORDERS[0], keys=False):
                click.echo(line)  # without its colours where there is no terminal
        if once:
            return


def _watch(nodes: Nodes, url: str, interval: float) -> None:
    from realtime_communication.cli.top.figures import TOPIC_ORDERS
    from realtime_communication.cli.top.screen import Screen
    from realtime_communication.cli.top.view import view
    from realtime_communication.client.errors import ClientError

    order, paused, problem = 0, False, ""
    nodes.take()  # what fails at first is told on the ordinary screen
    with Screen() as screen:
        while True:
            due = time.monotonic() + interval
            while True:
                found = nodes.figures(TOPIC_ORDERS[order])
                told = "what is new: paused, p goes on" if paused else problem
                if told:
                    found["missing"] = [*found["missing"], told]
                width, height = screen.size
                screen.draw(view(found, url, width, height, order=TOPIC_ORDERS[order], keys=True))
                key = screen.key(due)
                if key == "q":
                    return
                if key == "s":
                    order = (order + 1) % len(TOPIC_ORDERS)
                if key == "p":
                    paused = not paused
                if key in ("", "p"):
                    break
            if not paused:
                try:
                    nodes.take()
                    problem = ""
                except ClientError as error:
                    problem = f"an answer: {error}"
