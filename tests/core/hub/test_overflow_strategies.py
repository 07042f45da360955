"""Slow consumers: what every overflow strategy has to hold, and what a client sees of each."""

from typing import Any

import pytest

from core.hub.node import make_node
from core.hub.sans_io import CLOSE, Peer, Server, make_hub
from realtime_communication._core.hub.hub import RequestError

STRATEGIES = ["backpressure", "drop_oldest", "drop_newest", "block"]


def publish(peer: Peer, topic: str, payload: Any, **fields: Any) -> None:
    peer.send({"type": "Broadcast", "topic": topic, "payload": payload, **fields})


def pair(**changes: Any) -> tuple[Server, Peer, Peer]:
    """A server, a publisher and a subscriber of `t` that reads nothing."""
    server = make_hub(**changes)
    publisher = server.connect("bob")
    consumer = server.connect("alice")
    consumer.subscribe("t")
    consumer.stall()
    return server, publisher, consumer


def drain(peer: Peer, pieces: int = 0) -> list[dict[str, Any]]:
    """Everything that waits, read at once or in pieces of so many bytes."""
    got = []
    if not pieces:
        peer.resume()
        return peer.messages()
    for _ in range(10_000):
        peer.resume(pieces)
        new = peer.messages()
        got += new
        if not new and not peer.rest:
            break
    peer.resume()
    return got + peer.messages()


def offsets(messages: list[dict[str, Any]]) -> list[int]:
    return [message["offset"] for message in messages if message["type"] in ("Message", "DirectMessage")]


def kinds(messages: list[dict[str, Any]]) -> list[Any]:
    """Offsets of messages, and (missed, offset, recovered) of each Lagged."""
    return [
        (message["missed"], message["offset"], message["recovered"])
        if message["type"] == "Lagged"
        else message["offset"]
        for message in messages
    ]


def queued(server: Server, user: str) -> int:
    (found,) = [entry for entry in server.hub.connections() if entry["user_id"] == user]
    return int(found["queued"])


