"""What handlers work with."""

import time

from realtime_communication.auth.chain import AuthenticationChain
from realtime_communication.config.schema import Config
from realtime_communication.http.services import Services


def test_uptime_counts_from_the_beginning():
    services = Services(hub=None, chain=AuthenticationChain([]), config=Config(), profile="test", node_id="n")
    assert 0 <= services.uptime_secs < 60
    services.started_at = time.monotonic() - 100
    assert 100 <= services.uptime_secs < 160
    assert services.draining is False
