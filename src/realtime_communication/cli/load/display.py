"""What people see of a run: a bar with the rate and latencies meanwhile, plain lines where there is no terminal."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

import click

from realtime_communication.cli.load.generator import Opening, Plan, Running
from realtime_communication.cli.load.outcome import Outcome, duration, figures, remarks

STEPS = 1000
LINE_EVERY_SECS = 1.0


class Display:
    """Shows a run on standard error while it goes on; use it as a context manager."""

    def __init__(self, plan: Plan, unit: str, quiet: bool) -> None:
        self._plan = plan
        self._unit = unit
        self._quiet = quiet
        self._is_terminal = sys.stderr.isatty()
        self._done = 0
        self._said_at = 0.0
        self._bar: Any = None

    def __enter__(self) -> Display:
        if self._is_terminal and not self._quiet:
            self._bar = click.progressbar(
                length=STEPS,
                label=self._plan.mode,
                show_eta=False,
                item_show_func=lambda text: text or "",
                file=sys.stderr,
                width=24,
            )
            self._bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.__exit__(kind, error, trace)

    def tell(self, said: Opening | Running) -> None:
        """Show how far the run is."""
        if self._quiet:
            return
        text = self._text(said)
        if self._bar is not None:
            steps = min(int(self._share(said) * STEPS), STEPS)
            self._bar.current_item = text
            self._bar.update(max(steps - self._done, 0))
            self._bar.render_progress()
            self._done = max(self._done, steps)
        elif time.monotonic() - self._said_at >= LINE_EVERY_SECS:
            self._said_at = time.monotonic()
            click.echo(f"{self._plan.mode}: {text}", err=True)

    def _share(self, said: Opening | Running) -> float:
        whole = self._plan.warmup + self._plan.seconds
        if isinstance(said, Opening):
            return said.open / said.of if whole == 0 else 0.0
        return said.at / whole if whole else 1.0

    def _text(self, said: Opening | Running) -> str:
        if isinstance(said, Opening):
            return f"opening connections, {said.open:,} of {said.of:,}"
        if self._unit == "connections":
            return f"{said.at:.1f} s, {said.deliveries:,} connections"
        text = f"{said.at:.1f} s, {said.rate:,.0f} {self._unit}/s"
        if said.p50_us is not None and said.p99_us is not None:
            text += f", median {duration(said.p50_us)}, 99 % {duration(said.p99_us)}"
        return text if said.measuring else f"{text} (warming up)"


def table(outcome: Outcome) -> str:
    """The figures of a run, and what has to be said about them."""
    rows = figures(outcome)
    left, right = (max(len(row[column]) for row in rows) for column in (0, 1))
    lines = [f"rtc bench {outcome.plan.mode}  {outcome.url}", ""]
    lines += [f"  {name:<{left}}  {value:>{right}}" for name, value in rows]
    said = remarks(outcome)
    return "\n".join([*lines, "", *(said or ["sound: nothing lost, doubled, out of order or refused"])])
