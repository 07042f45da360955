"""How often credentials may be wrong, with a clock that the test moves, and against a plain model."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime_communication.errors import RateLimited
from realtime_communication.http.attempts import Attempts
from serving.hand_clock import HandClock


@pytest.fixture
def clock():
    return HandClock(1000.0)


def allowed(attempts, address):
    try:
        attempts.check(address)
    except RateLimited:
        return False
    return True


def fail(attempts, address, times):
    """How many of so many failures were allowed."""
    count = 0
    for _ in range(times):
        if allowed(attempts, address):
            count += 1
            attempts.fail(address)
    return count


def test_a_burst_and_then_the_rate(clock):
    attempts = Attempts(rate=2, burst=3, clock=clock)
    assert fail(attempts, "203.0.113.1", 10) == 3
    with pytest.raises(RateLimited) as caught:
        attempts.check("203.0.113.1")
    assert (caught.value.retry_after_ms, caught.value.scope) == (500, "address")
    clock.now += 0.5
    assert fail(attempts, "203.0.113.1", 10) == 1
    clock.now += 100
    assert fail(attempts, "203.0.113.1", 10) == 3


def test_nothing_but_failures_counts(clock):
    attempts = Attempts(rate=1, burst=2, clock=clock)
    for _ in range(100):
        attempts.check("203.0.113.1")
    assert attempts.state("203.0.113.1") == (2, 2, 0)
    attempts.fail("203.0.113.1")
    assert attempts.state("203.0.113.1") == (2, 1, 1000)
    assert attempts.state("127.0.0.1") is None


def test_addresses_are_apart_but_an_ipv6_site_is_one(clock):
    attempts = Attempts(rate=1, burst=1, clock=clock)
    attempts.fail("203.0.113.1")
    attempts.fail("2001:db8:0:1::1")
    assert not allowed(attempts, "203.0.113.1")
    assert allowed(attempts, "203.0.113.2")
    assert not allowed(attempts, "2001:db8:0:1:ffff::2")
    assert allowed(attempts, "2001:db8:0:2::1")


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", ""])
def test_local_addresses_stand_for_too_many(clock, address):
    assert fail(Attempts(rate=1, burst=1, clock=clock), address, 100) == 100


def test_memory_is_bounded(clock):
    attempts = Attempts(rate=1, burst=2, max_addresses=100, clock=clock)
    fail(attempts, "10.0.0.1", 2)
    for number in range(1000):
        attempts.fail(f"10.1.{number // 250}.{number % 250}")
        fail(attempts, "10.0.0.1", 1)
        attempts.fail("10.0.0.1")
    assert len(attempts) == 100
    assert not allowed(attempts, "10.0.0.1"), "who goes on failing is not forgotten"
    clock.now += 10
    attempts.fail("10.0.0.2")
    assert len(attempts) == 1, "full buckets are forgotten"


STEPS = st.lists(st.tuples(st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.3"]), st.sampled_from([0, 1, 3, 40])))


@given(STEPS, st.integers(1, 5))
def test_against_a_model(steps, burst):
    clock = HandClock(1000.0)
    attempts = Attempts(rate=0.25, burst=burst, clock=clock)
    left = {}
    for address, pause in steps:
        clock.now += pause
        for name in left:
            left[name] = min(burst, left[name] + pause * 0.25)
        left.setdefault(address, burst)
        assert allowed(attempts, address) == (left[address] >= 1)
        if left[address] >= 1:
            attempts.fail(address)
            left[address] -= 1
        assert attempts.state(address)[:2] == (burst, int(left[address]))
        assert len(attempts) <= len(left)


def test_all_are_free_while_nobody_has_failed(clock):
    attempts = Attempts(rate=1, burst=2, clock=clock)
    assert attempts.all_free
    attempts.fail("127.0.0.1")
    assert attempts.all_free
    attempts.fail("203.0.113.7")
    assert not attempts.all_free
    assert not Attempts(burst=0).all_free


def test_a_table_without_failures_allows_all_but_where_none_are_allowed(clock):
    assert allowed(Attempts(clock=clock), "203.0.113.9")
    assert not allowed(Attempts(burst=0, clock=clock), "203.0.113.9")
