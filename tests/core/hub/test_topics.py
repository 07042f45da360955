"""Topics: offsets and epochs, the message cache, who is subscribed."""

from collections import OrderedDict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.hub.sans_io import Peer, Server, identity, make_hub
from core.hub.sans_io import settings as hub_settings

thorough = settings(max_examples=200, deadline=None, derandomize=True)
HTTP = identity("http")
acts = st.sampled_from(["subscribe", "unsubscribe", "publish", "end"])


def publish(server: Server, topic: str, payload: str = "1") -> tuple[str, int]:
    """Publish with nobody connected; epoch and offset."""
    answer = server.hub.publish_request(b'{"topic":"%b","payload":%b}' % (topic.encode(), payload.encode()), HTTP)
    server.flush()
    return answer["epoch"], answer["offset"]


def cached(server: Server) -> dict[str, int]:
    """How many messages are cached, by topic."""
    return {topic["topic"]: topic["cached"] for topic in server.hub.topics() if topic["cached"]}


def offsets(peer: Peer, topic: str) -> list[int]:
    """Offsets of the cached messages, as a client sees them."""
    page = peer.request({"type": "History", "id": 1, "topic": topic, "limit": 1000})
    return [message["offset"] for message in page["messages"]]


class TestOffsets:
    """+1 for each message."""

    def test_from_one_each_topic_for_itself(self) -> None:
        server = make_hub()
        for offset in range(1, 6):
            assert [publish(server, topic)[1] for topic in ("a", "b", "c")] == [offset] * 3

    def test_counted_without_a_cache_while_somebody_listens(self) -> None:
        server = make_hub(enable_caching=False)
        peer = server.connect()
        epoch = peer.subscribe("room")["epoch"]
        assert [publish(server, "room") for _ in range(3)] == [(epoch, 1), (epoch, 2), (epoch, 3)]
        assert [message["offset"] for message in peer.messages()] == [1, 2, 3]
        assert server.stats()["cached_messages"] == 0


class TestEpochs:
    """New when a topic's history was lost, and only then."""

    def test_a_topic_that_never_had_a_message_keeps_it(self) -> None:
        server = make_hub()
        peer = server.connect()
        first = peer.subscribe("room")
        peer.request({"type": "Unsubscribe", "id": 2, "topic": "room"})
        assert server.hub.topics() == []
        second = peer.subscribe("room", recover={"epoch": first["epoch"], "offset": 0})
        assert (second["epoch"], second["recovered"]) == (first["epoch"], True)

    def test_history_keeps_it(self) -> None:
        server = make_hub()
        epoch, _ = publish(server, "room")
        peer = server.connect()
        for _ in range(3):
            assert peer.subscribe("room")["epoch"] == epoch
            peer.request({"type": "Unsubscribe", "id": 2, "topic": "room"})
        assert publish(server, "room") == (epoch, 2)

    def test_subscribers_keep_it_when_the_cache_forgets(self) -> None:
        server = make_hub(cache_ttl_secs=10)
        peer = server.connect()
        epoch = peer.subscribe("room")["epoch"]
        publish(server, "room")
        server.advance(12_000)
        assert server.stats()["cached_messages"] == 0
        assert publish(server, "room") == (epoch, 2)

    @pytest.mark.parametrize("deterministic", [True, False])
    def test_lost_history_changes_it(self, deterministic: bool) -> None:
        server = make_hub(cache_ttl_secs=10, deterministic_ids=deterministic)
        epochs = []
        for _ in range(5):
            epoch, offset = publish(server, "room")
            assert offset == 1
            epochs.append(epoch)
            server.advance(12_000)
            assert server.hub.topics() == []
        assert len(set(epochs)) == 5
        assert all(len(epoch) == 16 and int(epoch, 16) for epoch in epochs)
        if deterministic:
            assert [int(epoch, 16) for epoch in epochs] == [1, 2, 3, 4, 5]

    def test_living_topics_keep_theirs_when_another_goes(self) -> None:
        server = make_hub(cache_ttl_secs=10)
        peer = server.connect()
        epoch = peer.subscribe("stays")["epoch"]
        publish(server, "goes")
        server.advance(12_000)
        assert peer.subscribe("stays", recover={"epoch": epoch, "offset": 0})["recovered"]
        assert peer.subscribe("new")["epoch"] != epoch

    def test_a_position_of_another_epoch_is_not_recovered(self) -> None:
        server = make_hub(cache_ttl_secs=10)
        epoch, _ = publish(server, "room")
        server.advance(12_000)
        publish(server, "room")
        peer = server.connect()
        answer = peer.subscribe("room", recover={"epoch": epoch, "offset": 1})
        assert (answer["recovered"], answer["messages"], answer["offset"]) == (False, [], 1)

    def test_without_a_cache_each_message_alone_is_an_epoch(self) -> None:
        server = make_hub(enable_caching=False)
        assert len({publish(server, "room")[0] for _ in range(4)}) == 4
        assert server.hub.topics() == []

    def test_servers_do_not_share_them(self) -> None:
        epochs = {publish(make_hub(deterministic_ids=False), "room")[0] for _ in range(10)}
        assert len(epochs) == 10


