"""The metrics of several workers as those of one server.

Theory of operation. A worker packs its metrics of one moment (`packed`), and the process that serves the scrapes makes
one metric of those of each name, sample by sample: counters and histograms are added up, of gauges the catalogue says
whether their sum, the highest or the lowest is told. What a worker counted stays counted: of one that does not answer
its last counts are used, and those of one that was replaced are kept for good, so that no sum falls because a worker
died. Counts since its last scrape die with it.

Rules: label sets have a bound in each worker, so they have one here; of workers that are gone at most MAX_KEPT samples
of a metric are kept apart, beyond that they count for the label `other`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from prometheus_client.metrics_core import Metric

from realtime_communication.config.metric_names import OTHER
from realtime_communication.observability.catalogue import ROWS, WORKER_ROWS, Merge
from realtime_communication.observability.families import Families

MAX_KEPT: Final = 10_000

_COUNTED: Final = ("counter", "histogram")
_SHOWN_BY_WORKER: Final = {
    "worker_connections": "connections",
    "worker_queued_messages": "queued_messages",
    "worker_event_loop_lag_seconds": "event_loop_lag_seconds",
    "worker_resident_memory_bytes": "process_resident_memory_bytes",
    "worker_cpu_seconds": "process_cpu_seconds",
}
"""A metric by worker, and which of the worker's own it shows."""

_Key = tuple[str, tuple[tuple[str, str], ...]]  # name of a sample, its labels
_Samples = dict[_Key, float]


class _Family:
    """The samples of one metric, in the order in which they are served."""

    def __init__(self, name: str, kind: str, help: str) -> None:
        self.name, self.kind, self.help = name, kind, help
        self.samples: _Samples = {}

    def join(self, samples: Mapping[_Key, float], how: Merge) -> None:
        mine = self.samples
        for key, value in samples.items():
            known = mine.get(key)
            if known is None:
                mine[key] = value
            else:
                mine[key] = known + value if how == "sum" else max(known, value) if how == "max" else min(known, value)

    def metric(self) -> Metric:
        made = Metric(self.name, self.help, self.kind)
        for (sample, labels), value in self.samples.items():
            made.add_sample(sample, dict(labels), value)
        return made


_Snapshot = dict[str, _Family]


def packed(families: Iterable[Metric]) -> list[list[Any]]:
    """Metrics as plain values: name, type, help, and of each sample its name, labels and value."""
    return [
        [
            family.name,
            family.type,
            family.documentation,
            [[each.name, each.labels, each.value] for each in family.samples],
        ]
        for family in families
    ]


def _unpacked(rows: Iterable[Sequence[Any]]) -> _Snapshot:
    made: _Snapshot = {}
    for name, kind, help, samples in rows:
        family = made[name] = _Family(name, kind, help)
        family.samples = {(sample, tuple(labels.items())): value for sample, labels, value in samples}
    return made


class FleetMetrics:
    """One set of metrics of `workers` workers, whose names begin as `families` says.

    `take` what the workers answered, then `collect`.
    """

    def __init__(self, families: Families, workers: int) -> None:
        self._families = families
        self._latest: dict[int, tuple[str, _Snapshot]] = {}  # by slot: which process, and what it told last
        self._gone: _Snapshot = {}  # counts of processes that are no more
        self._slots = range(workers)
        self._here: set[int] = set()
        self._restarts: Sequence[int] = ()
        self._own: _Snapshot = {}

    def take(
        self, answers: Mapping[int, Mapping[str, Any]], restarts: Sequence[int] = (), own: Iterable[Metric] = ()
    ) -> None:
        """Take what workers told at this moment, by slot: {process, families}.

        `process` is a text that no other process of the slot has. `restarts` are those of each slot, `own` metrics of
        the process that serves.
        """
        for slot, answer in answers.items():
            known = self._latest.get(slot)
            if known is not None and known[0] != answer["process"]:
                self._keep(known[1])
            self._latest[slot] = answer["process"], _unpacked(answer["families"])
        self._here = set(answers)
        self._restarts = restarts
        self._own = _unpacked(packed(own))

    def collect(self) -> Iterator[Metric]:
        """Every metric that has something to tell."""
        merged: _Snapshot = {}
        for slot, (_, snapshot) in sorted(self._latest.items()):
            for family in snapshot.values():
                if slot in self._here or family.kind in _COUNTED:
                    self._join(merged, family)
        for family in (*self._own.values(), *self._gone.values()):
            if family.name in merged:
                self._join(merged, family)
        for family in merged.values():
            yield family.metric()
        yield from self._by_worker()

    def _join(self, merged: _Snapshot, family: _Family) -> None:
        known = merged.get(family.name)
        if known is None:
            known = merged[family.name] = _Family(family.name, family.kind, family.help)
        row = ROWS.get(self._families.bare(family.name))
        known.join(family.samples, row.merge if row is not None and family.kind == "gauge" else "sum")

    def _keep(self, snapshot: _Snapshot) -> None:
        for family in snapshot.values():
            if family.kind not in _COUNTED:
                continue
            kept = self._gone.setdefault(family.name, _Family(family.name, family.kind, family.help))
            kept.join(family.samples, "sum")
            if len(kept.samples) > MAX_KEPT:
                samples, kept.samples = kept.samples, {}
                kept.join(_without_topics(samples), "sum")

    def _by_worker(self) -> Iterator[Metric]:
        yield self._worker_family("worker_up", {slot: float(slot in self._here) for slot in self._slots})
        yield self._worker_family("worker_restarts", dict(enumerate(map(float, self._restarts))))
        for name, shown in _SHOWN_BY_WORKER.items():
            values: dict[int, float] = {}
            for slot in sorted(self._here):
                family = self._latest[slot][1].get(self._families.full(shown, standard=ROWS[shown].standard))
                if family is not None:
                    values |= dict.fromkeys((slot,), next(iter(family.samples.values()), 0.0))
            yield self._worker_family(name, values)

    def _worker_family(self, name: str, values: Mapping[int, float]) -> Metric:
        row = WORKER_ROWS[name]
        return self._families.simple(
            row.type, name, row.help, row.labels, [((str(slot),), value) for slot, value in values.items()]
        )


def _without_topics(samples: _Samples) -> _Samples:
    """The samples with all topics of workers that are gone counted together."""
    made: _Samples = {}
    for (name, labels), value in samples.items():
        key = name, tuple((label, OTHER if label == "topic" else text) for label, text in labels)
        made[key] = made.get(key, 0.0) + value
    return made
