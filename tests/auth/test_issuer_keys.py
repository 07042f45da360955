"""When keys are fetched, who waits, and what is refused at once. The fetch is the test's, and so is the time."""

import asyncio
import contextlib
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from jwt.algorithms import OKPAlgorithm

from realtime_communication.auth import issuer_keys
from realtime_communication.auth.issuer_keys import Fetched, FetchFailed, IssuerKeys
from realtime_communication.auth.jwks import key_set
from realtime_communication.errors import AuthenticationFailed, AuthenticationUnavailable
from realtime_communication.resilience.breaker import BreakerSettings, BreakerState, CircuitBreaker

POINT = OKPAlgorithm.to_jwk(ed25519.Ed25519PrivateKey.generate().public_key(), as_dict=True) | {"key_ops": ["verify"]}


class Issuer:
    """What `fetch` asks; it has its answer at once, waits for `gate`, and fails with `failure`."""

    def __init__(self):
        self.key_ids = ["k1"]
        self.max_age = 600
        self.failure = None
        self.fetches = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.now = 1000.0

    async def fetch(self):
        self.fetches += 1
        keys = [POINT | {"kid": key_id} for key_id in self.key_ids]
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return Fetched(key_set(json.dumps({"keys": keys}).encode()), self.max_age)


def run(test, **options):
    """Runs `test(issuer, keys)` beside the service of the keys."""

    async def main():
        issuer = Issuer()
        keys = IssuerKeys("https://issuer.example", issuer.fetch, clock=lambda: issuer.now, **options)
        task = asyncio.create_task(keys.run())
        try:
            await settled()
            await test(issuer, keys)
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    asyncio.run(main())


async def settled():
    """Let everything go on that does not wait for a time or for the gate."""
    for _ in range(20):
        await asyncio.sleep(0)


async def outcome(keys, key_id):
    try:
        return (await keys.lookup(key_id)).key_id
    except AuthenticationFailed as error:
        return error.code


def test_keys_are_there_before_anybody_asks():
    async def test(issuer, keys):
        assert keys.find("k1").key_id == "k1"
        assert keys.find("k2") is None
        assert issuer.fetches == 1

    run(test)


def test_a_new_key_is_found_by_one_fetch_that_all_share():
    async def test(issuer, keys):
        issuer.key_ids = ["k1", "k2"]
        issuer.gate.clear()
        asking = [asyncio.ensure_future(outcome(keys, "k2")) for _ in range(500)]
        await settled()
        assert not any(task.done() for task in asking)
        issuer.gate.set()
        assert set(await asyncio.gather(*asking)) == {"k2"}
        assert issuer.fetches == 2

    run(test)


def test_a_thousand_unknown_keys_a_second_cost_a_fetch_in_ten():
    async def test(issuer, keys):
        for second in range(30):
            for number in range(1000):
                assert await outcome(keys, f"made-up-{second}-{number}") == "unauthorized"
            issuer.now += 1
        assert issuer.fetches == 1 + 3
        assert keys.find("k1") is not None
        assert len(keys._unknown) <= issuer_keys.MAX_UNKNOWN

    run(test)


def test_what_was_unknown_a_moment_ago_starts_no_fetch():
    async def test(issuer, keys):
        assert await outcome(keys, "old") == "unauthorized"
        issuer.now += 11
        assert await outcome(keys, "old") == "unauthorized"
        assert issuer.fetches == 2
        issuer.now += issuer_keys.UNKNOWN_SECS
        issuer.key_ids = ["old"]
        assert await outcome(keys, "old") == "old"

    run(test)


