"""What each request does, who may, and how each fails."""

from typing import Any

import pytest

from core.hub.sans_io import (
    ADMIN,
    READ,
    SUBSCRIBE,
    WALL_MS,
    WRITE,
    Envelope,
    Peer,
    Server,
    identity,
    make_hub,
)

REQUESTS: list[Envelope] = [
    {"type": "Subscribe", "topic": "room"},
    {"type": "Unsubscribe", "topic": "room"},
    {"type": "Broadcast", "topic": "room", "payload": 1},
    {"type": "DirectMessage", "to": "bob", "payload": 1},
    {"type": "Presence", "topic": "room"},
    {"type": "History", "topic": "room"},
    {"type": "Refresh", "token": "new"},
    {"type": "Ping"},
]
REPLIES = ["Subscribed", "Unsubscribed", "Ack", "Ack", "PresenceState", "HistoryPage", "Refreshed", "Pong"]


def publish(server: Server, topic: str, count: int, size: int = 0) -> None:
    for number in range(count):
        server.hub.publish_system(topic, b'"%b"' % (b"x" * size) if size else b"%d" % number)
    server.flush()


def offsets(answer: Envelope) -> list[int]:
    return [message["offset"] for message in answer["messages"]]


class TestEveryRequest:
    @pytest.mark.parametrize("protocol", ["rtc.v1.json", "rtc.v1.msgpack"])
    @pytest.mark.parametrize("number", [0, 7, 2**53 - 1, "text", "", "é" * 32])
    def test_one_reply_with_the_same_id(self, number: Any, protocol: str) -> None:
        server = make_hub()
        server.identities["new"] = identity("alice")
        alice = server.connect("alice", protocol=protocol)
        for request, kind in zip(REQUESTS, REPLIES, strict=True):
            answer = alice.request({**request, "id": number})
            assert (answer["type"], answer["id"]) == (kind, number)

    def test_no_reply_without_an_id(self) -> None:
        server = make_hub()
        server.identities["new"] = identity("alice")
        alice = server.connect("alice")
        for request in REQUESTS:
            alice.send(request)
            assert [m for m in alice.messages() if m["type"] not in ("Message", "DirectMessage")] == []

    def test_an_error_comes_without_an_id_too(self) -> None:
        alice = make_hub().connect("alice")
        for request in ({"type": "Subscribe", "topic": ""}, {"type": "Subscribe", "topic": "@bob"}, {"type": "Nope"}):
            alice.send(request)
            (answer,) = alice.messages()
            assert answer["type"] == "Error"
            assert "id" not in answer

    @pytest.mark.parametrize(
        ("permissions", "allowed"),
        [
            (READ, {"Presence", "History"}),
            (WRITE, {"Broadcast", "DirectMessage"}),
            (SUBSCRIBE, {"Subscribe"}),
            (0, set()),
            (ADMIN, {"Presence", "History", "Broadcast", "DirectMessage", "Subscribe"}),
        ],
    )
    def test_permissions(self, permissions: int, allowed: set[str]) -> None:
        server = make_hub()
        server.identities["new"] = identity("alice", permissions)
        alice = server.connect("alice", permissions=permissions)
        for request in REQUESTS:
            answer = alice.request({**request, "id": 1})
            if request["type"] in allowed | {"Unsubscribe", "Refresh", "Ping"}:
                assert answer["type"] != "Error", answer
            else:
                assert (answer["type"], answer["code"]) == ("Error", "forbidden")

    @pytest.mark.parametrize("kind", ["Subscribe", "Unsubscribe", "Broadcast", "Presence", "History"])
    @pytest.mark.parametrize("topic", ["", "x" * 256, "a\nb", "a*b", "a\u007fb", "{tag}"])
    def test_names_that_are_none(self, kind: str, topic: str) -> None:
        answer = make_hub().connect().request({"type": kind, "id": 1, "topic": topic, "payload": 1})
        assert (answer["type"], answer["id"], answer["code"]) == ("Error", 1, "topic_invalid")

    def test_a_request_that_is_none_leaves_the_connection_open(self) -> None:
        server = make_hub()
        alice = server.connect("alice")
        for text in (b"", b"null", b"[]", b"{", b'{"type":"Ping"}x', b'{"type":"Ping","type":"Ping"}', b"{}"):
            alice.send_frame(text)
            (answer,) = alice.messages()
            assert (answer["type"], answer["code"]) == ("Error", "bad_request")
        assert alice.request({"type": "Ping", "id": 1})["type"] == "Pong"
        assert server.stats()["invalid"] == 7

    def test_invalid_requests_may_be_dropped_without_a_word(self) -> None:
        server = make_hub(drop_invalid_messages=True)
        alice = server.connect("alice")
        alice.send({"type": "Nope", "id": 1})
        assert alice.messages() == []
        assert server.stats()["invalid"] == 1
        assert alice.request({"type": "Subscribe", "id": 1, "topic": "@bob"})["code"] == "forbidden"


