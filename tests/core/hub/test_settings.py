"""Settings of the data plane: values taken over, bounds told by name."""

from typing import Any

import pytest

from core.hub.sans_io import PONG, WALL_MS, make_hub, settings
from realtime_communication._core.hub.settings import OVERFLOWS, describe

TYPES = [
    "Authenticate",
    "Subscribe",
    "Unsubscribe",
    "Broadcast",
    "DirectMessage",
    "Presence",
    "History",
    "Refresh",
    "Ping",
]
SECONDS = [
    "heartbeat_interval_secs",
    "client_timeout_secs",
    "auth_timeout_secs",
    "cache_ttl_secs",
    "cleanup_threshold_secs",
    "cleanup_interval_secs",
]
WHOLE = {  # lowest and highest
    "refill_interval_ms": (1, 3_600_000),
    "max_connections": (1, 2**32 - 1),
    "max_frame_size": (125, 2**31 - 1),
    "max_message_size": (125, 2**31 - 1),
    "mailbox_capacity": (1, 2**31 - 1),
    "priority_mailbox_size": (1, 2**31 - 1),
    "batch_size": (1, 2**31 - 1),
    "max_batch_size": (1, 2**31 - 1),
    "compression_threshold_bytes": (0, 2**31 - 1),
    "max_cache_entries": (0, 2**31 - 1),
    "max_targets_per_message": (1, 2**31 - 1),
    "batch_timeout_ms": (0, 3_600_000),
    "batch_window_ms": (0, 3_600_000),
    "connection_burst": (0, 2**32 - 1),
    "user_burst": (0, 2**32 - 1),
    "global_burst": (0, 2**32 - 1),
}
POOLS = {"connection_pool_size", "message_pool_size", "buffer_pool_size"}  # read the first time only


def test_values_are_taken_over() -> None:
    described = describe(settings(heartbeat_interval_secs=0.25, client_timeout_secs=1.5, cache_ttl_secs=0))
    assert described == {
        "heartbeat_ms": 250,
        "client_timeout_ms": 1500,
        "auth_timeout_ms": 10_000,
        "max_connections": 1000,
        "max_frame": 65536,
        "max_message": 1 << 20,
        "max_fragments": 1024 + 65536,
        "anonymous_message": 65536,
        "mailbox_capacity": 1000,
        "priority_capacity": 100,
        "overflow": OVERFLOWS["backpressure"],
        "batch_size": 50,
        "flush_messages": 100,
        "compression": True,
        "cache_ttl_ms": 0,
        "custom_types": [],
    }


@pytest.mark.parametrize("name", SECONDS)
def test_seconds_are_bounded(name: str) -> None:
    describe(settings(**{name: 0}))
    describe(settings(**{name: 4_000_000}))
    for value in (-0.001, 4_000_001, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=f"^{name}: {value} is not between 0 and 4000000 seconds$"):
            describe(settings(**{name: value}))


@pytest.mark.parametrize("name", WHOLE)
def test_whole_numbers_are_bounded(name: str) -> None:
    lowest, highest = WHOLE[name]
    describe(settings(**{name: lowest}))
    describe(settings(**{name: highest}))
    for value in (lowest - 1, highest + 1, 2**70, -(2**70)):
        with pytest.raises(ValueError, match=f"^{name}: {value} is not between {lowest} and {highest}$"):
            describe(settings(**{name: value}))


@pytest.mark.parametrize(
    "name", sorted(vars(settings()).keys() - {"connection_pool_size", "message_pool_size", "buffer_pool_size"})
)
def test_a_missing_attribute_is_named(name: str) -> None:
    source = settings()
    delattr(source, name)
    with pytest.raises(AttributeError, match=name):
        make_hub().hub.configure(source)


@pytest.mark.parametrize("strategy", OVERFLOWS)
def test_overflow_strategies(strategy: str) -> None:
    assert describe(settings(overflow_strategy=strategy))["overflow"] == OVERFLOWS[strategy]


def test_an_unknown_overflow_strategy_is_named() -> None:
    with pytest.raises(ValueError, match=r"^overflow_strategy: 'panic'"):
        describe(settings(overflow_strategy="panic"))


@pytest.mark.parametrize("value", [0, 0.25, 2.5, 10_000.0])
def test_parts_of_a_millisecond_are_allowed(value: float) -> None:
    server = make_hub(batch_timeout_ms=value, batch_window_ms=value)
    assert server.connect().request({"type": "Ping", "id": 1})["type"] == "Pong"


def test_a_batch_is_never_larger_than_a_mailbox() -> None:
    assert describe(settings(max_batch_size=100, mailbox_capacity=30))["flush_messages"] == 30


@pytest.mark.parametrize(("message", "anonymous"), [(1000, 1000), (65536, 65536), (10_000_000, 65536)])
def test_less_is_taken_before_authentication(message: int, anonymous: int) -> None:
    assert describe(settings(max_message_size=message))["anonymous_message"] == anonymous


@pytest.mark.parametrize("algorithm", ["none", "gzip", "zstd", "lz4"])
def test_compression(algorithm: str) -> None:
    assert describe(settings(compression_algorithm=algorithm))["compression"] == (algorithm != "none")


