"""Protocol section 2, "Topics" and "Permissions": which names there are, and who may do what with them."""

import pytest

from serving.peer import Connect, unique, unique_user

INVALID = {
    "empty": "",
    "256 bytes": "x" * 256,
    "256 bytes of two-byte characters": "ü" * 128,
    "64 KiB": "x" * 60_000,
    "wildcard": "room:*",
    "wildcard inside": "a*b",
    "newline": "room\n1",
    "carriage return": "a\rb",
    "nul": "a\x00b",
    "escape": "\x1b[31m",
    "delete": "a\x7fb",
    "braces, a hash tag in Redis Cluster": "a{tag}b",
}
VALID = {
    "one byte": "x",
    "255 bytes": "x" * 255,
    "255 bytes of multi-byte characters": "ü" * 127 + "x",
    "spaces": "two words",
    "separators": "a/b.c:d-e_f",
    "emoji": "room \U0001f600",
    "at sign inside": "a@b",
    "dollar inside": "a$b",
    "quotes": 'say "hi" \\ back',
    "path": "../../etc/passwd",
}


class TestNames:
    @pytest.mark.parametrize("name", INVALID.values(), ids=INVALID.keys())
    @pytest.mark.parametrize("request_type", ["Subscribe", "Broadcast", "Presence", "History", "Unsubscribe"])
    def test_invalid(self, join: Connect, request_type: str, name: str) -> None:
        fields = {"payload": 1} if request_type == "Broadcast" else {}
        reply = join().request(request_type, topic=name, **fields)
        if request_type == "Unsubscribe" and reply["type"] == "Unsubscribed":
            return  # nobody can be subscribed to such a name: as idempotent as any unknown one
        assert (reply["type"], reply["code"]) == ("Error", "topic_invalid")
        assert len(str(reply["message"])) < 1000

    @pytest.mark.parametrize("name", VALID.values(), ids=VALID.keys())
    def test_valid(self, join: Connect, name: str) -> None:
        alice = join()
        assert alice.ok("Subscribe", topic=name)["topic"] == name
        assert alice.ok("Broadcast", topic=name, payload=1)["topic"] == name
        assert name in [event.get("topic") for event in alice.settle()]
        assert alice.ok("Presence", topic=name)["topic"] == name
        assert alice.ok("History", topic=name)["topic"] == name
        assert alice.ok("Unsubscribe", topic=name)["topic"] == name

    @pytest.mark.parametrize("name", ["@alice", "@", "$system", "$", "@" + "x" * 100])
    def test_of_the_server(self, join: Connect, name: str) -> None:
        alice = join()
        assert alice.error("Subscribe", topic=name)["code"] == "forbidden"
        assert alice.error("Broadcast", topic=name, payload=1)["code"] == "forbidden"

    def test_own_inbox_too(self, join: Connect) -> None:
        alice = join()
        assert alice.error("Subscribe", topic=f"@{alice.user}")["code"] == "forbidden"
        assert alice.error("Broadcast", topic=f"@{alice.user}", payload=1)["code"] == "forbidden"

    def test_topics_do_not_mix(self, join: Connect) -> None:
        alice, bob = join(), join()
        one, other = unique(), unique()
        bob.ok("Subscribe", topic=one)
        alice.ok("Broadcast", topic=other, payload="other")
        assert alice.ok("Broadcast", topic=one, payload="one")["offset"] == 1
        assert [message["payload"] for message in bob.settle()] == ["one"]


