"""How often an address may fail."""

import pytest

from realtime_communication.auth.attempts import ATTEMPTS_AT_ONCE, Attempts, network_of


def test_a_burst_and_then_the_rate():
    attempts = Attempts()
    assert [attempts.begin("192.0.2.1", 0) for _ in range(ATTEMPTS_AT_ONCE)] == [-1] * ATTEMPTS_AT_ONCE
    wait = attempts.begin("192.0.2.1", 0)
    assert 0 < wait <= 200
    assert attempts.begin("192.0.2.1", wait) == -1
    assert attempts.begin("192.0.2.2", 0) == -1


def test_those_that_succeed_do_not_count():
    attempts = Attempts(at_once=2)
    for _ in range(100):
        assert attempts.begin("192.0.2.1", 0) == -1
        attempts.succeeded("192.0.2.1", 0)
    assert attempts.state("192.0.2.1", 0) == (2, 2, 0)
    attempts.begin("192.0.2.1", 0)
    depth, left, full_in_ms = attempts.state("192.0.2.1", 0)
    assert (depth, left) == (2, 1)
    assert full_in_ms > 0


def test_the_table_is_bounded_and_forgets_who_was_not_seen_for_longest():
    attempts = Attempts(at_once=1, most=3)
    for name in "abcad":
        attempts.begin(name, 0)
    assert len(attempts) == 3
    assert attempts.begin("a", 0) >= 0
    assert attempts.begin("b", 0) == -1


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_what_counts_as_one_peer(address, network):
    assert network_of(address) == network
