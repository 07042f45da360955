"""Links to real Redis servers, under a configuration that went through the loader."""

import pytest

from broker.hubs import RecordingHub
from broker.links import until
from broker.nodes import FedNode
from realtime_communication.broker.redis_calls import StreamBounds
from realtime_communication.broker.redis_engine import RedisEngine
from realtime_communication.broker.redis_feed import Feed
from realtime_communication.broker.redis_link import RedisLink
from realtime_communication.config import load
from realtime_communication.config.services import CircuitBreaker
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


class EngineNode:
    """A node as far as Redis goes: ``async with running(*node.parts)``."""

    def __init__(self, hub, link, feed, engine):
        self.hub, self.link, self.feed, self.engine = hub, link, feed, engine
        self.parts = (link, feed, engine)

    async def joined(self):
        await until(lambda: self.hub.here)

    async def answer(self, token):
        await until(lambda: token in self.hub.answers)
        return self.hub.answers[token]

    async def subscribed(self, topic, position=None, history=0):
        return await self.answer(self.hub.subscribe(topic, position, history))

    async def published(self, topic, *texts, key=b""):
        answers = [await self.answer(token) for token in [self.hub.publish(topic, text, key) for text in texts]]
        return answers[-1]


@pytest.fixture
def engine_node(redis_config):
    """A node that is not running yet: ``engine_node("one", url=…, bounds=StreamBounds(…))``."""

    def make(name="one", *, bounds=None, times=None, queue=None, breakers=None, **redis):
        config = redis_config(**redis)
        breakers = breakers or Breakers(config.circuit_breaker)
        link = RedisLink(config.redis, breakers["redis"])
        feed = Feed(link)
        feed.listen(link.key("events").encode(), lambda message: None)
        hub = RecordingHub()
        engine = RedisEngine(
            hub,
            link,
            breakers["message_queue"],
            feed,
            node_id=name,
            bounds=bounds or StreamBounds(1000, 300.0),
            times={"patience_secs": 0.1} | (times or {}),
            queue=queue,
        )
        return EngineNode(hub, link, feed, engine)

    return make


@pytest.fixture
def node_at(link_to):
    """A node that is not running yet: ``node_at(url=…)``; `times` as for Feed."""

    def make(*, times=None, **redis):
        breakers = Breakers(CircuitBreaker(enabled=False))
        return FedNode(link_to(breakers=breakers, **redis), **(times or {}))

    return make
