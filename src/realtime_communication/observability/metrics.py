"""The metrics of one process in the forms Prometheus reads.

Theory of operation. Nothing is counted here per message: the compiled core counts, and `collect` reads its counters at
each scrape. What costs something (a walk over the sessions or topics, the system's figures) is read by `update`, which
a service calls every `update_interval_secs`, and is served from memory in between. Only histograms are fed while the
server works, one observation for an HTTP request or a check of credentials; the latencies of messages come as samples
that the core took.

Rules: one thread. No label comes from a peer unless its number of values has a bound: methods, routes and states are
few, and topics go through `topic_labels`. No metric without its row in `catalogue` or `config/metric_names.py`.
"""

from __future__ import annotations

import gc
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from realtime_communication._core.hub.pending import Pending
from realtime_communication.config.watching import Monitoring
from realtime_communication.observability.catalogue import CUT_REASONS, ROWS
from realtime_communication.observability.custom_metrics import CustomMetrics
from realtime_communication.observability.families import Families, Values
from realtime_communication.observability.fleet_metrics import packed
from realtime_communication.observability.histogram import Histogram
from realtime_communication.observability.process import ProcessReading, start_time
from realtime_communication.observability.sources import Sample, Sources

TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"

UNMATCHED: Final = "unmatched"
"""Label `route` of requests that no route answers."""

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})
_BREAKER_STATES: Final = {"closed": 0, "half_open": 1, "open": 2}
_STAT_ROWS: Final = tuple(row for row in ROWS.values() if row.stat)
_TOLD_ROWS: Final = tuple(row for row in ROWS.values() if row.told)
_HTTP, _AUTHENTICATION = "http_request_duration_seconds", "authentication_duration_seconds"

_Call = TypeVar("_Call", bound=Callable[..., object])


