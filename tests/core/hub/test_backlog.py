"""Slow consumers: what waits for them, what is dropped, and that every gap is told where it is."""

from typing import Any

import pytest

from core.hub.sans_io import Envelope, Peer, Server, make_hub


def publish(server: Server, topic: str, count: int) -> None:
    for number in range(count):
        server.hub.publish_system(topic, b"%d" % number)
        server.flush()


def seen(messages: list[Envelope]) -> list[Any]:
    """Offsets of messages, and (missed, offset, recovered) of gaps."""
    return [
        (item["missed"], item["offset"], item["recovered"]) if item["type"] == "Lagged" else item["offset"]
        for item in messages
    ]


def queued(server: Server, user: str) -> int:
    (found,) = [item["queued"] for item in server.hub.connections() if item["user_id"] == user]
    return int(found)


def stalled(server: Server, *topics: str) -> Peer:
    """A subscriber of those topics that reads nothing."""
    peer = server.connect("slow")
    for topic in topics:
        peer.subscribe(topic)
    peer.stall()
    return peer


class TestBound:
    @pytest.mark.parametrize("strategy", ["drop_oldest", "drop_newest", "backpressure"])
    def test_no_more_than_the_capacity_and_one_waits(self, strategy: str) -> None:
        server = make_hub(overflow_strategy=strategy, mailbox_capacity=10)
        slow = stalled(server, "room")
        for _ in range(200):
            publish(server, "room", 1)
            assert queued(server, "slow") <= 11
        slow.resume()
        assert len(slow.messages()) >= 10
        assert queued(server, "slow") == 0

    def test_one_turn_does_not_go_over_the_bound_either(self) -> None:
        server = make_hub(overflow_strategy="drop_newest", mailbox_capacity=10)
        stalled(server, "room")
        for _ in range(200):
            server.hub.publish_system("room", b"1")
        server.flush()
        assert queued(server, "slow") <= 11

    def test_large_messages_fill_a_mailbox_before_their_number_does(self) -> None:
        server = make_hub(overflow_strategy="drop_newest", mailbox_capacity=100_000)
        slow = stalled(server, "room")
        payload = b'"%b"' % (b"x" * 1_000_000)
        for _ in range(40):
            server.hub.publish_system("room", payload)
            server.flush()
        assert server.stats()["dropped"] > 15
        slow.resume()
        first, *_rest, last = slow.messages()
        assert first["offset"] == 1
        assert (last["type"], last["offset"], last["recovered"]) == ("Lagged", 40, False)


class TestDropOldest:
    def test_the_gap_is_told_before_what_follows_it(self) -> None:
        server = make_hub(overflow_strategy="drop_oldest", mailbox_capacity=3)
        slow = stalled(server, "room")
        publish(server, "room", 10)
        slow.resume()
        assert seen(slow.messages()) == [1, (7, 8, False), 9, 10]
        assert server.stats()["dropped"] == 7

    def test_the_gap_is_told_in_its_own_topic(self) -> None:
        server = make_hub(overflow_strategy="drop_oldest", mailbox_capacity=3)
        slow = stalled(server, "a", "b")
        publish(server, "a", 2)
        publish(server, "b", 2)
        slow.resume()
        assert [(m["type"], m["topic"], m["offset"]) for m in slow.messages()] == [
            ("Message", "a", 1),
            ("Message", "b", 1),
            ("Message", "b", 2),
            ("Lagged", "a", 2),
        ]

    def test_replies_are_never_the_ones_to_go(self) -> None:
        """However many of them wait in front of the oldest message."""
        server = make_hub(overflow_strategy="drop_oldest", mailbox_capacity=20, enable_priority_mailbox=False)
        slow = stalled(server, "room")
        publish(server, "room", 1)
        slow.send(*[{"type": "Ping", "id": number} for number in range(15)])
        publish(server, "room", 30)
        slow.resume()
        messages = slow.messages()
        assert [m["id"] for m in messages if m["type"] == "Pong"] == list(range(15))
        told = seen([m for m in messages if m["type"] != "Pong"])
        assert told == [1, (26, 27, False), 28, 29, 30, 31]