class TestPermissions:
    @pytest.mark.parametrize(
        ("held", "allowed"),
        [
            ([], set()),
            (["subscribe"], {"Subscribe"}),
            (["write"], {"Broadcast", "DirectMessage"}),
            (["read"], {"Presence", "History"}),
            (["read", "write", "subscribe"], {"Subscribe", "Broadcast", "DirectMessage", "Presence", "History"}),
        ],
        ids=lambda value: "+".join(sorted(value)) or "none",
    )
    def test_each_request_needs_its_own(self, join: Connect, topic: str, held: list[str], allowed: set[str]) -> None:
        alice = join(permissions=held)
        requests = {
            "Subscribe": {"topic": topic},
            "Broadcast": {"topic": topic, "payload": 1},
            "DirectMessage": {"to": unique_user(), "payload": 1},
            "Presence": {"topic": topic},
            "History": {"topic": topic},
        }
        for request_type, fields in requests.items():
            reply = alice.request(request_type, **fields)
            refused = reply["type"] == "Error" and reply["code"] == "forbidden"
            assert refused is (request_type not in allowed), (request_type, reply)
        assert alice.ok("Ping")["type"] == "Pong"
        assert alice.ok("Unsubscribe", topic=topic)["type"] == "Unsubscribed"

    def test_admin_may_do_all(self, join: Connect, topic: str) -> None:
        admin = join(permissions=[], roles=["admin"])
        admin.ok("Subscribe", topic=topic)
        admin.ok("Broadcast", topic=topic, payload=1)
        admin.ok("Presence", topic=topic)
        admin.ok("History", topic=topic)

    def test_everyone_needs_the_admin_role(self, join: Connect) -> None:
        alice, bob, admin = join(), join(), join(roles=["admin"])
        assert alice.error("Broadcast", topic="*", payload=1)["code"] == "forbidden"
        mark = unique("announcement")
        assert admin.ok("Broadcast", topic="*", payload=mark)["type"] == "Ack"
        for peer in (alice, bob, admin):
            messages = [event for event in peer.settle() if event.get("payload") == mark]
            assert [(message["type"], message["topic"], message["from"]) for message in messages] == [
                ("Message", "*", admin.user)
            ]

    def test_subscribing_to_everyone_is_invalid(self, join: Connect) -> None:
        assert join(roles=["admin"]).error("Subscribe", topic="*")["code"] == "topic_invalid"


class TestTopicsClaim:
    def test_prefix_patterns_narrow(self, join: Connect) -> None:
        base = unique("claim")
        alice = join(topics={"subscribe": [f"{base}:*"], "publish": [f"{base}:42"]})
        assert alice.ok("Subscribe", topic=f"{base}:1")["type"] == "Subscribed"
        assert alice.ok("Subscribe", topic=f"{base}:42")["type"] == "Subscribed"
        assert alice.error("Subscribe", topic=base)["code"] == "forbidden"
        assert alice.error("Subscribe", topic=f"x{base}:1")["code"] == "forbidden"
        assert alice.ok("Broadcast", topic=f"{base}:42", payload=1)["type"] == "Ack"
        assert alice.error("Broadcast", topic=f"{base}:1", payload=1)["code"] == "forbidden"
        assert alice.error("Broadcast", topic=f"{base}:421", payload=1)["code"] == "forbidden"

    def test_one_list_leaves_the_other_open(self, join: Connect) -> None:
        name = unique()
        alice = join(topics={"publish": ["only:this"]})
        assert alice.ok("Subscribe", topic=name)["type"] == "Subscribed"
        assert alice.error("Broadcast", topic=name, payload=1)["code"] == "forbidden"

    def test_empty_list_allows_nothing(self, join: Connect) -> None:
        alice = join(topics={"subscribe": []})
        assert alice.error("Subscribe", topic=unique())["code"] == "forbidden"

    def test_what_may_not_be_subscribed_may_not_be_read(self, join: Connect) -> None:
        alice = join(topics={"subscribe": ["mine:*"]})
        assert alice.error("History", topic=unique())["code"] == "forbidden"
        assert alice.error("Presence", topic=unique())["code"] == "forbidden"

    def test_someone_elses_inbox_is_not_read(self, join: Connect) -> None:
        alice, bob = join(), join()
        bob.ok("DirectMessage", to=bob.user, payload="secret")
        assert alice.error("History", topic=f"@{bob.user}")["code"] == "forbidden"
        assert alice.error("Presence", topic=f"@{bob.user}")["code"] == "forbidden"
