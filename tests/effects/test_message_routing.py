"""`[message_routing]`: what happens between sender and receivers."""

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


@pytest.mark.parametrize("dropping", [True, False])
def test_drop_invalid_messages(hub, dropping):
    server = hub({"message_routing": {"drop_invalid_messages": dropping}})
    peer = server.connect()
    peer.send({"type": "Nonsense", "id": 7})
    peer.send_frame(b"[]")
    assert [message["code"] for message in peer.messages()] == ([] if dropping else ["bad_request"] * 2)
    assert server.stats()["invalid"] == 2
