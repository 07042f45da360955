"""Structured logs on the standard `logging` module.

Rules: a log call never raises, never blocks the loop and never shows a secret. A record is made into one line at once
and handed to a thread that writes it; when the reader of the log is stuck, lines beyond the bound are dropped and
counted, and the count is logged when writing works again. `EventLogger` is what the rest of the program uses: an event
and its fields. Records of other libraries come out in the same form.
"""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import json
import logging
import math
import os
import select
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Mapping
from typing import ClassVar, Literal, get_args

from realtime_communication.config.log_filter import LEVELS, LogFilter, parse_filter
from realtime_communication.observability.redaction import REDACTED, clean, escape, is_secret_field

TRACE = LEVELS["trace"]
MAX_QUEUED_BYTES = 4 << 20
"""Lines waiting to be written take at most this much; later ones are dropped and counted."""

_MAX_FIELDS = 64
_FLUSH_SECONDS = 1.0
"""Longest wait at exit for a log that is not read."""

_NAMES = {5: "trace", 10: "debug", 20: "info", 30: "warn", 40: "error", 50: "error"}
_COLOURS = {"trace": "2", "debug": "2", "info": "32", "warn": "33", "error": "31"}
_FIELDS = "event_fields"

Style = Literal["json", "pretty"]

trace_id: contextvars.ContextVar[str | None] = contextvars.ContextVar("trace_id", default=None)
"""Trace of the work in hand; it is put into every line logged meanwhile."""


class EventLogger:
    """Logs events with fields: `log.info("connection opened", session_id=…, address=…)`. Never raises."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def trace(self, event: str, /, **fields: object) -> None:
        """Log an event of interest only to somebody who follows single messages."""
        self._log(TRACE, event, fields)

    def debug(self, event: str, /, **fields: object) -> None:
        """Log an event of interest to developers."""
        self._log(logging.DEBUG, event, fields)

    def info(self, event: str, /, **fields: object) -> None:
        """Log an event of normal work."""
        self._log(logging.INFO, event, fields)

    def warning(self, event: str, /, **fields: object) -> None:
        """Log something an operator should look at some time."""
        self._log(logging.WARNING, event, fields)

    def error(self, event: str, /, **fields: object) -> None:
        """Log something an operator should look at now."""
        self._log(logging.ERROR, event, fields)

    def exception(self, event: str, /, **fields: object) -> None:
        """Log an error together with the exception being handled."""
        self._log(logging.ERROR, event, fields, with_exception=True)

    def enabled_for(self, level: int) -> bool:
        """Whether an event of this level would be written: ask before gathering costly fields."""
        return self._logger.isEnabledFor(level)

    def _log(self, level: int, event: str, fields: dict[str, object], *, with_exception: bool = False) -> None:
        if not self._logger.isEnabledFor(level):
            return
        with contextlib.suppress(Exception):
            exception = sys.exc_info() if with_exception else None
            self._logger.log(level, "%s", event, extra={_FIELDS: fields}, exc_info=exception)


def get_logger(name: str) -> EventLogger:
    """The logger of a module; pass `__name__`."""
    return EventLogger(name)


def entry_of(record: logging.LogRecord) -> dict[str, object]:
    """A record as a flat object: time, level, event, target, its fields, and the trace id when there is one."""
    try:
        event = record.getMessage()
    except Exception:  # a wrong format string in some library: the text alone is better than nothing
        event = str(record.msg)
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    entry: dict[str, object] = {
        "time": f"{moment}.{int(record.created * 1000) % 1000:03d}Z",
        "level": _NAMES.get(record.levelno, record.levelname.lower()),
        "event": clean(event),
        "target": record.name,
        **_State.fields,
    }
    trace = trace_id.get()
    if trace is not None:
        entry["trace_id"] = clean(trace)
    fields: Mapping[str, object] = getattr(record, _FIELDS, {})
    for name, value in list(fields.items())[:_MAX_FIELDS]:
        entry[name if name not in entry else name + "_"] = _field(name, value)
    if record.exc_info and record.exc_info[1] is not None:
        exception = record.exc_info[1]
        entry["error"] = clean(f"{type(exception).__name__}: {exception}")
        entry["stack"] = [clean(line) for line in _stack(exception)]
    return entry


def _field(name: str, value: object) -> object:
    if is_secret_field(name):
        return REDACTED
    if value is None or isinstance(value, (bool, int)):
        return value if not isinstance(value, int) or value.bit_length() <= 64 else "an integer of many digits"
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, bytes):
        return clean(value[: 1 << 14].decode(errors="replace"))
    try:
        return clean(value if isinstance(value, str) else str(value))
    except Exception:  # an object that cannot be shown must not cost the line
        return f"a {type(value).__name__} that cannot be shown"


def _stack(exception: BaseException) -> list[str]:
    frames = traceback.extract_tb(exception.__traceback__)[-20:]
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]


class JsonFormatter(logging.Formatter):
    """One JSON object a line, ASCII only, so nothing in it can end the line or move a cursor."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(entry_of(record), ensure_ascii=True, separators=(",", ":"))