class TestDropNewest:
    def test_the_gap_is_told_at_the_end_when_nothing_follows(self) -> None:
        server = make_hub(overflow_strategy="drop_newest", mailbox_capacity=3)
        slow = stalled(server, "room")
        publish(server, "room", 10)
        slow.resume()
        assert seen(slow.messages()) == [1, 2, 3, (7, 10, False)]

    def test_the_gap_is_told_where_it_is(self) -> None:
        server = make_hub(overflow_strategy="drop_newest", mailbox_capacity=3)
        slow = stalled(server, "room")
        publish(server, "room", 5)
        slow.resume(1)
        slow.resume(1000)
        publish(server, "room", 2)
        slow.resume()
        assert seen(slow.messages()) == [1, 2, 3, (2, 5, False), 6, 7]

    def test_gaps_with_room_between_them(self) -> None:
        server = make_hub(overflow_strategy="drop_newest", mailbox_capacity=4)
        slow = stalled(server, "room")
        frame = len(b'{"type":"Message","topic":"room","offset":1,"ts":1767220000000,"from":"","payload":0}') + 2
        publish(server, "room", 6)
        slow.resume(frame)  # the first one, which the full socket had taken over; what was queued moves up
        publish(server, "room", 3)
        slow.resume(3 * frame)
        publish(server, "room", 6)
        slow.resume()
        offsets = seen(slow.messages())
        check_order(offsets, 15)

    def test_the_next_message_of_a_drained_reader_comes_behind_the_gap(self) -> None:
        server = make_hub(overflow_strategy="drop_newest", mailbox_capacity=2)
        slow = stalled(server, "room")
        publish(server, "room", 4)
        slow.resume()
        publish(server, "room", 1)
        assert seen(slow.messages()) == [1, 2, (2, 4, False), 5]


def check_order(items: list[Any], last: int, first: int = 1) -> None:
    """Offsets rise, and each gap is told, with its size, at its place."""
    expected = first
    filled = 0
    for item in items:
        if isinstance(item, tuple):
            missed, offset, recovered = item
            assert offset + 1 - missed == expected, items
            if recovered:
                filled = offset
            else:
                expected = offset + 1
        else:
            assert item == expected, items
            expected += 1
    assert expected == last + 1, items
    assert filled <= last