@pytest.mark.parametrize("strategy", STRATEGIES)
class TestEveryStrategy:
    def test_within_the_bound_all_arrives(self, strategy: str) -> None:
        server, publisher, consumer = pair(overflow_strategy=strategy, mailbox_capacity=10)
        for number in range(9):
            publish(publisher, "t", number)
        assert queued(server, "alice") == 9
        assert kinds(drain(consumer)) == list(range(1, 10))
        assert server.hub.queued() == 0

    @pytest.mark.parametrize("burst", [1, 40])
    @pytest.mark.parametrize("capacity", [1, 2, 7, 10])
    def test_the_bound_and_one(self, strategy: str, capacity: int, burst: int) -> None:
        server, publisher, consumer = pair(overflow_strategy=strategy, mailbox_capacity=capacity)
        for _ in range(40 // burst):
            publisher.send(*({"type": "Broadcast", "topic": "t", "payload": 0} for _ in range(burst)))
            assert queued(server, "alice") <= capacity + 1
        consumer.resume()
        for _ in range(40 // burst):
            publisher.send(*({"type": "Broadcast", "topic": "t", "payload": 0} for _ in range(burst)))
        assert server.hub.queued() == 0

    @pytest.mark.parametrize("pieces", [0, 1, 50, 1000])
    def test_each_offset_once_or_told(self, strategy: str, pieces: int) -> None:
        server, publisher, consumer = pair(overflow_strategy=strategy, mailbox_capacity=6)
        for number in range(25):
            publish(publisher, "t", number)
        got = drain(consumer, pieces)
        next_offset, skipped = 1, 0
        for message in got:
            if message["type"] == "Lagged":
                assert message["topic"] == "t"
                if not message["recovered"]:
                    assert message["offset"] == next_offset + message["missed"] - 1
                    next_offset = message["offset"] + 1
                    skipped += message["missed"]
            else:
                assert message["offset"] == next_offset
                assert message["payload"] == next_offset - 1
                next_offset += 1
        assert next_offset == 26
        assert server.stats()["dropped"] == skipped
        assert (skipped > 0) == strategy.startswith("drop")

    @pytest.mark.parametrize("after", [0, 3, 25])
    @pytest.mark.parametrize("before", [3, 25])
    def test_a_new_epoch_begins_behind_all_of_the_old_one(self, strategy: str, before: int, after: int) -> None:
        node = make_node(2, overflow_strategy=strategy, mailbox_capacity=6)
        topic = node.topic_at(1)
        publisher, consumer = (node.workers[0].connect(user) for user in ("bob", "alice"))
        epoch, expected, skipped = node.subscribe(consumer, topic)["epoch"], 1, 0
        consumer.stall()
        for number in range(before):
            publish(publisher, topic, number)
            node.pump()
        node.kill(1)
        for number in range(after):
            publish(publisher, topic, number)
            node.pump()
        got = drain(consumer, 50)
        node.pump()
        for message in got + consumer.messages():
            if message["type"] == "Message":
                assert message["offset"] == expected
                expected += 1
            elif message["epoch"] != epoch:
                assert (message["missed"], message["recovered"]) == (0, False)
                epoch, expected = message["epoch"], message["offset"] + 1
                skipped += 1
            elif not message["recovered"]:
                assert message["offset"] == expected + message["missed"] - 1
                expected = message["offset"] + 1
        assert skipped == 1
        assert expected - 1 == {state["topic"]: state["offset"] for state in node.workers[0].hub.topics()}[topic]

    def test_memory_is_given_back(self, strategy: str) -> None:
        server, publisher, consumer = pair(overflow_strategy=strategy, mailbox_capacity=6, cache_ttl_secs=1)
        for number in range(25):
            publish(publisher, "t", number)
        consumer.end()
        publisher.end()
        server.advance(5000)
        stats = server.stats()
        for gauge in (
            "connections",
            "subscriptions",
            "sessions",
            "topics",
            "users",
            "members",
            "timers",
            "cached_messages",
            "cached_bytes",
        ):
            assert stats[gauge] == 0, gauge
        assert server.hub.queued() == 0

    def test_replies_are_not_behind_data(self, strategy: str) -> None:
        _server, publisher, consumer = pair(overflow_strategy=strategy, mailbox_capacity=6)
        for number in range(5):
            publish(publisher, "t", number)
        consumer.send({"type": "Ping", "id": 9})
        assert [message["type"] for message in drain(consumer)] == ["Pong"] + ["Message"] * 5

    def test_unsubscribed_comes_last(self, strategy: str) -> None:
        _server, publisher, consumer = pair(overflow_strategy=strategy, mailbox_capacity=6)
        for number in range(20):
            publish(publisher, "t", number)
        consumer.send({"type": "Unsubscribe", "id": 9, "topic": "t"})
        publish(publisher, "t", 99)
        consumer.send({"type": "Subscribe", "id": 10, "topic": "t", "history": 1})
        *_data, left, back = drain(consumer)
        assert left == {"type": "Unsubscribed", "id": 9, "topic": "t"}
        assert (back["id"], back["offset"]) == (10, 21)

    def test_another_topic_keeps_its_order(self, strategy: str) -> None:
        _server, publisher, consumer = pair(overflow_strategy=strategy, mailbox_capacity=500)
        consumer.send({"type": "Subscribe", "topic": "u"})
        for number in range(100):
            publish(publisher, "tu"[number % 2], number)
        got = drain(consumer, 100)
        assert [message["payload"] for message in got] == list(range(100))

    def test_compressed_forms(self, strategy: str) -> None:
        server = make_hub(overflow_strategy=strategy, compression_threshold_bytes=10)
        publisher = server.connect("bob")
        consumers = [
            server.connect(f"u{number}", protocol=protocol, extensions=extensions)
            for number, (protocol, extensions) in enumerate(
                [
                    ("rtc.v1.json", None),
                    ("rtc.v1.msgpack", None),
                    ("rtc.v1.json+zstd", None),
                    ("rtc.v1.msgpack+lz4", None),
                    ("rtc.v1.json+gzip", None),
                    ("rtc.v1.json", "permessage-deflate"),
                    ("rtc.v1.json", "permessage-deflate; server_max_window_bits=9"),
                ]
            )
        ]
        for consumer in consumers:
            consumer.subscribe("t")
            consumer.stall()
        for number in range(5):
            publish(publisher, "t", [number, "x" * 2000])
        for consumer in consumers:
            assert [message["payload"] for message in drain(consumer, 77)] == [[n, "x" * 2000] for n in range(5)]


class TestDropOldest:
    """The newest messages are kept."""

    def test_the_newest_arrive(self) -> None:
        _server, publisher, consumer = pair(overflow_strategy="drop_oldest", mailbox_capacity=4)
        for number in range(20):
            publish(publisher, "t", number)
        got = kinds(drain(consumer))
        assert got == [1, (16, 17, False), 18, 19, 20] or got == [(16, 16, False), 17, 18, 19, 20]

    @pytest.mark.parametrize("capacity", [1, 2, 4, 10])
    def test_the_newest_of_a_burst_arrives(self, capacity: int) -> None:
        _server, publisher, consumer = pair(overflow_strategy="drop_oldest", mailbox_capacity=capacity)
        publisher.send(*({"type": "Broadcast", "topic": "t", "payload": n} for n in range(40)))
        assert offsets(drain(consumer))[-1] == 40

    def test_replies_in_the_queue_stay(self) -> None:
        _server, publisher, consumer = pair(overflow_strategy="drop_oldest", mailbox_capacity=30)
        consumer.send(*({"type": "Unsubscribe", "id": n, "topic": "other"} for n in range(12)))
        for number in range(100):
            publish(publisher, "t", number)
        got = drain(consumer)
        assert [message["id"] for message in got if message["type"] == "Unsubscribed"] == list(range(12))
        assert offsets(got)[-1] == 100
        lagged = [message for message in got if message["type"] == "Lagged"]
        assert sum(message["missed"] for message in lagged) == 100 - len(offsets(got))

    def test_small_messages_make_room_for_large_ones(self) -> None:
        server, publisher, consumer = pair(
            overflow_strategy="drop_oldest", mailbox_capacity=1000, max_message_size=1 << 21, max_frame_size=1 << 21
        )
        for number in range(200):
            publish(publisher, "t", number)
        for _ in range(40):
            publish(publisher, "t", "x" * (1 << 20))
        assert queued(server, "alice") <= 18
        assert offsets(drain(consumer))[-1] == 240


class TestDropNewest:
    """What was there first is kept."""

    def test_the_oldest_arrive_then_the_gap(self) -> None:
        _server, publisher, consumer = pair(overflow_strategy="drop_newest", mailbox_capacity=4)
        for number in range(20):
            publish(publisher, "t", number)
        assert kinds(drain(consumer)) == [1, 2, 3, 4, (16, 20, False)]

    def test_the_gap_is_told_before_what_follows_it(self) -> None:
        _server, publisher, consumer = pair(overflow_strategy="drop_newest", mailbox_capacity=4)
        for number in range(9):
            publish(publisher, "t", number)
        consumer.resume(10)
        for number in range(9, 12):
            publish(publisher, "t", number)
        consumer.resume()
        publish(publisher, "t", 12)
        assert kinds(consumer.messages()) == [1, 2, 3, 4, (8, 12, False), 13]


class TestBackpressure:
    """A consumer that lags is caught up from the cache; direct messages are refused."""

    def test_caught_up_completely(self) -> None:
        server, publisher, consumer = pair(mailbox_capacity=4)
        for number in range(20):
            publish(publisher, "t", number)
        got = drain(consumer)
        assert offsets(got) == list(range(1, 21))
        lagged = [message for message in got if message["type"] == "Lagged"]
        assert all(message["recovered"] for message in lagged)
        assert sum(message["missed"] for message in lagged) == 16
        assert lagged[0]["epoch"] == server.hub.topics()[0]["epoch"]
        stats = server.stats()
        assert (stats["lagged"], stats["caught_up"], stats["dropped"]) == (16, 16, 0)

    def test_a_lagged_comes_before_what_it_announces(self) -> None:
        _server, publisher, consumer = pair(mailbox_capacity=100)
        for number in range(150):
            publish(publisher, "t", number)
        assert kinds(drain(consumer)) == [*range(1, 101), (50, 150, True), *range(101, 151)]

    def test_catching_up_stays_within_the_bound(self) -> None:
        server, publisher, consumer = pair(mailbox_capacity=5)
        for number in range(200):
            publish(publisher, "t", number)
        got = []
        for _ in range(2000):
            consumer.resume(40)
            assert queued(server, "alice") <= 6
            got += consumer.messages()
        assert offsets(got) == list(range(1, 201))

    def test_not_at_all_when_the_cache_lost_a_part(self) -> None:
        _server, publisher, consumer = pair(mailbox_capacity=4, max_cache_entries=10)
        for number in range(20):
            publish(publisher, "t", number)
        assert kinds(drain(consumer)) == [1, 2, 3, 4, (16, 20, False)]
        publish(publisher, "t", 20)
        assert kinds(consumer.messages()) == [21]

    def test_not_at_all_without_a_cache(self) -> None:
        _server, publisher, consumer = pair(mailbox_capacity=4, enable_caching=False)
        for number in range(20):
            publish(publisher, "t", number)
        assert kinds(drain(consumer)) == [1, 2, 3, 4, (16, 20, False)]

    def test_the_cache_forgets_while_catching_up(self) -> None:
        server, publisher, consumer = pair(mailbox_capacity=4, cache_ttl_secs=1)
        for number in range(20):
            publish(publisher, "t", number)
        consumer.resume(600)
        server.advance(5000)
        publish(publisher, "t", 20)
        got = kinds(drain(consumer))
        told = [entry for entry in got if isinstance(entry, tuple)]
        assert got[:4] == [1, 2, 3, 4]
        assert told[-1][1:] == (21, False)

    def test_published_while_catching_up(self) -> None:
        _server, publisher, consumer = pair(mailbox_capacity=8)
        for number in range(50):
            publish(publisher, "t", number)
        got = []
        for number in range(50, 100):
            consumer.resume(100)
            publish(publisher, "t", number)
            got += consumer.messages()
        got += drain(consumer)
        assert offsets(got) == list(range(1, 101))

    def test_a_direct_message_is_refused(self) -> None:
        server, publisher, consumer = pair(mailbox_capacity=4)
        for number in range(4):
            publish(publisher, "t", number)
        refused = publisher.request({"type": "DirectMessage", "id": 1, "to": ["carol", "alice"], "payload": 1})
        assert (refused["type"], refused["code"], refused["id"]) == ("Error", "backpressure", 1)
        assert refused["retry_after_ms"] > 0
        with pytest.raises(RequestError) as caught:
            server.hub.send_request(b'{"to":"alice","payload":1}', server.identities["0"])
        assert (caught.value.code, caught.value.retry_after_ms) == ("backpressure", refused["retry_after_ms"])
        assert server.stats()["backpressure"] == 2
        consumer.resume()
        assert publisher.request({"type": "DirectMessage", "id": 2, "to": "alice", "payload": 1})["delivered"] == [
            "alice"
        ]

    def test_own_messages_left_out_are_left_out_of_the_catching_up(self) -> None:
        _server, publisher, consumer = pair(mailbox_capacity=2)
        for number in range(4):
            publish(publisher, "t", number)
        consumer.send({"type": "Broadcast", "topic": "t", "payload": "own", "exclude_self": True})
        publish(publisher, "t", 5)
        assert offsets(drain(consumer)) == [1, 2, 3, 4, 6]


class TestBlock:
    """The publishers wait."""

    def test_paused_and_resumed(self) -> None:
        server, publisher, consumer = pair(overflow_strategy="block", mailbox_capacity=4)
        for number in range(6):
            publish(publisher, "t", number)
        assert not publisher.connection.reading
        assert queued(server, "alice") == 4
        consumer.resume()
        assert publisher.connection.reading
        assert kinds(consumer.messages()) == [1, 2, 3, 4, 5, 6]
        assert publisher.request({"type": "Ping", "id": 1})["type"] == "Pong"

    def test_others_are_served(self) -> None:
        server, publisher, _consumer = pair(overflow_strategy="block", mailbox_capacity=4)
        for number in range(6):
            publish(publisher, "t", number)
        other = server.connect("carol")
        assert other.request({"type": "Broadcast", "id": 1, "topic": "u", "payload": 1})["offset"] == 1
        assert other.connection.reading

    def test_a_stuck_consumer_is_closed(self) -> None:
        server, publisher, consumer = pair(overflow_strategy="block", mailbox_capacity=4, client_timeout_secs=20)
        for number in range(6):
            publish(publisher, "t", number)
        server.advance(25_000)
        assert server.stats()["slow_consumers"] == 1
        assert publisher.connection.reading
        consumer.resume()
        consumer.frames()
        assert consumer.close is not None
        assert consumer.close[0] == 4490

    def test_a_publisher_that_ends_while_it_waits(self) -> None:
        server, publisher, consumer = pair(overflow_strategy="block", mailbox_capacity=4)
        for number in range(4):
            publish(publisher, "t", number)
        second = server.connect("carol")
        publish(second, "t", 4)
        assert not second.connection.reading
        publisher.end()
        consumer.resume()
        assert second.connection.reading
        assert offsets(consumer.messages()) == [1, 2, 3, 4, 5]
        second.end()
        consumer.end()
        assert server.stats()["sessions"] == 0

    def test_relief_of_one_does_not_free_who_waits_for_another(self) -> None:
        server, publisher, _stuck = pair(overflow_strategy="block", mailbox_capacity=4)
        slow = server.connect("dora")
        slow.subscribe("u")
        other = server.connect("carol")
        for number in range(20):
            publish(publisher, "t", number)
        for _ in range(10):
            slow.stall()
            for number in range(4):
                publish(other, "u", number)
            assert not other.connection.reading
            slow.resume()
            assert other.connection.reading
            assert not publisher.connection.reading
        assert queued(server, "alice") == 4

    def test_http_is_refused(self) -> None:
        server, publisher, consumer = pair(overflow_strategy="block", mailbox_capacity=4)
        who = server.identities["0"]
        for number in range(4):
            publish(publisher, "t", number)
        with pytest.raises(RequestError, match="topic") as caught:
            server.hub.publish_request(b'{"topic":"t","payload":1}', who)
        assert caught.value.code == "backpressure"
        consumer.resume()
        consumer.stall()
        for _ in range(4):
            server.hub.send_request(b'{"to":"alice","payload":1}', who)
            server.flush()
        with pytest.raises(RequestError, match="to: ") as caught:
            server.hub.send_request(b'{"to":"alice","payload":1}', who)
        assert caught.value.code == "backpressure"

    def test_unsubscribing_frees_the_publishers_topic(self) -> None:
        _server, publisher, consumer = pair(overflow_strategy="block", mailbox_capacity=4)
        for number in range(4):
            publish(publisher, "t", number)
        consumer.send({"type": "Unsubscribe", "topic": "t"})
        assert publisher.connection.reading
        assert publisher.request({"type": "Broadcast", "id": 1, "topic": "t", "payload": 1})["offset"] == 5


class TestRepliesAndControlFrames:
    """What a peer that reads nothing asks for."""

    def test_a_peer_that_reads_no_replies_is_read_no_further(self) -> None:
        server = make_hub(priority_mailbox_size=10)
        peer = server.connect()
        peer.stall()
        for number in range(100):
            peer.send({"type": "Ping", "id": number})
        assert not peer.connection.reading
        assert server.hub.queued() <= 11
        peer.resume()
        assert peer.connection.reading
        assert [message["id"] for message in peer.messages()] == list(range(100))

    def test_only_some_pongs_wait(self) -> None:
        server = make_hub()
        peer = server.connect()
        peer.stall()
        for number in range(1000):
            peer.send_frame(b"%d" % number, 9)
        assert server.hub.queued() <= 20
        peer.resume()
        peer.frames()
        assert peer.pongs[-1] == b"999"

    def test_a_close_frame_goes_out_with_a_full_queue(self) -> None:
        server, publisher, consumer = pair(mailbox_capacity=10)
        for number in range(10):
            publish(publisher, "t", number)
        server.hub.disconnect(user_id="alice")
        server.flush()
        consumer.resume()
        assert [frame[0] for frame in consumer.frames()] == [CLOSE]
        assert server.hub.queued() == 0