class TestCache:
    """One queue over all topics, oldest first."""

    @thorough
    @given(
        st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 3000)), max_size=60),
        st.integers(0, 12),
        st.integers(1, 20),
    )
    def test_does_what_the_model_does(self, program: list[tuple[str, int]], entries: int, ttl: int) -> None:
        server = make_hub(max_cache_entries=entries, cache_ttl_secs=ttl)
        peer = server.connect()
        for topic in "abcd":
            peer.subscribe(topic)
        now = 0
        newest = dict.fromkeys("abcd", 0)
        model: OrderedDict[tuple[str, int], int] = OrderedDict()
        for topic, pause in program:
            assert publish(server, topic)[1] == newest[topic] + 1
            newest[topic] += 1
            model[topic, newest[topic]] = now
            while len(model) > entries:
                model.popitem(last=False)
            peer.messages()
            now += pause
            server.advance(pause)
            if pause >= 1000:
                model = OrderedDict((key, at) for key, at in model.items() if at >= now - ttl * 1000)
                for name in "abcd":
                    assert offsets(peer, name) == [offset for other, offset in model if other == name]
        # What is too old may wait a second for its end, no longer.
        server.advance(1000)
        kept = [key for key, at in model.items() if at >= now + 1000 - ttl * 1000]
        assert server.stats()["cached_messages"] == len(kept)
        assert server.stats()["cached_bytes"] == len(kept)

    def test_the_bound_holds_over_all_topics(self) -> None:
        server = make_hub(max_cache_entries=10)
        for i in range(25):
            publish(server, f"topic-{i}")
        assert cached(server) == {f"topic-{i}": 1 for i in range(15, 25)}
        assert server.stats()["topics"] == 10

    def test_a_busy_topic_displaces_the_others_oldest_first(self) -> None:
        server = make_hub(max_cache_entries=10)
        for topic in ("a", "b", "a", "b", "a", "b"):
            publish(server, topic)
        for _ in range(6):
            publish(server, "c")
        assert cached(server) == {"a": 2, "b": 2, "c": 6}
        for _ in range(4):
            publish(server, "c")
        assert cached(server) == {"c": 10}

    def test_its_own_message_may_be_the_one_forgotten(self) -> None:
        server = make_hub(max_cache_entries=0)
        peer = server.connect()
        assert publish(server, "nobody")[1] == 1
        peer.subscribe("room")
        publish(server, "room")
        assert [message["offset"] for message in peer.messages()] == [1]
        assert server.stats()["topics"] == 1

    def test_ttl(self) -> None:
        server = make_hub(cache_ttl_secs=10)
        for _ in range(5):
            publish(server, "room")
            server.advance(2000)
        assert cached(server) == {"room": 5}
        server.advance(1001)
        assert cached(server) == {"room": 4}
        server.advance(8000)
        assert cached(server) == {}
        assert server.stats()["topics"] == 0

    def test_a_smaller_bound_holds_at_once(self) -> None:
        server = make_hub()
        for _ in range(50):
            publish(server, "room")
        server.hub.configure(hub_settings(max_cache_entries=7))
        assert cached(server) == {"room": 7}
        server.hub.configure(hub_settings(enable_caching=False))
        assert (cached(server), server.stats()["cached_bytes"]) == ({}, 0)

    def test_many_messages_of_one_topic(self) -> None:
        """The ring grows, and turns, without losing its place."""
        server = make_hub(max_cache_entries=300)
        peer = server.connect()
        for i in range(1000):
            publish(server, "room", str(i))
        assert offsets(peer, "room") == list(range(701, 1001))
        page = peer.request({"type": "History", "id": 1, "topic": "room", "limit": 1000})
        assert [message["payload"] for message in page["messages"]] == list(range(700, 1000))

    def test_recovery_up_to_the_oldest_kept(self) -> None:
        server = make_hub(max_cache_entries=10)
        for _ in range(15):
            epoch, _ = publish(server, "room")
        for offset, recovered in ((3, False), (4, False), (5, True), (15, True), (16, False)):
            peer = server.connect()
            answer = peer.subscribe("room", recover={"epoch": epoch, "offset": offset})
            assert answer["recovered"] is recovered
            expected = list(range(offset + 1, 16)) if recovered else []
            assert [message["offset"] for message in answer["messages"]] == expected


