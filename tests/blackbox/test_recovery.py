"""Protocol section 2, "Recovery" and ``History``: complete or not at all."""

import pytest

from serving.peer import Connect, Peer


def publish(peer: Peer, topic: str, count: int, start: int = 1) -> str:
    epoch = ""
    for number in range(start, start + count):
        epoch = peer.ok("Broadcast", topic=topic, payload=number)["epoch"]
    return epoch


class TestRecover:
    def test_what_was_missed_comes_and_nothing_else(self, join: Connect, topic: str) -> None:
        alice = join()
        epoch = publish(alice, topic, 10)
        reply = join().ok("Subscribe", topic=topic, recover={"epoch": epoch, "offset": 6})
        assert reply["recovered"] is True
        assert [message["payload"] for message in reply["messages"]] == [7, 8, 9, 10]
        assert [message["offset"] for message in reply["messages"]] == [7, 8, 9, 10]
        assert (reply["epoch"], reply["offset"]) == (epoch, 10)

    def test_nothing_was_missed(self, join: Connect, topic: str) -> None:
        epoch = publish(join(), topic, 3)
        reply = join().ok("Subscribe", topic=topic, recover={"epoch": epoch, "offset": 3})
        assert (reply["recovered"], reply["messages"]) == (True, [])

    def test_from_the_very_beginning(self, join: Connect, topic: str) -> None:
        epoch = publish(join(), topic, 3)
        reply = join().ok("Subscribe", topic=topic, recover={"epoch": epoch, "offset": 0})
        assert reply["recovered"] is True
        assert [message["offset"] for message in reply["messages"]] == [1, 2, 3]

    def test_more_than_a_page(self, join: Connect, topic: str) -> None:
        alice = join()
        epoch = publish(alice, topic, 300)
        reply = join().ok("Subscribe", topic=topic, recover={"epoch": epoch, "offset": 0})
        assert reply["recovered"] is True
        assert [message["offset"] for message in reply["messages"]] == list(range(1, 301))

    def test_another_epoch(self, join: Connect, topic: str) -> None:
        publish(join(), topic, 3)
        reply = join().ok("Subscribe", topic=topic, recover={"epoch": "of-another-life", "offset": 1})
        assert (reply["recovered"], reply["messages"]) == (False, [])
        assert reply["offset"] == 3

    def test_offset_from_the_future(self, join: Connect, topic: str) -> None:
        epoch = publish(join(), topic, 3)
        reply = join().ok("Subscribe", topic=topic, recover={"epoch": epoch, "offset": 4})
        assert (reply["recovered"], reply["messages"]) == (False, [])

    def test_offset_at_the_end_of_the_integers(self, join: Connect, topic: str) -> None:
        epoch = publish(join(), topic, 1)
        reply = join().request("Subscribe", topic=topic, recover={"epoch": epoch, "offset": 2**63 - 1})
        assert reply["type"] == "Error" or reply["recovered"] is False

    def test_live_messages_follow_without_a_hole(self, join: Connect, topic: str) -> None:
        alice, bob = join(), join()
        epoch = publish(alice, topic, 5)
        reply = bob.ok("Subscribe", topic=topic, recover={"epoch": epoch, "offset": 2})
        publish(alice, topic, 5, start=6)
        offsets = [message["offset"] for message in reply["messages"]]
        offsets += [message["offset"] for message in bob.events(5)]
        assert offsets == list(range(3, 11))

    def test_own_messages_are_recovered_too(self, join: Connect, topic: str) -> None:
        alice = join()
        epoch = publish(alice, topic, 2)
        alice.close()
        reply = join(alice.user).ok("Subscribe", topic=topic, recover={"epoch": epoch, "offset": 1})
        assert [message["from"] for message in reply["messages"]] == [alice.user]

    def test_resubscribing_on_the_same_connection(self, join: Connect, topic: str) -> None:
        alice, bob = join(), join()
        epoch = bob.ok("Subscribe", topic=topic)["epoch"]
        publish(alice, topic, 3)
        reply = bob.ok("Subscribe", topic=topic, recover={"epoch": epoch, "offset": 0})
        assert [message["offset"] for message in reply["messages"]] == [1, 2, 3]


class TestHistory:
    def test_page(self, join: Connect, topic: str) -> None:
        alice = join()
        epoch = publish(alice, topic, 3)
        page = alice.ok("History", topic=topic)
        assert list(page) == ["type", "id", "topic", "epoch", "offset", "messages"]
        assert (page["type"], page["topic"], page["epoch"], page["offset"]) == ("HistoryPage", topic, epoch, 3)
        assert [list(message) for message in page["messages"]] == [["offset", "ts", "from", "payload"]] * 3
        assert [message["payload"] for message in page["messages"]] == [1, 2, 3]

    def test_unknown_topic_is_empty(self, join: Connect, topic: str) -> None:
        page = join().ok("History", topic=topic)
        assert (page["offset"], page["messages"]) == (0, [])
        assert page["epoch"]

    def test_default_limit_is_100(self, join: Connect, topic: str) -> None:
        alice = join()
        publish(alice, topic, 120)
        assert len(alice.ok("History", topic=topic)["messages"]) == 100

    @pytest.mark.parametrize("limit", [1, 7, 1000])
    def test_limit(self, join: Connect, topic: str, limit: int) -> None:
        alice = join()
        publish(alice, topic, 20)
        assert len(alice.ok("History", topic=topic, limit=limit)["messages"]) == min(limit, 20)

    def test_after(self, join: Connect, topic: str) -> None:
        alice = join()
        epoch = publish(alice, topic, 10)
        page = alice.ok("History", topic=topic, after={"epoch": epoch, "offset": 4}, limit=3)
        assert [message["offset"] for message in page["messages"]] == [5, 6, 7]

    def test_paging_reads_everything_once(self, join: Connect, topic: str) -> None:
        alice = join()
        epoch = publish(alice, topic, 25)
        seen: list[int] = []
        while True:
            after = {"epoch": epoch, "offset": seen[-1] if seen else 0}
            page = alice.ok("History", topic=topic, after=after, limit=10)
            if not page["messages"]:
                break
            seen += [message["offset"] for message in page["messages"]]
        assert seen == list(range(1, 26))

    def test_after_the_end(self, join: Connect, topic: str) -> None:
        alice = join()
        epoch = publish(alice, topic, 2)
        assert alice.ok("History", topic=topic, after={"epoch": epoch, "offset": 2})["messages"] == []

    def test_reverse_is_newest_first(self, join: Connect, topic: str) -> None:
        alice = join()
        publish(alice, topic, 10)
        page = alice.ok("History", topic=topic, limit=3, reverse=True)
        assert [message["offset"] for message in page["messages"]] == [10, 9, 8]

    def test_own_inbox(self, join: Connect) -> None:
        alice, bob = join(), join()
        for number in range(3):
            alice.ok("DirectMessage", to=bob.user, payload=number)
        page = bob.ok("History", topic=f"@{bob.user}", limit=2, reverse=True)
        assert [message["payload"] for message in page["messages"]] == [2, 1]
        page = bob.ok("History", topic=f"@{bob.user}", after={"epoch": page["epoch"], "offset": 1})
        assert [message["offset"] for message in page["messages"]] == [2, 3]
