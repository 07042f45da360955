"""Settings that change while it runs, and what the clock does."""

import pytest

from core.hub.sans_io import make_hub, settings


class TestConfigure:
    """Settings, also while it runs."""

    def test_live(self) -> None:
        server = make_hub()
        peer = server.connect()
        for number in range(10):
            peer.send({"type": "Broadcast", "topic": "t", "payload": number})
        assert server.stats()["cached_messages"] == 10
        server.hub.configure(settings(max_cache_entries=3, max_connections=1))
        assert server.stats()["cached_messages"] == 3
        assert server.connect("bob").status == 503
        server.hub.configure(settings(enable_caching=False))
        assert server.stats()["cached_messages"] == 0

    def test_a_wrong_value_changes_nothing(self) -> None:
        server = make_hub(max_connections=1)
        with pytest.raises(ValueError, match="mailbox_capacity"):
            server.hub.configure(settings(max_connections=5, mailbox_capacity=0))
        server.connect()
        assert server.connect("bob").status == 503


def test_the_cache_forgets_by_age() -> None:
    server = make_hub(cache_ttl_secs=10)
    peer = server.connect()
    peer.send({"type": "Broadcast", "topic": "t", "payload": 1})
    server.advance(6_000)
    peer.send({"type": "Broadcast", "topic": "t", "payload": 2})
    server.advance(6_000)
    assert server.stats()["cached_messages"] == 1
    server.advance(6_000)
    assert (server.stats()["cached_messages"], server.stats()["cached_bytes"], server.stats()["topics"]) == (0, 0, 0)
