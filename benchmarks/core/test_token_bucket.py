"""Taking a token, as each request does for its connection, its user and the whole server."""

from pytest_benchmark.fixture import BenchmarkFixture

from realtime_communication._core.hub.token_bucket import Bucket

REFILL_INTERVAL_MS = 100
PRECISION = 0.1


def test_take_from_a_full_bucket(benchmark: BenchmarkFixture) -> None:
    bucket = Bucket(0, 1e9, 1_000_000_000, REFILL_INTERVAL_MS, PRECISION)
    assert benchmark(bucket.take, 1000) == -1


def test_take_from_an_empty_bucket(benchmark: BenchmarkFixture) -> None:
    bucket = Bucket(0, 1.0, 1, REFILL_INTERVAL_MS, PRECISION)
    bucket.take(0)
    assert benchmark(bucket.take, 1) > 0
