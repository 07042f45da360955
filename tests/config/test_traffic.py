"""The structs of the limits: three of one shape."""

from __future__ import annotations

from realtime_communication.config.keys import keys_of
from realtime_communication.config.traffic import ConnectionLimit, GlobalLimit, RateLimiting, UserLimit


def test_the_three_limits_have_the_same_keys_and_bounds() -> None:
    shapes = [
        [(key.path, key.kind, key.minimum, key.maximum, key.above) for key in keys_of(limit)]
        for limit in (ConnectionLimit, UserLimit, GlobalLimit)
    ]
    assert shapes[0] == shapes[1] == shapes[2]


def test_bursts_are_twice_the_rates() -> None:
    limits = RateLimiting()
    for limit in (limits.connection, limits.user, limits.global_):
        assert limit.burst_size == 2 * limit.requests_per_second
