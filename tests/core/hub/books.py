"""What clients know by themselves, without any model of the hub; and what must be left of a hub when all have gone."""

from core.hub.sans_io import Envelope, Server


class Book:
    """Kept of all that one connection is sent: nothing for what it is not subscribed to, twice or out of order."""

    def __init__(self, user: str) -> None:
        self.user = user
        self.offsets: dict[str, int] = {}  # the last one of each topic it is subscribed to
        self.epochs: dict[str, str] = {}

    def read(self, envelope: Envelope) -> None:
        kind = envelope["type"]
        topic = envelope.get("topic", f"@{self.user}")
        if kind == "Subscribed":
            given = [each["offset"] for each in envelope["messages"]]
            assert given == list(range(envelope["offset"] + 1 - len(given), envelope["offset"] + 1))
            if self.epochs.get(topic) == envelope["epoch"]:
                assert envelope["offset"] >= self.offsets.get(topic, 0)
            self.offsets[topic], self.epochs[topic] = envelope["offset"], envelope["epoch"]
        elif kind == "Unsubscribed":
            self.offsets.pop(topic, None)
        elif kind in ("Message", "DirectMessage"):
            self.message(topic, envelope)
        elif kind == "Lagged":
            self.lagged(topic, envelope)

    def message(self, topic: str, envelope: Envelope) -> None:
        if topic.startswith(("@", "*")):
            assert topic in ("*", f"@{self.user}")
            self.offsets.setdefault(topic, envelope["offset"] - 1)  # subscribed unasked
        assert topic in self.offsets, envelope
        assert envelope["offset"] > self.offsets[topic], envelope
        self.offsets[topic] = envelope["offset"]

    def lagged(self, topic: str, envelope: Envelope) -> None:
        if topic.startswith(("@", "*")):
            self.offsets.setdefault(topic, envelope["offset"] - envelope["missed"])
        assert topic in self.offsets, envelope
        if not envelope["recovered"]:
            assert envelope["offset"] >= self.offsets[topic]
            self.offsets[topic] = envelope["offset"]
        self.epochs[topic] = envelope["epoch"]


GAUGES = (
    "connections",
    "subscriptions",
    "pending",
    "sessions",
    "users",
    "members",
    "timers",
    "cached_messages",
    "cached_bytes",
    "idempotency_keys",
)


def assert_empty(server: Server) -> None:
    """All connections have ended, and what was cached is forgotten: nothing is held any more."""
    stats = server.stats()
    left = {name: stats[name] for name in GAUGES if stats[name]}
    assert not left, left
    topics = [each for each in server.hub.topics() if not each["topic"].startswith(STANDING)]
    assert topics == [], topics
    assert stats["arenas"] <= ARENAS_IN_USE
    assert server.hub.queued() == 0


STANDING = ("*", "@")
"""The topic of everybody is kept for good by the workers of a node, and the inbox of a user who left at the very moment
at which its home changed until homes change again."""

ARENAS_IN_USE = 16
"""One of each form of frames stays with the hub to be written on."""
