"""Circuit breakers: single rules in turn, and random histories against the plain model."""

import asyncio
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.breaker import Call, ModelBreaker
from realtime_communication.config.services import BREAKER_NAMES, BreakerService
from realtime_communication.config.services import CircuitBreaker as Section
from realtime_communication.errors import CircuitOpen, PeerError
from realtime_communication.resilience.breaker import Breakers, BreakerSettings, BreakerState, CircuitBreaker

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


def thresholds(enabled=True, failures=3, successes=2, timeout=10.0, trials=2):
    return BreakerSettings(
        enabled=enabled,
        failure_threshold=failures,
        success_threshold=successes,
        timeout_secs=timeout,
        half_open_requests=trials,
    )


class Stage:
    """A breaker on a clock that the test moves, and its changes."""

    def __init__(self, **settings):
        self.time = 1000.0
        self.changes = []
        self.breaker = CircuitBreaker(
            "redis", thresholds(**settings), self.changes.append, lambda: self.time, lambda: 5e8 + self.time
        )

    @property
    def state(self):
        return self.breaker.state

    def begin(self):
        guard = self.breaker.guard()
        guard.__enter__()
        return guard

    def end(self, guard, error=None):
        assert guard.__exit__(None if error is None else type(error), error, None) is False

    def fail(self, times=1):
        for _ in range(times):
            self.end(self.begin(), OSError("secret"))

    def succeed(self, times=1):
        for _ in range(times):
            self.end(self.begin())

    def refused(self):
        with pytest.raises(CircuitOpen) as caught:
            self.begin()
        return caught.value


@pytest.fixture
def stage():
    return Stage()


@pytest.fixture
def opened(stage):
    stage.fail(3)
    return stage


@pytest.fixture
def half_open(opened):
    """Open for long enough, so that the next call is a trial."""
    opened.time += 10
    return opened


class TestClosed:
    def test_failures_in_a_row_open_it(self, stage):
        stage.fail(2)
        stage.succeed()
        stage.fail(2)
        assert stage.state is CLOSED
        stage.fail()
        assert stage.state is OPEN

    def test_every_call_is_made(self, stage):
        for guard in [stage.begin() for _ in range(50)]:
            stage.end(guard)
        assert stage.breaker.status().rejected == 0


class TestOpen:
    def test_calls_are_refused_without_being_made(self, opened):
        opened.time += 4
        error = opened.refused()
        assert isinstance(error, PeerError)
        assert (error.service, error.retry_after_secs, error.code) == ("redis", 6.0, "unavailable")
        assert str(error) == "redis is left alone after its failures; next trial in 6.0 s"

    def test_late_failures_neither_count_nor_prolong_it(self, stage):
        late = stage.begin()
        stage.fail(3)
        stage.time += 9
        stage.end(late, OSError())
        assert stage.breaker.status().failures == 3
        stage.time += 1
        stage.succeed()
        assert stage.state is HALF_OPEN

    def test_it_stays_open_until_a_call_comes(self, opened):
        opened.time += 1000
        assert opened.state is OPEN
        assert opened.breaker.status().retry_in_secs == 0


