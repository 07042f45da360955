"""What the application gets is immutable and exported."""

import msgspec
import pytest

import realtime_communication.client as package
from realtime_communication.client import events


@pytest.mark.parametrize("name", events.__all__)
def test_exported(name: str) -> None:
    assert getattr(package, name) is getattr(events, name)


STRUCTS = [name for name in events.__all__ if hasattr(getattr(events, name), "__struct_config__")]


@pytest.mark.parametrize("name", STRUCTS)
def test_frozen(name: str) -> None:
    assert getattr(events, name).__struct_config__.frozen


def test_history_message_is_read_from_the_wires_names() -> None:
    data = b'{"offset":1,"ts":2,"from":"bob","payload":[3]}'
    assert msgspec.json.decode(data, type=events.HistoryMessage) == events.HistoryMessage(1, 2, "bob", [3])
