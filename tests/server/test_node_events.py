"""Control events among workers and nodes."""

import pytest

from realtime_communication.broker.events import MAX_EVENT_BYTES
from realtime_communication.broker.memory import MemoryEvents
from realtime_communication.errors import MisuseError
from realtime_communication.server.node_events import NodeEvents
from serving.channels import rig, run


async def settled(made):
    """All that workers sent has come to the others."""
    for worker in made.workers:
        worker.on("ask", lambda params: None)
    for worker in made.workers:
        await worker.call("gather", {"method": "nothing", "params": {}, "timeout_secs": 5})


def test_siblings_are_told_and_other_nodes():
    async def test():
        async with rig(3) as made:
            node, other_node = MemoryEvents(), []
            node.node().subscribe("revocation", other_node.append)
            heard = []
            workers = [NodeEvents(channel, node) for channel in made.workers]
            for slot, events in enumerate(workers):
                events.subscribe("revocation", lambda payload, slot=slot: heard.append((slot, payload)))
            workers[0].publish("revocation", {"name": "alice"})
            await settled(made)
            assert sorted(heard, key=str) == [(1, {"name": "alice"}), (2, {"name": "alice"})]
            assert other_node == [{"name": "alice"}]
            assert workers[0].dropped == 0

    run(test)


def test_what_comes_from_another_node_is_handled_by_each_worker():
    node, heard = MemoryEvents(), []

    async def test():
        async with rig(1) as made:
            NodeEvents(made.workers[0], node).subscribe("k", heard.append)
            node.node().publish("k", {"x": 1})

    run(test)
    assert heard == [{"x": 1}]


def test_a_handler_that_fails_hurts_no_other(caplog):
    async def test():
        async with rig(2) as made:
            heard = []
            events = [NodeEvents(channel, None) for channel in made.workers]
            events[1].subscribe("k", lambda payload: 1 / 0)
            events[1].subscribe("k", heard.append)
            events[0].publish("k", {})
            events[0].publish("unknown", {})
            await settled(made)
            assert heard == [{}]

    run(test)
    assert "an event of another worker could not be handled" in caplog.text


def test_what_is_no_event():
    async def test():
        async with rig(1) as made:
            events = NodeEvents(made.workers[0], None)
            with pytest.raises(MisuseError, match="cannot be JSON"):
                events.publish("k", {"x": object()})
            with pytest.raises(MisuseError, match="more than"):
                events.publish("k", {"x": "x" * MAX_EVENT_BYTES})

    run(test)
