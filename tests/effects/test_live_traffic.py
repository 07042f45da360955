"""Keys of traffic that change while the server runs, seen on connections that were open before."""

import json
import threading

import pytest

from realtime_communication._core.hub.memory_driver import MemoryDriver
from serving.asking import ask, bearer, until
from serving.raw import BINARY, PING, TEXT, RawSocket, envelope, exchange, frame, upgrade

SLOW = 0.001  # requests per second: nothing comes back while a test runs
BIG = "x" * 60_000


class TestWebsocket:
    def test_max_connections(self, serve):
        running = serve({"websocket": {"max_connections": 1}})
        with running.peer("alice") as alice:
            assert exchange(running.port, upgrade()).status == 503
            assert running.reload({"websocket": {"max_connections": 2}})
            with running.peer("bob") as bob:
                assert running.reload({"websocket": {"max_connections": 1}})
                assert exchange(running.port, upgrade()).status == 503
                assert alice.ok("Ping") and bob.ok("Ping"), "who is in stays"

    def test_max_unauthenticated(self, serve):
        running = serve()
        with RawSocket(running.port) as first, RawSocket(running.port) as second, running.peer() as alice:
            assert running.reload({"websocket": {"max_unauthenticated": 2}})
            with RawSocket(running.port) as third:
                assert first.at_end()
                for raw in (second, third):
                    raw.send(upgrade())
                    assert raw.answer().status == 101
            assert alice.ok("Ping"), "who is in stays"

    def test_max_unauthenticated_per_address(self, serve):
        running = serve()
        driver = MemoryDriver(running.worker.parts.hub)
        connections = [running.ask(lambda: driver.connect(b"\xc6\x33\x64\x07")) for _ in range(2)]
        assert running.reload({"websocket": {"max_unauthenticated_per_address": 2}})
        connections.append(running.ask(lambda: driver.connect(b"\xc6\x33\x64\x07")))
        assert [connection.open for connection in connections] == [False, True, True]

    def test_heartbeat_interval(self, serve):
        running = serve()
        with running.raw() as raw:
            assert running.reload({"websocket": {"heartbeat_interval_secs": 0.05}})
            assert raw.frame().opcode == PING

    def test_client_timeout(self, serve):
        running = serve()
        with running.raw() as raw:
            assert running.reload({"websocket": {"heartbeat_interval_secs": 0.05, "client_timeout_secs": 0.2}})
            assert raw.frame().opcode == PING, "asked before it is given up"
            assert raw.closed_with() == 4408

    def test_auth_timeout(self, serve):
        running = serve({"websocket": {"auth_timeout_secs": 3600}})
        with RawSocket(running.port) as raw:
            raw.send(upgrade(user=None))
            assert raw.answer().status == 101
            assert running.reload({"websocket": {"auth_timeout_secs": 0.05}})
            assert raw.closed_with() == 4408

    def test_max_frame_size(self, serve):
        running = serve()
        with running.raw() as raw:
            assert running.reload({"websocket": {"max_frame_size": 200}})
            assert raw.ping_works()
            raw.send(frame(TEXT, b" " * 201))
            assert raw.closed_with() == 1009

    def test_max_message_size(self, serve):
        running = serve()
        with running.raw() as raw:
            assert running.reload({"websocket": {"max_frame_size": 200, "max_message_size": 300}})
            raw.send(frame(TEXT, b" " * 200, fin=False) + frame(0, b" " * 101))
            assert raw.closed_with() == 1009

    def test_larger_ones(self, serve):
        small = {"max_frame_size": 200, "max_message_size": 200}
        running = serve({"websocket": small})
        with running.peer() as alice:
            assert running.reload({})
            assert alice.ok("Broadcast", topic="t", payload=BIG)


def limits(**changes):
    return {"rate_limiting": {"enabled": True, **changes}}


def bucket(rate=SLOW, burst=1, **more):
    return {"requests_per_second": rate, "burst_size": burst, **more}


