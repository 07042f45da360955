"""Figures as lines of a terminal, no wider and no more than it has room for."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from realtime_communication.observability.redaction import escape

BOLD: Final = "\x1b[1m"
DIM: Final = "\x1b[2m"
RED: Final = "\x1b[31m"
GREEN: Final = "\x1b[32m"
YELLOW: Final = "\x1b[33m"
PLAIN: Final = "\x1b[0m"
_STATUS: Final = {"ok": GREEN, "degraded": YELLOW, "draining": YELLOW}
_LEAST_ROWS: Final = 3  # of each table, before another one gets more

Line = tuple[str, str]
"""A style, and plain text."""


def view(figures: Mapping[str, Any], url: str, width: int, height: int, *, order: str, keys: bool) -> list[str]:
    """Exactly what is to be printed, line by line; at most `height` of them."""
    head = [*_head(figures, url), *_rates(figures), *_parts(figures)]
    foot = [(YELLOW, f"missing: {text}") for text in figures["missing"]]
    if keys:
        foot.append((DIM, f"q quit   p pause   s sort topics (by {order})"))
    tables = [_topics(figures, order), _slowest(figures), _workers(figures), _nodes(figures)]
    room = height - len(head) - len(foot)
    body = [line for table in _fitted(tables, room) for line in table]
    return [_styled(line, width) for line in [*head, *body, *foot][: max(1, height)]]


def _head(figures: Mapping[str, Any], url: str) -> list[Line]:
    status = figures["status"]
    where = f"{url}  {figures['version'] or ''}  {figures['node_id'] or ''}  up {duration(figures['uptime_secs'])}"
    told = f"{status}" + (", draining" if figures["draining"] and status != "draining" else "")
    return [(BOLD, f"rtc top  {where}"), (_STATUS.get(status, RED), told)]


def _rates(figures: Mapping[str, Any]) -> list[Line]:
    rates, latency = figures["rates"], figures["latency"]
    lines = [
        f"{figures['connections']:,} connections  {figures['users']:,} users  {figures['topics']:,} topics"
        f"  {figures['subscriptions']:,} subscriptions  {size(figures['rss_bytes'])} memory",
        f"in   {count(rates['requests'])} requests/s  {count(rates['publications'])} publications/s"
        f"  {size(rates['bytes_in'])}/s  {count(rates['opened'])} opened/s",
        f"out  {count(rates['deliveries'])} deliveries/s  {size(rates['bytes_out'])}/s"
        f"  {count(rates['closed'])} closed/s",
        f"not  {count(rates['rate_limited'])} limited/s  {count(rates['backpressure'])} refused/s"
        f"  {count(rates['lagged'])} lagged/s  {count(rates['dropped'])} dropped/s",
    ]
    if latency is not None and latency["p50"] is not None:
        shown = "  ".join(f"{name} {millis(latency[name])}" for name in ("p50", "p90", "p99"))
        lines.append(f"{latency['of']}  {shown}" + ("" if latency["recent"] else "  (since the start)"))
    return [("", line) for line in lines]


def _parts(figures: Mapping[str, Any]) -> list[Line]:
    """What the server depends on, and the breakers that are not closed."""
    lines = []
    for name, part in figures["dependencies"].items():
        more = "".join(
            f"  {key} {value}" for key, value in part.items() if isinstance(value, str | int) and key != "status"
        )
        lines.append((_STATUS.get(part["status"], RED), f"{name}: {part['status']}{more}"))
    for name, breaker in figures["circuit_breakers"].items():
        if breaker["state"] != "closed":
            lines.append((RED, f"breaker {name}: {breaker['state']}, {breaker['rejected']:,} calls rejected"))
    for slot in figures["workers_missing"]:
        lines.append((RED, f"worker {slot}: does not answer"))
    return lines


def _topics(figures: Mapping[str, Any], order: str) -> list[Line]:
    rows = [
        (row["topic"], count(row["rate"]), f"{row['subscribers']:,}", f"{row['offset']:,}")
        for row in figures["busiest_topics"]
    ]
    marks = {"rate": "msgs/s", "subscribers": "subscribers", "offset": "offset"}
    return _table(("busiest topics", *(f"{text}{'*' if name == order else ''}" for name, text in marks.items())), rows)


def _slowest(figures: Mapping[str, Any]) -> list[Line]:
    rows = [
        (
            f"{row['user_id']} ({row['session_id'][:8]})",
            f"{row['queued']:,}",
            "yes" if row["blocked"] else "no",
            duration(row["silent_ms"] / 1000),
        )
        for row in figures["slowest"]
    ]
    return _table(("slowest consumers", "queued", "blocked", "silent"), rows)


def _workers(figures: Mapping[str, Any]) -> list[Line]:
    rows = [
        (
            f"{row['worker']}{' draining' if row['draining'] else ''}",
            f"{row['connections']:,}",
            count(row["deliveries"]),
            size(row["rss_bytes"]),
            duration(row["uptime_secs"]),
        )
        for row in figures["workers"]
    ]
    return _table(("worker", "connections", "deliveries/s", "memory", "up"), rows)


def _nodes(figures: Mapping[str, Any]) -> list[Line]:
    rows = [
        (
            row["url"].partition("://")[2],
            row["status"],
            f"{row.get('connections', 0):,}",
            count(row.get("deliveries")),
            size(row.get("rss_bytes")),
            duration(row.get("uptime_secs", 0.0)),
        )
        for row in figures["nodes"]
    ]
    return _table(("node", "status", "connections", "deliveries/s", "memory", "up"), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[Line]:
    """The first column to the left, with what room there is; the others to the right. Nothing without rows."""
    cells = [[escape(cell) for cell in row] for row in rows]
    if not cells:
        return []
    widths = [max(cells_of(row[column]) for row in [list(head), *cells]) for column in range(len(head))]
    widths[0] = min(widths[0], 40)
    lines = [("", "")]
    for number, row in enumerate([list(head), *cells]):
        first = clipped(row[0], widths[0])
        text = first + " " * (widths[0] - cells_of(first))
        text += "".join(f"  {cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        lines.append((BOLD if number == 0 else "", text))
    return lines


def _fitted(tables: Sequence[list[Line]], room: int) -> list[list[Line]]:
    """The tables cut to `room` lines together: some rows of each, then as many as there are of the first ones."""
    frame = 2  # the blank line and the head
    kept = [min(len(table), frame + _LEAST_ROWS) for table in tables]
    for index, table in enumerate(tables):
        kept[index] += max(0, min(len(table) - kept[index], room - sum(kept)))
    return [table[:lines] for table, lines in zip(tables, kept, strict=True)]


def _styled(line: Line, width: int) -> str:
    style, text = line
    text = clipped(text, width)
    return f"{style}{text}{PLAIN}" if style else text


def clipped(text: str, width: int) -> str:
    """`text` in at most `width` cells, with an ellipsis for what is left out."""
    if cells_of(text) <= width:
        return text
    kept, used = [], 0
    for letter in text:
        used += _cell(letter)
        if used > width - 1:
            break
        kept.append(letter)
    return "".join(kept) + "…" if width > 0 else ""


def cells_of(text: str) -> int:
    """How many cells of a terminal `text` takes."""
    return len(text) if text.isascii() else sum(map(_cell, text))


def _cell(letter: str) -> int:
    if unicodedata.combining(letter):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def count(number: float | None) -> str:
    """A rate; `-` where there is none yet."""
    if number is None:
        return "-"
    return f"{number:,.1f}" if 0 < number < 10 else f"{number:,.0f}"


def size(number: float | None) -> str:
    """Bytes in the unit that fits."""
    if number is None:
        return "-"
    for unit in ("B", "KiB", "MiB"):
        if number < 1024:
            return f"{number:.0f} {unit}"
        number /= 1024
    return f"{number:.1f} GiB"


def millis(secs: float | None) -> str:
    """Seconds as milliseconds."""
    return "-" if secs is None else f"{secs * 1000:.3g} ms"


def duration(secs: float) -> str:
    """Seconds in the two largest units."""
    whole = int(secs)
    days, hours, minutes = whole // 86_400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days}d{hours:02}h"
    if hours:
        return f"{hours}h{minutes:02}m"
    return f"{minutes}m{whole % 60:02}s" if minutes else f"{whole}s"
