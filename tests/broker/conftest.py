"""Links to real Redis servers, under a configuration that went through the loader."""

import pytest

from realtime_communication.broker.redis_link import RedisLink
from realtime_communication.config import load
from realtime_communication.resilience.breaker import Breakers
from serving.processes import merged, toml
from serving.redis import RedisServer
from serving.tokens import SECRET

QUICK = {"retry_delay_ms": 5, "response_timeout_ms": 500, "pool": {"min_idle": 0}}


@pytest.fixture(scope="module")
def redis_server():
    """A Redis of the module; a test that does it harm starts one of its own."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_config(tmp_path):
    """`config.redis` as the loader makes it: ``redis_config(url=…, pool={…})``."""

    def make(**redis):
        path = tmp_path / "config.toml"
        path.write_text(toml({"auth": {"jwt_secret": SECRET}, "redis": merged(QUICK, redis)}))
        return load(["--profile=test", f"--config={path}"], environ={}, directory=tmp_path).config

    return make


@pytest.fixture
def link_to(redis_config):
    """A link that is not running yet: ``link_to(url=…)``; `breakers` and `times` as for RedisLink."""

    def make(*, breakers=None, times=None, **redis):
        config = redis_config(**redis)
        breakers = breakers or Breakers(config.circuit_breaker)
        return RedisLink(config.redis, breakers["redis"], **(times or {}))

    return make