class TestSubscriptions:
    """Who gets what, while subscribers come and go."""

    @thorough
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["subscribe", "unsubscribe", "publish", "end"]),
                st.integers(0, 5),
                st.sampled_from("ab"),
            ),
            max_size=80,
        )
    )
    def test_does_what_the_model_does(self, program: list[tuple[str, int, str]]) -> None:
        server = make_hub()
        protocols = [None, "rtc.v1.msgpack", "rtc.v1.json+zstd"]
        peers: list[Peer] = [server.connect(f"u{i}", protocol=protocols[i % 3]) for i in range(6)]
        model: dict[str, set[int]] = {"a": set(), "b": set()}
        for step, number, topic in program:
            peer = peers[number]
            if step == "subscribe":
                peer.subscribe(topic)
                model[topic].add(number)
            elif step == "unsubscribe":
                assert peer.request({"type": "Unsubscribe", "id": 1, "topic": topic})["type"] == "Unsubscribed"
                model[topic].discard(number)
            elif step == "end":
                peer.end()
                model["a"].discard(number)
                model["b"].discard(number)
                peers[number] = server.connect(f"u{number}", protocol=protocols[number % 3])
            else:
                _, offset = publish(server, topic)
                got = {i: peer.messages() for i, peer in enumerate(peers)}
                assert {i for i, messages in got.items() if messages} == model[topic]
                assert all([m["offset"] for m in got[i]] == [offset] for i in model[topic])
            counted = {t["topic"]: t["subscribers"] for t in server.hub.topics() if t["subscribers"]}
            assert counted == {name: len(members) for name, members in model.items() if members}
            assert server.stats()["subscriptions"] == len(model["a"]) + len(model["b"])

    def test_subscribing_twice_is_once(self) -> None:
        server = make_hub()
        peer = server.connect()
        peer.subscribe("room")
        peer.subscribe("room", presence=True)
        publish(server, "room")
        assert len(peer.messages()) == 1
        assert server.stats()["subscriptions"] == 1

    def test_watchers_are_told_while_they_watch(self) -> None:
        server = make_hub()
        watchers = [server.connect(f"w{i}") for i in range(5)]
        for peer in watchers:
            peer.subscribe("room", presence=True)
        for peer in watchers:
            peer.messages()
        watchers[1].subscribe("room", presence=False)
        watchers[3].request({"type": "Unsubscribe", "id": 1, "topic": "room"})
        for peer in watchers:
            peer.messages()
        server.connect("late").subscribe("room")
        assert [len(peer.messages()) for peer in watchers] == [1, 0, 1, 0, 1]

    def test_ten_thousand_leave_nothing_behind(self) -> None:
        server = make_hub(batch_size=1000)
        peers = [server.connect(f"u{i}", protocol="rtc.v1.msgpack" if i % 2 else None) for i in range(10)]
        before = server.stats()
        for round_ in range(2):
            for peer in peers:
                names = [f"topic-{round_}-{i % 700}" for i in range(500)]
                peer.send(*({"type": "Subscribe", "topic": name} for name in names))
            assert server.stats()["subscriptions"] == 5000
            assert (server.stats()["topics"], server.stats()["members"]) == (500, 5000)
            for peer in peers:
                peer.send(*({"type": "Unsubscribe", "topic": f"topic-{round_}-{i}"} for i in range(500)))
        after = server.stats()
        gauges = ("subscriptions", "topics", "members", "cached_messages", "cached_bytes", "arenas")
        assert {name: after[name] for name in gauges} == dict.fromkeys(gauges, 0)
        assert (after["timers"], after["users"], after["sessions"]) == (before["timers"], 10, 10)
        assert all(peer.messages() == [] for peer in peers)
        for peer in peers:
            peer.end()
        server.advance(3000)
        ended = server.stats()
        left = ("connections", "sessions", "users", "timers", "topics", "members", "subscriptions")
        assert {name: ended[name] for name in left} == dict.fromkeys(left, 0)
        assert server.hub.queued() == 0

    def test_connections_that_drop_leave_nothing_behind(self) -> None:
        server = make_hub(cache_ttl_secs=10)
        for i in range(200):
            peer = server.connect(f"u{i % 20}")
            for topic in range(10):
                peer.subscribe(f"topic-{topic}", presence=True)
            peer.send({"type": "Broadcast", "topic": "topic-0", "payload": 1})
            peer.end()
        server.advance(60_000)
        stats: dict[str, Any] = server.stats()
        gauges = ("connections", "sessions", "users", "timers", "topics", "members", "cached_messages", "cached_bytes")
        assert {name: stats[name] for name in gauges} == dict.fromkeys(gauges, 0)

    def test_at_most_4096_of_one_connection(self) -> None:
        server = make_hub(batch_size=10_000)
        peer = server.connect()
        peer.send(*({"type": "Subscribe", "topic": f"t{i}"} for i in range(4096)))
        assert peer.messages() == []
        answer = peer.request({"type": "Subscribe", "id": 1, "topic": "one more"})
        assert (answer["type"], answer["code"]) == ("Error", "forbidden")
        assert peer.subscribe("t5")["topic"] == "t5"
        assert server.stats()["topics"] == 4096