class TestHalfOpen:
    def test_at_most_so_many_trials_at_once(self, half_open):
        first, second = half_open.begin(), half_open.begin()
        assert half_open.refused().retry_after_secs == 1.0
        half_open.end(first)
        third = half_open.begin()
        half_open.refused()
        half_open.end(second)
        half_open.end(third)
        assert half_open.state is CLOSED

    def test_successes_in_a_row_close_it(self, half_open):
        half_open.succeed()
        assert half_open.state is HALF_OPEN
        half_open.succeed()
        assert half_open.state is CLOSED
        half_open.fail(2)
        assert half_open.state is CLOSED

    def test_one_failure_opens_it_again_for_the_whole_time(self, half_open):
        half_open.succeed()
        half_open.fail()
        assert half_open.state is OPEN
        assert half_open.refused().retry_after_secs == 10.0

    def test_successes_of_an_earlier_trial_period_do_not_count(self, half_open):
        half_open.succeed()
        half_open.fail()
        half_open.time += 10
        half_open.succeed()
        assert half_open.state is HALF_OPEN

    def test_late_results_do_not_disturb_it(self, stage):
        failure, success = stage.begin(), stage.begin()
        stage.fail(3)
        stage.time += 10
        trial = stage.begin()
        stage.end(failure, OSError())
        stage.end(success)
        assert (stage.state, stage.breaker.status().successes) == (HALF_OPEN, 0)
        other = stage.begin()
        stage.refused()  # the late ones freed no place that was not theirs
        stage.end(trial)
        stage.end(other)
        assert stage.state is CLOSED

    def test_a_trial_that_hangs_since_an_earlier_period_takes_no_place(self, half_open):
        hanging = [half_open.begin()]
        half_open.fail()
        half_open.time += 10
        trials = [half_open.begin(), half_open.begin()]
        half_open.end(hanging.pop(), OSError())
        half_open.refused()
        for trial in trials:
            half_open.end(trial)
        assert half_open.state is CLOSED


class TestCall:
    async def _value(self):
        return 7

    async def _raise(self, error):
        raise error

    def test_its_result_and_its_error_come_through(self, stage):
        assert asyncio.run(stage.breaker.call(self._value)) == 7
        with pytest.raises(ZeroDivisionError):
            asyncio.run(stage.breaker.call(lambda: self._raise(ZeroDivisionError())))
        assert stage.breaker.status().failures == 1

    def test_an_open_breaker_does_not_call(self, opened):
        with pytest.raises(CircuitOpen):
            asyncio.run(opened.breaker.call(lambda: pytest.fail("called")))

    def test_an_operation_that_fails_before_it_can_be_awaited_is_a_failure(self, stage):
        with pytest.raises(ZeroDivisionError):
            asyncio.run(stage.breaker.call(lambda: 1 / 0))
        assert stage.breaker.status().failures == 1

    def test_an_error_that_is_no_failure_is_a_success(self, stage):
        stage.fail(2)
        with pytest.raises(KeyError):
            asyncio.run(stage.breaker.call(lambda: self._raise(KeyError()), lambda error: isinstance(error, OSError)))
        assert stage.breaker.status().failures == 0

    def test_a_judge_that_raises_frees_the_place(self, half_open):
        for _ in range(5):
            with pytest.raises(ZeroDivisionError):
                asyncio.run(half_open.breaker.call(lambda: self._raise(OSError()), lambda error: 1 / 0))
        assert half_open.state is HALF_OPEN

    def test_a_cancelled_call_is_neither_and_frees_its_place(self, half_open):
        async def cancel_trials():
            for _ in range(5):
                trial = asyncio.ensure_future(half_open.breaker.call(lambda: asyncio.sleep(60)))
                await asyncio.sleep(0)
                trial.cancel()
                await asyncio.wait([trial])
                assert trial.cancelled()

        asyncio.run(cancel_trials())
        status = half_open.breaker.status()
        assert (status.state, status.successes, status.rejected) == (HALF_OPEN, 0, 0)
        half_open.succeed(2)
        assert half_open.state is CLOSED

    def test_the_end_of_the_program_is_no_failure(self, stage):
        for _ in range(9):
            stage.end(stage.begin(), SystemExit())
        assert stage.state is CLOSED


class TestConfigure:
    def test_switched_off_every_call_is_made(self, opened):
        opened.breaker.configure(thresholds(enabled=False))
        opened.fail(20)
        assert opened.state is CLOSED
        assert opened.changes[-1].reason == "circuit_breaker.enabled is false"

    def test_switched_on_again_it_begins_anew(self, stage):
        stage.fail(2)
        stage.breaker.configure(thresholds(enabled=False))
        late = stage.begin()
        stage.breaker.configure(thresholds())
        stage.end(late, OSError())
        stage.fail(2)
        assert stage.state is CLOSED

    def test_other_thresholds_keep_state_and_counts(self, stage):
        stage.fail(2)
        stage.breaker.configure(thresholds())
        stage.fail()
        assert stage.state is OPEN
        stage.breaker.configure(thresholds(timeout=4.0))
        assert stage.refused().retry_after_secs == 4.0
        stage.breaker.configure(thresholds(timeout=60.0))
        assert stage.refused().retry_after_secs == 60.0