def allowed(peer, most=30):
    """How many requests get through, and the error after them."""
    for count in range(most):
        reply = peer.request("Ping")
        if reply["type"] == "Error":
            return count, reply
    raise AssertionError("no limit was met")


def test_limits_off_and_on(serve):
    running = serve(limits(connection=bucket()))
    with running.peer() as alice:
        assert allowed(alice)[0] == 1
        assert running.reload(limits(enabled=False))
        assert [alice.ok("Ping")["type"] for _ in range(5)] == ["Pong"] * 5
        assert running.reload(limits(connection=bucket()))
        assert allowed(alice)[0] <= 1


@pytest.mark.parametrize("scope", ["connection", "user", "global"])
class TestEachBucket:
    def test_burst(self, serve, scope):
        running = serve(limits(**{scope: bucket(burst=25)}))
        with running.peer() as alice:
            alice.ok("Ping")
            assert running.reload(limits(**{scope: bucket(burst=3)}))
            count, error = allowed(alice)
            assert (count, error["code"], error["scope"]) == (3, "rate_limited", scope)

    def test_rate(self, serve, scope):
        running = serve(limits(**{scope: bucket()}))
        with running.peer() as alice:
            assert allowed(alice)[1]["retry_after_ms"] > 100_000
            assert running.reload(limits(**{scope: bucket(rate=0.1)}))
            assert alice.error("Ping")["retry_after_ms"] <= 10_000
            assert running.reload(limits(**{scope: bucket(rate=1000, burst=1000)}))
            until(lambda: alice.request("Ping")["type"] == "Pong")

    def test_window(self, serve, scope):
        running = serve(limits(**{scope: bucket(rate=0.5, burst=2, window_size_secs=40)}))
        with running.peer() as alice:
            assert running.reload(limits(**{scope: bucket(rate=0.1, burst=2, window_size_secs=50)}))
            assert allowed(alice)[0] == 5


class TestTokenBucket:
    @pytest.mark.parametrize(("key", "value"), [("refill_interval_ms", 60_000), ("token_precision", 0.3)])
    def test_when_a_token_is_back(self, serve, key, value):
        # Refills of a minute, or thresholds of 1.2 tokens after two were taken, make the waits longer than 50 seconds.
        rate = {"connection": bucket(rate=0.02, burst=2)}
        running = serve(limits(**rate, token_bucket={"refill_interval_ms": 1, "token_precision": 0.1}))
        with running.peer() as alice:
            assert allowed(alice)[1]["retry_after_ms"] <= 50_000
            other = {"refill_interval_ms": 1, "token_precision": 0.1} | {key: value}
            assert running.reload(limits(**rate, token_bucket=other))
            assert alice.error("Ping")["retry_after_ms"] > 50_000

    @pytest.mark.parametrize("key", ["cleanup_interval_secs", "cleanup_threshold_secs"])
    def test_when_idle_buckets_go(self, serve, key):
        rate = {"user": bucket(burst=5)}
        soon = {"cleanup_interval_secs": 0.1, "cleanup_threshold_secs": 0.1}
        running = serve(limits(**rate, token_bucket=soon | {key: 86_400}))
        with running.peer() as alice:
            alice.ok("Ping")
        until(lambda: running.stats()["connections"] == 0)
        assert running.stats()["users"] == 1
        assert running.reload(limits(**rate, token_bucket=soon))
        until(lambda: running.stats()["users"] == 0)


LIMIT = {"name": "subscription", "pattern": "Sub*", "requests_per_second": SLOW, "burst_size": 2}


