"""Names on the wire."""

from __future__ import annotations

import pytest

from realtime_communication.observability.families import Families
from realtime_communication.observability.histogram import Histogram


@pytest.mark.parametrize(
    ("namespace", "subsystem", "name"), [("n", "s", "n_s_x"), ("n", "", "n_x"), ("", "s", "s_x"), ("", "", "x")]
)
def test_empty_parts_are_left_out(namespace: str, subsystem: str, name: str) -> None:
    families = Families(namespace, subsystem)
    assert families.simple("gauge", "x", "help", (), [((), 1)]).samples[0].name == name
    assert families.simple("counter", "x", "help", (), [((), 1)]).samples[0].name == name + "_total"
    assert families.simple("gauge", "x", "help", (), [((), 1)], standard=True).samples[0].name == "x"
    assert families.histogram("x", "help", (), Histogram((1.0,))).name == name


def test_labels_in_their_order() -> None:
    sample = Families("", "").simple("counter", "x", "help", ("a", "b"), [(("1", "2"), 3)]).samples[0]
    assert sample.labels == {"a": "1", "b": "2"} and sample.value == 3
