"""Proves from what publishers were told and subscribers saw that no message was lost, doubled or out of order unsaid.

`Checker` is fed while a test runs: `published`, `acknowledged` and `refused` for each message, and one `Track` for each
subscription, which lives over all connections of its subscriber. Call `finish` at the end, when every track that is
connected has had the time to receive what was acknowledged, then `assert_sound`. Knows no socket and no clock.

What must hold (protocol section 2, "Recovery"):

* From one message to the next of a track the offset rises by one, over reconnects too, unless a gap was *told*: by
  `Lagged` with `recovered` false, or by `Subscribed` with `recovered` false. A `Lagged` counts exactly what is missing.
* `recovered` true means the epoch that was asked for and every message from the position on.
* No track goes back in an epoch, not even after a told gap, nor when an epoch comes back that was left.
* Of an epoch, an offset is one message and a message has one offset, for all subscribers and acknowledgements; so an
  acknowledged message whose offset lies in what a track covers was seen by it, once.
* A connected track ends at the last acknowledged offset of its epoch, and that epoch is the one which acknowledgements
  and other tracks spoke of last: nobody stays behind in an epoch that has ended. (So publish on after a fault.)
* What was seen had been published, and had not been refused.
* Acknowledgements of one publisher come to rising offsets in the order of its publications, retries left out.
"""

import collections
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

MOST_SHOWN = 20
RECENT_EVENTS = 8
UNDECIDED = frozenset({"unavailable", "internal"})
"""Codes of errors after which the message may have been published all the same."""

_UNORDERED = 0
MessageId = Hashable


@dataclass(frozen=True)
class Violation:
    """One broken promise. ``kind`` is a short name, ``recent`` what the track had seen last."""

    kind: str
    text: str
    recent: tuple[object, ...] = ()

    def __str__(self) -> str:
        return "\n    ".join([f"{self.kind}: {self.text}", *map(str, self.recent)])


@dataclass
class Epoch:
    """Of one topic: which message has which offset, as acknowledgements and subscribers told."""

    messages: dict[int, MessageId] = field(default_factory=dict)
    offsets: dict[MessageId, int] = field(default_factory=dict)
    acknowledged: dict[int, MessageId] = field(default_factory=dict)
    last_acknowledged: int = 0
    last_seen: int = 0
    by_publisher: dict[str, tuple[int, int]] = field(default_factory=dict)  # number of publication, offset


@dataclass
class Totals:
    """How much went through the checker, for tests that must know that something happened at all."""

    published: int = 0
    acknowledged: int = 0
    refused: int = 0
    deliveries: int = 0
    recoveries: int = 0  # Subscribed with recovered true
    recovered_messages: int = 0
    resets: int = 0  # Subscribed with recovered false after a recover
    epochs_changed: int = 0
    gaps_told: int = 0
    missed_told: int = 0
    catch_ups: int = 0  # Lagged with recovered true


