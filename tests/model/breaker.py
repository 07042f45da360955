"""A circuit breaker that keeps everything that ever happened and counts anew each time. The oracle of the real one."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field


@dataclass
class Period:
    """From one change to the next: the calls let in meanwhile, and what those brought that ended meanwhile."""

    state: str
    since: float
    calls: list[Call] = field(default_factory=list)
    results: list[bool] = field(default_factory=list)


@dataclass(eq=False)
class Call:
    period: Period
    running: bool = True


class ModelBreaker:
    """`settings` has the fields of BreakerSettings. Results are True for a success, False for a failure."""

    def __init__(self, settings, now):
        self.settings = settings
        self.periods = [Period("closed", now)]
        self.changes = []
        self.refusals = 0

    @property
    def period(self):
        return self.periods[-1]

    @property
    def state(self):
        return self.period.state

    def failures(self):
        """How many of the last results were failures. A period that a switch began has None as its first result."""
        history = [result for period in self.periods for result in period.results]
        return len(list(itertools.takewhile(lambda result: result is False, reversed(history))))

    def successes(self):
        return self.period.results.count(True) if self.state == "half_open" else 0

    def opened_at(self):
        return next(period.since for period in reversed(self.periods) if period.state == "open")

    def change(self, state, now, results=()):
        before = self.state
        self.periods.append(Period(state, now, results=list(results)))
        if state != before:
            self.changes.append((before, state, self.failures()))

    def begin(self, now):
        """The call, or how many seconds to wait."""
        if self.state == "open":
            left = self.opened_at() + self.settings.timeout_secs - now
            if left > 0:
                self.refusals += 1
                return left
            self.change("half_open", now)
        if self.state == "half_open":
            running = [call for call in self.period.calls if call.running]
            if len(running) >= self.settings.half_open_requests:
                self.refusals += 1
                return min(1.0, self.settings.timeout_secs)
        call = Call(self.period)
        self.period.calls.append(call)
        return call

    def end(self, call, result, now):
        """`result` None: cancelled."""
        call.running = False
        if call.period is not self.period or result is None or not self.settings.enabled:
            return
        self.period.results.append(result)
        if self.state == "half_open":
            if not result:
                self.change("open", now)
            elif self.successes() >= self.settings.success_threshold:
                self.change("closed", now)
        elif not result and self.failures() >= self.settings.failure_threshold:
            self.change("open", now)

    def configure(self, settings, now):
        switched = settings.enabled != self.settings.enabled
        self.settings = settings
        if switched:
            self.change("closed", now, results=[None])
