"""What happens when a circuit breaker changes its state: a line in the log, a count, a webhook."""

from __future__ import annotations

import datetime
import itertools

from realtime_communication.config.services import BreakerEvents as EventsConfig
from realtime_communication.resilience.breaker import Breakers, BreakerState, Change
from realtime_communication.resilience.webhooks import Log, Webhooks, secret_of

WEBHOOK_EVENT = "circuit_breaker.state_change"
WEBHOOKS = "webhooks"
"""The breaker whose changes are never sent: a broken receiver would be told of itself for ever."""


class BreakerEvents:
    """Listens to all of `breakers` from now on.

    `transitions` counts, by service and state (`closed`, `open`, `half_open`), how often the state was entered. It has
    a row for each of them from the start, and stands still while `emit_metrics` is false.
    """

    def __init__(self, breakers: Breakers, config: EventsConfig, log: Log, webhooks: Webhooks, node_id: str) -> None:
        self.transitions: dict[tuple[str, str], int] = {
            (service, state.value): 0 for service, state in itertools.product(breakers, BreakerState)
        }
        self._breakers = breakers
        self._config = config
        self._log = log
        self._webhooks = webhooks
        self._node_id = node_id
        breakers.listeners.append(self.on_change)

    def configure(self, config: EventsConfig, jwt_secret: str) -> None:
        """Go on under another `[circuit_breaker.events]`, with the webhooks."""
        self._config = config
        self._webhooks.configure(config.webhook_url, secret_of(config, jwt_secret))

    def states(self) -> dict[str, str]:
        """State of each service as it is now, for a gauge; empty while `emit_metrics` is false."""
        if not self._config.emit_metrics:
            return {}
        return {name: breaker.state.value for name, breaker in self._breakers.items()}

    def on_change(self, change: Change) -> None:
        """Tell of a change. Never blocks."""
        if self._config.log_state_changes:
            self._write(change)
        if self._config.emit_metrics:
            self.transitions[change.service, change.after.value] += 1
        if change.service != WEBHOOKS:
            self._webhooks.post(webhook_event(change, self._node_id))

    def _write(self, change: Change) -> None:
        write = self._log.warning if change.after is BreakerState.OPEN else self._log.info
        states = {"from": change.before.value, "to": change.after.value}
        write(
            "a circuit breaker changed its state",
            service=change.service,
            **states,
            reason=change.reason,
            failures=change.failures,
        )


def webhook_event(change: Change, node_id: str) -> dict[str, object]:
    """A change as it is sent; see `docs/webhooks.md`. `at` is RFC 3339, in UTC."""
    at = datetime.datetime.fromtimestamp(change.at, datetime.UTC)
    return {
        "event": WEBHOOK_EVENT,
        "service": change.service,
        "from": change.before.value,
        "to": change.after.value,
        "reason": change.reason,
        "failures": change.failures,
        "at": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "node_id": node_id,
    }
