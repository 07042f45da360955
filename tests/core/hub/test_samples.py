"""Samples of publications: how many are picked, what they say, which are kept."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.hub.sans_io import NOW_MS, WALL_MS, make_hub
from realtime_communication._core.hub.samples import SampleProbe

KEPT = 4096
NS_PER_MS = 1_000_000


class TestRing:
    """The newest are kept until they are taken."""

    def test_off(self) -> None:
        probe = SampleProbe()
        assert not any(probe.pick() for _ in range(100))
        with pytest.raises(ValueError, match="rate"):
            probe.add(False, b"t", 1)
        assert probe.take() == []

    def test_what_a_sample_says(self) -> None:
        probe = SampleProbe()
        probe.set_rate(1)
        probe.add(False, "zoë".encode(), 100)
        probe.add(True, b"x" * 300, 200)
        assert probe.take() == []  # the turn has not ended
        probe.finish(250)
        assert probe.take() == [("Broadcast", "zoë", 100, 150), ("DirectMessage", "x" * 255, 200, 50)]
        assert probe.take() == []

    def test_a_clock_that_was_set_back(self) -> None:
        probe = SampleProbe()
        probe.set_rate(1)
        probe.add(False, b"t", 100)
        probe.finish(50)
        assert probe.take() == [("Broadcast", "t", 100, 0)]

    def test_turning_it_off_forgets(self) -> None:
        probe = SampleProbe()
        probe.set_rate(1)
        probe.add(False, b"t", 100)
        probe.set_rate(0)
        probe.set_rate(0.5)
        probe.finish(200)
        assert probe.take() == []

    @given(steps=st.lists(st.sampled_from(["add", "many", "finish", "take"]), max_size=30))
    def test_against_a_list(self, steps: list[str]) -> None:
        probe = SampleProbe()
        probe.set_rate(1)
        kept: list[tuple[int, bool]] = []  # start, finished
        lost = expected_lost = clock = 0
        for step in steps:
            if step in ("add", "many"):
                for _ in range(1 if step == "add" else 1500):
                    clock += 1
                    lost += probe.add(False, b"t", clock)
                    kept.append((clock, False))
                expected_lost += max(0, len(kept) - KEPT)
                kept = kept[-KEPT:]
            elif step == "finish":
                probe.finish(clock)
                kept = [(start, True) for start, _ in kept]
            else:
                assert [start for _, _, start, _ in probe.take()] == [start for start, done in kept if done]
                kept = [(start, done) for start, done in kept if not done]
            assert lost == expected_lost


@pytest.mark.parametrize("rate", [0.01, 0.25, 0.9])
@pytest.mark.parametrize("seed", [0, 1, 2**64 - 1])
def test_the_share_that_is_picked(rate: float, seed: int) -> None:
    probe = SampleProbe()
    probe.set_rate(rate, seed)
    picked = sum(probe.pick() for _ in range(100_000)) / 100_000
    assert picked == pytest.approx(rate, abs=0.01)


@pytest.mark.parametrize(("rate", "all_or_none"), [(1, True), (1e-300, False)])
def test_the_ends_of_the_scale(rate: float, all_or_none: bool) -> None:
    probe = SampleProbe()
    probe.set_rate(rate)
    assert {probe.pick() for _ in range(1000)} == {all_or_none}


class TestHub:
    """Publications of a hub."""

    def test_nothing_is_sampled_unless_asked_for(self) -> None:
        server = make_hub()
        server.connect().send({"type": "Broadcast", "topic": "t", "payload": 1})
        assert server.hub.take_samples() == []

    def test_kinds_topics_and_times(self) -> None:
        server = make_hub()
        server.hub.observe(1)
        alice = server.connect("alice")
        alice.send({"type": "Broadcast", "topic": "t", "payload": 1})
        server.driver.set_time(NOW_MS + 5, WALL_MS + 5)
        alice.send({"type": "DirectMessage", "to": ["bob", "carol"], "payload": 1})
        server.hub.publish_system("$news", b"1")
        assert [sample[:3] for sample in server.hub.take_samples()] == [
            ("Broadcast", "t", WALL_MS * NS_PER_MS),
            ("DirectMessage", "@bob", (WALL_MS + 5) * NS_PER_MS),
            ("DirectMessage", "@carol", (WALL_MS + 5) * NS_PER_MS),
        ]
        server.flush()
        assert [sample[1] for sample in server.hub.take_samples()] == ["$news"]

    def test_a_repeated_request_publishes_nothing(self) -> None:
        server = make_hub()
        server.hub.observe(1)
        alice = server.connect()
        for _ in range(3):
            alice.send({"type": "Broadcast", "topic": "t", "payload": 1, "idempotency_key": "k"})
        assert len(server.hub.take_samples()) == 1

    def test_what_nobody_takes_is_overwritten_and_counted(self) -> None:
        server = make_hub()
        server.hub.observe(1)
        for number in range(KEPT + 10):
            server.hub.publish_system(str(number), b"1")
        server.flush()
        taken = server.hub.take_samples()
        assert [sample[1] for sample in taken] == [str(number) for number in range(10, KEPT + 10)]
        assert server.stats()["samples_lost"] == 10

    @pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
    def test_rates_out_of_range(self, rate: float) -> None:
        with pytest.raises(ValueError, match="rate"):
            make_hub().hub.observe(rate)
