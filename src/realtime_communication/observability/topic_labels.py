"""Topics as labels, of which there are never more than a bound, whatever clients publish and subscribe to.

The topics with the most subscribers have labels of their own, the rest share one. Which these are is decided anew at
each update; what was counted for a topic that has lost its label goes to the rest, so that no count ever falls but by
its series ending. Labels are cut to a bound: topics with the same beginning then share a series. Inboxes are one
series, because their names are those of users.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from realtime_communication.config.metric_names import INBOXES, MAX_LABEL_BYTES, MAX_TOPICS, OTHER

TopicCount = tuple[str, int, int]
"""A topic, its subscribers, its newest offset: as the hub gives them, most subscribers first."""

SYSTEM: Final = "$*"


def label_of(topic: str) -> str:
    """The label of a topic: its name, cut to whole characters within the bound."""
    data = topic.encode(errors="replace")
    return topic if len(data) <= MAX_LABEL_BYTES else data[:MAX_LABEL_BYTES].decode(errors="ignore")


class TopicLabels:
    """The topics with labels, and what each of these had at the last update."""

    def __init__(self) -> None:
        self._labels: dict[str, str] = {}
        self.subscribers: dict[str, int] = {}
        self.offsets: dict[str, int] = {}
        self.complete = True  # no topic was left out

    def update(self, counts: Sequence[TopicCount]) -> None:
        """Take the topics that have labels from now on, the first MAX_TOPICS of `counts`."""
        self._labels, self.subscribers, self.offsets = {}, {}, {}
        self.complete = len(counts) < MAX_TOPICS
        for topic, subscribers, offset in counts[:MAX_TOPICS]:
            if topic[:1] in ("@", "$"):
                continue
            label = self._labels[topic] = label_of(topic)
            self.subscribers[label] = self.subscribers.get(label, 0) + subscribers
            self.offsets[label] = self.offsets.get(label, 0) + offset

    def of(self, topic: str) -> str:
        """The label of a topic a message was published on."""
        if topic.startswith("@"):
            return INBOXES
        return SYSTEM if topic.startswith("$") else self._labels.get(topic, OTHER)

    def keeps(self, label: str) -> bool:
        """Whether the label is in use at present."""
        return label in self.subscribers or label in (OTHER, INBOXES, SYSTEM)


def with_rest(parts: Mapping[str, int], total: int) -> dict[str, int]:
    """`parts`, and what is missing to `total` under the shared label, when something is."""
    rest = total - sum(parts.values())
    return {**parts, OTHER: parts.get(OTHER, 0) + rest} if rest > 0 else dict(parts)


class PublicationLedger:
    """Publications by topic, from offsets. Together they are all publications there were."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self._offsets: dict[str, int] = {}
        self._complete = True
        self._total = 0

    def update(self, labels: TopicLabels, total: int) -> None:
        """Take offsets over from `labels`, and the number of all publications so far."""
        left = max(total - self._total, 0)
        for label in self.counts.keys() - labels.offsets.keys() - {OTHER}:
            self._add(OTHER, self.counts.pop(label))
        for label, offset in labels.offsets.items():
            # A topic seen for the first time is new, unless some were left out before: then its past was counted
            # with the rest. An offset below the last one is of a new epoch.
            before = self._offsets.get(label, 0 if self._complete else offset)
            gained = min(offset - before if offset >= before else offset, left)
            self._add(label, gained)
            left -= gained
        if left:
            self._add(OTHER, left)
        self._offsets, self._complete, self._total = labels.offsets, labels.complete, total

    def _add(self, label: str, count: int) -> None:
        self.counts[label] = self.counts.get(label, 0) + count