class TestAuthenticate:
    def test_the_first_message(self) -> None:
        server = make_hub()
        server.identities["good"] = identity("alice", expires_at=2_000_000_000, refresh_at=1_900_000_000)
        peer = server.connect(None)
        answer = peer.request({"type": "Authenticate", "id": 5, "token": "good"})
        assert answer.pop("session_id") == "0" * 31 + "1"
        assert answer == {
            "type": "Connected",
            "id": 5,
            "user_id": "alice",
            "node_id": "node-1",
            "protocol": "rtc.v1",
            "heartbeat_interval_secs": 30,
            "expires_at": 2_000_000_000,
            "refresh_at": 1_900_000_000,
        }
        assert peer.subscribe("room")["offset"] == 0

    @pytest.mark.parametrize(
        "request_", [{"type": "Authenticate", "id": 1, "token": "bad"}, {"type": "Ping", "id": 1}, {"type": "Nope"}]
    )
    def test_anything_else_is_refused_and_closed(self, request_: Envelope) -> None:
        server = make_hub()
        peer = server.connect(None)
        answer = peer.request(request_)
        assert answer["type"] == "Error"
        assert answer["code"] == ("bad_request" if request_["type"] == "Nope" else "unauthorized")
        assert peer.close == (4401, "unauthorized")
        assert server.stats()["connections"] == 0

    def test_what_follows_a_refused_one_is_not_read(self) -> None:
        server = make_hub()
        server.identities["good"] = identity("alice")
        peer = server.connect(None)
        peer.send({"type": "Authenticate", "token": "bad"}, {"type": "Authenticate", "token": "good"})
        assert [m["type"] for m in peer.messages()] == ["Error"]

    def test_only_once(self) -> None:
        server = make_hub()
        answer = server.connect("alice").request({"type": "Authenticate", "id": 1, "token": "x"})
        assert (answer["type"], answer["code"]) == ("Error", "bad_request")

    def test_a_check_that_fails_by_itself_is_internal(self) -> None:
        server = make_hub()

        def broken(token: str | None, api_key: str | None, peer: str) -> Any:
            raise RuntimeError("secret detail")

        server.hub.set_callbacks(server.authenticate_upgrade, broken)
        answer = server.connect(None).request({"type": "Authenticate", "id": 1, "token": "x"})
        assert answer["code"] == "internal"
        assert "secret" not in answer["message"]

    def test_a_large_first_message_is_refused(self) -> None:
        peer = make_hub(max_frame_size=1 << 20).connect(None)
        peer.send({"type": "Authenticate", "token": "x" * 70_000})
        assert peer.messages() == []
        assert peer.close is not None
        assert peer.close[0] == 1009


