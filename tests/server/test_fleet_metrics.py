"""The metrics of all workers at the supervisor's port."""

import asyncio

from realtime_communication.config import LoadedConfig, load
from realtime_communication.observability.metrics import Metrics
from realtime_communication.server.fleet_metrics import SupervisedMetrics, serve_metrics
from realtime_communication.server.listening import open_listeners
from serving.channels import rig, run
from serving.scrapes import full_sources, scrape


def loaded(folder) -> LoadedConfig:
    return load(["--profile=test", "--auth.jwt_secret=" + "s" * 40], environ={}, directory=folder)


def answering(made, configuration):
    asked = []
    for slot, worker in enumerate(made.workers):
        metrics = Metrics(configuration.config.monitoring, full_sources())
        metrics.update()

        def answer(params, metrics=metrics, slot=slot):
            asked.append((slot, params["method"]))
            return metrics.packed()

        worker.on("ask", answer)
    return asked


def test_a_scrape_asks_every_worker_once(tmp_path):
    async def test():
        configuration = loaded(tmp_path)
        async with rig(2) as made:
            asked = answering(made, configuration)
            metrics = SupervisedMetrics(lambda: configuration, made.centre, lambda: [0, 3])
            listeners = open_listeners("127.0.0.1", 0)
            serving = asyncio.create_task(serve_metrics(metrics, listeners))
            found = await asyncio.to_thread(scrape, listeners[0].port)
            assert sorted(asked) == [(0, "metrics"), (1, "metrics")]
            assert found.value("connections") == 2
            assert found.values("worker_restarts_total", "worker") == {"0": 0, "1": 3}
            made.serving.pop()
            found = await asyncio.to_thread(scrape, listeners[0].port)
            assert found.values("worker_up", "worker") == {"0": 1, "1": 0}
            assert found.value("connections") == 1
            serving.cancel()
            await asyncio.wait([serving])
            listeners[0].close()

    run(test)


def test_scrapes_at_the_same_time_share_an_answer(tmp_path):
    async def test():
        configuration = loaded(tmp_path)
        async with rig(2) as made:
            asked = answering(made, configuration)
            metrics = SupervisedMetrics(lambda: configuration, made.centre, lambda: [0, 0])
            snapshots = await asyncio.gather(*(metrics.snapshot() for _ in range(10)))
            assert len(asked) == 2
            assert len({id(snapshot) for snapshot in snapshots}) == 1

    run(test)


def test_a_worker_whose_metrics_are_off_has_none(tmp_path):
    async def test():
        configuration = loaded(tmp_path)
        async with rig(1) as made:
            made.workers[0].on("ask", lambda params: None)
            metrics = SupervisedMetrics(lambda: configuration, made.centre, lambda: [0])
            assert b"worker_up" in (await metrics.snapshot()).text()

    run(test)


def test_a_changed_configuration_is_followed(tmp_path):
    async def test():
        configurations = [loaded(tmp_path)]
        async with rig(1) as made:
            metrics = SupervisedMetrics(lambda: configurations[-1], made.centre, lambda: [0])
            configurations.append(loaded(tmp_path))
            metrics.note_lag(0.0)
            assert metrics.services.config is configurations[-1].config

    run(test)