def test_the_first_fetch_takes_nothing_from_those_who_ask():
    async def main():
        issuer = Issuer()
        keys = IssuerKeys("https://issuer.example", issuer.fetch, clock=lambda: issuer.now)
        task = asyncio.create_task(keys.run())
        assert await outcome(keys, "k1") == "k1"
        issuer.key_ids = ["k2"]
        assert await outcome(keys, "k2") == "k2"
        assert issuer.fetches == 2
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_a_key_that_has_come_since_the_caller_looked_costs_no_fetch():
    async def test(issuer, keys):
        assert await outcome(keys, "k1") == "k1"
        assert issuer.fetches == 1
        issuer.key_ids = ["k2"]
        assert await outcome(keys, "k2") == "k2"
        assert issuer.fetches == 2

    run(test)


def test_a_fetch_that_had_begun_before_is_not_the_last_word():
    async def test(issuer, keys):
        issuer.gate.clear()
        refreshing = asyncio.ensure_future(keys._refresh())
        await settled()
        issuer.key_ids = ["k1", "k2"]  # after it was asked
        asking = [asyncio.ensure_future(outcome(keys, "k2")) for _ in range(3)]
        await settled()
        issuer.gate.set()
        await refreshing
        assert await asyncio.gather(*asking) == ["k2"] * 3
        assert issuer.fetches == 3

    run(test)


def test_those_who_join_fetches_that_had_begun_cost_a_fetch_in_ten_seconds_too():
    async def test(issuer, keys):
        for _ in range(3):
            issuer.gate.clear()
            refreshing = asyncio.ensure_future(keys._refresh())
            await settled()
            asking = [asyncio.ensure_future(outcome(keys, f"made-up-{number}")) for number in range(100)]
            await settled()
            issuer.gate.set()
            await refreshing
            assert set(await asyncio.gather(*asking)) == {"unauthorized"}
        assert issuer.fetches == 1 + 3 + 1

    run(test)


def test_a_fetch_for_another_makes_an_unknown_key_known():
    async def test(issuer, keys):
        assert await outcome(keys, "late") == "unauthorized"
        issuer.key_ids = ["k1", "late", "other"]
        issuer.now += 11
        assert await outcome(keys, "other") == "other"
        assert keys.find("late").key_id == "late"

    run(test)


def test_the_unknown_are_bounded(monkeypatch):
    monkeypatch.setattr(issuer_keys, "MAX_UNKNOWN", 4)

    async def test(issuer, keys):
        issuer.gate.clear()
        asking = [asyncio.ensure_future(outcome(keys, f"x{number}")) for number in range(10)]
        await settled()
        issuer.gate.set()
        await asyncio.gather(*asking)
        assert list(keys._unknown) == ["x6", "x7", "x8", "x9"]

    run(test)


def test_those_who_wait_are_bounded(monkeypatch):
    monkeypatch.setattr(issuer_keys, "MAX_WAITING", 3)

    async def test(issuer, keys):
        issuer.gate.clear()
        asking = [asyncio.ensure_future(outcome(keys, "k2")) for _ in range(5)]
        await settled()
        assert [task.result() for task in asking if task.done()] == ["unavailable"] * 2
        issuer.gate.set()
        await asyncio.gather(*asking)
        assert keys._waiting == 0

    run(test)


def test_one_who_stops_waiting_takes_nobody_along():
    async def test(issuer, keys):
        issuer.key_ids = ["k2"]
        issuer.gate.clear()
        first, second = (asyncio.ensure_future(outcome(keys, "k2")) for _ in range(2))
        await settled()
        first.cancel()
        await settled()
        issuer.gate.set()
        assert await second == "k2"
        assert issuer.fetches == 2

    run(test)


def test_nobody_waits_for_ever(monkeypatch):
    monkeypatch.setattr(issuer_keys, "WAIT_SECS", 0.01)

    async def test(issuer, keys):
        issuer.gate.clear()
        assert await outcome(keys, "k2") == "unavailable"
        assert keys._waiting == 0

    run(test)