class TestCounts:
    """The topics with the most subscribers."""

    @thorough
    @given(st.lists(st.integers(0, 5), max_size=40), st.integers(0, 45))
    def test_against_sorting(self, subscribers: list[int], limit: int) -> None:
        server = make_hub()
        peers = [server.connect(f"user-{number}") for number in range(5)]
        wanted = []
        for number, count in enumerate(subscribers):
            topic = f"t{number % 7}" + "x" * (number // 7)
            for peer in peers[:count]:
                peer.send({"type": "Subscribe", "topic": topic})
            for _ in range(number % 3):
                publish(server, topic)
            if count or number % 3:
                wanted.append((topic, count, number % 3))
            server.flush()
        wanted.sort(key=lambda row: (-row[1], row[0]))
        assert server.hub.topic_counts(limit) == wanted[:limit]

    def test_inboxes_and_everybody_are_private(self) -> None:
        server = make_hub()
        alice = server.connect("alice", permissions=8)
        alice.send({"type": "DirectMessage", "to": "alice", "payload": 1})
        alice.send({"type": "Broadcast", "topic": "*", "payload": 1})
        assert server.stats()["topics"] == 2
        assert server.hub.topic_counts(2**32 - 1) == []


class TestInboxes:
    """`@user`: made with the first message, there for every session of the user."""

    def test_offsets_and_epochs_are_a_topics(self) -> None:
        server = make_hub(cache_ttl_secs=10)
        bob = server.connect("bob")
        sender = server.connect("sender")
        for _ in range(3):
            sender.request({"type": "DirectMessage", "id": 1, "to": ["bob", "offline"], "payload": 1})
        assert [message["offset"] for message in bob.messages()] == [1, 2, 3]
        assert cached(server) == {"@bob": 3, "@offline": 3}
        server.advance(12_000)
        assert [topic["topic"] for topic in server.hub.topics()] == ["@bob"]
        bob.end()
        assert server.hub.topics() == []

    def test_no_subscription_is_counted(self) -> None:
        server = make_hub()
        server.connect("bob")
        server.connect("sender").request({"type": "DirectMessage", "id": 1, "to": "bob", "payload": 1})
        assert server.stats()["subscriptions"] == 0
        assert [connection["subscriptions"] for connection in server.hub.connections()] == [0, 0]
