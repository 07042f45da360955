"""Only the counters are needed."""

from __future__ import annotations

import dataclasses

from realtime_communication.observability.process import read_process
from realtime_communication.observability.sources import Sources


def test_everything_but_the_counters_may_be_missing() -> None:
    sources = Sources(stats=dict)
    rest = dataclasses.asdict(sources)
    assert rest.pop("stats") is dict and rest.pop("process") is read_process and rest.pop("build") == {}
    assert set(rest.values()) == {None}
