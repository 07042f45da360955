"""Faults of peers in the log: a line each, and a bound on lines."""

import pytest

from realtime_communication.observability.fault_log import LOGGED_EACH_SECOND, FaultLog


class Recorder:
    def __init__(self):
        self.lines = []

    def info(self, event, **fields):
        self.lines.append((event, fields))


@pytest.fixture
def recorder():
    return Recorder()


def test_a_line_says_what_it_is_told(recorder):
    FaultLog(recorder, "an event").tell(peer="127.0.0.1:5", reason="no shared cipher")
    assert recorder.lines == [("an event", {"peer": "127.0.0.1:5", "reason": "no shared cipher"})]


def test_a_flood_writes_some_lines_and_is_counted(recorder):
    now = [1.0]
    log = FaultLog(recorder, "an event", clock=lambda: now[0])
    for number in range(1000):
        log.tell(number=number)
    assert len(recorder.lines) == LOGGED_EACH_SECOND
    now[0] = 2.5
    log.tell(number=0)
    assert recorder.lines[-1][1] == {"number": 0, "not_logged": 1000 - LOGGED_EACH_SECOND}
    log.tell(number=1)
    assert "not_logged" not in recorder.lines[-1][1]