class TestSubscribe:
    def test_again_changes_nothing(self) -> None:
        server = make_hub()
        alice = server.connect("alice")
        alice.subscribe("room")
        alice.subscribe("room")
        assert server.stats()["subscriptions"] == 1
        publish(server, "room", 1)
        assert len(alice.messages()) == 1

    def test_the_topics_of_the_token(self) -> None:
        server = make_hub()
        alice = server.connect("alice", subscribe_patterns=("room:*",))
        assert alice.request({"type": "Subscribe", "id": 1, "topic": "room:1"})["type"] == "Subscribed"
        for kind in ("Subscribe", "Presence", "History"):
            assert alice.request({"type": kind, "id": 1, "topic": "hall"})["code"] == "forbidden"

    @pytest.mark.parametrize("topic", ["@alice", "@bob", "$system"])
    def test_names_of_the_server(self, topic: str) -> None:
        alice = make_hub().connect("alice", permissions=ADMIN)
        assert alice.request({"type": "Subscribe", "id": 1, "topic": topic})["code"] == "forbidden"
        assert alice.request({"type": "Unsubscribe", "id": 1, "topic": topic})["code"] == "forbidden"

    def test_no_more_than_4096(self) -> None:
        server = make_hub(batch_size=10_000)
        alice = server.connect("alice")
        alice.send(*[{"type": "Subscribe", "topic": f"room-{number}"} for number in range(4096)])
        assert alice.messages() == []
        assert alice.request({"type": "Subscribe", "id": 1, "topic": "one more"})["code"] == "forbidden"
        alice.subscribe("room-17")
        alice.request({"type": "Unsubscribe", "id": 1, "topic": "room-17"})
        alice.subscribe("one more")
        assert server.stats()["subscriptions"] == 4096
        alice.end()
        assert server.stats()["subscriptions"] == 0

    @pytest.mark.parametrize(("asked", "given"), [(0, 0), (1, 1), (3, 3), (5, 5), (100, 5)])
    def test_the_newest_messages(self, asked: int, given: int) -> None:
        server = make_hub()
        publish(server, "room", 5)
        answer = server.connect().subscribe("room", history=asked)
        assert offsets(answer) == list(range(6 - given, 6))
        assert (answer["offset"], answer["recovered"]) == (5, False)

    def test_each_message_of_the_past(self) -> None:
        server = make_hub()
        server.connect("bob").request({"type": "Broadcast", "id": 1, "topic": "room", "payload": {"a": [1, "é"]}})
        for protocol in ("rtc.v1.json", "rtc.v1.msgpack"):
            answer = server.connect("alice", protocol=protocol).subscribe("room", history=1)
            assert answer["messages"] == [{"offset": 1, "ts": WALL_MS, "from": "bob", "payload": {"a": [1, "é"]}}]


class TestRecovery:
    def recover(self, server: Server, offset: int, epoch: str | None = None, **fields: Any) -> Envelope:
        if epoch is None:
            epoch = server.hub.topics()[0]["epoch"]
        return server.connect("alice").subscribe("room", recover={"epoch": epoch, "offset": offset}, **fields)

    @pytest.mark.parametrize("offset", range(11))
    def test_complete_or_not_at_all(self, offset: int) -> None:
        server = make_hub(max_cache_entries=4)
        publish(server, "room", 10)
        answer = self.recover(server, offset)
        assert answer["recovered"] == (offset >= 6)
        assert offsets(answer) == (list(range(offset + 1, 11)) if offset >= 6 else [])

    def test_an_offset_that_was_never_given(self) -> None:
        server = make_hub()
        publish(server, "room", 3)
        answer = self.recover(server, 4)
        assert (answer["recovered"], answer["offset"], answer["messages"]) == (False, 3, [])

    @pytest.mark.parametrize("epoch", ["", "x", "0" * 16, "f" * 16, "0" * 15, "0" * 64])
    def test_another_epoch(self, epoch: str) -> None:
        server = make_hub()
        publish(server, "room", 3)
        answer = server.connect().request(
            {"type": "Subscribe", "id": 1, "topic": "room", "recover": {"epoch": epoch, "offset": 2}}
        )
        assert answer.get("code") == "bad_request" or not answer["recovered"]

    def test_what_cannot_be_recovered_gives_the_newest_if_asked(self) -> None:
        server = make_hub(max_cache_entries=4)
        publish(server, "room", 10)
        answer = self.recover(server, 2, history=2)
        assert (answer["recovered"], offsets(answer)) == (False, [9, 10])
        assert offsets(self.recover(server, 7, history=1)) == [8, 9, 10]

    def test_a_topic_whose_history_was_lost_has_another_epoch(self) -> None:
        server = make_hub(cache_ttl_secs=10)
        publish(server, "room", 3)
        epoch = server.hub.topics()[0]["epoch"]
        server.advance(12_000)
        assert server.hub.topics() == []
        publish(server, "room", 3)
        answer = self.recover(server, 3, epoch)
        assert (answer["recovered"], answer["messages"]) == (False, [])
        assert answer["epoch"] != epoch

    def test_a_topic_without_history_may_come_and_go(self) -> None:
        server = make_hub()
        alice = server.connect("alice")
        place = alice.subscribe("room")
        alice.end()
        server.advance(5000)
        assert server.hub.topics() == []
        publish(server, "room", 2)
        answer = self.recover(server, place["offset"], place["epoch"])
        assert (answer["recovered"], offsets(answer)) == (True, [1, 2])

    def test_more_than_a_reply_holds_is_not_recovered(self) -> None:
        server = make_hub()
        publish(server, "room", 10, size=1 << 20)
        answer = self.recover(server, 0)
        assert (answer["recovered"], answer["messages"]) == (False, [])
        assert offsets(self.recover(server, 4)) == [5, 6, 7, 8, 9, 10]

    def test_nothing_between_what_is_recovered_and_what_comes_live(self) -> None:
        server = make_hub()
        alice = server.connect("alice")
        alice.subscribe("room")
        publish(server, "room", 2)
        last = alice.messages()[-1]["offset"]
        epoch = server.hub.topics()[0]["epoch"]
        alice.end()
        publish(server, "room", 3)
        server.hub.publish_system("room", b'"pending"')
        again = server.connect("alice")
        answer = again.subscribe("room", recover={"epoch": epoch, "offset": last})
        publish(server, "room", 2)
        assert offsets(answer) == [3, 4, 5, 6]
        assert [m["offset"] for m in again.messages()] == [7, 8]


