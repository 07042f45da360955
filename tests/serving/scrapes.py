"""Scrapes a metrics port, and makes sources that have something to tell about everything."""

import contextlib
import enum
import http.client
import time

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from realtime_communication._core.base.counters import counter_names
from realtime_communication.observability.catalogue import ROWS
from realtime_communication.observability.process import ProcessReading
from realtime_communication.observability.sources import RedisReading, ReloadReading, Sources

STATS = (*counter_names(), "topics", "users", "members", "cached_messages", "cached_bytes", "idempotency_keys")
STATS += ("sessions", "arenas", "arenas_kept", "timers")
TOLD = tuple(name for name, row in ROWS.items() if row.told)
PREFIX = "realtime_comm_websocket_"


class Scrape:
    """One answer. `families` are the metrics in it by name, `_total` of counters left out."""

    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def text(self):
        return self.body.decode()

    @property
    def families(self):
        return {family.name: family for family in text_string_to_metric_families(self.text)}

    @property
    def names(self):
        """Names of all samples, as expressions use them."""
        return {sample.name for family in self.families.values() for sample in family.samples}

    def values(self, name, label):
        """The samples of a metric by the value of one label."""
        return {each.labels[label]: each.value for each in self._samples(name)}

    def value(self, name, **labels):
        """The one sample with these labels; None when there is none."""
        found = [each.value for each in self._samples(name) if labels.items() <= each.labels.items()]
        assert len(found) <= 1, found
        return found[0] if found else None

    def _samples(self, name):
        families = self.families.values()
        return [each for family in families for each in family.samples if each.name in (name, PREFIX + name)]


def scrape(port, path="/metrics", method="GET", host="127.0.0.1", **headers):
    """One request; `_` in the names of headers stands for `-`."""
    connection = http.client.HTTPConnection(host, port, timeout=10)
    with contextlib.closing(connection):
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return Scrape(answer.status, dict(answer.getheaders()), answer.read())


def scrape_until(port, reached, **arguments):
    """The first scrape that is as wanted; fails when none is."""
    deadline = time.monotonic() + 10
    while not reached(found := scrape(port, **arguments)):
        assert time.monotonic() < deadline, found.text
        time.sleep(0.02)
    return found


class State(enum.Enum):
    OPEN = "open"


class Breaker(msgspec.Struct):
    name: str = "redis"
    state: State = State.OPEN
    failures: int = 5
    rejected: int = 7


class Service(msgspec.Struct):
    name: str = "HTTP"
    running: bool = True
    restarts: int = 2


def full_sources(**changes):
    """Sources that have something to tell about every metric there is."""
    stats = {name: number for number, name in enumerate(STATS, 1)}
    everything = {
        "stats": lambda: stats,
        "build": {"version": "1.2.3", "node_id": "n", "profile": "test"},
        "max_connections": lambda: 10_000,
        "draining": lambda: False,
        "queued": lambda: 12,
        "topic_counts": lambda limit: [("room", 3, 40)][:limit],
        "take_samples": lambda: [("Broadcast", "room", 0, 3_000_000)],
        "process": lambda: ProcessReading(1, 2.5, 3, 4, 5, 6),
        "services": lambda: [Service()],
        "breakers": lambda: [Breaker()],
        "breaker_transitions": lambda: {("redis", "open"): 3},
        "dropped_log_lines": lambda: 4,
        "last_reload": lambda: ReloadReading(True, 1_700_000_000.0),
        "tls_failures": lambda: 8,
        "certificate_expiry": lambda: 1_800_000_000.0,
        "redis": lambda: RedisReading(True, 0.001, 2, 1, {"garbage": 3}, {"truncated": 4}),
        "told": lambda: {name: number for number, name in enumerate(TOLD, 1)},
    }
    return Sources(**(everything | changes))
