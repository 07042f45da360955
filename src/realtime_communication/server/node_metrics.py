"""What the parts that join a worker to others count, by the names of the catalogue of metrics."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Protocol

ENGINE: Final = MappingProxyType(
    {
        "joined": "redis_joined",
        "losses": "redis_losses",
        "published": "redis_publications",
        "refused": "redis_publications_refused",
        "waiting": "redis_publications_waiting",
        "waiting_bytes": "redis_publications_waiting_bytes",
        "dropped": "redis_publications_dropped",
        "reads": "redis_reads",
        "resets": "redis_resets",
        "strays": "redis_stray_messages",
        "topics": "redis_topics",
    }
)
FEED: Final = MappingProxyType(
    {
        "messages": "redis_feed_messages",
        "restored": "redis_feed_restored",
        "lines_lost": "redis_feed_lines_lost",
        "probes_lost": "redis_feed_probes_lost",
        "lines": "redis_feed_lines",
        "channels": "redis_feed_channels",
        "channels_waiting": "redis_feed_channels_waiting",
    }
)
BUS: Final = MappingProxyType(
    {
        "links": "bus_links",
        "bus_bytes_sent": "bus_sent_bytes",
        "bus_bytes_received": "bus_received_bytes",
        "bus_writes": "bus_writes",
        "bus_reads": "bus_reads",
        "bus_overflows": "bus_overflows",
        "bus_faults": "bus_faults",
        "bus_refused": "bus_refused",
        "bus_descriptors_lost": "bus_descriptors_lost",
    }
)


class Counting(Protocol):
    """A part that counts."""

    def statistics(self) -> Mapping[str, float]: ...


def numbers(engine: Counting | None, feed: Counting | None, neighbours: Counting | None) -> dict[str, float]:
    """The numbers of those parts that there are. What has no metric is left out."""
    found: dict[str, float] = {}
    for part, names in ((engine, ENGINE), (feed, FEED), (neighbours, BUS)):
        if part is not None:
            found.update((names[entry], value) for entry, value in part.statistics().items() if entry in names)
    return found