class PrettyFormatter(logging.Formatter):
    """One line for people: time, level, event, fields; coloured on a terminal."""

    def __init__(self, *, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        entry = entry_of(record)
        moment, level = str(entry.pop("time"))[11:-1], str(entry.pop("level"))
        event, target = escape(str(entry.pop("event"))), str(entry.pop("target")).rpartition(".")[2]
        stack = entry.pop("stack", [])
        word = f"{level:5}"
        if self._colour:
            word = f"\x1b[{_COLOURS.get(level, '0')}m{word}\x1b[0m"
        fields = " ".join(f"{escape(name)}={_shown(value)}" for name, value in entry.items())
        line = f"{moment} {word} {escape(target)}: {event}" + (f"  {fields}" if fields else "")
        return line + "".join(f" | {escape(frame)}" for frame in (stack if isinstance(stack, list) else ()))


def _shown(value: object) -> str:
    text = escape(str(value))
    return '"' + text.replace('"', '\\"') + '"' if not text or " " in text else text


class LineWriter:
    """Writes lines to a file descriptor from a thread of its own; `put` never blocks and never raises.

    `dropped` counts the lines that found no room or no reader since the last line that was written.
    """

    def __init__(self, descriptor: int, max_queued_bytes: int = MAX_QUEUED_BYTES) -> None:
        self.descriptor = descriptor
        self._max_queued = max_queued_bytes
        self._lines: deque[bytes] = deque()
        self._queued = 0
        self._closing = False
        self._changed = threading.Condition()
        self._idle = threading.Event()
        self._idle.set()
        self.dropped = 0
        self._thread: threading.Thread | None = None

    def put(self, line: str) -> None:
        """Queue a line, or count it as dropped."""
        data = line.encode("utf-8", "backslashreplace") + b"\n"
        with self._changed:
            if self._closing or self._queued + len(data) > self._max_queued or not self._started():
                self.dropped += 1
                return
            self._lines.append(data)
            self._queued += len(data)
            self._idle.clear()
            self._changed.notify()

    def flush(self, timeout: float = _FLUSH_SECONDS) -> bool:
        """Wait until all lines are written, at most `timeout` seconds; whether they are."""
        return self._idle.wait(timeout)

    def close(self, timeout: float = _FLUSH_SECONDS) -> None:
        """Write what can be written within `timeout` seconds, then stop. The descriptor stays open."""
        self.flush(timeout)
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(timeout)

    def _started(self) -> bool:
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # no more threads, or the interpreter is going away
                return False
            self._thread = thread
        return True

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._lines and not self._closing:
                    self._idle.set()
                    self._changed.wait()
                if self._closing:
                    self._idle.set()
                    return
                batch, self._lines = b"".join(self._lines), deque()
                size, dropped, self.dropped = len(batch), self.dropped, 0
            lines = batch.count(b"\n")
            if dropped:
                batch += _dropped_line(dropped)
            written = self._write(batch)
            with self._changed:
                self._queued -= size
                if not written:
                    self.dropped += dropped + lines

    def _write(self, data: bytes) -> bool:
        """Write all of it; False when the descriptor is closed, full for good, or has no reader."""
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self.descriptor, view) :]
            except BlockingIOError:
                with contextlib.suppress(OSError, ValueError):
                    select.select([], [self.descriptor], [], 1.0)
                if self._closing:
                    return False
            except (OSError, ValueError):
                return False
        return True


