"""What is asked and done over HTTP about topics."""

import pytest

from core.hub.sans_io import identity, make_hub
from realtime_communication._core.hub.outcome import RequestError

WRONG = [("", "topic_invalid"), ("a*", "topic_invalid"), ("a\n", "topic_invalid"), ("x" * 256, "topic_invalid")]
RESERVED = [("@alice", "forbidden"), ("$sys", "forbidden")]


class TestSubscribing:
    """By an administrator, for every live session of a user."""

    def test_each_session_is_told_and_served(self) -> None:
        server = make_hub()
        peers = [server.connect("alice"), server.connect("alice")]
        other = server.connect("bob")
        assert server.hub.subscribe_user("alice", "room") == 2
        server.hub.publish_request(b'{"topic": "room", "payload": 1}', identity("service"))
        server.flush()
        for peer in peers:
            told, message = peer.messages()
            assert list(told) == ["type", "topic", "epoch", "offset", "recovered", "messages"]
            assert (told["type"], told["topic"], told["offset"], told["messages"]) == ("Subscribed", "room", 0, [])
            assert (message["type"], message["offset"]) == ("Message", 1)
        assert other.messages() == []
        assert server.hub.topics()[0]["subscribers"] == 2

    def test_no_permission_of_the_session_is_needed_and_none_is_left_behind(self) -> None:
        server = make_hub()
        peer = server.connect("alice", permissions=0)
        assert server.hub.subscribe_user("alice", "room") == 1
        server.flush()
        assert [told["type"] for told in peer.messages()] == ["Subscribed"]
        refused = peer.request({"type": "Subscribe", "id": 1, "topic": "hall"})
        assert (refused["type"], refused["code"]) == ("Error", "forbidden")

    def test_who_is_subscribed_already_is_counted_and_not_told_again(self) -> None:
        server = make_hub()
        peer = server.connect("alice")
        peer.subscribe("room", presence=True)
        assert server.hub.subscribe_user("alice", "room") == 1
        server.flush()
        assert peer.messages() == []
        server.connect("bob").subscribe("room")
        server.flush()
        assert [told["type"] for told in peer.messages()] == ["Join"], "what it asked for stays"

    def test_a_session_that_has_all_it_may_have_keeps_nothing_of_one_more(self) -> None:
        server = make_hub()
        peer = server.connect("alice")
        peer.send(*({"type": "Subscribe", "topic": f"t{number}"} for number in range(4096)))
        server.flush()
        before = server.stats()
        assert before["subscriptions"] == 4096
        for _ in range(3):
            assert server.hub.subscribe_user("alice", "one more") == 0
        server.flush()
        assert {told["code"] for told in peer.messages()} == {"forbidden"}
        assert server.stats()["topics"] == before["topics"]

    def test_the_end_of_it(self) -> None:
        server = make_hub()
        peers = [server.connect("alice"), server.connect("alice")]
        peers[0].subscribe("room")
        assert server.hub.unsubscribe_user("alice", "room") == 1
        assert server.hub.unsubscribe_user("alice", "room") == 0
        server.flush()
        assert peers[0].messages() == [{"type": "Unsubscribed", "topic": "room"}]
        assert peers[1].messages() == []
        assert server.stats()["subscriptions"] == 0

    def test_nobody_is_there(self) -> None:
        server = make_hub()
        assert server.hub.subscribe_user("nobody", "room") == 0
        assert server.hub.unsubscribe_user("nobody", "room") == 0
        assert server.hub.topics() == []

    @pytest.mark.parametrize(("topic", "code"), WRONG + RESERVED)
    def test_topics_nobody_can_subscribe_to(self, topic: str, code: str) -> None:
        server = make_hub()
        peer = server.connect("alice")
        for ask in (server.hub.subscribe_user, server.hub.unsubscribe_user):
            with pytest.raises(RequestError) as caught:
                ask("alice", topic)
            assert caught.value.code == code
        server.flush()
        assert peer.messages() == []