class Track:
    """One subscription of one subscriber. Feed it everything that comes for its topic, in the order it comes."""

    def __init__(self, checker: "Checker", name: str, topic: str) -> None:
        self.name = name
        self.topic = topic
        self.epoch: str | None = None
        self.offset = 0
        """The last offset that is accounted for; meaningful once ``epoch`` is set."""
        self.connected = False
        self.seen = 0
        self._checker = checker
        self._asked: tuple[str, int] | None = None
        self._highest: dict[str, int] = {}  # of the epochs left so far
        self._promised = 0  # the last offset that a Lagged said would follow
        self._history: Epoch | None = None
        self._recent: collections.deque[tuple[object, ...]] = collections.deque(maxlen=RECENT_EVENTS)

    @property
    def position(self) -> tuple[str, int] | None:
        """What the next Subscribe must recover from; None: nothing is known yet."""
        return None if self.epoch is None else (self.epoch, self.offset)

    @property
    def is_caught_up(self) -> bool:
        """Whether it is connected and has all that was acknowledged so far in what is the topic's epoch now."""
        if not self.connected or self._history is None:
            return False
        return self.epoch == self._checker.latest_epoch(self.topic) and self.offset >= self._history.last_acknowledged

    def subscribing(self, recover: tuple[str, int] | None) -> None:
        """A Subscribe is sent, on a new connection."""
        self._note("Subscribe", recover)
        self._asked = recover
        self.connected = False

    def subscribed(
        self, epoch: str, offset: int, recovered: bool, messages: Iterable[tuple[int, MessageId]] = ()
    ) -> None:
        """Its answer; ``messages`` are (offset, message id)."""
        found = list(messages)
        self._note("Subscribed", epoch, offset, recovered, [number for number, _ in found])
        totals = self._checker.totals
        asked, self.connected = self._asked, True
        start = found[0][0] - 1 if found else offset
        if recovered:
            totals.recoveries += 1
            totals.recovered_messages += len(found)
            start = self._recovered_from(asked, epoch, offset, start)
        elif asked is not None:
            totals.resets += 1
        if epoch != self.epoch:
            self._enter(epoch, start)
        elif not recovered:
            if offset < self.offset:
                self._violation("went back", f"Subscribed at {offset} after {self.offset} of the same epoch")
            self._jump(max(start, self.offset))
            found = [(number, message) for number, message in found if number > self.offset]
        for number, message in found:
            self._advance(number, message)
        if self.offset < offset:
            self._violation("gap", f"Subscribed says offset {offset}, its messages end at {self.offset}")
            self.offset = offset

    def message(self, offset: int, message: MessageId) -> None:
        """A live message."""
        self._note("Message", offset, message)
        if not self.connected:
            self._violation("too early", f"message {offset} before Subscribed")
            return
        self._advance(offset, message)

    def lagged(self, missed: int, epoch: str, offset: int, recovered: bool) -> None:
        """The server tells of a gap; ``offset`` is that of the last message skipped."""
        self._note("Lagged", missed, epoch, offset, recovered)
        totals = self._checker.totals
        if not self.connected:
            self._violation("too early", "Lagged before Subscribed")
            return
        if recovered:
            totals.catch_ups += 1
        else:
            totals.gaps_told += 1
            totals.missed_told += missed
        if epoch != self.epoch:
            self._enter(epoch, offset - missed if recovered else offset)
            self._promised = offset if recovered else 0
            return
        if offset - missed != self.offset:
            self._violation("miscounted", f"Lagged says {missed} up to {offset}, the last seen was {self.offset}")
        if recovered:
            self._promised = max(self._promised, offset)
        else:
            self._jump(offset)

    def disconnected(self) -> None:
        """The connection is gone; what waited on it may be lost."""
        self._note("disconnected")
        self.connected = False
        self._promised = 0

    def finish(self) -> None:
        """No more comes. A connected track must have everything."""
        if not self.connected or self._history is None:
            return
        if self.epoch != (latest := self._checker.latest_epoch(self.topic)):
            self._violation("left behind", f"the topic is in epoch {latest} by now")
        last = max(self._history.last_acknowledged, self._promised)
        if self.offset < last:
            lost = last - self.offset
            self._violation(
                "tail lost", f"ends at {self.offset}, {lost} more up to {last} were acknowledged or promised"
            )

    def _recovered_from(self, asked: tuple[str, int] | None, epoch: str, offset: int, start: int) -> int:
        """The offset the messages must begin behind."""
        if asked is None:
            self._violation("false recovery", "recovered without having asked")
            return start
        if asked[0] != epoch:
            self._violation("false recovery", f"recovered in epoch {epoch}, asked was {asked[0]}")
            return start
        if offset < asked[1]:
            self._violation("false recovery", f"recovered up to {offset}, asked was from {asked[1]} on")
        if start > asked[1]:
            self._violation("false recovery", f"recovered, but {asked[1] + 1} to {start} are missing")
            self.offset = max(self.offset, start)
        return asked[1]

    def _enter(self, epoch: str, offset: int) -> None:
        """Another epoch begins for this track, at that offset."""
        if self.epoch is not None:
            self._highest[self.epoch] = max(self.offset, self._highest.get(self.epoch, 0))
            self._checker.totals.epochs_changed += 1
        if offset < (before := self._highest.get(epoch, 0)):
            self._violation("went back", f"epoch {epoch} comes back at {offset}, {before} of it was seen already")
            offset = before
        self.epoch, self.offset, self._promised = epoch, offset, 0
        self._history = self._checker.epoch(self.topic, epoch)
        self._checker.now_in(self.topic, epoch)

    def _jump(self, offset: int) -> None:
        """A gap that was told ends at that offset."""
        if offset < self.offset:
            self._violation("went back", f"to {offset} after {self.offset} of the same epoch")
        else:
            self.offset = offset

    def _advance(self, offset: int, message: MessageId) -> None:
        if offset != self.offset + 1:
            if offset <= self.offset:
                self._violation("duplicate", f"offset {offset} after {self.offset}")
                return
            self._violation("gap", f"offset {offset} after {self.offset}, nobody told")
        self.offset = offset
        self.seen += 1
        history = self._history
        assert history is not None
        self._checker.totals.deliveries += 1
        if offset > history.last_seen:
            history.last_seen = offset
        if history.messages.get(offset) != message:
            self._checker.claim(history, self.topic, offset, message, f"{self.name} saw")

    def _note(self, *event: object) -> None:
        self._recent.append(event)

    def _violation(self, kind: str, text: str) -> None:
        self._checker.violation(kind, f"{self.name} on {self.topic}, epoch {self.epoch}: {text}", tuple(self._recent))


