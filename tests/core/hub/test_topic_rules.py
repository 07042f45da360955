"""Rules of topics: which one counts, whom it lets do what, and what it keeps."""

from typing import Any

import pytest

from core.hub.moving import moved
from core.hub.node import Node, Upstream, make_node, texts_of
from core.hub.sans_io import ADMIN, READ, SUBSCRIBE, WRITE, Server, identity, make_hub, offsets, settings
from realtime_communication._core.hub.outcome import RequestError
from realtime_communication._core.hub.topic_rules import describe, known, refusal
from realtime_communication.config.topics import TopicRule

MAX_RULES, MAX_ROLES, KNOWN_TOPICS = 256, 64, 8192


def rules(*entries: dict[str, Any]) -> tuple[TopicRule, ...]:
    return tuple(TopicRule(**entry) for entry in entries)


def hub(*entries: dict[str, Any], **changes: Any) -> Server:
    return make_hub(topics=rules(*entries), **changes)


def broadcast(topic: str, payload: object = 1) -> dict[str, Any]:
    return {"type": "Broadcast", "id": 9, "topic": topic, "payload": payload}


STAFF = {"pattern": "staff:*", "subscribe_roles": ("staff", "boss")}
NEWS = {"pattern": "news", "publish_roles": ("editor",)}
EVERYBODY = {"pattern": "*", "subscribe_roles": ("nobody has this one",)}


class TestWhichOneCounts:
    @pytest.mark.parametrize(
        ("topic", "size"), [("room:1", 1), ("room:2", 2), ("room:", 2), ("room", 3), ("@alice", 3), ("other", 3)]
    )
    def test_the_first_that_matches(self, topic: str, size: int) -> None:
        entries = [
            {"pattern": name, "history_size": number + 1} for number, name in enumerate(("room:1", "room:*", "*"))
        ]
        for _ in range(2):  # once looked for, once known
            found = describe(rules(*entries), topic)
            assert found is not None and found["history_size"] == size

    def test_none(self) -> None:
        assert describe(rules(NEWS), "new") is None
        assert describe((), "news") is None

    def test_what_it_says(self) -> None:
        entry = {**STAFF, "publish_roles": (), "history_size": 5, "history_ttl_secs": 1.5, "presence": False}
        assert describe(rules(entry), "staff:1") == {
            "subscribe_roles": ["boss", "staff"],
            "publish_roles": [],
            "history": True,
            "history_size": 5,
            "history_ms": 1500,
            "presence": False,
        }

    def test_names_that_are_known_are_bounded(self) -> None:
        topics = [f"t{number}" for number in range(KNOWN_TOPICS)]
        assert known(rules(NEWS), topics + topics) == KNOWN_TOPICS
        assert known(rules(NEWS), [*topics, "one more"]) == 1

    @pytest.mark.parametrize("pattern", ["a*b", "**", ""])
    def test_what_is_no_pattern(self, pattern: str) -> None:
        with pytest.raises(ValueError, match="pattern"):
            describe([TopicRule(pattern=pattern)], "a")

    def test_bounds(self) -> None:
        many = [TopicRule(pattern=f"t{number}") for number in range(MAX_RULES + 1)]
        assert describe(many[:-1], "t0") is not None
        with pytest.raises(ValueError, match="257 rules, at most 256"):
            describe(many, "t0")
        roles = tuple(f"role-{number}" for number in range(MAX_ROLES + 1))
        entry = TopicRule(pattern="t", subscribe_roles=roles[:-1], publish_roles=roles[:-1])
        assert refusal([entry], "publish", "t", WRITE, roles[-2:]) is None
        with pytest.raises(ValueError, match="more than 64 different roles"):
            describe([TopicRule(pattern="t", publish_roles=roles)], "t")

    def test_a_hub_stays_as_it_was_when_they_are_wrong(self) -> None:
        server = hub(NEWS)
        with pytest.raises(ValueError, match="pattern"):
            server.hub.configure(settings(topics=rules({"pattern": "a*b"}), max_connections=1))
        server.connect("alice").refused("forbidden", broadcast("news"))
        assert server.connect("bob").status == 101


