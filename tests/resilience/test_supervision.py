"""Supervision: the decisions against a plain model, and the tasks themselves."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime_communication.errors import EXIT_SOFTWARE, RestartLimitReached
from realtime_communication.resilience import supervision
from realtime_communication.resilience.supervision import (
    RestartLedger,
    RestartPolicy,
    Service,
    Supervisor,
    honour_cancellation,
)
from serving.proxy import scenario

STRATEGIES = ("one_for_one", "all_for_one", "rest_for_one")
HALVES = st.integers(1, 20).map(lambda halves: halves / 2)  # exact in binary
POLICIES = st.builds(RestartPolicy, st.sampled_from(STRATEGIES), st.integers(0, 5), HALVES)


class Model:
    """Every crash ever is kept, and counted anew each time."""

    def __init__(self, policy, services):
        self.policy = policy
        self.services = list(range(services))
        self.times = []

    def crashed(self, service, now):
        self.times.append(now)
        recent = [time for time in self.times if time >= now - self.policy.window_secs]
        if len(recent) > self.policy.max_restarts:
            return None
        return {
            "one_for_one": [service],
            "all_for_one": self.services,
            "rest_for_one": [other for other in self.services if other >= service],
        }[self.policy.strategy]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    policy=POLICIES,
    services=st.integers(1, 6),
    crashes=st.lists(st.tuples(HALVES | st.just(0.0), st.integers(0, 100)), max_size=40),
)
def test_the_ledger_decides_as_the_model(policy, services, crashes):
    ledger, model, now = RestartLedger(policy, services), Model(policy, services), 0.0
    for pause, service in crashes:
        now += pause
        decided = ledger.crashed(service % services, now)
        expected = model.crashed(service % services, now)
        assert (None if decided is None else list(decided)) == expected


def test_no_restart_at_all():
    assert RestartLedger(RestartPolicy("one_for_one", 0, 60), 2).crashed(1, 0.0) is None


class Stage:
    """Services a, b and c that crash when told, and a diary of what happened to them."""

    def __init__(self, strategy="one_for_one", max_restarts=3, window_secs=60):
        self.diary = []
        self.crashes = []
        self.now = 0.0
        self._doors = {}
        self.supervisor = Supervisor(
            [Service(name, lambda name=name: self._serve(name)) for name in "abc"],
            RestartPolicy(strategy, max_restarts, window_secs),
            self.crashes.append,
            lambda: self.now,
        )

    async def _serve(self, name):
        self.diary.append(f"+{name}")
        door = self._doors[name] = asyncio.get_running_loop().create_future()
        try:
            await door
        except asyncio.CancelledError:
            self.diary.append(f"-{name}")
            raise

    def crash(self, name, error):
        self._doors[name].set_exception(error)

    def leave(self, name):
        self._doors[name].set_result(None)

    async def settle(self):
        for _ in range(20):
            await asyncio.sleep(0)

    def restarts(self):
        return {state.name: state.restarts for state in self.supervisor.states() if state.running}


def staged(play, **options):
    """Run `play(stage, task)` beside a supervisor; nothing may be left running."""

    async def main():
        stage = Stage(**options)
        task = asyncio.create_task(stage.supervisor.run())
        await stage.settle()
        try:
            await play(stage, task)
        finally:
            task.cancel()
            await asyncio.wait([task])
            assert asyncio.all_tasks() == {asyncio.current_task()}
        return stage

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("strategy", "diary"),
    [
        ("one_for_one", ["+b"]),
        ("rest_for_one", ["-c", "+b", "+c"]),
        ("all_for_one", ["-c", "-a", "+a", "+b", "+c"]),
    ],
)
def test_each_strategy_stops_backwards_and_starts_forwards(strategy, diary):
    async def play(stage, task):
        assert stage.diary == ["+a", "+b", "+c"]
        stage.diary.clear()
        stage.crash("b", ValueError("no"))
        await stage.settle()
        assert stage.diary == diary
        assert not task.done()
        again = [entry[1] for entry in diary if entry[0] == "+"]
        assert stage.restarts() == {name: int(name in again) for name in "abc"}
        crash = stage.crashes[0]
        assert (crash.service, str(crash.error), list(crash.restarted)) == ("b", "no", again)

    staged(play, strategy=strategy)


def test_returning_and_foreign_cancellation_are_crashes():
    async def play(stage, task):
        stage.leave("a")
        await stage.settle()
        next(each for each in asyncio.all_tasks() if each.get_name() == "b").cancel()
        await stage.settle()
        assert [(crash.service, crash.error) for crash in stage.crashes] == [("a", None), ("b", None)]
        assert stage.restarts() == {"a": 1, "b": 1, "c": 0}

    staged(play)


def test_too_many_crashes_end_everything():
    async def play(stage, task):
        for number in range(3):
            stage.now += 10
            stage.crash("abc"[number], OSError("disk"))
            await stage.settle()
        assert stage.crashes[-1].restarted == ()
        with pytest.raises(RestartLimitReached, match=r"c crashed.* than 2 restarts within 60 s .* OSError: disk"):
            await task
        assert stage.restarts() == {}

    staged(play, max_restarts=2)
    assert RestartLimitReached.exit_status == EXIT_SOFTWARE == 70


def test_crashes_outside_the_window_are_forgotten():
    async def play(stage, task):
        for _ in range(10):
            stage.now += 31
            stage.crash("a", OSError())
            await stage.settle()
        assert stage.restarts() == {"a": 10, "b": 0, "c": 0}

    staged(play, max_restarts=2)


def test_two_crashes_at_once_both_count():
    async def play(stage, task):
        stage.crash("a", OSError())
        stage.crash("c", OSError())
        await stage.settle()
        assert [crash.service for crash in stage.crashes] == ["a", "c"]
        assert stage.restarts() == {"a": 1, "b": 0, "c": 1}

    staged(play)


def test_a_service_that_will_not_end_ends_the_server(monkeypatch):
    monkeypatch.setattr(supervision, "STOP_SECS", 0.01)

    async def main():
        release = asyncio.Event()

        async def stubborn():
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    continue

        async def crashing():
            raise OSError

        supervisor = Supervisor(
            [Service("crashing", crashing), Service("stubborn", stubborn)],
            RestartPolicy("all_for_one", 5, 60),
            lambda crash: None,
        )
        with pytest.raises(RestartLimitReached, match="stubborn did not end"):
            await supervisor.run()
        release.set()
        await asyncio.sleep(0)

    asyncio.run(main())


@scenario
async def test_a_cancellation_that_was_swallowed_is_honoured():
    async def loop(turns):
        while True:
            honour_cancellation()
            turns.append(1)
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                continue  # as asyncio.wait_for of Python 3.11 may

    turns = []
    task = asyncio.create_task(loop(turns))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert (task.cancelled(), turns) == (True, [1])
