"""Keys about what the server tells, beyond what the tables of the schema's tests show."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from realtime_communication.config import LoadedConfig
from realtime_communication.config.watching import DEFAULT_BUCKETS
from realtime_communication.errors import ConfigurationProblem

Load = Callable[..., LoadedConfig]
Refuse = Callable[..., list[ConfigurationProblem]]


def test_the_default_buckets_rise() -> None:
    assert all(low < high for low, high in itertools.pairwise(DEFAULT_BUCKETS))


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("monitoring.prometheus.port = 0", "monitoring.prometheus.port"),
        ("monitoring.prometheus.port = 8081", "monitoring.prometheus.port"),
        ('metrics.path = "metrics"', "monitoring.prometheus.path"),
        ('metrics.namespace = "a-b"', "monitoring.prometheus.namespace"),
        ('metrics.subsystem = "9"', "monitoring.prometheus.subsystem"),
        ("monitoring.prometheus.buckets = []", "monitoring.prometheus.buckets"),
        ("monitoring.prometheus.buckets = [1, 1]", "monitoring.prometheus.buckets"),
        ("monitoring.prometheus.buckets = [0, 1]", "monitoring.prometheus.buckets"),
        ('tracing.endpoint = "localhost:4317"', "tracing.endpoint"),
        ("tracing.sampling_rate = 1.5", "tracing.sampling_rate"),
    ],
)
def test_what_is_refused(text: str, key: str, refused: Refuse) -> None:
    assert [problem.key for problem in refused(files={"config.toml": text + "\n"})] == [key]


def test_metrics_that_are_off_ask_for_nothing(load_config: Load) -> None:
    text = "metrics = { enabled = false, port = 8081, namespace = 'a-b' }\n"
    assert not load_config(files={"config.toml": text}).config.monitoring.prometheus.enabled