def test_known_keys_serve_while_the_issuer_is_down():
    async def test(issuer, keys):
        issuer.failure = FetchFailed("down")
        issuer.now += 90_000
        assert await outcome(keys, "k2") == "unavailable"
        assert keys.find("k1").key_id == "k1"
        issuer.failure = None
        issuer.key_ids = ["k2"]
        issuer.now += 11
        assert await outcome(keys, "k2") == "k2"
        assert keys.find("k1") is None  # withdrawn

    run(test)


def test_down_from_the_start_is_no_wrong_credential():
    async def main():
        issuer = Issuer()
        issuer.failure = FetchFailed("down")
        keys = IssuerKeys("https://issuer.example", issuer.fetch, clock=lambda: issuer.now)
        task = asyncio.create_task(keys.run())
        await settled()
        for _ in range(3):
            with pytest.raises(AuthenticationUnavailable) as caught:
                await keys.lookup("k1")
            assert 1000 <= caught.value.retry_after_ms <= 10_000
        assert issuer.fetches == 1
        issuer.failure = None
        issuer.now += 10
        assert (await keys.lookup("k1")).key_id == "k1"
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(main())


@pytest.mark.parametrize(
    ("max_age", "due_after"),
    [(0, 240), (10, 240), (600, 480), (10**9, 0.8 * 86_400)],
    ids=["none", "short", "as", "long"],
)
def test_how_long_keys_are_good_for(max_age, due_after):
    async def test(issuer, keys):
        issuer.max_age = max_age
        issuer.now += 1000
        await keys._refresh()
        assert keys._due_at - issuer.now == pytest.approx(due_after)

    run(test)


def test_keys_are_fetched_anew_before_they_are_too_old(monkeypatch):
    monkeypatch.setattr(issuer_keys, "MIN_AGE_SECS", 0.01)

    async def main():
        issuer = Issuer()
        issuer.max_age = 0
        keys = IssuerKeys("https://issuer.example", issuer.fetch)  # with the real clock
        task = asyncio.create_task(keys.run())
        while issuer.fetches < 3:
            await asyncio.sleep(0.005)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_failures_are_retried_ever_later_and_told_once_each(caplog):
    async def test(issuer, keys):
        waits = []
        issuer.failure = FetchFailed("down")
        for _ in range(12):
            issuer.now += 1000
            await keys._refresh()
            waits.append(keys._due_at - issuer.now)
        assert waits == sorted(waits)
        assert (waits[0], waits[-1]) == (1, 300)
        assert sum("cannot be fetched" in record.getMessage() for record in caplog.records) == 12

    run(test)


def test_an_error_of_its_own_does_not_end_the_service(caplog):
    async def test(issuer, keys):
        issuer.failure = RuntimeError("a bug")
        assert await outcome(keys, "k2") == "unavailable"
        issuer.failure = None
        issuer.key_ids = ["k2"]
        issuer.now += 11
        assert await outcome(keys, "k2") == "k2"
        assert any(record.exc_info for record in caplog.records)

    run(test)


def test_behind_a_breaker():
    settings = BreakerSettings(
        enabled=True, failure_threshold=2, success_threshold=1, timeout_secs=60, half_open_requests=1
    )
    breaker = CircuitBreaker("auth_service", settings, lambda change: None, clock=lambda: 0.0)

    async def test(issuer, keys):
        issuer.failure = FetchFailed("down")
        for _ in range(4):
            issuer.now += 11
            assert await outcome(keys, f"k-{issuer.now}") == "unavailable"
        assert breaker.state is BreakerState.OPEN
        assert issuer.fetches == 1 + 2
        assert keys.find("k1") is not None

    run(test, breaker=breaker)


def test_a_service_that_is_stopped_lets_everybody_go():
    async def main():
        issuer = Issuer()
        issuer.gate.clear()
        keys = IssuerKeys("https://issuer.example", issuer.fetch, clock=lambda: issuer.now)
        task = asyncio.create_task(keys.run())
        asking = asyncio.create_task(outcome(keys, "k1"))
        await settled()
        task.cancel()
        assert await asking == "unavailable"

    asyncio.run(main())