class TestRoles:
    def test_subscribe(self) -> None:
        server = hub(STAFF)
        why = server.connect("alice", roles=("user",)).refused("forbidden", {"type": "Subscribe", "topic": "staff:1"})
        assert why == "topic: only certain roles may subscribe to it"
        for who in (identity("bob", roles=("boss",)), identity("root", ADMIN)):
            assert server.connect(who).subscribe("staff:1")
        assert server.connect("alice").subscribe("staff")

    @pytest.mark.parametrize("kind", ["History", "Presence"])
    def test_reading_is_for_those_who_may_subscribe(self, kind: str) -> None:
        server = hub(STAFF)
        request = {"type": kind, "topic": "staff:1"}
        server.connect("alice").refused("forbidden", request)
        assert server.connect("bob", roles=("staff",)).request({**request, "id": 1})["topic"] == "staff:1"

    def test_a_role_does_not_widen_a_token(self) -> None:
        server = hub(STAFF, NEWS)
        peer = server.connect("bob", permissions=READ, roles=("staff", "editor"), subscribe_patterns=["other"])
        for request in (broadcast("news"), {"type": "Subscribe", "topic": "staff:1"}):
            assert "token" in peer.refused("forbidden", request)

    def test_publish(self) -> None:
        server = hub(NEWS)
        reader = server.connect("reader")
        reader.subscribe("news")
        why = server.connect("alice").refused("forbidden", broadcast("news"))
        assert why == "topic: only certain roles may publish on it"
        assert server.connect("bob", roles=("editor",)).request(broadcast("news", 2))["type"] == "Ack"
        assert server.connect("root", permissions=ADMIN).request(broadcast("news", 3))["type"] == "Ack"
        assert [message["payload"] for message in reader.messages()] == [2, 3]

    def test_an_empty_list_is_nobody_but_admin(self) -> None:
        server = hub({"pattern": "t", "publish_roles": (), "subscribe_roles": ()})
        peer = server.connect("alice", roles=("user", "staff"))
        peer.refused("forbidden", broadcast("t"))
        peer.refused("forbidden", {"type": "Subscribe", "topic": "t"})
        assert server.connect("root", permissions=ADMIN).subscribe("t")

    def test_direct_messages_are_publications_on_inboxes(self) -> None:
        server = hub({"pattern": "@boss", "publish_roles": ("staff",)})
        message = {"type": "DirectMessage", "to": ["bob", "boss"], "payload": 1}
        why = server.connect("alice").refused("forbidden", message)
        assert why == "to: an inbox that only certain roles may publish on"
        assert server.connect("carol", roles=("staff",)).request({**message, "id": 1})["offline"] == ["bob", "boss"]
        with pytest.raises(RequestError, match="certain roles"):
            server.send(identity("alice"), to="boss", payload=1)

    def test_an_inbox_is_its_users_own_whatever_the_roles(self) -> None:
        server = hub(EVERYBODY)
        peer = server.connect("alice")
        for kind in ("History", "Presence"):
            assert peer.request({"type": kind, "id": 1, "topic": "@alice"})["topic"] == "@alice"

    def test_a_broadcast_to_all_needs_the_role_admin_and_no_other(self) -> None:
        server = hub({"pattern": "*", "publish_roles": ("editor",)})
        peer = server.connect("root", permissions=ADMIN)
        peer.send(broadcast("*"))
        assert [message["type"] for message in peer.messages()] == ["Ack", "Message"]

    def test_over_http(self) -> None:
        server = hub(NEWS, STAFF)
        with pytest.raises(RequestError, match="certain roles") as caught:
            server.publish(identity("alice", roles=("user",)), topic="news", payload=1)
        assert caught.value.code == "forbidden"
        assert server.publish(identity("alice", roles=("editor",)), topic="news", payload=1)["offset"] == 1
        assert server.hub.reading_refused(identity("a"), "staff:1", history=True) == (
            "topic: only certain roles may subscribe to it"
        )
        assert server.hub.reading_refused(identity("a", roles=("boss",)), "staff:1", history=False) is None
        assert make_hub().hub.reading_refused(identity("a"), "staff:1", history=False) is None

    def test_an_administrator_subscribes_whom_he_likes(self) -> None:
        server = hub(STAFF)
        peer = server.connect("alice")
        assert server.hub.subscribe_user("alice", "staff:1") == 1
        server.flush()
        assert peer.messages()[0]["type"] == "Subscribed"

    def test_a_new_token_brings_other_roles(self) -> None:
        server = hub(STAFF)
        peer = server.connect("alice")
        server.identities["better"] = identity("alice", roles=("staff",))
        assert peer.request({"type": "Refresh", "id": 1, "token": "better"})["type"] == "Refreshed"
        assert peer.subscribe("staff:1")


