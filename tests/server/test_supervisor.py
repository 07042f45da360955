"""What the supervisor does when workers come and go; the processes are played here.

Real ones are in blackbox/test_workers.py.
"""

import asyncio
import itertools
import os
import stat
import time

import pytest

from realtime_communication.config import load
from realtime_communication.errors import ConfigurationError, EnvironmentFault, RestartLimitReached
from realtime_communication.server import supervisor
from realtime_communication.server.listening import open_shared_listeners
from realtime_communication.server.place import Fault, unpacked_assignment
from realtime_communication.server.supervisor import BACKOFF, Supervisor, make_bus_dir


class Process:
    """A worker process as the supervisor sees it. `script` says what the next ones do: "serve" is the default."""

    script = made = ()

    def __init__(self, slot, incarnation, answerers, seat):
        self.slot, self.incarnation, self.answerers, self.seat = slot, incarnation, answerers, seat
        self.linking = self.linked = self.draining = False
        self.ready, self.ended = asyncio.Event(), asyncio.Event()
        self.stopping, self.put_down, self.fault, self.output = False, "", None, ("what it wrote last",)
        self.status, self.pid, self.started_at = None, 1000 + incarnation, time.monotonic()
        self.channel = self
        self.notes = []
        Process.made.append(self)

    @property
    def serving(self):
        return self.ready.is_set() and not self.stopping and not self.ended.is_set()

    def start(self, inherited):
        self.inherited = inherited
        what = Process.script.pop(0) if Process.script else "serve"
        if what == "serve":
            self.serve()
        elif isinstance(what, Fault):
            self.fault = what
            self.crash(what.status)

    def serve(self):
        for method in ("linking", "linked"):
            self.answerers[method](self, {})
        self.ready.set()

    def crash(self, status=-9):
        self.status = status
        self.ended.set()

    def notify(self, method, params):
        self.notes.append((method, params))

    def stop(self, *, at_once=False, restart=False):
        self.stopping, self.restart, self.at_once = True, restart, at_once
        self.told_before_its_end = self.notes[-1:]
        self.crash(0)

    def kill(self, reason):
        self.put_down = reason
        self.crash()

    async def wait_ready(self):
        while not (self.ready.is_set() or self.ended.is_set()):
            await asyncio.sleep(0.001)
        return self.ready.is_set() and not self.ended.is_set()

    async def end_within(self, secs, reason):
        await self.ended.wait()


@pytest.fixture
def lead(tmp_path, monkeypatch):
    """Runs a coroutine function while a supervisor leads: ``lead(test, "--key=value")``. What it ended by."""
    Process.script, Process.made = [], []
    monkeypatch.setattr(supervisor, "WorkerHandle", Process)
    monkeypatch.setattr(supervisor, "QUICK_SECS", 0.0)
    monkeypatch.setattr(Supervisor, "_install_signals", lambda self, loop: None)

    def run(test, *words, workers=3):
        loaded = load(["--profile=test", *words], environ={"JWT_SECRET": "s" * 32}, directory=tmp_path)
        listeners = open_shared_listeners("127.0.0.1", 0, workers)

        async def main():
            leader = Supervisor(loaded, listeners, [], str(tmp_path))
            leading = asyncio.create_task(leader.run())
            await until(lambda: len(Process.made) >= workers)
            try:
                await test(leader)
            finally:
                leader._on_stop("SIGTERM")
                await asyncio.wait([leading])
            assert not leader._tasks and not leader._live
            return leading.exception() or leading.result()

        try:
            return asyncio.run(asyncio.wait_for(main(), 30))
        finally:
            for listener in itertools.chain(*listeners):
                listener.close()

    return run


async def until(reached):
    while not reached():
        await asyncio.sleep(0.001)


def members(process):
    """Whom it was told last to be linked with, as incarnations by seat, and which seats are homes."""
    told = next(params for method, params in reversed(process.notes) if method == "tell_members")
    return told["links"], told["homes"]


def serving(leader):
    return {handle.slot: handle.incarnation for handle in leader.serving()}


def test_workers_are_told_who_is_live(lead):
    async def test(leader):
        await until(lambda: len(serving(leader)) == 3)
        assert [members(process) for process in Process.made] == [({0: 1, 1: 2, 2: 3}, [0, 1, 2])] * 3
        Process.made[1].crash()
        await until(lambda: serving(leader) == {0: 1, 1: 4, 2: 3})
        assert members(Process.made[0]) == ({0: 1, 1: 4, 2: 3}, [0, 1, 2])  # its seat was free again
        versions = [params["version"] for _, params in Process.made[0].notes]
        assert versions == sorted(set(versions))
        assert ({0: 1, 2: 3}, [0, 2]) in [(told["links"], told["homes"]) for _, told in Process.made[0].notes]
        assert leader.restarts() == [0, 1, 0]

    assert lead(test) == 0


