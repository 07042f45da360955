"""What the data plane notes, as a receiver of webhooks gets it."""

import pytest

from realtime_communication.server.event_feed import event_of

AT = 1_764_065_121_123


@pytest.mark.parametrize(
    ("notice", "expected"),
    [
        (
            ("connect", AT, "alice", "0a", "websocket"),
            {"event": "connect", "user_id": "alice", "session_id": "0a", "transport": "websocket"},
        ),
        (
            ("disconnect", AT, "alice", "0a", "sse", 5),
            {"event": "disconnect", "user_id": "alice", "session_id": "0a", "transport": "sse", "duration_ms": 5},
        ),
        (("topic_occupied", AT, "t"), {"event": "topic_occupied", "topic": "t"}),
        (("topic_vacated", AT, "t"), {"event": "topic_vacated", "topic": "t"}),
    ],
)
def test_an_event(notice, expected):
    assert event_of(notice) == {**expected, "at": "2025-11-25T10:05:21.123Z"}
    assert next(iter(event_of(notice))) == "event"
