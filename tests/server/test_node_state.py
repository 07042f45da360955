"""The state that workers share without Redis, kept by the supervisor."""

import time

import msgspec
import pytest

from realtime_communication.broker.broker import broker_of
from realtime_communication.broker.memory import MemoryEvents
from realtime_communication.broker.shared_state import Rotation
from realtime_communication.config.schema import Config
from realtime_communication.errors import CircuitOpen
from realtime_communication.server.node_events import NodeEvents
from realtime_communication.server.node_state import NodeState, between_workers
from serving.channels import rig, run


def test_what_one_worker_writes_the_other_reads():
    async def test():
        async with rig(2) as made:
            one, other = (NodeState(channel) for channel in made.workers)
            await one.put("name", b"\0value", 60)
            assert await other.get("name") == b"\0value"
            await other.delete("name")
            assert await one.get("name") is None
            until = time.time() + 60
            await one.add_members("set", [(b"a", until), (b"b", until)])
            assert sorted(await other.members("set")) == [(b"a", until), (b"b", until)]

    run(test)


def test_a_generation_is_rotated_once():
    async def test():
        async with rig(2) as made:
            one, other = (NodeState(channel) for channel in made.workers)
            assert await one.compare_and_rotate("f", 0, "first", 60) is Rotation.ROTATED
            assert await other.compare_and_rotate("f", 0, "second", 60) is Rotation.REUSED
            assert await one.compare_and_rotate("f", 1, "third", 60) is Rotation.REVOKED
            await other.revoke_family("g", 60)
            assert await one.compare_and_rotate("g", 0, "first", 60) is Rotation.REVOKED

    run(test)


def test_many_members_travel_in_several_frames(monkeypatch):
    monkeypatch.setattr("realtime_communication.server.node_state._BATCH", 3)

    async def test():
        async with rig(1) as made:
            state, until = NodeState(made.workers[0]), time.time() + 60
            await state.add_members("set", [(b"%d" % number, until) for number in range(10)])
            assert len(await state.members("set")) == 10

    run(test)


def test_without_a_supervisor_the_caller_is_told():
    async def test():
        async with rig(1) as made:
            made.members[0].channel.close()
            with pytest.raises(CircuitOpen):
                await NodeState(made.workers[0]).get("name")

    run(test)


def test_only_operations_of_the_state_are_carried_out():
    async def test():
        async with rig(1) as made:
            with pytest.raises(Exception, match="no operation"):
                await made.workers[0].call("state", {"operation": "__class__", "arguments": []})

    run(test)


def test_a_worker_without_redis_shares_state_and_events(configure_memory):
    async def test():
        async with rig(1) as made:
            broker = between_workers(configure_memory, made.workers[0])
            assert isinstance(broker.events, NodeEvents)
            assert isinstance(broker.state, NodeState)
            assert broker.shared and not configure_memory.shared

    run(test)


@pytest.fixture
def configure_memory():
    config = Config()
    testing = msgspec.structs.replace(config.testing, use_in_memory_storage=True)
    broker = broker_of(msgspec.structs.replace(config, testing=testing), "n", {})
    assert isinstance(broker.events, MemoryEvents)
    return broker
