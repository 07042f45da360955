"""Whether a reactor polls on, from the times of its turns and the switches of its thread."""

from realtime_communication._core.io.polling import Polling

US, MS, S = 1_000, 1_000_000, 1_000_000_000
START = 10 * S


class Worker:
    """Turns of one microsecond of work each, so many apart, on a core that others take away `taken` times in each."""

    def __init__(self) -> None:
        self.polling = Polling()
        self.now = START
        self.switches = 0

    def turns(self, count: int, apart: int = 5 * US, taken: float = 0) -> int:
        """How many of them polled on when they had no more work."""
        polled = 0
        lost = 0.0
        for _ in range(count):
            self.now += apart
            lost += taken
            if self.polling.begin(self.now):
                self.polling.switched(self.now, self.switches + int(lost))
            assert self.polling.go_on(self.now, True)
            self.now += US
            polled += self.polling.go_on(self.now, False)
            self.polling.end(self.now)
        self.switches += int(lost)
        return polled


def test_it_polls_after_four_turns_that_came_soon_and_for_50_us():
    worker = Worker()
    assert worker.turns(1, apart=S) == 0
    assert worker.turns(3) == 0
    assert worker.turns(5) == 5
    polling = worker.polling
    assert polling.go_on(worker.now, True)
    assert polling.go_on(worker.now + 49 * US, False)
    assert not polling.go_on(worker.now + 50 * US, False)


def test_a_turn_without_any_work_does_not_poll():
    worker = Worker()
    worker.turns(10)
    worker.polling.begin(worker.now + US)
    assert not worker.polling.go_on(worker.now + US, False)


def test_longer_waits_end_it():
    worker = Worker()
    worker.turns(20)
    assert worker.turns(3, apart=MS) < 3
    assert worker.turns(3, apart=MS) == 0


class TestCrowdedCore:
    def crowded(self) -> Worker:
        worker = Worker()
        worker.turns(20_000)
        assert worker.turns(100) == 100
        worker.turns(8_000, taken=0.01)
        return worker

    def test_there_is_no_polling_where_others_take_the_core(self):
        assert self.crowded().turns(100) == 0

    def test_it_is_tried_again_when_they_are_gone(self):
        worker = self.crowded()
        worker.turns(100_000)
        assert worker.turns(100) == 100

    def test_the_pauses_grow_up_to_13_s_and_shrink(self):
        worker = Worker()
        worker.turns(200_000)
        before = worker.turns(1_000_000, taken=0.01)
        assert worker.turns(1_000_000, taken=0.01) < before
        assert worker.turns(4_000_000, taken=0.01) < 100_000
        worker.turns(12_000_000 // 5)
        assert worker.turns(100) == 100

    def test_threads_of_the_system_are_no_crowd(self):
        worker = Worker()
        worker.turns(10)
        assert worker.turns(100_000, taken=2 / 20_000) == 100_000

    def test_switches_of_long_ago_say_nothing(self):
        worker = Worker()
        worker.turns(5_000)
        worker.switches += 1000
        worker.now += S
        worker.turns(10)
        assert worker.turns(100) == 100