def _dropped_line(count: int) -> bytes:
    entry = {"level": "warn", "event": "log lines dropped", "target": __name__, "count": count}
    return json.dumps(entry).encode() + b"\n"


class _QueueHandler(logging.Handler):
    """Formats a record and hands the line to a writer."""

    def __init__(self, writer: LineWriter) -> None:
        super().__init__()
        self.writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.writer.put(self.format(record))
        except Exception:
            self.writer.dropped += 1

    def flush(self) -> None:
        self.writer.flush()


_QUIET_LIBRARIES = ("asyncio", "aiohttp", "aiohttp.access", "urllib3")
"""Loggers of libraries whose debug messages are no news; a filter that names one still reaches it."""

_SILENT_LIBRARIES = ("opentelemetry", "grpc")
"""Loggers of libraries that warn once a batch of what the tracer says once; a filter that names one reaches it too."""

_OFF = LEVELS["off"]


class _State:
    """What the process logs with at the moment: one per process, like the root logger it belongs to."""

    handler: _QueueHandler | None = None
    filtered: ClassVar[set[str]] = set()
    fields: ClassVar[dict[str, object]] = {}


def configure(level: str = "info", style: Style = "json", descriptor: int = 2) -> None:
    """Send all logs to a file descriptor (default: standard error). May be called again; the last call holds.

    `level` is a filter as `logging.level` takes it. Raises ValueError when it is none.
    """
    log_filter = parse_filter(level)
    shutdown()
    logging.addLevelName(TRACE, "TRACE")
    logging.raiseExceptions = False
    handler = _QueueHandler(LineWriter(descriptor))
    handler.setFormatter(_formatter(style, descriptor))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    _State.handler = handler
    _apply(log_filter)


def set_level(level: str) -> None:
    """Change the levels at run time, by a filter as `logging.level` takes it. Raises ValueError when it is none."""
    _apply(parse_filter(level))


def set_format(style: Style) -> None:
    """Change the form of the lines at run time, as `logging.format` takes it. Every line is whole and in one form.

    Raises ValueError when there is no such form; does nothing while logging goes nowhere.
    """
    if style not in get_args(Style):
        raise ValueError(f"logging.format must be one of {', '.join(get_args(Style))}")
    handler = _State.handler
    if handler is not None:
        handler.setFormatter(_formatter(style, handler.writer.descriptor))


def set_fields(**fields: object) -> None:
    """Put these into every line of this process from now on, such as the number of a worker."""
    _State.fields.clear()
    _State.fields.update(fields)


def put_line(line: str) -> None:
    """Write a line that another process of this server made: as it is, and whole."""
    if _State.handler is not None:
        _State.handler.writer.put(line)


def flush(timeout: float = _FLUSH_SECONDS) -> bool:
    """Wait until all lines so far are written, at most `timeout` seconds; whether they are."""
    return _State.handler is None or _State.handler.writer.flush(timeout)


def shutdown() -> None:
    """Write what is queued and stop the writer. Logging goes nowhere until `configure` is called again."""
    if _State.handler is not None:
        logging.getLogger().removeHandler(_State.handler)
        _State.handler.writer.close()
        _State.handler = None


def dropped_lines() -> int:
    """Lines that could not be written lately."""
    return _State.handler.writer.dropped if _State.handler is not None else 0


def _apply(log_filter: LogFilter) -> None:
    # In this order a line that both filters let pass is written, whichever thread logs it meanwhile.
    levels = dict.fromkeys(_QUIET_LIBRARIES, max(log_filter.level, logging.WARNING))
    levels |= dict.fromkeys(_SILENT_LIBRARIES, _OFF) | log_filter.targets
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    logging.getLogger().setLevel(log_filter.level)
    for name in _State.filtered - levels.keys():
        logging.getLogger(name).setLevel(logging.NOTSET)
    _State.filtered.clear()
    _State.filtered.update(levels)


def _formatter(style: Style, descriptor: int) -> logging.Formatter:
    return JsonFormatter() if style == "json" else PrettyFormatter(colour=_is_terminal(descriptor))


def _is_terminal(descriptor: int) -> bool:
    try:
        return os.isatty(descriptor) and "NO_COLOR" not in os.environ
    except OSError:
        return False


atexit.register(shutdown)