class TestReload:
    def test_roles_are_kept_under_other_rules(self) -> None:
        server = hub(NEWS, STAFF)
        staff, editor = server.connect("a", roles=("staff",)), server.connect("b", roles=("editor",))
        server.hub.configure(settings(topics=rules({"pattern": "x", "subscribe_roles": ("other", "staff")})))
        assert staff.subscribe("x")
        editor.refused("forbidden", {"type": "Subscribe", "topic": "x"})

    def test_without_rules_all_is_as_the_token_says(self) -> None:
        server = hub(STAFF)
        peer = server.connect("alice")
        server.hub.configure(settings())
        assert peer.subscribe("staff:1")
        server.hub.configure(settings(topics=rules(STAFF)))
        peer.refused("forbidden", {"type": "Subscribe", "topic": "staff:1"})

    def test_a_role_that_no_rule_named_counts_with_the_next_token(self) -> None:
        server = hub()
        peer = server.connect("alice", roles=("staff",))
        server.hub.configure(settings(topics=rules(STAFF)))
        peer.refused("forbidden", {"type": "Subscribe", "topic": "staff:1"})
        assert server.connect("alice", roles=("staff",)).subscribe("staff:1")


class TestHistory:
    def test_none_is_kept(self) -> None:
        server = hub({"pattern": "typing:*", "history": False})
        peer, reader = server.connect("alice"), server.connect("bob")
        reader.subscribe("typing:1")
        assert peer.request(broadcast("typing:1", "a"))["offset"] == 1
        assert reader.messages()[0]["payload"] == "a"
        assert server.stats()["cached_messages"] == 0
        assert peer.refused("forbidden", {"type": "History", "topic": "typing:1"}) == "topic: no history of it is kept"
        assert server.hub.reading_refused(identity("a"), "typing:1", history=True) == "topic: no history of it is kept"
        assert server.hub.reading_refused(identity("a"), "typing:1", history=False) is None

    def test_a_subscriber_comes_back_without_what_it_missed(self) -> None:
        server = hub({"pattern": "t", "history": False})
        server.connect("reader").subscribe("t")
        peer = server.connect("alice")
        first = peer.request(broadcast("t"))
        answer = peer.subscribe("t", recover={"epoch": first["epoch"], "offset": 1}, history=5)
        assert (answer["recovered"], answer["messages"], answer["offset"]) == (False, [], 1)

    def test_what_is_kept_when_that_ends_is_not_shown(self) -> None:
        server = hub()
        peer = server.connect("alice")
        server.fill("t", 3)
        server.hub.configure(settings(topics=rules({"pattern": "t", "history": False})))
        peer.refused("forbidden", {"type": "History", "topic": "t"})
        assert peer.subscribe("t", history=3)["messages"] == []

    def test_size(self) -> None:
        server = hub({"pattern": "small", "history_size": 3})
        peer = server.connect("alice")
        for _ in range(5):
            server.fill("small", 1)
            server.fill("large", 1)
        assert server.stats()["cached_messages"] == 8
        for topic, found in (("small", [3, 4, 5]), ("large", [1, 2, 3, 4, 5])):
            assert offsets(peer.request({"type": "History", "id": 1, "topic": topic})) == found
        assert offsets(peer.subscribe("small", history=10)) == [3, 4, 5]

    def test_the_order_of_age_survives(self) -> None:
        """What is forgotten out of the middle leaves the others in the order in which the cache forgets them."""
        server = hub({"pattern": "small", "history_size": 1}, max_cache_entries=4)
        peer = server.connect("alice")
        for topic in ("a", "small", "small", "b", "small", "c", "d", "e"):
            server.fill(topic, 1)
        kept = [
            topic
            for topic in ("a", "small", "b", "c", "d", "e")
            if peer.request({"type": "History", "id": 1, "topic": topic})["messages"]
        ]
        assert kept == ["small", "c", "d", "e"]
        server.advance(400_000)
        assert (server.stats()["cached_messages"], server.stats()["cached_bytes"]) == (0, 0)

    def test_age(self) -> None:
        server = hub({"pattern": "brief", "history_ttl_secs": 10.0}, client_timeout_secs=1000)
        peer = server.connect("alice")
        epoch = peer.request(broadcast("brief"))["epoch"]
        server.advance(6000)
        server.fill("brief", 1)
        server.advance(6000)
        request = {"type": "History", "id": 1, "topic": "brief"}
        assert offsets(peer.request(request)) == [2]
        answer = peer.subscribe("brief", recover={"epoch": epoch, "offset": 0})
        assert (answer["recovered"], answer["messages"]) == (False, [])
        server.advance(6000)
        assert offsets(peer.request(request)) == []

    def test_a_reload_trims_what_there_is(self) -> None:
        server = hub()
        peer = server.connect("alice")
        server.fill("t", 5)
        server.hub.configure(settings(topics=rules({"pattern": "t", "history_size": 2})))
        assert offsets(peer.request({"type": "History", "id": 1, "topic": "t"})) == [4, 5]


