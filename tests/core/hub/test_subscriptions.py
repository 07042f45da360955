"""Subscribe, recovery and Unsubscribe."""

from typing import Any

import pytest

from core.hub.sans_io import Envelope, Server, make_hub, offsets


class TestSubscribe:
    def test_again_changes_nothing(self) -> None:
        server = make_hub()
        alice = server.connect("alice")
        alice.subscribe("room")
        alice.subscribe("room")
        assert server.stats()["subscriptions"] == 1
        server.fill("room", 1)
        assert len(alice.messages()) == 1

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
        server.fill("room", 5)
        answer = server.connect().subscribe("room", history=asked)
        assert offsets(answer) == list(range(6 - given, 6))
        assert (answer["offset"], answer["recovered"]) == (5, False)


class TestRecovery:
    def recover(self, server: Server, offset: int, epoch: str | None = None, **fields: Any) -> Envelope:
        if epoch is None:
            epoch = server.hub.topics()[0]["epoch"]
        return server.connect("alice").subscribe("room", recover={"epoch": epoch, "offset": offset}, **fields)

    @pytest.mark.parametrize("offset", range(11))
    def test_complete_or_not_at_all(self, offset: int) -> None:
        server = make_hub(max_cache_entries=4)
        server.fill("room", 10)
        answer = self.recover(server, offset)
        assert answer["recovered"] == (offset >= 6)
        assert offsets(answer) == (list(range(offset + 1, 11)) if offset >= 6 else [])

    def test_an_offset_that_was_never_given(self) -> None:
        server = make_hub()
        server.fill("room", 3)
        answer = self.recover(server, 4)
        assert (answer["recovered"], answer["offset"], answer["messages"]) == (False, 3, [])

    @pytest.mark.parametrize("epoch", ["", "x", "0" * 16, "f" * 16, "0" * 15, "0" * 64])
    def test_another_epoch(self, epoch: str) -> None:
        server = make_hub()
        server.fill("room", 3)
        answer = server.connect().request(
            {"type": "Subscribe", "id": 1, "topic": "room", "recover": {"epoch": epoch, "offset": 2}}
        )
        assert answer.get("code") == "bad_request" or not answer["recovered"]

    def test_what_cannot_be_recovered_gives_the_newest_if_asked(self) -> None:
        server = make_hub(max_cache_entries=4)
        server.fill("room", 10)
        answer = self.recover(server, 2, history=2)
        assert (answer["recovered"], offsets(answer)) == (False, [9, 10])
        assert offsets(self.recover(server, 7, history=1)) == [8, 9, 10]

    def test_a_topic_whose_history_was_lost_has_another_epoch(self) -> None:
        server = make_hub(cache_ttl_secs=10)
        server.fill("room", 3)
        epoch = server.hub.topics()[0]["epoch"]
        server.advance(12_000)
        assert server.hub.topics() == []
        server.fill("room", 3)
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
        server.fill("room", 2)
        answer = self.recover(server, place["offset"], place["epoch"])
        assert (answer["recovered"], offsets(answer)) == (True, [1, 2])

    def test_nothing_between_what_is_recovered_and_what_comes_live(self) -> None:
        server = make_hub()
        alice = server.connect("alice")
        alice.subscribe("room")
        server.fill("room", 2)
        last = alice.messages()[-1]["offset"]
        epoch = server.hub.topics()[0]["epoch"]
        alice.end()
        server.fill("room", 3)
        server.hub.publish_system("room", b'"pending"')
        again = server.connect("alice")
        answer = again.subscribe("room", recover={"epoch": epoch, "offset": last})
        server.fill("room", 2)
        assert offsets(answer) == [3, 4, 5, 6]
        assert [m["offset"] for m in again.messages()] == [7, 8]


class TestUnsubscribe:
    def test_nothing_comes_any_more(self) -> None:
        server = make_hub()
        alice = server.connect("alice")
        alice.subscribe("room")
        answer = alice.request({"type": "Unsubscribe", "id": 1, "topic": "room"})
        assert answer == {"type": "Unsubscribed", "id": 1, "topic": "room"}
        server.fill("room", 1)
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