class TestBackpressure:
    def test_what_lags_is_caught_up_from_the_cache(self) -> None:
        server = make_hub(mailbox_capacity=3)
        slow = stalled(server, "room")
        publish(server, "room", 10)
        slow.resume()
        assert seen(slow.messages()) == [1, 2, 3, (3, 6, True), 4, 5, 6, (3, 9, True), 7, 8, 9, (1, 10, True), 10]
        assert (server.stats()["lagged"], server.stats()["caught_up"]) == (7, 7)

    def test_what_the_cache_has_not_is_never_said_to_follow(self) -> None:
        server = make_hub(mailbox_capacity=3, max_cache_entries=5)
        slow = stalled(server, "room")
        publish(server, "room", 10)
        slow.resume()
        assert seen(slow.messages()) == [1, 2, 3, (7, 10, False)]

    def test_a_cache_that_holds_just_enough(self) -> None:
        server = make_hub(mailbox_capacity=3, max_cache_entries=7)
        slow = stalled(server, "room")
        publish(server, "room", 10)
        slow.resume()
        assert seen(slow.messages()) == [1, 2, 3, (3, 6, True), 4, 5, 6, (3, 9, True), 7, 8, 9, (1, 10, True), 10]

    def test_without_a_cache_nothing_follows(self) -> None:
        server = make_hub(mailbox_capacity=3, enable_caching=False)
        slow = stalled(server, "room")
        publish(server, "room", 10)
        slow.resume()
        assert seen(slow.messages()) == [1, 2, 3, (7, 10, False)]

    def test_live_messages_come_behind_what_is_caught_up(self) -> None:
        server = make_hub(mailbox_capacity=3)
        slow = stalled(server, "room")
        publish(server, "room", 10)
        slow.resume(700)
        publish(server, "room", 10)
        slow.resume(900)
        publish(server, "room", 10)
        slow.resume()
        publish(server, "room", 3)
        check_order(seen(slow.messages()), 33)

    def test_what_is_pending_comes_once(self) -> None:
        """A message that is cached but not fanned out yet is given either from the cache or with its run."""
        server = make_hub(mailbox_capacity=3)
        slow = stalled(server, "room")
        publish(server, "room", 10)
        server.hub.publish_system("room", b"10")
        slow.resume()
        check_order(seen(slow.messages()), 11)

    def test_much_is_caught_up_in_pieces(self) -> None:
        server = make_hub(mailbox_capacity=3)
        slow = stalled(server, "a", "b")
        payload = b'"%b"' % (b"x" * 2000)
        for _ in range(100):
            server.hub.publish_system("a", payload)
            server.hub.publish_system("b", payload)
            server.flush()
        slow.resume(100_000)
        for _ in range(50):
            server.hub.publish_system("a", payload)
            server.flush()
        slow.resume()
        messages = slow.messages()
        check_order(seen([m for m in messages if m["topic"] == "a"]), 150)
        check_order(seen([m for m in messages if m["topic"] == "b"]), 100)

    def test_the_own_messages_stay_left_out(self) -> None:
        server = make_hub(mailbox_capacity=3)
        slow = stalled(server, "room")
        publish(server, "room", 4)
        slow.send({"type": "Broadcast", "topic": "room", "payload": "mine", "exclude_self": True})
        publish(server, "room", 1)
        slow.resume()
        assert [m["offset"] for m in slow.messages() if m["type"] == "Message"] == [1, 2, 3, 4, 6]


