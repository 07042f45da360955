"""`[[topics]]`: what an entry does, when the server starts and when it reads its configuration again."""

import pytest

from serving.asking import ask, bearer


def topics(*entries, **more):
    return {"topics": list(entries), **more}


def payloads(answer):
    return [message["payload"] for message in answer["messages"]]


def history(peer, topic):
    return payloads(peer.request({"type": "History", "id": 1, "topic": topic}))


def kinds(peer, topic):
    """What becomes of a Broadcast and a Subscribe."""
    requests = ({"type": kind, "id": 1, "topic": topic, "payload": 1} for kind in ("Broadcast", "Subscribe"))
    return [peer.request(request).get("code", "fine") for request in requests]


@pytest.mark.parametrize(
    ("topic", "expected"), [("a:1", ["forbidden", "fine"]), ("a:2", ["fine", "forbidden"]), ("b", ["fine", "fine"])]
)
def test_pattern(hub, topic, expected):
    server = hub(topics({"pattern": "a:1", "publish_roles": []}, {"pattern": "a:*", "subscribe_roles": []}))
    assert kinds(server.connect(), topic) == expected


def test_subscribe_roles(hub):
    server = hub(topics({"pattern": "t", "subscribe_roles": ["staff"]}))
    assert kinds(server.connect("alice", roles=("staff",)), "t") == ["fine", "fine"]
    assert kinds(server.connect("bob", roles=("user",)), "t") == ["fine", "forbidden"]


def test_publish_roles(hub):
    server = hub(topics({"pattern": "t", "publish_roles": ["editor"]}))
    for roles, expected in (((), "forbidden"), (("editor",), "fine")):
        assert kinds(server.connect(roles=roles), "t") == [expected, "fine"]


@pytest.mark.parametrize("kept", [True, False])
def test_history(hub, kept):
    server = hub(topics({"pattern": "t", "history": kept}))
    server.fill("t", 2)
    answer = server.connect().request({"type": "History", "id": 1, "topic": "t"})
    assert answer["type"] == ("HistoryPage" if kept else "Error")


def test_history_size(hub):
    server = hub(topics({"pattern": "t", "history_size": 2}))
    for topic, expected in (("t", [3, 4]), ("u", [0, 1, 2, 3, 4])):
        server.fill(topic, 5)
        assert history(server.connect(), topic) == expected


def test_history_ttl(hub):
    server = hub(topics({"pattern": "t", "history_ttl_secs": 5}))
    for topic in ("t", "u"):
        server.fill(topic, 1)
    server.advance(6000)
    assert [history(server.connect(), topic) for topic in ("t", "u")] == [[], [0]]


@pytest.mark.parametrize("told", [True, False])
def test_presence(hub, told):
    peer = hub(topics({"pattern": "t", "presence": told})).connect()
    assert peer.request({"type": "Presence", "id": 1, "topic": "t"})["type"] == ("PresenceState" if told else "Error")


def test_over_http(serve):
    """Roles out of real tokens and keys, for publications, reading, and Server-Sent Events."""
    running = serve(topics({"pattern": "t", "subscribe_roles": ["staff"], "publish_roles": ["staff"]}))
    message = {"topic": "t", "payload": 1}
    for roles, status in ((["user"], 403), (["user", "staff"], 200)):
        headers = bearer(roles=roles)
        assert ask(running.port, "POST", "/api/publish", headers, message).status == status
        assert ask(running.port, "GET", "/api/topics/t/history", headers).status == status
        assert ask(running.port, "GET", "/api/topics/t/presence", headers).status == status
    refused = ask(running.port, "GET", "/sse?topics=t", bearer(roles=["user"]))
    assert (refused.status, refused.json["error"]["code"]) == (403, "forbidden")


class TestLive:
    def test_roles(self, serve):
        first = topics({"pattern": "t", "subscribe_roles": ["staff"], "publish_roles": ["staff"]})
        running = serve(first)
        with running.peer("alice", roles=["staff"]) as staff, running.peer("bob", roles=["user"]) as user:
            assert staff.ok("Subscribe", topic="t")
            assert running.reload(topics({"pattern": "u*", "subscribe_roles": ["user"], "publish_roles": ["staff"]}))
            assert user.ok("Broadcast", topic="t", payload=1), "no rule speaks of it any more"
            assert staff.event()["payload"] == 1
            assert staff.error("Subscribe", topic="u1")["code"] == "forbidden"
            assert staff.ok("Broadcast", topic="u1", payload=1)
            assert user.error("Broadcast", topic="u1", payload=1)["code"] == "forbidden"
            assert not running.reload(topics({"pattern": "a*b"}))
            assert user.error("Broadcast", topic="u1", payload=1)["code"] == "forbidden"

    def test_history_and_presence(self, serve):
        running = serve()
        with running.peer() as alice:
            for number in range(5):
                alice.ok("Broadcast", topic="t", payload=number)
            assert running.reload(topics({"pattern": "t", "history_size": 2, "history_ttl_secs": 200}))
            assert payloads(alice.ok("History", topic="t")) == [3, 4]
            assert running.reload(topics({"pattern": "t", "history_ttl_secs": 0.001}))
            assert payloads(alice.ok("History", topic="t")) == []
            assert running.reload(topics({"pattern": "t", "history": False, "presence": False}))
            for kind in ("History", "Presence"):
                assert alice.error(kind, topic="t")["code"] == "forbidden"