class TestCustomLimits:
    def subscribe(self, peer, count):
        return [peer.request("Subscribe", topic=f"t{number}") for number in range(count)]

    def test_name_and_burst(self, serve):
        running = serve(limits())
        with running.peer() as alice:
            assert running.reload(limits(custom_limits=[LIMIT]))
            replies = self.subscribe(alice, 3)
            assert [reply["type"] for reply in replies] == ["Subscribed", "Subscribed", "Error"]
            assert replies[2]["scope"] == "subscription"
            assert running.reload(limits(custom_limits=[LIMIT | {"name": "another", "burst_size": 1}]))
            assert [reply.get("scope") for reply in self.subscribe(alice, 2)] == [None, "another"]
            assert running.reload(limits())
            assert all(reply["type"] == "Subscribed" for reply in self.subscribe(alice, 5))

    def test_pattern(self, serve):
        running = serve(limits(custom_limits=[LIMIT]))
        with running.peer() as alice:
            assert self.subscribe(alice, 3)[2]["type"] == "Error"
            assert running.reload(limits(custom_limits=[LIMIT | {"pattern": "Ping"}]))
            assert self.subscribe(alice, 3)[2]["type"] == "Subscribed"
            assert allowed(alice)[1]["scope"] == "subscription"

    def test_rate(self, serve):
        running = serve(limits(custom_limits=[LIMIT]))
        with running.peer() as alice:
            assert self.subscribe(alice, 3)[2]["retry_after_ms"] > 100_000
            assert running.reload(limits(custom_limits=[LIMIT | {"requests_per_second": 0.1}]))
            assert self.subscribe(alice, 1)[0]["retry_after_ms"] <= 10_000


class TestRateLimitHeaders:
    NAMES = {  # noqa: RUF012
        "limit_header": "x-depth",
        "remaining_header": "x-left",
        "reset_header": "x-full-at",
        "retry_after_header": "x-wait",
    }

    def publish(self, running):
        return ask(running.port, "POST", "/api/publish", bearer(), {"topic": "t", "payload": 1})

    def test_their_names(self, serve):
        running = serve(limits(user=bucket()))
        assert self.publish(running).headers["x-ratelimit-limit"] == "1"
        assert running.reload(limits(user=bucket(), headers=self.NAMES))
        answer = self.publish(running)
        assert answer.status == 429
        assert set(self.NAMES.values()) <= answer.headers.keys()
        assert not {"x-ratelimit-limit", "retry-after"} & answer.headers.keys()

    def test_off(self, serve):
        running = serve(limits(user=bucket(burst=9)))
        assert "x-ratelimit-limit" in self.publish(running).headers
        assert running.reload(limits(user=bucket(burst=9), headers={"enabled": False}))
        assert "x-ratelimit-limit" not in self.publish(running).headers


def history(peer):
    return [message["payload"] for message in peer.ok("History", topic="t")["messages"]]


def publish(peer, count, payload=None):
    for number in range(count):
        peer.ok("Broadcast", topic="t", payload=number if payload is None else payload)


class TestRouting:
    def test_enable_caching(self, serve):
        running = serve()
        with running.peer() as alice:
            publish(alice, 3)
            assert running.reload({"message_routing": {"enable_caching": False}})
            assert history(alice) == []
            publish(alice, 2)
            assert running.reload({})
            publish(alice, 1)
            assert history(alice) == [0]

    def test_cache_ttl(self, serve):
        running = serve()
        with running.peer() as alice:
            publish(alice, 3)
            assert history(alice) == [0, 1, 2]
            assert running.reload({"message_routing": {"cache_ttl_secs": 0.05}})
            until(lambda: history(alice) == [])

    def test_max_cache_entries(self, serve):
        running = serve()
        with running.peer() as alice:
            publish(alice, 5)
            assert running.reload({"message_routing": {"max_cache_entries": 2}})
            assert history(alice) == [3, 4]

    def test_max_targets_per_message(self, serve):
        running = serve()
        with running.peer() as alice:
            assert alice.ok("DirectMessage", to=["a", "b"], payload=1)
            assert running.reload({"message_routing": {"max_targets_per_message": 1}})
            assert alice.error("DirectMessage", to=["a", "b"], payload=1)["code"] == "too_many_targets"

    def test_enable_message_transformation(self, serve):
        running = serve()
        with running.peer("alice") as text, running.peer("bob", subprotocol="rtc.v1.msgpack") as packed:
            packed.ok("Subscribe", topic="t")
            text.ok("Broadcast", topic="t", payload=1)
            assert packed.event()["payload"] == 1
            assert running.reload({"message_routing": {"enable_message_transformation": False}})
            text.ok("Broadcast", topic="t", payload=2)
            packed.ok("Broadcast", topic="t", payload=3)
            assert packed.event()["payload"] == 3
        assert running.stats()["untranscoded"] == 1

    def test_drop_invalid_messages(self, serve):
        running = serve()
        with running.peer() as alice:
            alice.send({"type": "Nonsense", "id": 7})
            assert alice.receive()["code"] == "bad_request"
            assert running.reload({"message_routing": {"drop_invalid_messages": True}})
            alice.send({"type": "Nonsense", "id": 8})
            assert alice.ok("Ping")
        assert running.stats()["invalid"] == 2