class TestBlock:
    def hub(self, capacity: int = 5) -> Server:
        return make_hub(overflow_strategy="block", mailbox_capacity=capacity)

    def test_nothing_is_lost_and_nothing_is_over_the_bound(self) -> None:
        server = self.hub()
        slow = stalled(server, "room")
        publishers = [server.connect(f"p{number}") for number in range(20)]
        for peer in publishers:
            peer.send(*[{"type": "Broadcast", "id": n, "topic": "room", "payload": n} for n in range(10)])
            assert queued(server, "slow") <= 6
        slow.resume()
        assert [m["offset"] for m in slow.messages()] == list(range(1, 201))
        for peer in publishers:
            assert [m["id"] for m in peer.messages()] == list(range(10))
            assert peer.connection.reading
        assert queued(server, "slow") == 0

    def test_publishers_are_not_read_until_there_is_room(self) -> None:
        server = self.hub()
        slow = stalled(server, "room")
        peer, other = server.connect("publisher"), server.connect("other")
        for _ in range(5):
            peer.send({"type": "Broadcast", "topic": "room", "payload": 1})
        assert not peer.connection.reading
        other.send({"type": "Broadcast", "id": 1, "topic": "elsewhere", "payload": 1})
        assert other.connection.reading
        assert other.messages()[0]["type"] == "Ack"
        slow.resume()
        assert peer.connection.reading

    def test_a_publisher_that_waits_for_one_is_not_let_on_by_another(self) -> None:
        """Else each relief would put one more message into the mailbox that is still full."""
        server = self.hub()
        stalled(server, "room")
        other = server.connect("other")
        other.subscribe("elsewhere")
        peer, second = server.connect("publisher"), server.connect("second")
        peer.send(*[{"type": "Broadcast", "topic": "room", "payload": n} for n in range(50)])
        for _ in range(20):
            other.stall()
            second.send(*[{"type": "Broadcast", "topic": "elsewhere", "payload": n} for n in range(10)])
            other.resume()
        assert queued(server, "slow") <= 6
        assert not peer.connection.reading
        assert len(other.messages()) == 200

    def test_direct_messages_wait_too(self) -> None:
        server = self.hub()
        slow = stalled(server)
        senders = [server.connect(f"p{number}") for number in range(4)]
        for peer in senders:
            peer.send(*[{"type": "DirectMessage", "id": n, "to": ["slow", "nobody"], "payload": n} for n in range(5)])
        assert queued(server, "slow") <= 6
        slow.resume()
        assert [m["offset"] for m in slow.messages()] == list(range(1, 21))
        assert [m["id"] for peer in senders for m in peer.messages()] == list(range(5)) * 4

    def test_a_consumer_that_leaves_lets_its_publishers_go_on(self) -> None:
        server = self.hub()
        slow = stalled(server, "room")
        peer = server.connect("publisher")
        peer.send(*[{"type": "Broadcast", "id": n, "topic": "room", "payload": n} for n in range(10)])
        slow.end()
        assert peer.connection.reading
        assert [m["id"] for m in peer.messages()] == list(range(10))

    def test_a_publisher_that_leaves_while_it_waits_is_forgotten(self) -> None:
        server = self.hub()
        slow = stalled(server, "room")
        peer = server.connect("publisher")
        peer.send(*[{"type": "Broadcast", "id": n, "topic": "room", "payload": n} for n in range(10)])
        peer.end()
        slow.resume()
        assert 5 <= len(slow.messages()) <= 6
        slow.end()
        server.advance(3000)
        assert server.stats()["sessions"] == 0

    def test_a_consumer_stuck_for_client_timeout_is_closed_with_4490(self) -> None:
        server = self.hub()
        slow = stalled(server, "room")
        peer = server.connect("publisher")
        peer.send(*[{"type": "Broadcast", "id": n, "topic": "room", "payload": n} for n in range(10)])
        for _ in range(61):
            server.advance(1000)
            slow.send_frame(b"", 10)  # it lives, it only does not read
        assert server.stats()["slow_consumers"] == 1
        assert peer.connection.reading
        assert [m["id"] for m in peer.messages()] == list(range(10))
        slow.resume()
        slow.frames()
        assert slow.close == (4490, "slow consumer")

    def test_a_publisher_that_waits_is_not_closed_for_its_silence(self) -> None:
        server = self.hub()
        slow = stalled(server, "room")
        peer = server.connect("publisher")
        peer.send(*[{"type": "Broadcast", "topic": "room", "payload": n} for n in range(10)])
        for _ in range(70):
            server.advance(1000)
        peer.frames()
        assert peer.close is None
        assert slow.close is None

    def test_a_publisher_that_consumes_its_own_messages_goes_on_when_it_reads(self) -> None:
        server = self.hub()
        peer = server.connect("alice")
        peer.subscribe("room")
        peer.stall()
        peer.send(*[{"type": "Broadcast", "topic": "room", "payload": n} for n in range(30)])
        assert not peer.connection.reading
        peer.resume()
        assert [m["offset"] for m in peer.messages()] == list(range(1, 31))


class TestUnsubscribing:
    @pytest.mark.parametrize("strategy", ["drop_oldest", "drop_newest", "backpressure", "block"])
    def test_nothing_of_a_topic_follows_its_unsubscribed(self, strategy: str) -> None:
        server = make_hub(overflow_strategy=strategy, mailbox_capacity=4)
        slow = stalled(server, "a", "b")
        publish(server, "a", 6)
        publish(server, "b", 6)
        slow.send({"type": "Unsubscribe", "id": 1, "topic": "a"})
        publish(server, "a", 3)
        slow.resume()
        messages = slow.messages()
        place = [m["type"] for m in messages].index("Unsubscribed")
        assert not [m for m in messages[place:] if m.get("topic") == "a" and m["type"] != "Unsubscribed"]
        check_order(seen([m for m in messages if m["topic"] == "b"]), 6)