class Checker:
    """All that publishers and subscribers of a test know. ``ordered`` is off where a publisher's order may break."""

    def __init__(self, *, ordered: bool = True) -> None:
        self.totals = Totals()
        self.tracks: list[Track] = []
        self.violations: list[Violation] = []
        self.violation_count = 0
        self.refusals: collections.Counter[str] = collections.Counter()
        """By the error's code."""
        self._ordered = ordered
        self._published: dict[MessageId, tuple[str, int]] = {}  # publisher, number of its publication
        self._refused: dict[MessageId, str] = {}
        self._numbers: collections.Counter[str] = collections.Counter()
        self._epochs: dict[tuple[str, str], Epoch] = {}
        self._latest_epochs: dict[str, str] = {}
        self._acknowledged_on: collections.Counter[str] = collections.Counter()

    def track(self, name: str, topic: str) -> Track:
        """A subscription begins; the track is fed over all connections of that subscriber."""
        made = Track(self, name, topic)
        self.tracks.append(made)
        return made

    def published(self, publisher: str, message: MessageId) -> None:
        """A publication is about to be sent; its id is unique. Whether it gets an answer is open."""
        self.totals.published += 1
        self._numbers[publisher] += 1
        self._published[message] = (publisher, self._numbers[publisher])

    def acknowledged(self, message: MessageId, topic: str, epoch: str, offset: int) -> None:
        """Its Ack came."""
        self.totals.acknowledged += 1
        self._acknowledged_on[topic] += 1
        history = self.epoch(topic, epoch)
        self.now_in(topic, epoch)
        if (other := history.acknowledged.get(offset)) is not None and other != message:
            self.violation("shared offset", f"{topic} {epoch}/{offset} was acknowledged for {other} and {message}")
            return
        history.acknowledged[offset] = message
        history.last_acknowledged = max(history.last_acknowledged, offset)
        self.claim(history, topic, offset, message, "acknowledged was")
        if self._ordered and message in self._published:
            self._check_order(history, topic, offset, *self._published[message])

    def refused(self, message: MessageId, code: str) -> None:
        """An Error came instead. One that leaves it open may be followed by another attempt, out of the order."""
        self.totals.refused += 1
        self.refusals[code] += 1
        if code in UNDECIDED:
            self._published[message] = (self._published[message][0], _UNORDERED)
        else:
            self._refused[message] = code

    def acknowledged_on(self, topic: str) -> int:
        """How many publications on it were acknowledged."""
        return self._acknowledged_on[topic]

    def unseen(self) -> int:
        """How many acknowledged messages are beyond all that anybody saw of their epoch: they went with it."""
        return sum(
            sum(offset > history.last_seen for offset in history.acknowledged) for history in self._epochs.values()
        )

    def finish(self) -> None:
        """Nothing more comes in."""
        for track in self.tracks:
            track.finish()
        for (topic, epoch), history in self._epochs.items():
            for message in history.offsets.keys() & self._refused.keys():
                code = self._refused[message]
                self.violation("refused but seen", f"{topic} {epoch}/{history.offsets[message]}: {message}, {code}")

    def assert_sound(self) -> None:
        """Raises AssertionError with the first violations."""
        assert not self.violation_count, self.report()

    def report(self) -> str:
        """The first violations, with what their tracks had seen last, and the totals."""
        kinds = collections.Counter(violation.kind for violation in self.violations)
        head = f"{self.violation_count} violations, of the first {len(self.violations)}: {dict(kinds)}"
        return "\n".join([head, str(self.totals), *(f"  {violation}" for violation in self.violations)])

    # for the tracks

    def epoch(self, topic: str, epoch: str) -> Epoch:
        """What is known of an epoch of a topic."""
        return self._epochs.setdefault((topic, epoch), Epoch())

    def now_in(self, topic: str, epoch: str) -> None:
        """Somebody learned that the topic has that epoch."""
        self._latest_epochs[topic] = epoch

    def latest_epoch(self, topic: str) -> str | None:
        """What was learned last."""
        return self._latest_epochs.get(topic)

    def claim(self, history: Epoch, topic: str, offset: int, message: MessageId, who: str) -> None:
        """Somebody says that the message has that offset."""
        if message not in self._published:
            self.violation("unknown", f"{who} {topic}/{offset} as {message}, which nobody published")
            return
        known = history.messages.setdefault(offset, message)
        if known != message:
            self.violation("conflict", f"{who} {topic}/{offset} as {message}, others as {known}")
            return
        place = history.offsets.setdefault(message, offset)
        if place != offset:
            self.violation("doubled", f"{who} {topic}/{offset} as {message}, which has offset {place} too")

    def violation(self, kind: str, text: str, recent: tuple[object, ...] = ()) -> None:
        """Keep it; beyond the first ones only the number."""
        self.violation_count += 1
        if len(self.violations) < MOST_SHOWN:
            self.violations.append(Violation(kind, text, recent))

    def _check_order(self, history: Epoch, topic: str, offset: int, publisher: str, number: int) -> None:
        if number == _UNORDERED:
            return
        last_number, last_offset = history.by_publisher.get(publisher, (0, 0))
        if (number > last_number) != (offset > last_offset):
            self.violation(
                "publisher's order",
                f"{publisher} on {topic}: publication {number} got {offset}, {last_number} got {last_offset}",
            )
        if number > last_number:
            history.by_publisher[publisher] = (number, offset)
