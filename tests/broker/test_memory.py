"""The stand-ins; what MemoryState does is in test_shared_state.py."""

import asyncio

import pytest

from realtime_communication.broker import memory
from realtime_communication.broker.events import MAX_EVENT_BYTES
from realtime_communication.broker.memory import MemoryEvents, MemoryState
from realtime_communication.errors import MisuseError


def test_events_reach_the_other_nodes_of_the_process(caplog):
    one = MemoryEvents()
    two, three = one.node(), one.node()
    got = {"one": [], "two": [], "three": []}
    one.subscribe("news", got["one"].append)
    two.subscribe("news", lambda payload: 1 / 0)
    two.subscribe("news", got["two"].append)
    three.subscribe("news", got["three"].append)
    one.publish("news", {"a": (1, 2)})
    one.publish("other", {})
    assert got == {"one": [], "two": [{"a": [1, 2]}], "three": [{"a": [1, 2]}]}
    two.publish("news", {})
    assert got["one"] == [{}]
    assert sum("could not be handled" in record.getMessage() for record in caplog.records) == 1


def test_one_node_has_nobody_to_tell_and_the_same_bounds():
    bus = MemoryEvents()
    bus.publish("news", {"a": 1})
    with pytest.raises(MisuseError, match=f"more than {MAX_EVENT_BYTES}"):
        bus.publish("news", {"a": "x" * MAX_EVENT_BYTES})
    with pytest.raises(MisuseError, match="cannot be JSON"):
        bus.publish("news", {"a": object()})


def test_sets_are_bounded(monkeypatch):
    monkeypatch.setattr(memory, "MAX_SETS", 1)
    state = MemoryState(lambda: 0.0)
    asyncio.run(state.add_members("one", [(b"a", 1.0)]))
    asyncio.run(state.add_members("one", [(b"b", 1.0)]))
    with pytest.raises(MisuseError):
        asyncio.run(state.add_members("two", [(b"a", 1.0)]))