class TestFoundToBeBack:
    def test_an_open_breaker_is_half_open_at_once(self, opened):
        opened.breaker.half_open("seen")
        assert (opened.state, opened.changes[-1].reason) == (HALF_OPEN, "seen")
        opened.succeed(2)
        assert opened.state is CLOSED

    def test_a_failure_opens_it_for_the_whole_time(self, opened):
        opened.breaker.half_open("seen")
        opened.fail()
        assert opened.state is OPEN
        opened.refused()

    def test_any_other_is_left_as_it_is(self, half_open):
        half_open.succeed()
        for one in (Stage(), half_open):
            before = (one.state, len(one.changes))
            one.breaker.half_open("seen")
            assert (one.state, len(one.changes)) == before
        half_open.succeed()
        assert half_open.state is CLOSED


def test_changes_are_told(half_open):
    half_open.succeed()
    half_open.fail()
    half_open.time += 10
    half_open.succeed(2)
    told = [(change.before, change.after, change.reason, change.failures) for change in half_open.changes]
    assert told == [
        (CLOSED, OPEN, "failures in a row: 3, the last one OSError", 3),
        (OPEN, HALF_OPEN, "10 s have passed", 3),
        (HALF_OPEN, OPEN, "a trial failed: OSError", 1),
        (OPEN, HALF_OPEN, "10 s have passed", 1),
        (HALF_OPEN, CLOSED, "successful trials in a row: 2", 0),
    ]
    assert {change.service for change in half_open.changes} == {"redis"}
    assert half_open.changes[-1].at == 5e8 + half_open.time


def test_the_status(stage):
    status = stage.breaker.status()
    assert (status.name, status.state, status.opened_secs_ago, status.retry_in_secs) == ("redis", CLOSED, None, None)
    stage.fail(3)
    stage.refused()
    stage.time += 4
    status = stage.breaker.status()
    assert (status.failures, status.rejected, status.opened_secs_ago, status.retry_in_secs) == (3, 1, 4.0, 6.0)
    stage.time += 6
    stage.succeed()
    status = stage.breaker.status()
    assert (status.state, status.successes, status.opened_secs_ago, status.retry_in_secs) == (HALF_OPEN, 1, 10.0, None)


HALVES = st.integers(1, 5).map(lambda halves: halves / 2)  # exact in binary
SETTINGS = st.builds(
    thresholds,
    enabled=st.sampled_from([True, True, True, False]),
    failures=st.integers(1, 2),
    successes=st.integers(1, 3),
    timeout=HALVES,
    trials=st.integers(1, 2),
)
RESULTS = {"succeeds": None, "fails": OSError(), "is cancelled": asyncio.CancelledError()}
BEGIN, WAIT = st.just(("begins", None)), st.tuples(st.just("waits"), HALVES)
FAIL, SUCCEED, CANCEL = (st.tuples(st.just(what), st.integers(0, 50)) for what in ("fails", "succeeds", "is cancelled"))
CONFIGURE = st.tuples(st.just("is configured"), SETTINGS)
# The weights lead through all states often enough.
STEPS = st.one_of(*[BEGIN] * 4, *[FAIL] * 2, *[SUCCEED] * 2, *[WAIT] * 3, CANCEL, CONFIGURE)


