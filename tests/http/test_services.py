"""What handlers work with."""

import contextlib
import time

import pytest

from realtime_communication.auth.chain import AuthenticationChain
from realtime_communication.config.schema import Config
from realtime_communication.config.traffic import RateLimiting
from realtime_communication.errors import RateLimited
from realtime_communication.http.attempts import Attempts
from realtime_communication.http.services import Services


def test_uptime_counts_from_the_beginning():
    services = Services(hub=None, chain=AuthenticationChain([]), config=Config(), profile="test", node_id="n")
    assert 0 <= services.uptime_secs < 60
    services.started_at = time.monotonic() - 100
    assert 100 <= services.uptime_secs < 160
    assert services.draining is False


@pytest.mark.parametrize("enabled", [True, False])
def test_wrong_credentials_are_limited_with_everything_else(enabled):
    config = Config(rate_limiting=RateLimiting(enabled=enabled))
    attempts = Attempts(rate=0.001, burst=1)
    services = Services(
        hub=None, chain=AuthenticationChain([]), config=config, profile="test", node_id="n", attempts=attempts
    )
    services.check_attempts("203.0.113.1")
    attempts.fail("203.0.113.1")
    with pytest.raises(RateLimited) if enabled else contextlib.nullcontext():
        services.check_attempts("203.0.113.1")