class TestUnsubscribe:
    def test_nothing_comes_any_more(self) -> None:
        server = make_hub()
        alice = server.connect("alice")
        alice.subscribe("room")
        answer = alice.request({"type": "Unsubscribe", "id": 1, "topic": "room"})
        assert answer == {"type": "Unsubscribed", "id": 1, "topic": "room"}
        publish(server, "room", 1)
        assert alice.messages() == []

    def test_of_what_was_never_subscribed_to(self) -> None:
        server = make_hub()
        assert server.connect().request({"type": "Unsubscribe", "id": 1, "topic": "room"})["type"] == "Unsubscribed"
        assert server.stats()["topics"] == 0

    def test_comes_behind_the_messages_before_it(self) -> None:
        server = make_hub()
        alice = server.connect("alice")
        alice.subscribe("room")
        server.hub.publish_system("room", b"1")
        alice.send({"type": "Unsubscribe", "id": 1, "topic": "room"})
        assert [m["type"] for m in alice.messages()] == ["Message", "Unsubscribed"]


class TestPresence:
    def test_who_is_there(self) -> None:
        server = make_hub()
        alice, bob = server.connect("alice"), server.connect("bob", protocol="rtc.v1.msgpack")
        alice.subscribe("room")
        server.advance(5)
        bob.subscribe("room")
        answer = alice.request({"type": "Presence", "id": 1, "topic": "room"})
        assert (answer["topic"], answer["count"]) == ("room", 2)
        assert sorted(answer["members"], key=lambda member: str(member["user_id"])) == [
            {"user_id": "alice", "session_id": "0" * 31 + "1", "joined_at": WALL_MS},
            {"user_id": "bob", "session_id": "0" * 31 + "2", "joined_at": WALL_MS + 5},
        ]

    @pytest.mark.parametrize("protocol", ["rtc.v1.json", "rtc.v1.msgpack"])
    def test_who_they_are(self, protocol: str) -> None:
        server = make_hub()
        alice = server.connect("alice", presence_info=b'{"name": "A", "n": [1.5]}', protocol=protocol)
        for peer in (alice, server.connect("bob")):
            peer.subscribe("room")
        members = alice.request({"type": "Presence", "id": 1, "topic": "room"})["members"]
        assert [list(member) for member in members] == [
            ["user_id", "session_id", "joined_at", "info"],
            ["user_id", "session_id", "joined_at"],
        ]
        assert members[0]["info"] == {"name": "A", "n": [1.5]}

    def test_a_reply_has_a_bound_and_still_names_everybody(self) -> None:
        server = make_hub(max_connections=3000)
        info = b'{"a":"' + b"x" * 4000 + b'"}'
        peers = [server.connect(f"user-{number}", presence_info=info) for number in range(2200)]
        for peer in peers:
            peer.subscribe("room")
        answer = peers[0].request({"type": "Presence", "id": 1, "topic": "room"})
        described = ["info" in member for member in answer["members"]]
        assert len(described) == answer["count"] == 2200
        assert described == [True] * (8388608 // len(info)) + [False] * (2200 - 8388608 // len(info))

    def test_nobody(self) -> None:
        server = make_hub()
        answer = server.connect().request({"type": "Presence", "id": 1, "topic": "room"})
        assert (answer["count"], answer["members"]) == (0, [])
        assert server.stats()["topics"] == 0

    def test_inboxes_of_others_are_private(self) -> None:
        alice = make_hub().connect("alice")
        assert alice.request({"type": "Presence", "id": 1, "topic": "@bob"})["code"] == "forbidden"


class TestHistory:
    def page(self, peer: Peer, **fields: Any) -> Envelope:
        answer = peer.request({"type": "History", "id": 1, "topic": "room", **fields})
        assert answer["type"] == "HistoryPage", answer
        return answer

    def epoch(self, server: Server) -> str:
        return str(server.hub.topics()[0]["epoch"])

    def test_all_in_order(self) -> None:
        server = make_hub()
        publish(server, "room", 5)
        answer = self.page(server.connect())
        assert (answer["topic"], answer["epoch"], answer["offset"]) == ("room", self.epoch(server), 5)
        assert offsets(answer) == [1, 2, 3, 4, 5]

    def test_100_unless_asked_otherwise_and_1000_at_most(self) -> None:
        server = make_hub()
        publish(server, "room", 1500)
        alice = server.connect()
        assert len(offsets(self.page(alice))) == 100
        assert len(offsets(self.page(alice, limit=1000))) == 1000
        assert alice.request({"type": "History", "id": 1, "topic": "room", "limit": 1001})["code"] == "bad_request"

    @pytest.mark.parametrize("reverse", [False, True])
    @pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
    def test_pages_together_are_the_whole(self, limit: int, reverse: bool) -> None:
        server = make_hub(max_cache_entries=20)
        publish(server, "room", 30)
        alice = server.connect()
        found: list[int] = []
        fields: dict[str, Any] = {"limit": limit, "reverse": reverse}
        while True:
            some = offsets(self.page(alice, **fields))
            if not some:
                break
            found += some
            fields["after"] = {"epoch": self.epoch(server), "offset": some[-1]}
        assert found == (list(range(30, 10, -1)) if reverse else list(range(11, 31)))

    @pytest.mark.parametrize(
        ("offset", "reverse", "expected"),
        [
            (0, False, [3, 4, 5]),
            (1, False, [3, 4, 5]),
            (2, False, [3, 4, 5]),
            (3, False, [4, 5]),
            (5, False, []),
            (9, False, []),
            (2**53 - 1, False, []),
            (0, True, []),
            (1, True, []),
            (3, True, []),
            (4, True, [3]),
            (5, True, [4, 3]),
            (6, True, [5, 4, 3]),
            (2**53 - 1, True, [5, 4, 3]),
        ],
    )
    def test_positions(self, offset: int, reverse: bool, expected: list[int]) -> None:
        server = make_hub(max_cache_entries=3)
        publish(server, "room", 5)
        after = {"epoch": self.epoch(server), "offset": offset}
        assert offsets(self.page(server.connect(), after=after, reverse=reverse)) == expected

    def test_a_limit_of_nothing(self) -> None:
        server = make_hub()
        publish(server, "room", 3)
        answer = server.connect().request({"type": "History", "id": 1, "topic": "room", "limit": 0})
        assert answer.get("code") == "bad_request" or answer["messages"] == []

    def test_a_position_of_another_epoch_counts_as_none(self) -> None:
        server = make_hub()
        publish(server, "room", 3)
        assert offsets(self.page(server.connect(), after={"epoch": "0" * 15 + "9", "offset": 2})) == [1, 2, 3]

    @pytest.mark.parametrize("reverse", [False, True])
    def test_a_page_has_a_bound_in_bytes(self, reverse: bool) -> None:
        server = make_hub()
        publish(server, "room", 20, size=1 << 20)
        found = offsets(self.page(server.connect(), reverse=reverse))
        assert 4 <= len(found) <= 8
        start = 20 if reverse else 1
        assert found == [start - n if reverse else start + n for n in range(len(found))]

    def test_of_a_topic_that_is_not_there(self) -> None:
        server = make_hub()
        answer = self.page(server.connect())
        assert (answer["offset"], answer["messages"]) == (0, [])
        assert server.stats()["topics"] == 0

    def test_the_own_inbox(self) -> None:
        server = make_hub()
        alice = server.connect("alice")
        server.connect("bob").send({"type": "DirectMessage", "to": ["alice"], "payload": "hi"})
        alice.messages()
        answer = alice.request({"type": "History", "id": 1, "topic": "@alice"})
        assert [m["payload"] for m in answer["messages"]] == ["hi"]
        assert server.connect("bob").request({"type": "History", "id": 1, "topic": "@alice"})["code"] == "forbidden"
        assert server.connect("al").request({"type": "History", "id": 1, "topic": "@alice"})["code"] == "forbidden"

    def test_the_encoding_that_cannot_be_read_is_left_out(self) -> None:
        server = make_hub(enable_message_transformation=False)
        text, packed = server.connect("a"), server.connect("b", protocol="rtc.v1.msgpack")
        for number in range(6):
            (packed if number % 2 else text).send({"type": "Broadcast", "topic": "room", "payload": number})
        assert [m["payload"] for m in self.page(text)["messages"]] == [0, 2, 4]
        assert [m["payload"] for m in self.page(packed)["messages"]] == [1, 3, 5]


class TestRefresh:
    def test_new_times(self) -> None:
        server = make_hub()
        alice = server.connect("alice", expires_at=WALL_MS // 1000 + 100)
        server.identities["new"] = identity("alice", expires_at=WALL_MS // 1000 + 500, refresh_at=WALL_MS // 1000 + 400)
        answer = alice.request({"type": "Refresh", "id": 1, "token": "new"})
        assert answer == {
            "type": "Refreshed",
            "id": 1,
            "expires_at": WALL_MS // 1000 + 500,
            "refresh_at": WALL_MS // 1000 + 400,
        }
        for _ in range(15):
            server.advance(10_000)
            alice.send({"type": "Ping"})
        alice.messages()
        assert alice.close is None

    def test_new_rights(self) -> None:
        server = make_hub()
        alice = server.connect("alice", publish_patterns=("room",))
        server.identities["new"] = identity("alice", READ | WRITE, publish_patterns=("hall",), login="other")
        alice.request({"type": "Refresh", "id": 1, "token": "new"})
        assert alice.request({"type": "Broadcast", "id": 1, "topic": "room", "payload": 1})["code"] == "forbidden"
        assert alice.request({"type": "Broadcast", "id": 1, "topic": "hall", "payload": 1})["type"] == "Ack"
        assert alice.request({"type": "Subscribe", "id": 1, "topic": "room"})["code"] == "forbidden"
        assert server.hub.disconnect(login="other") == 1

    @pytest.mark.parametrize("token", ["bad", "another"])
    def test_a_token_that_is_none_of_the_user_changes_nothing(self, token: str) -> None:
        server = make_hub()
        server.identities["another"] = identity("bob", ADMIN)
        alice = server.connect("alice", permissions=READ)
        answer = alice.request({"type": "Refresh", "id": 1, "token": token})
        assert (answer["type"], answer["code"]) == ("Error", "unauthorized")
        assert alice.request({"type": "Broadcast", "id": 1, "topic": "room", "payload": 1})["code"] == "forbidden"
        assert alice.close is None

    def test_a_failure_half_way_leaves_the_old_rights(self) -> None:
        """Above all not those of a token without patterns, which may all."""
        server = make_hub()
        alice = server.connect("alice", publish_patterns=("room",), subscribe_patterns=("room",))
        for broken in ({"publish_patterns": (7,)}, {"subscribe_patterns": ("\ud800",)}, {"login": "\ud800"}):
            server.identities["new"] = identity("alice", ADMIN, **broken)
            assert alice.request({"type": "Refresh", "id": 1, "token": "new"})["code"] == "unavailable"
            assert alice.request({"type": "Broadcast", "id": 1, "topic": "hall", "payload": 1})["code"] == "forbidden"
            assert alice.request({"type": "Subscribe", "id": 1, "topic": "hall"})["code"] == "forbidden"
            assert alice.request({"type": "Broadcast", "id": 1, "topic": "room", "payload": 1})["type"] == "Ack"


def test_pong_tells_the_time() -> None:
    server = make_hub()
    server.advance(17)
    answer = server.connect().request({"type": "Ping", "id": 1})
    assert answer == {"type": "Pong", "id": 1, "ts": WALL_MS + 17}
