"""The border between sessions and sockets."""

from core.hub.sans_io import make_hub
from realtime_communication._core.hub.driver import Driver
from realtime_communication._core.hub.memory_driver import MemoryDriver


def test_transports_are_drivers() -> None:
    assert issubclass(MemoryDriver, Driver)
    Driver()


def test_a_hub_without_transport_may_be_called_from_outside() -> None:
    """Until a transport makes itself known, the hub wakes and refreshes a driver that does nothing."""
    hub = make_hub().hub
    hub.publish_system("$news", b'"hello"')
    hub.begin_drain(1000)
    hub.close_all(1001, "bye")
    assert hub.disconnect(user_id="nobody") == 0
    assert hub.stats()["publications"] == 1
