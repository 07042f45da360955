"""The latest warnings and errors of this process, for somebody who looks at the server without its log at hand.

Lines come in as the log has them, redacted; what was not logged, by the level in force, is not here either. All of
it is bounded: MAX_KEPT lines, and of each so many fields of so many characters.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import Any, Final

from realtime_communication.observability.logs import entry_of

MAX_KEPT: Final = 100  # lines; the oldest make room
MAX_FIELDS: Final = 16
MAX_CHARACTERS: Final = 300  # of a text
MAX_FRAMES: Final = 4  # of a traceback, the innermost

_OWN: Final = ("time", "level", "event", "target", "stack")


class RecentTroubles(logging.Handler):
    """Keeps records of at least a warning."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._kept: deque[dict[str, Any]] = deque(maxlen=MAX_KEPT)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record. Never raises."""
        try:
            self._kept.append(_shown(record))
        except Exception:
            self.handleError(record)

    def newest(self, limit: int) -> list[dict[str, Any]]:
        """{at, level, event, target, fields, stack?}, newest first; `at` is in milliseconds since the epoch."""
        with self._guard():
            kept = list(self._kept)
        return kept[: -limit - 1 : -1]

    def _guard(self) -> Any:
        assert self.lock is not None, "made by logging.Handler"
        return self.lock


_RECENT: Final = RecentTroubles()


def attach() -> RecentTroubles:
    """The one of this process, which from now on gets what is logged; to be called when the log is configured."""
    root = logging.getLogger()
    if _RECENT not in root.handlers:
        root.addHandler(_RECENT)
    return _RECENT


def _shown(record: logging.LogRecord) -> dict[str, Any]:
    entry = entry_of(record)
    fields = [(name, value) for name, value in entry.items() if name not in _OWN][:MAX_FIELDS]
    shown: dict[str, Any] = {
        "at": int(record.created * 1000),
        "level": entry["level"],
        "event": _cut(entry["event"]),
        "target": _cut(entry["target"]),
        "fields": {_cut(name): _cut(value) for name, value in fields},
    }
    stack = entry.get("stack")
    if isinstance(stack, list):
        shown["stack"] = [_cut(frame) for frame in stack[-MAX_FRAMES:]]
    return shown


def _cut(value: Any) -> Any:
    if isinstance(value, str) and len(value) > MAX_CHARACTERS:
        return value[: MAX_CHARACTERS - 1] + "…"
    return value