def test_a_worker_is_linked_before_it_is_a_home(lead):
    async def test(leader):
        await until(lambda: len(Process.made) == 2)
        first, second = Process.made
        second.answerers["linking"](second, {})
        assert members(first) == members(second) == ({0: 1, 1: 2}, [0])
        second.answerers["linked"](second, {})
        assert members(first) == members(second) == ({0: 1, 1: 2}, [0, 1])
        second.ready.set()
        await until(lambda: len(serving(leader)) == 2)

    Process.script = ["serve", "wait"]
    assert lead(test, workers=2) == 0


def test_an_assignment_is_for_its_slot(lead):
    async def test(leader):
        process = Process.made[2]
        answer = await process.answerers["hello"](process, {"pid": 1, "version": "0"})
        assignment = unpacked_assignment(answer)
        place = assignment.place
        assert (place.slot, place.workers, place.incarnation, place.node_id) == (2, 3, 3, leader.node_id)
        assert place.seat == process.seat
        assert [place.shared_memory, *(each.descriptor for each in assignment.listeners)] == process.inherited
        assert set(process.inherited) & set(Process.made[0].inherited) == {place.shared_memory}

    assert lead(test) == 0


@pytest.mark.parametrize(
    ("strategy", "again"), [("one_for_one", {1}), ("rest_for_one", {1, 2}), ("all_for_one", {0, 1, 2})]
)
def test_strategies(lead, strategy, again):
    async def test(leader):
        await until(lambda: len(serving(leader)) == 3)
        Process.made[1].crash()
        await until(lambda: len(Process.made) == 3 + len(again) and len(serving(leader)) == 3)
        assert {slot for slot, incarnation in serving(leader).items() if incarnation > 3} == again
        for slot in again - {1}:  # told to come back, and drained: their topics went to others before
            assert Process.made[slot].restart
            ((_, told),) = Process.made[slot].told_before_its_end
            assert slot in told["links"] and slot not in told["homes"]

    assert lead(test, f"--actor_system.supervision_strategy={strategy}") == 0


def test_one_that_was_drained_is_started_again_drained(lead):
    async def test(leader):
        await until(lambda: len(serving(leader)) == 3)
        drained = Process.made[1]
        drained.answerers["draining"](drained, {})
        assert members(Process.made[0])[1] == [0, 2]
        drained.crash()
        await until(lambda: serving(leader) == {0: 1, 1: 4, 2: 3})
        assert members(Process.made[0]) == ({0: 1, 1: 4, 2: 3}, [0, 2])
        places = []
        for process in (Process.made[0], Process.made[3]):
            answer = await process.answerers["hello"](process, {"pid": 1, "version": "0"})
            places.append(unpacked_assignment(answer).place)
        assert [(place.slot, place.drained) for place in places] == [(0, False), (1, True)]
        leader._on_roll()  # an operator's restart is what ends it
        await until(lambda: serving(leader) == {0: 5, 1: 6, 2: 7})
        await until(leader._rolling.done)
        assert members(Process.made[-1])[1] == sorted(process.seat for process in Process.made[-3:])

    assert lead(test) == 0


def test_too_many_crashes_end_it_with_the_reason(lead, caplog):
    async def test(leader):
        for number in range(3):
            await until(lambda: len(serving(leader)) == 3)
            Process.made[-1 if number else 0].crash()
            await until(lambda count=number: len(Process.made) == min(4 + count, 5))

    error = lead(test, "--actor_system.max_restarts=2")
    assert isinstance(error, RestartLimitReached)
    assert "more than 2 restarts" in str(error) and "ended by SIGKILL" in str(error)
    reports = [record.event_fields for record in caplog.records if record.message == "a worker crashed"]
    assert [report["restarted"] for report in reports] == ["0", "0", "none"]
    assert [report["restarts"] for report in reports] == [0, 1, 2]
    assert reports[0]["output"] == "what it wrote last"