def actors(capacity, strategy, **more):
    return {"actor_system": {"mailbox_capacity": capacity, "overflow_strategy": strategy, **more}}


def row_of(running, user):
    """What the server knows of a user's one connection."""
    (row,) = [row for row in running.ask(running.worker.parts.hub.connections) if row["user_id"] == user]
    return row


@pytest.fixture
def stuck():
    """Subscribes a client that does not read: ``stuck(running)``."""
    made = []

    def connect(running):
        raw = running.raw("stuck", receive_buffer=4096)
        made.append(raw)
        raw.send(envelope(type="Subscribe", id=1, topic="t"))
        assert raw.json()["type"] == "Subscribed"
        return raw

    yield connect
    for raw in made:
        raw.socket.close()


FILLING = 150  # big messages: more than the sockets' buffers take


class TestMailboxes:
    def test_mailbox_capacity(self, serve, stuck):
        running = serve(actors(1000, "drop_newest"))
        stuck(running)
        assert running.reload(actors(3, "drop_newest"))
        with running.peer() as alice:
            publish(alice, FILLING, BIG)
            assert 3 <= row_of(running, "stuck")["queued"] <= 4

    def test_overflow_strategy(self, serve, stuck):
        running = serve(actors(3, "drop_newest"))
        stuck(running)
        with running.peer() as alice:
            publish(alice, FILLING, BIG)
            assert running.stats()["dropped"] > 0
            assert running.reload(actors(3, "backpressure"))
            codes = [alice.request("DirectMessage", to="stuck", payload=1).get("code") for _ in range(5)]
            assert codes[-1] == "backpressure"

    def test_publishers_that_are_blocked_go_on_under_another_strategy(self, serve, stuck):
        running = serve(actors(3, "block"))
        stuck(running)
        with running.raw("publisher") as publisher:
            burst = envelope(type="Broadcast", topic="t", payload=BIG) * FILLING + envelope(type="Ping", id=9)
            sending = threading.Thread(target=publisher.send, args=(burst,))
            sending.start()
            until(lambda: row_of(running, "stuck")["queued"] >= 3)
            assert running.stats()["publications"] < FILLING
            assert running.reload(actors(3, "drop_newest"))
            assert publisher.json()["type"] == "Pong"
            assert running.stats()["publications"] == FILLING
            sending.join()

    @pytest.mark.parametrize("priority", [True, False])
    def test_enable_priority_mailbox(self, serve, stuck, priority):
        running = serve(actors(1000, "drop_newest", enable_priority_mailbox=not priority))
        reader = stuck(running)
        assert running.reload(actors(1000, "drop_newest", enable_priority_mailbox=priority))
        with running.peer() as alice:
            publish(alice, FILLING, BIG)
            before = running.stats()["requests"]
            reader.send(envelope(type="Ping", id=7))
            until(lambda: running.stats()["requests"] > before)
        kinds = [reader.json()["type"] for _ in range(FILLING + 1)]
        assert (kinds[-1] == "Pong") is not priority

    def test_priority_mailbox_size(self, serve):
        running = serve()
        with running.peer() as alice, running.raw("greedy", receive_buffer=4096) as greedy:
            publish(alice, 1, "x" * 20_000)
            assert running.reload({"performance": {"actors": {"priority_mailbox_size": 2}}})
            greedy.send(envelope(type="History", id=1, topic="t") * 1000)
            until(lambda: row_of(running, "greedy")["blocked"])
            # Some ten of them are queued where only the bytes are bounded.
            assert row_of(running, "greedy")["replies_queued"] <= 3
            assert running.stats()["requests"] < 1000