class TestCustomLimits:
    """Limits for request types that match a glob."""

    @pytest.mark.parametrize(
        ("pattern", "matched"),
        [
            ("*", set(TYPES)),
            ("Broadcast", {"Broadcast"}),
            ("*scribe", {"Subscribe", "Unsubscribe"}),
            ("P[ir]*", {"Ping", "Presence"}),
            ("broadcast", set()),
            ("", set()),
        ],
    )
    def test_patterns(self, pattern: str, matched: set[str]) -> None:
        described: Any = describe(settings(custom_limits=[("rule", pattern, 1.0, 1)]))["custom_types"]
        (bits,) = described
        each = [self.bit(name) for name in TYPES]
        assert {name for name, bit in zip(TYPES, each, strict=True) if bits & bit} == matched

    def bit(self, name: str) -> int:
        described: Any = describe(settings(custom_limits=[("rule", name, 1.0, 1)]))["custom_types"]
        return int(described[0])

    def test_each_type_has_a_bit_of_its_own(self) -> None:
        bits = [self.bit(name) for name in TYPES]
        assert len(set(bits)) == len(TYPES)
        assert all(bit.bit_count() == 1 for bit in bits)

    @pytest.mark.parametrize("burst", [-1, 2**32])
    def test_bursts_are_bounded(self, burst: int) -> None:
        with pytest.raises(ValueError, match=f"^custom_limits: {burst} is not between 0 and 4294967295$"):
            describe(settings(custom_limits=[("rule", "*", 1.0, burst)]))

    def test_at_most_sixteen(self) -> None:
        rules = [("rule", "*", 1.0, 1)] * 16
        assert len(describe(settings(custom_limits=rules))["custom_types"]) == 16  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"^custom_limits: 17 rules, at most 16$"):
            describe(settings(custom_limits=[*rules, rules[0]]))


class TestLive:
    """A change while connections are open."""

    def test_a_refused_change_changes_nothing(self) -> None:
        server = make_hub(max_targets_per_message=2)
        peer = server.connect()
        with pytest.raises(ValueError, match=r"^mailbox_capacity: 0 "):
            server.hub.configure(settings(max_targets_per_message=1, mailbox_capacity=0))
        sent = {"type": "DirectMessage", "id": 1, "to": ["a", "b"], "payload": 1}
        assert peer.request(sent)["type"] == "Ack"
        server.hub.configure(settings(max_targets_per_message=1))
        assert peer.request(sent)["code"] == "too_many_targets"

    def test_smaller_messages_from_now_on(self) -> None:
        server = make_hub()
        peer = server.connect()
        server.hub.configure(settings(max_message_size=200))
        peer.send({"type": "Ping", "id": 1, "more": "x" * 300})
        peer.messages()
        assert peer.close is not None
        assert peer.close[0] == 1009

    def test_other_times_count_for_connections_that_are_open(self) -> None:
        server = make_hub(heartbeat_interval_secs=1000, client_timeout_secs=2000, auth_timeout_secs=1000)
        silent, anonymous = server.connect("alice"), server.connect(None)
        server.advance(500_000)
        server.hub.configure(settings(heartbeat_interval_secs=10, client_timeout_secs=30, auth_timeout_secs=1000))
        server.advance(100)
        silent.frames()
        assert (len(silent.pings), silent.close) == (1, None), "asked before it is given up"
        server.advance(21_000)
        silent.frames()
        assert silent.close is not None and silent.close[0] == 4408
        assert anonymous.frames() == []
        server.hub.configure(settings(auth_timeout_secs=1))
        server.advance(100)
        anonymous.frames()
        assert anonymous.close is not None and anonymous.close[0] == 4408

    def test_who_answers_stays(self) -> None:
        server = make_hub(heartbeat_interval_secs=1000, client_timeout_secs=2000)
        peer = server.connect()
        server.advance(900_000)
        server.hub.configure(settings(heartbeat_interval_secs=10, client_timeout_secs=30))
        for _ in range(10):
            server.advance(10_100)
            peer.frames()
            peer.send_frame(b"", PONG)
        assert (peer.close, len(peer.pings)) == (None, 10)

    def test_notices_of_expiry_do_not_come_twice(self) -> None:
        server = make_hub(heartbeat_interval_secs=1000, client_timeout_secs=2000)
        now = WALL_MS // 1000
        peer = server.connect("alice", expires_at=now + 100, refresh_at=now + 10)
        server.advance(11_000)
        assert [message["type"] for message in peer.messages()] == ["TokenExpiring"]
        server.hub.configure(settings(heartbeat_interval_secs=500, client_timeout_secs=2000))
        server.advance(1000)
        assert peer.messages() == []

    def test_publishers_go_on_under_another_strategy(self) -> None:
        server = make_hub(overflow_strategy="block", mailbox_capacity=3)
        reader, publisher = server.connect("reader"), server.connect("publisher")
        reader.subscribe("t")
        reader.stall()
        for number in range(10):
            publisher.send({"type": "Broadcast", "id": number, "topic": "t", "payload": number})
        assert not publisher.connection.reading
        server.hub.configure(settings(overflow_strategy="drop_newest", mailbox_capacity=3))
        server.flush()
        assert publisher.connection.reading
        publisher.messages()
        assert publisher.request({"type": "Ping", "id": 99})["type"] == "Pong"
        assert server.stats()["publications"] == 10

    def test_idle_buckets_are_looked_through_anew(self) -> None:
        limits = {"rate_limiting_enabled": True, "user_rps": 0.001, "user_burst": 5}
        server = make_hub(**limits, cleanup_interval_secs=80_000, cleanup_threshold_secs=80_000)
        peer = server.connect()
        peer.request({"type": "Ping", "id": 1})
        peer.end()
        server.advance(20_000)
        assert server.stats()["users"] == 1
        server.hub.configure(settings(**limits, cleanup_interval_secs=1, cleanup_threshold_secs=10))
        server.advance(2000)
        assert server.stats()["users"] == 0