class Snapshot:
    """The metrics of one moment, in a registry of their own: the default one of the library belongs to the process."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def collect(self) -> Sequence[Metric]:
        """What `prometheus_client` asks its collectors."""
        return self._families

    def text(self, *, openmetrics: bool = False) -> bytes:
        """OpenMetrics 1.0, or the older form of Prometheus."""
        encode = generate_openmetrics if openmetrics else generate_latest
        return encode(self._registry)


class Metrics:
    """Every metric of this process."""

    def __init__(self, monitoring: Monitoring, sources: Sources) -> None:
        prometheus = monitoring.prometheus
        self._families = Families(prometheus.namespace, prometheus.subsystem)
        self._sources = sources
        self._custom = CustomMetrics(monitoring.custom_metrics, self._families, prometheus.buckets)
        self._http = Histogram(prometheus.buckets)
        self._authentication = Histogram(prometheus.buckets)
        for outcome in ("accepted", "refused"):
            self._authentication.begin((outcome,))
        self._started = start_time()
        self._name = uuid.uuid4().hex
        self._process: ProcessReading | None = None
        self._queued = 0
        self._lag = self._longest_lag = 0.0

    @property
    def wants_samples(self) -> bool:
        """Whether latencies of messages were asked for: the hub should take samples."""
        return self._custom.wants_samples

    def observe_http(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answered request. `route` is a template, never a path: paths are without number."""
        known = method if method in _METHODS else "other"
        self._http.observe(seconds, (known, route, f"{status // 100}xx"))

    def observe_authentication(self, accepted: bool, seconds: float) -> None:
        """Count a check of credentials."""
        self._authentication.observe(seconds, ("accepted" if accepted else "refused",))

    def timed_authentication(self, check: _Call) -> _Call:
        """`check`, which answers with an identity, a refusal (a tuple) or None for no credentials, and its time taken.

        An answer that comes later (a Pending, an awaitable) is for `observe_authentication`, by whoever waits for it.
        """

        def timed(*arguments: object) -> object:
            started = time.perf_counter()
            answer = check(*arguments)
            if answer is not None and not isinstance(answer, Pending) and not hasattr(answer, "__await__"):
                self.observe_authentication(not isinstance(answer, tuple), time.perf_counter() - started)
            return answer

        return timed  # type: ignore[return-value]

    def record_samples(self, samples: Sequence[Sample]) -> None:
        """Count latencies of messages; for somebody else who takes the hub's samples."""
        self._custom.record(samples)

    def note_lag(self, seconds: float) -> None:
        """Tell how much later than asked for the loop called somebody."""
        self._longest_lag = max(self._longest_lag, seconds)

    def update(self) -> None:
        """Take what costs something, to be served until the next time."""
        sources = self._sources
        self._process = sources.process()
        self._queued = sources.queued() if sources.queued is not None else 0
        self._lag, self._longest_lag = self._longest_lag, 0.0
        self._custom.update(sources)

    def snapshot(self) -> Snapshot:
        """All metrics as they are now. Their text can be made in another thread, which takes longer than this."""
        return Snapshot(list(self.collect()))

    def packed(self) -> dict[str, Any]:
        """All metrics as they are now, for FleetMetrics in another process."""
        return {"process": self._name, "families": packed(self.collect())}

    def collect(self) -> Iterator[Metric]:
        """Every metric that has something to tell."""
        stats = self._sources.stats()
        for row in _STAT_ROWS:
            if row.stat in stats:
                yield from self._served(row.name, [((), stats[row.stat])])
        cut = [((reason,), stats[entry]) for entry, reason in CUT_REASONS.items() if entry in stats]
        yield from self._served("connections_cut", cut)
        yield from self._server()
        yield from self._dependencies()
        yield from self._of_process()
        for name, histogram in ((_HTTP, self._http), (_AUTHENTICATION, self._authentication)):
            yield self._families.histogram(name, ROWS[name].help, ROWS[name].labels, histogram)
        yield from self._custom.collect(stats)

    def _served(self, name: str, values: Values) -> Iterator[Metric]:
        row, values = ROWS[name], list(values)
        if values:
            yield self._families.simple(row.type, name, row.help, row.labels, values, standard=row.standard)

    def _one(self, name: str, value: float | None) -> Iterator[Metric]:
        return self._served(name, [] if value is None else [((), value)])

    def _server(self) -> Iterator[Metric]:
        sources = self._sources
        build = tuple(sources.build.get(label, "") for label in ROWS["build_info"].labels)
        yield from self._served("build_info", [(build, 1)])
        yield from self._one("max_connections", _told(sources.max_connections))
        yield from self._one("draining", _told(sources.draining))
        yield from self._one("queued_messages", self._queued if sources.queued is not None else None)
        yield from self._one("event_loop_lag_seconds", self._lag)
        yield from self._one("log_lines_dropped", _told(sources.dropped_log_lines))
        states = list(sources.services()) if sources.services is not None else []
        yield from self._served("service_up", [((state.name,), state.running) for state in states])
        yield from self._served("service_restarts", [((state.name,), state.restarts) for state in states])
        reload = sources.last_reload() if sources.last_reload is not None else None
        if reload is not None:
            yield from self._one("config_last_reload_successful", reload.successful)
            yield from self._one("config_last_reload_timestamp_seconds", reload.at)

    def _dependencies(self) -> Iterator[Metric]:
        sources = self._sources
        breakers = list(sources.breakers()) if sources.breakers is not None else []
        states = [((each.name,), _BREAKER_STATES[each.state.value]) for each in breakers]
        yield from self._served("circuit_breaker_state", states)
        yield from self._served("circuit_breaker_failures", [((each.name,), each.failures) for each in breakers])
        yield from self._served("circuit_breaker_rejected", [((each.name,), each.rejected) for each in breakers])
        if sources.breaker_transitions is not None:
            yield from self._served("circuit_breaker_transitions", sources.breaker_transitions().items())
        yield from self._one("tls_failures", _told(sources.tls_failures))
        yield from self._one("tls_certificate_expiry_timestamp_seconds", _told(sources.certificate_expiry))
        redis = sources.redis() if sources.redis is not None else None
        if redis is not None:
            yield from self._one("redis_up", redis.up)
            yield from self._one("redis_latency_seconds", redis.latency_secs)
            yield from self._one("redis_buffered_events", redis.buffered_events)
            yield from self._one("redis_dropped_events", redis.dropped_events)
            skipped = redis.skipped_events.items()
            yield from self._served("redis_skipped_events", [((reason,), count) for reason, count in skipped])
            skipped = redis.skipped_messages.items()
            yield from self._served("redis_skipped_messages", [((reason,), count) for reason, count in skipped])
        told = sources.told() if sources.told is not None else {}
        for row in _TOLD_ROWS:
            yield from self._one(row.name, told.get(row.name))

    def _of_process(self) -> Iterator[Metric]:
        process = self._process
        if process is not None:
            yield from self._one("process_resident_memory_bytes", process.resident_bytes)
            yield from self._one("process_virtual_memory_bytes", process.virtual_bytes)
            yield from self._one("process_cpu_seconds", process.cpu_secs)
            yield from self._one("process_open_fds", process.open_files)
            yield from self._one("process_max_fds", process.max_files)
            yield from self._one("process_threads", process.threads)
        yield from self._one("process_start_time_seconds", self._started)
        generations = list(enumerate(gc.get_stats()))
        for name, entry in (("python_gc_objects_collected", "collected"), ("python_gc_collections", "collections")):
            yield from self._served(name, [((str(number),), stats[entry]) for number, stats in generations])


def _told(source: Callable[[], float | None] | None) -> float | None:
    return source() if source is not None else None
