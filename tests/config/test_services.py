"""Keys about what the server depends on, beyond what the tables of the schema's tests show."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from realtime_communication.config import LoadedConfig
from realtime_communication.config.services import BREAKER_NAMES, BreakerService, Redis
from realtime_communication.errors import ConfigurationProblem

Load = Callable[..., LoadedConfig]
Refuse = Callable[..., list[ConfigurationProblem]]


def test_no_section_shows_a_password() -> None:
    assert "hush" not in repr(Redis(url="redis://:hush@host"))


def test_a_breaker_of_one_service_leaves_open_what_it_does_not_say() -> None:
    service = BreakerService(name="redis", timeout_secs=30.0)
    assert (service.failure_threshold, service.success_threshold, service.half_open_requests) == (None, None, None)


@pytest.mark.parametrize("name", BREAKER_NAMES)
def test_every_breaker_can_be_named(name: str, load_config: Load) -> None:
    loaded = load_config(files={"config.toml": f'[[circuit_breaker.services]]\nname = "{name}"\n'})
    assert [service.name for service in loaded.config.circuit_breaker.services] == [name]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('url = "http://host"', "redis.url"),
        ('url = "redis://host:99999"', "redis.url"),
        ('url = "redis://host/first"', "redis.url"),
        ('key_prefix = "a{b}"', "redis.key_prefix"),
        ("cluster.enabled = true", "redis.cluster.nodes"),
        ('cluster = { enabled = true, nodes = ["host:1"] }', "redis.cluster.nodes[0]"),
        ('url = "redis://host/3"\ncluster = { enabled = true, nodes = ["redis://a"] }', "redis.url"),
        ("sentinel.enabled = true", "redis.sentinel.sentinels"),
        ('sentinel = { enabled = true, sentinels = ["host"] }', "redis.sentinel.sentinels[0]"),
        ('sentinel = { enabled = true, sentinels = ["host:0"] }', "redis.sentinel.sentinels[0]"),
        ("pool_size = 30\npool.max_size = 20", "redis.pool.max_size"),
        ("pool_size = 3\npool.min_idle = 4", "redis.pool.min_idle"),
    ],
)
def test_what_is_refused(text: str, key: str, refused: Refuse) -> None:
    assert [problem.key for problem in refused(files={"config.toml": f"[redis]\n{text}\n"})] == [key]


def test_cluster_and_sentinel_exclude_each_other(refused: Refuse) -> None:
    text = '[redis]\ncluster = {enabled=true, nodes=["redis://a"]}\nsentinel = {enabled=true, sentinels=["b:1"]}\n'
    assert [problem.key for problem in refused(files={"config.toml": text})] == ["redis.sentinel.enabled"]


def test_the_pool_bends_to_its_size(load_config: Load) -> None:
    large, small = (load_config(f"--redis-pool-size={size}").config.redis.pool for size in (50, 2))
    assert (large.max_size, large.min_idle) == (50, 5)
    assert (small.max_size, small.min_idle) == (20, 2)


@pytest.mark.parametrize("name", ["redsi", "kafka"])
def test_an_unknown_breaker(name: str, refused: Refuse) -> None:
    (problem,) = refused(files={"config.toml": f'[[circuit_breaker.services]]\nname = "{name}"\n'})
    assert problem.key == "circuit_breaker.services[0].name" and "auth_service" in problem.message
