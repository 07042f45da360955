"""The door between hub and engine: whoever stands in for a hub has all of it."""

import inspect

from broker.hubs import RecordingHub
from realtime_communication.broker.redis_engine import RedisEngine
from realtime_communication.broker.upstream import UpstreamHub


def test_the_stand_in_has_every_method_with_as_many_arguments():
    for name, method in inspect.getmembers(UpstreamHub, inspect.isfunction):
        if not name.startswith("_"):
            stand_in = getattr(RecordingHub, name)
            assert len(inspect.signature(stand_in).parameters) == len(inspect.signature(method).parameters), name


def test_the_engine_knows_everything_a_hub_hands_over(engine_node):
    node = engine_node(url="redis://127.0.0.1:1")
    assert isinstance(node.engine, RedisEngine)
    assert set(node.engine._handlers) == {
        *("publish", "subscribe", "unsubscribe", "history", "enter", "exit", "moved", "presence"),
        *("user_here", "user_gone"),
    }
