"""docs/metrics.md is what the catalogue says."""

from __future__ import annotations

from pathlib import Path

from realtime_communication.config.metric_names import CUSTOM_METRICS
from realtime_communication.observability.catalogue import ROWS
from realtime_communication.observability.metrics_reference import markdown

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_the_reference_in_docs_is_up_to_date() -> None:
    assert DOCS.read_text() == markdown(), "run: rtc config metrics > docs/metrics.md"


def test_every_metric_has_its_row() -> None:
    text = markdown()
    for row in ROWS.values():
        assert f"| `{row.name}{'_total' if row.type == 'counter' else ''}` | {row.type} |" in text
    assert all(f"| `{name}` | {spec.type} |" in text for name, spec in CUSTOM_METRICS.items())


def test_tables_have_equal_columns() -> None:
    for block in markdown().split("\n\n"):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        assert len({row.count("|") for row in rows}) <= 1, block