class TestPerformance:
    """As in `test_performance.py`: how many writes a burst takes."""

    MESSAGES = 400
    WIDE = {  # noqa: RUF012
        "actors": {"batch_size": 100_000, "batch_timeout_ms": 10_000},
        "messages": {"max_batch_size": 100_000, "batch_window_ms": 0, "compression_threshold_bytes": 0},
    }

    def settings(self, **changed):
        return {
            "performance": {
                section: {name: changed.get(name, value) for name, value in keys.items()}
                for section, keys in self.WIDE.items()
            },
            "actor_system": {"mailbox_capacity": 100_000},
        }

    def writes(self, serve, first, then, subprotocol="rtc.v1.json", count=MESSAGES):
        """How many writes a burst takes under `first`, and after a reload to `then`, for the same two connections."""
        running = serve(self.settings(**first))
        burst = envelope(type="Broadcast", topic="t", payload="x" * 20) * count
        taken = []
        with running.raw("reader", subprotocol=subprotocol) as reader, running.raw("publisher") as publisher:
            reader.send(envelope(type="Subscribe", id=1, topic="t"))
            reader.frame()
            for settings in (first, then):
                assert running.reload(self.settings(**settings))
                before = running.stats()["writes"]
                publisher.send(burst)
                for _ in range(count):
                    reader.frame()
                taken.append(running.stats()["writes"] - before)
        return taken

    def test_batch_size(self, serve):
        few, many = self.writes(serve, {}, {"batch_size": 10})
        assert many >= self.MESSAGES / 20 > few

    def test_batch_timeout(self, serve):
        slow = {"subprotocol": "rtc.v1.json+gzip", "count": 2400}
        few, many = self.writes(serve, {"batch_window_ms": 5000}, {"batch_timeout_ms": 1}, **slow)
        assert many > few

    def test_max_batch_size(self, serve):
        few, many = self.writes(serve, {}, {"max_batch_size": 8})
        assert many >= self.MESSAGES / 16 > few

    def test_batch_window(self, serve):
        few, many = self.writes(serve, {"batch_size": 10, "batch_window_ms": 5000}, {"batch_size": 10})
        assert many >= self.MESSAGES / 20 > few

    def test_compression_threshold(self, serve):
        def settings(threshold):
            return {"performance": {"messages": {"compression_threshold_bytes": threshold}}}

        running = serve(settings(5000))
        with running.raw("reader", subprotocol="rtc.v1.json+zstd") as reader, running.peer() as alice:
            reader.send(envelope(type="Subscribe", id=1, topic="t"))
            reader.frame()
            publish(alice, 1, "x" * 1000)
            assert reader.frame().opcode == TEXT
            assert running.reload(settings(500))
            publish(alice, 1, "x" * 1000)
            assert reader.frame().opcode == BINARY

    def test_compression_algorithm(self, serve):
        def settings(algorithm):
            return {"performance": {"messages": {"compression_algorithm": algorithm}}}

        wanted = upgrade(subprotocol="rtc.v1.json+zstd")
        running = serve(settings("none"))
        assert exchange(running.port, wanted).status == 400
        assert running.reload(settings("gzip"))
        with running.raw("reader", subprotocol="rtc.v1.json+zstd") as reader:
            assert running.reload(settings("none"))
            assert exchange(running.port, wanted).status == 400
            reader.send(envelope(type="Broadcast", id=1, topic="t", payload=1))
            assert json.loads(reader.frame().payload)["type"] == "Ack", "who has agreed on it stays"
