"""A loop that does not turn is told of, with the place where it stands; once, and not at each look."""

import asyncio
import logging
import sys
import threading

import pytest

from realtime_communication.server import watchdog
from realtime_communication.server.watchdog import LOOK_SECS, MAX_FRAMES, STALLED_SECS, TOLD_EACH_SECS, Stalls, stack_of


class Looks:
    """Looks at even intervals, as the thread takes them."""

    def __init__(self) -> None:
        self.now = 100.0
        self.stalls = Stalls(self.now)

    def stand(self, secs: float) -> list[float]:
        """The loop does not turn for so long; what is told."""
        told = []
        for _ in range(round(secs / LOOK_SECS)):
            self.now += LOOK_SECS
            told.append(self.stalls.look(self.now))
        self.stalls.turn(self.now)
        return [each for each in told if each is not None]


def test_a_stall_is_told_once_as_soon_as_it_is_one() -> None:
    looks = Looks()
    assert looks.stand(STALLED_SECS - LOOK_SECS) == []
    assert looks.stand(30) == [STALLED_SECS]


def test_further_stalls_within_a_minute_are_counted() -> None:
    looks = Looks()
    assert len(looks.stand(3)) == 1
    for _ in range(4):
        assert looks.stand(3) == []
    assert looks.stalls.untold == 4
    for _ in range(int(TOLD_EACH_SECS)):
        assert looks.stand(1) == []
    assert len(looks.stand(3)) == 1


def test_a_process_that_did_not_run_is_not_blamed() -> None:
    looks = Looks()
    looks.now += 60
    assert looks.stalls.look(looks.now) is None
    assert looks.stand(STALLED_SECS - LOOK_SECS) == []
    assert looks.stand(3) == [STALLED_SECS]


def test_the_line_names_the_place(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "LOOK_SECS", 0.01)
    monkeypatch.setattr(watchdog, "STALLED_SECS", 0.05)
    told = threading.Event()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.set()

    async def serve() -> None:
        running = asyncio.create_task(watchdog.Watchdog().run())
        await asyncio.sleep(0)
        blocks(told)
        running.cancel()
        await asyncio.wait([running])

    handler = Handler()
    logging.getLogger(watchdog.__name__).addHandler(handler)
    try:
        asyncio.run(serve())
    finally:
        logging.getLogger(watchdog.__name__).removeHandler(handler)
    (record,) = caplog.records
    fields = record.event_fields  # type: ignore[attr-defined]
    assert record.getMessage() == "the event loop is held up"
    assert " < server/test_watchdog.py:" in fields["where"]
    assert " blocks < " in fields["where"]
    assert fields["seconds"] >= 0


def blocks(until: threading.Event) -> None:
    assert until.wait(20), "nothing was told"


def test_a_deep_stack_has_a_bound() -> None:
    def deeper(left: int) -> str:
        return deeper(left - 1) if left else stack_of(sys._getframe())

    found = deeper(100).split(" < ")
    assert len(found) == MAX_FRAMES
    assert found[0].endswith(" deeper")
    assert stack_of(None) == ""
