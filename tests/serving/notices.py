"""What an operator sees of a fault: a line in the log, and a metric that moves."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from serving.asking import until
from serving.processes import ServerProcess
from serving.scrapes import scrape


def lines(log: str) -> list[dict[str, Any]]:
    """The lines of a server's log that are JSON objects; others, such as the address that it prints, are left out."""
    found = []
    for line in log.splitlines():
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            if isinstance(entry, dict):
                found.append(entry)
    return found


def total(server: ServerProcess, metric: str, **labels: str) -> float:
    """The sum of the samples of a metric whose labels are as given."""
    samples = scrape(server.metrics_port)._samples(metric)
    return sum(each.value for each in samples if labels.items() <= each.labels.items())


@contextlib.contextmanager
def noticed(
    server: ServerProcess, event: str, metric: str | None = None, labels: dict[str, str] | None = None, **fields: Any
) -> Iterator[list[dict[str, Any]]]:
    """What happens inside leaves a line of `event` with `fields` and, when one is named, raises the metric.

    Gives the lines that were found, for a closer look afterwards.
    """
    begin = len(server.log)
    before = total(server, metric, **labels or {}) if metric else 0.0
    found: list[dict[str, Any]] = []

    def look() -> bool:
        found[:] = [
            line for line in lines(server.log[begin:]) if line["event"] == event and fields.items() <= line.items()
        ]
        return bool(found)

    yield found
    until(look, lambda: f"no line of {event!r} with {fields} in:\n{server.log[begin:][-3000:]}")
    if metric:
        until(lambda: total(server, metric, **labels or {}) > before, lambda: f"{metric} {labels} stays at {before}")
