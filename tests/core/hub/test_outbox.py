"""From a publication or a reply to the mailboxes of those who get it."""

import itertools
from typing import Any

import pytest

from core.hub.sans_io import Envelope, Peer, Server, inflate, make_hub, split_frames

PROTOCOLS = [
    *[f"rtc.v1.{encoding}{form}" for encoding in ("json", "msgpack") for form in ("", "+zstd", "+lz4", "+gzip")],
]
DEFLATES = [None, "permessage-deflate", *[f"permessage-deflate; server_max_window_bits={n}" for n in range(9, 16)]]


def window(peer: Peer) -> int:
    """Window bits that the server agreed to."""
    _, found, bits = peer.response.partition(b"server_max_window_bits=")
    return int(bits.split(b"\r\n")[0].split(b";")[0]) if found else 15


def everyone(server: Server) -> list[Peer]:
    """A peer of each form there is."""
    return [
        server.connect(f"user-{index}", protocol=protocol, extensions=extensions)
        for index, (protocol, extensions) in enumerate(itertools.product(PROTOCOLS, DEFLATES))
    ]


def data_frames(peer: Peer) -> list[tuple[bool, Envelope]]:
    """Whether each data frame was compressed, and its envelope; deflated ones are inflated with the agreed window."""
    found = []
    for opcode, rsv1, payload in peer.frames():
        if rsv1:
            payload = inflate(payload, window(peer))
        packed = rsv1 or payload[:4] in (b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18") or payload[:2] == b"\x1f\x8b"
        found.append((packed, peer.decode((opcode, False, payload))))
    return found


class TestForms:
    @pytest.mark.parametrize("size", [0, 500, 1024, 5000, 70_000])
    def test_one_broadcast_is_read_by_all(self, size: int) -> None:
        server = make_hub(max_frame_size=1 << 20)
        peers = everyone(server)
        for peer in peers:
            peer.subscribe("room")
        payload = {"text": "ab" * (size // 2), "n": [1, None, True, 1.5]}
        server.connect("publisher").send({"type": "Broadcast", "topic": "room", "payload": payload})
        for peer in peers:
            ((packed, message),) = data_frames(peer)
            assert message == {
                "type": "Message",
                "topic": "room",
                "offset": 1,
                "ts": message["ts"],
                "from": "publisher",
                "payload": payload,
            }
            plain = peer.response.count(b"Extensions") == 0 and b"+" not in peer.response.partition(b"Protocol:")[2]
            assert packed == (size >= 1024 and not plain)

    def test_many_messages_of_one_turn_keep_their_order(self) -> None:
        server = make_hub()
        peers = everyone(server)
        for peer in peers:
            peer.subscribe("room")
        texts = ["x" * (number * 131 % 4000) for number in range(150)]
        for text in texts:
            server.hub.publish_system("room", b'"%b"' % text.encode())
        server.flush()
        for peer in peers:
            assert [message["payload"] for _, message in data_frames(peer)] == texts

    def test_what_compression_does_not_shrink_goes_plain(self) -> None:
        server = make_hub(compression_threshold_bytes=0)
        peer = server.connect(protocol="rtc.v1.json+lz4")
        peer.subscribe("room")
        server.hub.publish_system("room", b"1")
        server.flush()
        ((packed, message),) = data_frames(peer)
        assert (packed, message["payload"]) == (False, 1)

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_messages_for_a_slow_consumer_have_the_same_form(self, protocol: str) -> None:
        server = make_hub()
        peer = server.connect(protocol=protocol)
        peer.subscribe("room")
        peer.stall()
        payloads = [b'"%b"' % (b"y" * size) for size in (10, 5000, 20, 6000)]
        for payload in payloads:
            server.hub.publish_system("room", payload)
            server.flush()
        peer.resume()
        found = data_frames(peer)
        assert [len(message["payload"]) for _, message in found] == [10, 5000, 20, 6000]
        assert [packed for packed, _ in found] == [False, "+" in protocol, False, "+" in protocol]


class TestFanOut:
    def test_everybody_gets_each_message_once(self) -> None:
        server = make_hub()
        peers = [server.connect(f"user-{number}") for number in range(50)]
        for peer in peers:
            peer.subscribe("room")
        for number in range(300):
            server.hub.publish_system("room", b"%d" % number)
        server.flush()
        for peer in peers:
            assert [message["payload"] for message in peer.messages()] == list(range(300))
        assert server.stats()["deliveries"] == 300 * 50

    def test_topics_that_alternate(self) -> None:
        """Their frames lie between each other in the arena, so that no span can be extended."""
        server = make_hub(mailbox_capacity=10_000, max_batch_size=10_000)
        even, odd, both = server.connect("even"), server.connect("odd"), server.connect("both")
        for number in range(200):
            (odd if number % 2 else even).subscribe(f"topic-{number}")
            both.subscribe(f"topic-{number}")
        for number in range(200):
            server.hub.publish_system(f"topic-{number}", b"%d" % number)
        server.flush()
        assert sorted(message["payload"] for message in even.messages()) == list(range(0, 200, 2))
        assert sorted(message["payload"] for message in odd.messages()) == list(range(1, 200, 2))
        assert sorted(message["payload"] for message in both.messages()) == list(range(200))

    def test_the_publisher_gets_its_own_message_unless_it_is_excluded(self) -> None:
        server = make_hub()
        alice, bob = server.connect("alice"), server.connect("bob")
        alice.subscribe("room")
        bob.subscribe("room")
        alice.send(
            *[
                {"type": "Broadcast", "topic": "room", "payload": number, "exclude_self": number % 3 == 0}
                for number in range(12)
            ]
        )
        assert [message["payload"] for message in alice.messages()] == [n for n in range(12) if n % 3]
        assert [message["offset"] for message in bob.messages()] == list(range(1, 13))

    def test_only_the_session_that_publishes_is_excluded(self) -> None:
        server = make_hub()
        one, two = server.connect("alice"), server.connect("alice")
        one.subscribe("room")
        two.subscribe("room")
        one.send({"type": "Broadcast", "topic": "room", "payload": 1, "exclude_self": True})
        assert (one.messages(), len(two.messages())) == ([], 1)

    def test_a_subscriber_gets_what_follows_its_subscription_and_no_more(self) -> None:
        server = make_hub()
        alice, bob = server.connect("alice"), server.connect("bob")
        bob.subscribe("room")
        server.hub.publish_system("room", b"1")
        answer = alice.request({"type": "Subscribe", "id": 1, "topic": "room"})
        assert answer["offset"] == 1
        server.hub.publish_system("room", b"2")
        alice.send({"type": "Unsubscribe", "id": 2, "topic": "room"})
        server.hub.publish_system("room", b"3")
        server.flush()
        assert [(m["type"], m.get("offset")) for m in alice.messages()] == [("Message", 2), ("Unsubscribed", None)]
        assert [m["offset"] for m in bob.messages()] == [1, 2, 3]


class TestTranscodingOff:
    def test_the_other_encoding_is_left_out_and_counted(self) -> None:
        server = make_hub(enable_message_transformation=False)
        text, packed = server.connect("a"), server.connect("b", protocol="rtc.v1.msgpack")
        text.subscribe("room")
        packed.subscribe("room")
        text.send({"type": "Broadcast", "topic": "room", "payload": 1})
        packed.send({"type": "Broadcast", "topic": "room", "payload": 2})
        assert [m["payload"] for m in text.messages()] == [1]
        assert [m["payload"] for m in packed.messages()] == [2]
        assert server.stats()["untranscoded"] == 2

    def test_slow_consumers_are_left_out_the_same_way(self) -> None:
        server = make_hub(enable_message_transformation=False)
        text, packed = server.connect("a"), server.connect("b", protocol="rtc.v1.msgpack")
        text.subscribe("room")
        packed.subscribe("room")
        text.stall()
        for number in range(6):
            (packed if number % 2 else text).send({"type": "Broadcast", "topic": "room", "payload": number})
        text.resume()
        assert [m["payload"] for m in text.messages()] == [0, 2, 4]


class TestReplies:
    def requests(self, count: int) -> list[Envelope]:
        return [{"type": "Ping", "id": number} for number in range(count)]

    def test_replies_go_ahead_of_data(self) -> None:
        server = make_hub()
        peer = server.connect()
        peer.subscribe("room")
        peer.stall()
        for _ in range(5):
            server.hub.publish_system("room", b"1")
            server.flush()
        peer.send(*self.requests(3))
        peer.resume(1)  # the socket holds the first frame already
        peer.resume()
        assert [m["type"] for m in peer.messages()] == ["Pong"] * 3 + ["Message"] * 5

    def test_without_the_priority_mailbox_they_keep_their_turn(self) -> None:
        server = make_hub(enable_priority_mailbox=False)
        peer = server.connect()
        peer.subscribe("room")
        peer.stall()
        server.hub.publish_system("room", b"1")
        server.flush()
        peer.send(*self.requests(2))
        server.hub.publish_system("room", b"1")
        server.flush()
        peer.resume()
        assert [m["type"] for m in peer.messages()] == ["Message", "Pong", "Pong", "Message"]

    @pytest.mark.parametrize("count", [62, 63, 64, 65, 66])
    def test_a_reply_behind_data_is_not_lost_when_the_mailbox_has_no_place_for_a_span(self, count: int) -> None:
        server = make_hub(batch_size=1000)
        alice, bob = server.connect("alice"), server.connect("bob")
        alice.subscribe("last")
        for number in range(count):
            alice.subscribe(f"mine-{number}")
            bob.subscribe(f"other-{number}")
        for number in range(count):
            server.hub.publish_system(f"mine-{number}", b"1")
            server.hub.publish_system(f"other-{number}", b"1")
        alice.stall()
        # Subscribing again hands out what is pending, and Unsubscribed stands behind it.
        again: list[Envelope] = [{"type": "Subscribe", "topic": f"mine-{number}"} for number in range(count)]
        alice.send(*again, {"type": "Unsubscribe", "id": 7, "topic": "last"})
        alice.resume()
        messages = alice.messages()
        assert [m["id"] for m in messages if m["type"] == "Unsubscribed"] == [7]
        assert len([m for m in messages if m["type"] == "Message"]) == count

    @pytest.mark.parametrize("stalled", [False, True])
    def test_subscribed_never_overtakes_the_end_of_an_earlier_subscription(self, stalled: bool) -> None:
        server = make_hub()
        peer = server.connect()
        peer.subscribe("room")
        if stalled:
            peer.stall()
            for _ in range(4):
                server.hub.publish_system("room", b"1")
                server.flush()
        server.hub.publish_system("room", b"1")
        peer.send(
            {"type": "Unsubscribe", "id": 1, "topic": "room"},
            {"type": "Subscribe", "id": 2, "topic": "room", "history": 2},
        )
        server.hub.publish_system("room", b"1")
        server.flush()
        if stalled:
            peer.resume()
        kinds = [(m["type"], m.get("offset")) for m in peer.messages()]
        last = 5 if stalled else 1
        assert kinds[-3:] == [("Unsubscribed", None), ("Subscribed", last), ("Message", last + 1)]
        offsets: list[Any] = [offset for kind, offset in kinds if kind == "Message"]
        assert offsets == sorted(set(offsets))

    def test_a_peer_that_reads_no_replies_is_not_read_any_more(self) -> None:
        server = make_hub(priority_mailbox_size=20)
        peer = server.connect()
        peer.stall()
        for _ in range(10):
            peer.send(*self.requests(50))
        assert not peer.connection.reading
        (state,) = server.hub.connections()
        assert state["replies_queued"] <= 21
        peer.resume()
        assert peer.connection.reading
        assert len(peer.messages()) == 500

    def test_large_replies_are_compressed_like_data(self) -> None:
        server = make_hub()
        peer = server.connect(protocol="rtc.v1.json+gzip")
        for _ in range(3):
            server.hub.publish_system("room", b'"%b"' % (b"z" * 2000))
        server.flush()
        peer.send({"type": "History", "id": 1, "topic": "room"})
        ((packed, page),) = data_frames(peer)
        assert packed
        assert len(page["messages"]) == 3


class TestWatchers:
    def test_one_that_does_not_read_is_closed_before_it_costs_without_bound(self) -> None:
        server = make_hub(priority_mailbox_size=10)
        slow, busy = server.connect("slow"), server.connect("busy")
        slow.subscribe("room", presence=True)
        slow.stall()
        for _ in range(200):
            busy.send({"type": "Subscribe", "topic": "room"}, {"type": "Unsubscribe", "topic": "room"})
            waiting = [item["replies_queued"] for item in server.hub.connections() if item["user_id"] == "slow"]
            assert sum(waiting) <= 12
        assert server.stats()["slow_consumers"] == 1
        slow.resume()
        assert [m["type"] for m in slow.messages()] == ["Join", "Leave"] * 6
        assert slow.close == (4490, "slow consumer")

    def test_one_that_reads_is_told_all(self) -> None:
        server = make_hub(priority_mailbox_size=10)
        watcher, busy = server.connect("watcher"), server.connect("busy")
        watcher.subscribe("room", presence=True)
        for _ in range(100):
            busy.send({"type": "Subscribe", "topic": "room"}, {"type": "Unsubscribe", "topic": "room"})
        assert [m["type"] for m in watcher.messages()] == ["Join", "Leave"] * 100


def test_arenas_are_let_go_when_everything_has_left() -> None:
    server = make_hub()
    peers = [server.connect(f"user-{number}") for number in range(10)]
    for peer in peers:
        peer.subscribe("room")
    peers[0].stall()
    for _ in range(500):
        server.hub.publish_system("room", b'"%b"' % (b"x" * 1000))
    server.flush()
    for peer in peers:
        peer.resume()
        frames, rest = split_frames(peer.connection.drain())
        assert (len(frames), rest) == (500, b"")
    assert server.stats()["arenas"] <= 1  # the one that the next message will be written to
