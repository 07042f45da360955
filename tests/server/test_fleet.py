"""A worker that asks its siblings through the supervisor."""

import asyncio

import pytest

from realtime_communication.errors import ConfigurationError, RequestRefused
from realtime_communication.observability.logs import get_logger
from realtime_communication.server.fleet import ChannelFleet
from serving.channels import rig, run


def fleets(made, **answers):
    return [
        ChannelFleet(channel, slot, len(made.workers), {"who": lambda params, slot=slot: (slot, params), **answers})
        for slot, channel in enumerate(made.workers)
    ]


def test_every_worker_is_asked_the_one_that_asks_too():
    async def test():
        async with rig(3) as made:
            for fleet in fleets(made):
                found = await fleet.gather("who", {"x": 1})
                assert {slot: answer[0] for slot, answer in found.answers.items()} == {0: 0, 1: 1, 2: 2}
                assert all(answer[1] == {"x": 1} for answer in found.answers.values())
                assert (found.missing, found.several) == ((), True)

    run(test)


def test_a_worker_that_is_not_there_is_missing():
    async def test():
        async with rig(3) as made:
            asking = fleets(made)[0]
            made.serving.pop(1)
            found = await asking.gather("who")
            assert (list(found.answers), found.missing) == ([0, 2], (1,))
            assert found.told({"a": 1}) == {"a": 1, "workers_missing": [1]}

    run(test)


def test_a_worker_that_does_not_answer_in_time_or_fails_is_missing():
    async def test():
        async with rig(3) as made:
            never = asyncio.Event()
            first, *_ = fleets(made, slow=lambda params: 0, broken=lambda params: 0)
            made.workers[1].on("ask", lambda params: never.wait())
            made.workers[2].on("ask", lambda params: 1 / 0)
            found = await first.gather("slow", timeout_secs=0.05)
            assert (found.answers, found.missing) == ({0: 0}, (1, 2))

    run(test)


def test_without_a_supervisor_a_worker_speaks_for_itself():
    async def test():
        async with rig(2) as made:
            first, _ = fleets(made)
            made.members[0].channel.close()
            found = await first.gather("who")
            assert (list(found.answers), found.missing) == ([0], (1,))
            with pytest.raises(RequestRefused, match="nothing was changed"):
                await first.change({"logging.level": "debug"}, "somebody")

    run(test)


def test_answers_may_take_their_time():
    async def test():
        async with rig(2) as made:

            async def slow(params):
                await asyncio.sleep(0)
                return params["x"]

            found = await fleets(made, slow=slow)[0].gather("slow", {"x": 5})
            assert found.answers == {0: 5, 1: 5}

    run(test)


def test_the_supervisor_changes_the_configuration():
    async def test():
        async with rig(2) as made:
            asked = []
            made.members[0].channel.on("change", lambda params: asked.append(params) or [])
            first, second = fleets(made)
            await first.change({"logging.level": "debug"}, "somebody")
            assert asked == [{"changes": {"logging.level": "debug"}, "who": "somebody"}]
            row = ["logging.level", "loud", "somebody", "must be a level"]
            made.members[1].channel.on("change", lambda params: [row])
            with pytest.raises(ConfigurationError, match="must be a level") as caught:
                await second.change({"logging.level": "loud"}, "somebody")
            assert caught.value.problems[0].key == "logging.level"

    run(test)


def test_what_the_supervisor_has_warned_of():
    async def test():
        async with rig(2) as made:
            first, second = fleets(made)
            get_logger("a.name").warning("a worker crashed")
            (found,) = await first.supervisor_troubles(1)
            assert found["event"] == "a worker crashed"
            made.members[1].channel.close()
            assert await second.supervisor_troubles(1) == []

    run(test)
