"""Where the metrics come from: what the parts of a server tell about themselves.

Everything but the hub's counters is optional; what is None, or tells nothing, is not served.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import msgspec

from realtime_communication.observability.process import ProcessReading, read_process
from realtime_communication.observability.topic_labels import TopicCount

Sample = tuple[str, str, int, int]
"""A publication: its kind, its topic, when it came in (ns since the epoch), how long until it was written (ns)."""


class BreakerReading(Protocol):
    """The part of a breaker's status that is shown. The values of `state` are `closed`, `half_open` and `open`."""

    @property
    def name(self) -> str: ...
    @property
    def state(self) -> enum.Enum: ...
    @property
    def failures(self) -> int: ...
    @property
    def rejected(self) -> int: ...


class ServiceReading(Protocol):
    """The part of a service's state that is shown."""

    @property
    def name(self) -> str: ...
    @property
    def running(self) -> bool: ...
    @property
    def restarts(self) -> int: ...


class RedisReading(msgspec.Struct, frozen=True):
    """How the link to Redis is. `latency_secs` is of the last probe, None before the first."""

    up: bool
    latency_secs: float | None = None
    buffered_events: int = 0
    dropped_events: int = 0
    skipped_events: Mapping[str, int] = msgspec.field(default_factory=dict)
    skipped_messages: Mapping[str, int] = msgspec.field(default_factory=dict)


class ReloadReading(msgspec.Struct, frozen=True):
    """How the last reload of the configuration went, and when (seconds since the epoch)."""

    successful: bool
    at: float


@dataclasses.dataclass(slots=True, kw_only=True)
class Sources:
    """Callables that answer at once and do not raise.

    `stats` and those that say so are called at each scrape; `queued`, `topic_counts`, `take_samples` and `process` are
    called every `update_interval_secs`. `take_samples` empties what it takes from. `told` are numbers
    by their names in the catalogue.
    """

    stats: Callable[[], Mapping[str, int]]
    build: Mapping[str, str] = dataclasses.field(default_factory=dict)
    max_connections: Callable[[], int] | None = None
    draining: Callable[[], bool] | None = None
    queued: Callable[[], int] | None = None
    topic_counts: Callable[[int], Sequence[TopicCount]] | None = None
    take_samples: Callable[[], Sequence[Sample]] | None = None
    process: Callable[[], ProcessReading] = read_process
    services: Callable[[], Iterable[ServiceReading]] | None = None
    breakers: Callable[[], Iterable[BreakerReading]] | None = None
    breaker_transitions: Callable[[], Mapping[tuple[str, str], int]] | None = None
    dropped_log_lines: Callable[[], int] | None = None
    last_reload: Callable[[], ReloadReading | None] | None = None
    certificate_expiry: Callable[[], float | None] | None = None
    tls_failures: Callable[[], int | None] | None = None
    redis: Callable[[], RedisReading | None] | None = None
    told: Callable[[], Mapping[str, float]] | None = None
