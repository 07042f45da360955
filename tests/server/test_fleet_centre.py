"""What the supervisor passes on."""

from realtime_communication.observability.logs import get_logger
from serving.channels import rig, run


def test_events_reach_all_but_the_sender():
    async def test():
        async with rig(3) as made:
            heard = []
            for slot, worker in enumerate(made.workers):
                worker.on("event", lambda params, slot=slot: heard.append((slot, params["kind"])))
                worker.on("ask", lambda params: "up to here")
            made.serving.clear()  # one that does not serve yet, or no more, is told all the same
            made.workers[1].notify("broadcast", {"kind": "revocation", "payload": b"{}"})
            made.serving += made.members
            await made.workers[1].call("gather", {"method": "m", "params": {}, "timeout_secs": 5})
            assert sorted(heard) == [(0, "revocation"), (2, "revocation")]

    run(test)


def test_how_busy_a_worker_is_reaches_the_others_that_serve():
    async def test():
        async with rig(3) as made:
            heard = []
            for slot, worker in enumerate(made.workers):
                worker.on("load", lambda params, slot=slot: heard.append((slot, params)))
                worker.on("ask", lambda params: "up to here")
            made.workers[1].notify("load", {"seat": 5, "cpu": 0.5})
            await made.workers[1].call("gather", {"method": "m", "params": {}, "timeout_secs": 5})
            assert sorted(heard) == [(0, {"seat": 5, "cpu": 0.5}), (2, {"seat": 5, "cpu": 0.5})]

    run(test)


def test_who_asks_is_left_out_and_the_supervisor_asks_all():
    async def test():
        async with rig(3) as made:
            for slot, worker in enumerate(made.workers):
                worker.on("ask", lambda params, slot=slot: [slot, params["method"], params["params"]])
            asked = {"method": "m", "params": {"x": 1}, "timeout_secs": 5}
            assert sorted(await made.workers[1].call("gather", asked)) == [0, 2]
            answers = await made.centre.ask("m", {"x": 1}, 5)
            assert answers == {slot: [slot, "m", {"x": 1}] for slot in range(3)}

    run(test)


def test_who_does_not_answer_is_logged(caplog):
    async def test():
        async with rig(2) as made:
            made.workers[0].on("ask", lambda params: 1 / 0)
            made.workers[1].on("ask", lambda params: "well")
            assert await made.centre.ask("m", {}, 5) == {1: "well"}

    run(test)
    lines = [record.event_fields for record in caplog.records if record.message == "a worker did not answer"]
    assert [(line["worker"], line["method"]) for line in lines] == [(0, "m")]


def test_what_the_supervisor_has_warned_of():
    async def test():
        async with rig(2) as made:
            get_logger("a.name").warning("a worker crashed", worker=1)
            (found,) = await made.workers[0].call("troubles", {"limit": 1})
            assert (found["event"], found["fields"]["worker"]) == ("a worker crashed", 1)

    run(test)
