"""`[message_routing]`: what happens between sender and receivers."""

import sys

import pytest


def publish(peer, count, topic="t"):
    for number in range(count):
        assert peer.request({"type": "Broadcast", "id": 1, "topic": topic, "payload": number})["type"] == "Ack"


def history(peer, topic="t"):
    return [message["payload"] for message in peer.request({"type": "History", "id": 1, "topic": topic})["messages"]]


@pytest.mark.parametrize("caching", [True, False])
def test_enable_caching(hub, caching):
    peer = hub({"message_routing": {"enable_caching": caching}}).connect()
    publish(peer, 3)
    assert history(peer) == ([0, 1, 2] if caching else [])


@pytest.mark.parametrize("ttl", [5, 50])
def test_cache_ttl(hub, ttl):
    server = hub({"message_routing": {"cache_ttl_secs": ttl}, "websocket": {"client_timeout_secs": 1000}})
    peer = server.connect()
    publish(peer, 3)
    server.advance((ttl - 2) * 1000)
    assert history(peer) == [0, 1, 2]
    server.advance(4000)
    assert history(peer) == []


def test_max_cache_entries_is_over_all_topics_oldest_first(hub):
    peer = hub({"message_routing": {"max_cache_entries": 4}}).connect()
    publish(peer, 3, "old")
    publish(peer, 3, "new")
    assert (history(peer, "old"), history(peer, "new")) == ([2], [0, 1, 2])


def test_max_targets_per_message(hub):
    peer = hub({"message_routing": {"max_targets_per_message": 2}}).connect()
    for to, kind in ((["a", "b"], "Ack"), (["a", "b", "c"], "Error")):
        answer = peer.request({"type": "DirectMessage", "id": 1, "to": to, "payload": 1})
        assert answer["type"] == kind
    assert answer["code"] == "too_many_targets"


@pytest.mark.parametrize("transforming", [True, False])
def test_enable_message_transformation(hub, transforming):
    server = hub({"message_routing": {"enable_message_transformation": transforming}})
    text, packed = server.connect("alice"), server.connect("bob", protocol="rtc.v1.msgpack")
    for peer in (text, packed):
        peer.subscribe("t")
    text.send({"type": "Broadcast", "topic": "t", "payload": {"n": [1.5]}})
    assert [message["payload"] for message in text.messages()] == [{"n": [1.5]}]
    assert [message["payload"] for message in packed.messages()] == ([{"n": [1.5]}] if transforming else [])
    assert server.stats()["untranscoded"] == (0 if transforming else 1)


MODULE = """
def shout(topic, payload):
    return {"topic": topic, "text": payload.upper()}

def refuse(topic, payload):
    return None

def fail(topic, payload):
    return payload["no such key"]
"""


@pytest.fixture
def rules(tmp_path, monkeypatch):
    """A module of transforms that can be imported; its name."""
    (tmp_path / "effect_rules.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield "effect_rules"
    sys.modules.pop("effect_rules", None)


def transforming(rules, *pairs, **routing):
    transforms = [{"topic": topic, "callable": f"{rules}:{function}"} for topic, function in pairs]
    return {"message_routing": {"transforms": transforms, **routing}}


@pytest.mark.parametrize("topic, payload", [("room:1", "a"), ("hall", {"topic": "hall", "text": "A"})])
def test_transforms(hub, rules, topic, payload):
    server = hub(transforming(rules, ("hall*", "shout"), ("hall", "refuse")))
    text, packed = server.connect("alice"), server.connect("bob", protocol="rtc.v1.msgpack")
    for peer in (text, packed):
        peer.subscribe(topic)
    assert packed.request({"type": "Broadcast", "id": 1, "topic": topic, "payload": "a", "exclude_self": True})
    assert [message["payload"] for message in text.messages()] == [payload]
    text.send({"type": "Broadcast", "topic": topic, "payload": "a"})
    assert [message["payload"] for message in packed.messages()] == [payload]


def test_a_transform_may_refuse(hub, rules):
    server = hub(transforming(rules, ("secret*", "refuse")))
    answer = server.connect().request({"type": "Broadcast", "id": 1, "topic": "secret:1", "payload": 1})
    assert (answer["code"], answer["message"]) == ("forbidden", "payload: refused by a transform")


def test_transforms_need_enable_message_transformation(hub, rules):
    server = hub(transforming(rules, ("*", "refuse"), enable_message_transformation=False))
    assert server.connect().request({"type": "Broadcast", "id": 1, "topic": "t", "payload": 1})["type"] == "Ack"


def test_a_transform_that_fails_in_a_running_server(serve, rules):
    running = serve(transforming(rules, ("t", "fail"), ("u", "shout")))
    with running.peer() as peer:
        answer = peer.request("Broadcast", topic="t", payload={})
        assert (answer["type"], answer["code"]) == ("Error", "internal")
        assert peer.request("Broadcast", topic="u", payload="a")["type"] == "Ack"
    assert running.stats()["transform_errors"] == 1


@pytest.mark.parametrize("dropping", [True, False])
def test_drop_invalid_messages(hub, dropping):
    server = hub({"message_routing": {"drop_invalid_messages": dropping}})
    peer = server.connect()
    peer.send({"type": "Nonsense", "id": 7})
    peer.send_frame(b"[]")
    assert [message["code"] for message in peer.messages()] == ([] if dropping else ["bad_request"] * 2)
    assert server.stats()["invalid"] == 2