class TestPresence:
    def test_it_is_not_told(self) -> None:
        server = hub({"pattern": "hall", "presence": False})
        for who in (identity("alice"), identity("root", ADMIN)):
            peer = server.connect(who)
            for request in ({"type": "Presence"}, {"type": "Subscribe", "presence": True}):
                why = peer.refused("forbidden", {**request, "topic": "hall"})
                assert why == "topic: who is present on it is not told"
            assert peer.subscribe("hall")
        assert server.hub.reading_refused(identity("a"), "hall", history=False) == (
            "topic: who is present on it is not told"
        )


def node(*entries: dict[str, Any], **changes: Any) -> Node:
    return make_node(2, topics=rules(*entries), **changes)


@pytest.mark.parametrize("home", [0, 1])
class TestWorkers:
    def test_roles(self, home: int) -> None:
        workers = node({"pattern": "topic-*", "subscribe_roles": ("staff",), "publish_roles": ("staff",)})
        topic = workers.topic_at(home)
        alice = workers.workers[0].connect("alice")
        for request in (broadcast(topic), {"type": "Subscribe", "id": 1, "topic": topic}):
            assert workers.ask(alice, request)["code"] == "forbidden"
        staff = workers.workers[0].connect("bob", roles=("staff",))
        workers.subscribe(staff, topic)

    def test_no_history(self, home: int) -> None:
        workers = node({"pattern": "topic-*", "history": False})
        workers.advance(21_000)  # until then all is kept, for connections that move
        topic = workers.topic_at(home)
        reader, writer = workers.workers[0].connect("reader"), workers.workers[1].connect("writer")
        workers.subscribe(reader, topic)
        epoch, _ = workers.publish(writer, topic, "a")
        assert [message["payload"] for message in reader.messages()] == ["a"]
        assert [worker.stats()["cached_messages"] for worker in workers.workers.values()] == [0, 0]
        back = workers.subscribe(writer, topic, recover={"epoch": epoch, "offset": 0}, history=3)
        assert (back["recovered"], back["messages"]) == (False, [])

    def test_what_is_kept_for_connections_that_move_is_not_shown(self, home: int) -> None:
        workers = node({"pattern": "topic-*", "history": False})
        topic = workers.topic_at(home)
        writer, reader = workers.workers[0].connect("writer"), workers.workers[1].connect("reader")
        workers.publish(writer, topic, "a")
        workers.subscribe(writer, topic)
        assert workers.workers[home].stats()["cached_messages"] == 1
        for _ in range(2):
            assert workers.subscribe(reader, topic, history=3)["messages"] == []
            workers.ask(reader, {"type": "Unsubscribe", "id": 1, "topic": topic})

    def test_size_and_age(self, home: int) -> None:
        workers = node({"pattern": "topic-*", "history_size": 2, "history_ttl_secs": 10.0}, client_timeout_secs=1000)
        topic = workers.topic_at(home)
        reader, writer = workers.workers[0].connect("reader"), workers.workers[1].connect("writer")
        workers.subscribe(reader, topic)
        for number in range(4):
            workers.publish(writer, topic, number)
        assert len(reader.messages()) == 4
        request = {"type": "History", "id": 1, "topic": topic}
        for peer in (reader, writer):
            assert texts_of(workers.ask(peer, request)) == [(3, 2), (4, 3)]
        workers.advance(11_000)
        for peer in (reader, writer):
            assert texts_of(workers.ask(peer, request)) == []

    def test_a_session_that_moves_takes_its_roles_along(self, home: int) -> None:
        entry = {"pattern": "topic-*", "publish_roles": ("other", "staff"), "history": False}
        workers = node(entry, client_timeout_secs=1000)
        topic = workers.topic_at(home)
        peers = [workers.workers[0].connect(name, roles=roles) for name, roles in (("a", ("staff",)), ("b", ("x",)))]
        for peer in peers:
            workers.subscribe(peer, topic)
        assert sum(moved(workers) for _ in range(2)) == 2, "once the others keep what is published"
        assert workers.ask(peers[1], broadcast(topic))["code"] == "forbidden"
        peers[0].send(broadcast(topic, "after"))
        workers.pump()
        assert [message["type"] for message in peers[0].messages()] == ["Ack", "Message"]
        assert [message.get("payload") for message in peers[1].messages()] == ["after"]


