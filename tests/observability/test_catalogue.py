"""The table of metrics."""

from __future__ import annotations

import re

from realtime_communication._core.base.counters import counter_names
from realtime_communication.config.metric_names import CUSTOM_METRICS
from realtime_communication.observability.catalogue import CUT_REASONS, GROUPS, ROWS
from realtime_communication.observability.custom_metrics import STATS


def test_names_are_unique_and_those_of_prometheus() -> None:
    assert len(ROWS) == sum(len(rows) for rows in GROUPS.values())
    for name, row in ROWS.items():
        assert re.fullmatch(r"[a-z][a-z_]*[a-z]", name) and not name.endswith("_total")
        assert row.help and not row.help.endswith(".")
        assert row.standard is name.startswith(("process_", "python_"))


def test_what_has_to_be_asked_for_is_nothing_else() -> None:
    assert not ROWS.keys() & CUSTOM_METRICS.keys()


def test_units_are_those_of_prometheus() -> None:
    for name in ROWS:
        assert not re.search(r"_(ms|millis|secs|kb|mb)(_|$)", name), name


def test_every_counter_of_the_data_plane_has_its_metric() -> None:
    shown = (
        {row.stat for row in ROWS.values()} | set(CUT_REASONS) | {entry for part in STATS.values() for entry in part}
    )
    assert set(counter_names()) <= shown