class Pair:
    """The breaker and the model, led through one history."""

    def __init__(self, first):
        self.now = 0.0
        self.changes = []
        self.breaker = CircuitBreaker("redis", first, self.changes.append, lambda: self.now)
        self.model = ModelBreaker(first, self.now)
        self.calls = []

    def step(self, what, value):
        if what == "waits":
            self.now += value
        elif what == "is configured":
            self.breaker.configure(value)
            self.model.configure(value, self.now)
        elif what == "begins":
            self._begin()
        elif self.calls:
            guard, call = self.calls.pop(value % len(self.calls))
            error = RESULTS[what]
            guard.__exit__(None if error is None else type(error), error, None)
            self.model.end(call, {"succeeds": True, "fails": False}.get(what), self.now)
        self._compare()

    def _begin(self):
        expected = self.model.begin(self.now)
        guard = self.breaker.guard()
        try:
            guard.__enter__()
        except CircuitOpen as error:
            assert error.retry_after_secs == expected
        else:
            assert isinstance(expected, Call)
            self.calls.append((guard, expected))

    def _compare(self):
        status, model = self.breaker.status(), self.model
        assert (status.state.value, status.failures, status.successes, status.rejected) == (
            model.state,
            model.failures(),
            model.successes(),
            model.refusals,
        )
        assert [(c.before.value, c.after.value, c.failures) for c in self.changes] == model.changes
        if model.state != "closed":
            assert status.opened_secs_ago == self.now - model.opened_at()


@settings(max_examples=300, deadline=None, derandomize=True)
@given(first=SETTINGS, steps=st.lists(STEPS, min_size=20, max_size=100))
def test_it_does_as_the_model(first, steps):
    pair = Pair(first)
    for what, value in steps:
        pair.step(what, value)


@pytest.mark.parametrize("seed", range(4))
def test_it_does_as_the_model_on_long_walks(seed):
    """Evenly drawn steps get deeper into the rare orders of events than those above, which shrink well."""
    random = Random(seed)

    def draw_settings():
        enabled, trials = random.random() < 0.75, random.randint(1, 2)
        return thresholds(enabled, random.randint(1, 2), random.randint(1, 3), random.randint(1, 5) / 2, trials)

    values = {"is configured": draw_settings, "waits": lambda: random.randint(1, 5) / 2}
    kinds = ["begins"] * 4 + ["fails", "succeeds"] * 2 + ["waits"] * 3 + ["is cancelled", "is configured"]
    for _ in range(50):
        pair = Pair(draw_settings())
        for _ in range(60):
            what = random.choice(kinds)
            pair.step(what, values.get(what, lambda: random.randint(0, 50))())


class TestBreakers:
    def test_one_for_each_service_with_its_own_thresholds(self):
        own = BreakerService(
            name="webhooks", failure_threshold=1, success_threshold=3, timeout_secs=7.0, half_open_requests=9
        )
        partly = BreakerService(name="redis", failure_threshold=2)
        section = Section(half_open_max_requests=4, services=(own, partly))
        breakers = Breakers(section)
        assert tuple(breakers) == BREAKER_NAMES and len(breakers) == 6
        assert breakers["webhooks"]._settings == thresholds(failures=1, successes=3, timeout=7.0, trials=9)
        assert breakers["redis"]._settings == thresholds(failures=2, successes=2, timeout=60.0, trials=4)
        assert breakers["auth_service"]._settings == thresholds(failures=5, successes=2, timeout=60.0, trials=4)

    def test_configure_reaches_each_of_them(self):
        breakers = Breakers(Section())
        breakers.configure(Section(failure_threshold=1))
        for name in breakers:
            with pytest.raises(OSError), breakers[name].guard():
                raise OSError
        assert [(status.name, status.state) for status in breakers.statuses()] == [(n, OPEN) for n in BREAKER_NAMES]

    def test_every_listener_hears_of_every_change_and_a_broken_one_is_reported(self):
        first, second, reported = [], [], []
        breakers = Breakers(Section(failure_threshold=1), first.append, clock=lambda: 0.0)
        breakers.listeners += [lambda change: 1 / 0, second.append]

        async def fail():
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context))
            with pytest.raises(OSError), breakers["redis"].guard():
                raise OSError

        asyncio.run(fail())
        assert [change.service for change in first] == ["redis"] and first == second
        assert isinstance(reported[0]["exception"], ZeroDivisionError)

    def test_a_broken_listener_does_no_harm_without_a_loop(self):
        breakers = Breakers(Section(failure_threshold=1), lambda change: 1 / 0)
        with pytest.raises(OSError), breakers["redis"].guard():
            raise OSError
        assert breakers["redis"].state is OPEN