def test_one_that_dies_at_once_waits_ever_longer(lead, monkeypatch):
    monkeypatch.setattr(supervisor, "QUICK_SECS", 60.0)
    asked = []

    class Backoff:
        def ceiling(self, retry):
            asked.append(retry)
            return 0.0

    monkeypatch.setattr(supervisor, "BACKOFF", Backoff())

    async def test(leader):
        await until(lambda: len(serving(leader)) == 3)
        for count in range(4, 8):
            Process.made[-1].crash()
            await until(lambda count=count: len(Process.made) == count)

    assert lead(test, "--actor_system.max_restarts=9") == 0
    assert asked == [0, 1, 2, 3]
    assert [BACKOFF.ceiling(retry) for retry in (*asked, 99)] == [0.1, 0.2, 0.4, 0.8, 5.0]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(78, ("bad",), (("k", "v", "o", "m"),)), ConfigurationError),
        (Fault(71, ("cannot bind worker 1 to a core",)), EnvironmentFault),
    ],
)
def test_what_hinders_the_first_start_is_not_tried_again(lead, fault, error):
    Process.script = ["serve", fault]

    async def test(leader):
        await until(lambda: leader._crashed.empty() and Process.made[0].stopping)

    ended = lead(test)
    assert isinstance(ended, error) and fault.lines[0] in f"{ended} bad" and len(Process.made) == 3


def test_a_rolling_restart_takes_slot_after_slot(lead):
    async def test(leader):
        await until(lambda: len(serving(leader)) == 3)
        leader._on_roll()
        leader._on_roll()  # one at a time
        await until(lambda: serving(leader) == {0: 4, 1: 5, 2: 6})
        assert leader.restarts() == [0, 0, 0]
        await until(leader._rolling.done)
        # Each new one takes the seat that is free: its predecessor's is not yet.
        assert [process.seat for process in Process.made] == [0, 1, 2, 3, 0, 1]
        for process in Process.made[:3]:
            ((_, told),) = process.told_before_its_end
            assert process.restart and process.seat in told["links"] and process.seat not in told["homes"]

    assert lead(test) == 0


def test_a_rolling_restart_ends_when_a_new_worker_does_not_start(lead, caplog):
    async def test(leader):
        await until(lambda: len(serving(leader)) == 3)
        Process.script = ["serve", Fault(78, ("no such module",))]
        leader._on_roll()
        await until(leader._rolling.done)
        assert serving(leader) == {0: 4, 1: 2, 2: 3}

    assert lead(test) == 0
    (told,) = [record.event_fields for record in caplog.records if "rolling restart ends" in record.message]
    assert told["worker"] == 1 and told["cause"] == "exit status 78: no such module"


def test_an_old_worker_that_crashes_while_its_successor_starts(lead):
    async def test(leader):
        await until(lambda: len(serving(leader)) == 3)
        Process.script = ["wait"]
        leader._on_roll()
        await until(lambda: len(Process.made) == 4)
        Process.made[0].crash()
        await until(lambda: serving(leader).get(0) == 5)  # the policy does not wait for the successor
        Process.made[3].serve()
        await until(lambda: serving(leader) == {0: 4, 1: 6, 2: 7})
        assert Process.made[4].restart

    assert lead(test) == 0


def test_an_end_that_was_asked_for_is_no_crash(lead, caplog):
    async def test(leader):
        await until(lambda: len(serving(leader)) == 3)

    assert lead(test) == 0
    assert all(process.stopping and not process.restart for process in Process.made)
    assert "a worker crashed" not in [record.message for record in caplog.records]


def test_workers_may_change_the_configuration_of_all(lead):
    async def test(leader):
        process = Process.made[0]
        problems = await process.answerers["change"](process, {"changes": {"no.such": 1}, "who": "alice"})
        assert [row[0] for row in problems] == ["no.such"]
        wanted = {"changes": {"websocket.max_connections": 7}, "who": "alice"}
        assert await process.answerers["change"](process, wanted) == []
        assert leader.configuration.loaded.config.websocket.max_connections == 7

    assert lead(test) == 0


class TestBusDir:
    def test_it_is_private_and_where_the_session_keeps_such_things(self, tmp_path, monkeypatch):
        runtime = tmp_path / "r"
        runtime.mkdir()
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
        made = make_bus_dir()
        assert os.path.dirname(made) == str(runtime) and stat.S_IMODE(os.stat(made).st_mode) == 0o700

    @pytest.mark.parametrize("unusable", ["", "/no/such/folder", "/tmp/" + "x" * 100])
    def test_one_that_cannot_be_used_is_passed_over(self, monkeypatch, unusable):
        monkeypatch.setenv("XDG_RUNTIME_DIR", unusable)
        made = make_bus_dir()
        assert len(made) < 100
        os.rmdir(made)
