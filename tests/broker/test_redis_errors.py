"""What a failure of Redis says to its callers."""

from realtime_communication.broker.redis_errors import MEANINGS, RedisFailed, counts_against_redis
from realtime_communication.errors import ERROR_CODE_BY_NAME


def test_what_may_be_repeated():
    assert [RedisFailed(reply).may_repeat(False) for reply in ("LOADING", "READONLY", "LOST", "OOM")] == [
        True,
        True,
        False,
        False,
    ]
    assert [RedisFailed(reply).may_repeat(True) for reply in ("LOST", "OOM")] == [True, False]


def test_which_count_for_the_breaker():
    assert counts_against_redis(RedisFailed("LOST"))
    assert counts_against_redis(ValueError())
    assert not counts_against_redis(RedisFailed("ERR"))
    assert not counts_against_redis(RedisFailed("POOL"))


def test_codes_are_a_closed_set():
    assert RedisFailed("a code of tomorrow").reply == "ERR"
    assert all(reply in MEANINGS for reply in ("CONNECT", "ERR", "INTERNAL"))
    assert RedisFailed("OOM").code in ERROR_CODE_BY_NAME