class TestBelowAnUpstream:
    """What stands above keeps more than a rule shows."""

    def test_size(self) -> None:
        workers = node({"pattern": "topic-*", "history_size": 2}, client_timeout_secs=1000)
        workers.go_below(Upstream())
        for home in (0, 1):
            topic = workers.topic_at(home)
            writer, reader = workers.workers[0].connect("writer"), workers.workers[1].connect("reader")
            positions = [workers.publish(writer, topic, number) for number in range(5)]
            page = {"type": "History", "id": 1, "topic": topic}
            for peer in (writer, reader):
                assert texts_of(workers.ask(peer, page)) == [(4, 3), (5, 4)]
                assert texts_of(workers.ask(peer, page | {"limit": 1})) == [(4, 3)]
                assert texts_of(workers.ask(peer, page | {"limit": 1, "reverse": True})) == [(5, 4)]
            for offset, history, recovered, shown in (
                (5, 9, True, []),
                (4, 9, True, [(5, 4)]),
                (3, 9, True, [(4, 3), (5, 4)]),
                (2, None, False, []),
                (2, 1, False, [(5, 4)]),
                (1, 9, False, [(4, 3), (5, 4)]),
            ):
                more = {} if history is None else {"history": history}
                answer = workers.subscribe(reader, topic, recover=position(positions[0][0], offset), **more)
                assert (answer["recovered"], texts_of(answer)) == (recovered, shown)
                workers.ask(reader, {"type": "Unsubscribe", "id": 1, "topic": topic})

    def test_age(self) -> None:
        workers = node({"pattern": "topic-*", "history_ttl_secs": 10.0}, client_timeout_secs=1000)
        workers.go_below(Upstream())
        topic = workers.topic_at(1)
        writer, reader = workers.workers[0].connect("writer"), workers.workers[1].connect("reader")
        epoch, _ = workers.publish(writer, topic, "old")
        workers.advance(11_000)
        workers.publish(writer, topic, "new")
        answer = workers.subscribe(reader, topic, recover=position(epoch, 0), history=5)
        assert (answer["recovered"], texts_of(answer)) == (False, [(2, "new")])


def position(epoch: str, offset: int) -> dict[str, Any]:
    return {"epoch": epoch, "offset": offset}


def test_a_topic_without_subscribers_is_not_kept_by_its_rule() -> None:
    server = hub({"pattern": "*", "history": False})
    peer = server.connect("alice")
    before = server.stats()["topics"]
    peer.request(broadcast("t"))
    assert server.stats()["topics"] == before


def test_permissions_are_as_before() -> None:
    assert refusal(rules(NEWS), "publish", "news", WRITE | SUBSCRIBE | READ, ("editor",)) is None
    assert refusal((), "publish", "news", 0, ()) is None
