"""Topics as labels: a bound, whatever clients do."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from realtime_communication.config.metric_names import INBOXES, MAX_LABEL_BYTES, MAX_TOPICS, OTHER
from realtime_communication.observability.topic_labels import (
    SYSTEM,
    PublicationLedger,
    TopicCount,
    TopicLabels,
    label_of,
    with_rest,
)


@given(st.text(min_size=1, max_size=255))
def test_labels_are_cut_to_whole_characters(topic: str) -> None:
    label = label_of(topic)
    assert len(label.encode()) <= MAX_LABEL_BYTES
    assert topic.startswith(label)
    assert label == topic or len(label.encode()) > MAX_LABEL_BYTES - 4


class TestTopicLabels:
    def test_those_with_most_subscribers_have_their_own(self) -> None:
        labels = TopicLabels()
        labels.update([(f"t{number}", 1000 - number, number) for number in range(MAX_TOPICS + 50)])
        assert len(labels.subscribers) == len(labels.offsets) == MAX_TOPICS
        assert labels.of("t0") == "t0" and labels.of(f"t{MAX_TOPICS}") == OTHER
        assert not labels.complete

    def test_inboxes_and_system_topics_never_have_one(self) -> None:
        labels = TopicLabels()
        labels.update([("@alice", 3, 7), ("$all", 3, 7), ("room", 1, 2)])
        assert labels.subscribers == {"room": 1}
        assert (labels.of("@alice"), labels.of("$all"), labels.of("room")) == (INBOXES, SYSTEM, "room")

    def test_topics_with_the_same_beginning_share_a_series(self) -> None:
        long = "x" * MAX_LABEL_BYTES
        labels = TopicLabels()
        labels.update([(long + "1", 3, 5), (long + "2", 4, 6)])
        assert labels.subscribers == {long: 7} and labels.offsets == {long: 11}

    def test_what_is_gone_is_no_longer_kept(self) -> None:
        labels = TopicLabels()
        labels.update([("a", 1, 1)])
        assert labels.keeps("a") and labels.keeps(OTHER) and labels.keeps(INBOXES)
        labels.update([("b", 1, 1)])
        assert not labels.keeps("a") and labels.of("a") == OTHER


def test_the_rest() -> None:
    assert with_rest({"a": 2}, 5) == {"a": 2, OTHER: 3}
    assert with_rest({"a": 2, OTHER: 1}, 5) == {"a": 2, OTHER: 3}, "a topic may be called so"
    assert with_rest({"a": 2}, 2) == {"a": 2}
    assert with_rest({"a": 2}, 1) == {"a": 2}, "figures of different moments"


class Publications:
    """A ledger, and updates with the topics as the hub has them."""

    def __init__(self) -> None:
        self.ledger = PublicationLedger()
        self._labels = TopicLabels()

    def update(self, counts: list[TopicCount], total: int) -> dict[str, int]:
        self._labels.update(counts)
        self.ledger.update(self._labels, total)
        return self.ledger.counts


class TestLedger:
    def test_a_new_topic_is_counted_from_its_first_message(self) -> None:
        publications = Publications()
        assert publications.update([("a", 1, 3)], 5) == {"a": 3, OTHER: 2}
        assert publications.update([("a", 1, 4), ("b", 1, 2)], 8) == {"a": 4, "b": 2, OTHER: 2}

    def test_the_past_of_a_topic_that_was_left_out_stays_with_the_rest(self) -> None:
        publications = Publications()
        full = [(f"t{number}", 9, 1) for number in range(MAX_TOPICS)]
        publications.update(full, 1000)
        counts = publications.update([("late", 10, 500), *full[:-1]], 1010)
        assert counts["late"] == 0 and counts[OTHER] == 1010 - (MAX_TOPICS - 1)
        assert publications.update([("late", 10, 504), *full[:-1]], 1014)["late"] == 4

    def test_a_topic_without_a_label_goes_to_the_rest(self) -> None:
        publications = Publications()
        publications.update([("a", 1, 3)], 3)
        assert publications.update([], 4) == {OTHER: 4}

    def test_a_new_epoch_begins_at_one(self) -> None:
        publications = Publications()
        publications.update([("a", 1, 90)], 90)
        assert publications.update([("a", 1, 2)], 92) == {"a": 92}

    @given(
        st.lists(
            st.lists(
                st.tuples(st.sampled_from("abcd"), st.integers(0, 9), st.integers(0, 50)), unique_by=lambda x: x[0]
            ),
            max_size=8,
        )
    )
    def test_together_they_are_all_publications(self, rounds: list[list[TopicCount]]) -> None:
        publications = Publications()
        total = 0
        for counts in rounds:
            total += sum(offset for _, _, offset in counts) // 2
            before = publications.ledger.counts.get(OTHER, 0)
            after = publications.update(counts, total)
            assert sum(after.values()) == total
            assert after.get(OTHER, 0) >= before and all(count >= 0 for count in after.values())
