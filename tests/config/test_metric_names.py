"""The metrics that can be asked for."""

from __future__ import annotations

import re

from realtime_communication.config.metric_names import CUSTOM_METRICS


def test_names_are_those_of_prometheus() -> None:
    for name, spec in CUSTOM_METRICS.items():
        assert name == spec.name and re.fullmatch(r"[a-z][a-z_]*[a-z]", name)
        assert not name.endswith("_total"), "it is added on the wire"
        assert spec.help and spec.help.isprintable()


def test_there_is_a_dozen() -> None:
    assert len(CUSTOM_METRICS) >= 12


def test_those_of_the_guide() -> None:
    assert CUSTOM_METRICS["message_latency"].type == "histogram"
    assert CUSTOM_METRICS["message_latency"].labels == ("message_type", "topic")
    assert CUSTOM_METRICS["active_subscriptions"].type == "gauge"
    assert CUSTOM_METRICS["active_subscriptions"].labels == ("topic",)
