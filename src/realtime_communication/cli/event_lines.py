"""Events of a subscription as people and programs read them: a JSON line each, and what is missing in words."""

from __future__ import annotations

import sys
import time
from typing import Any

import click
import msgspec

from realtime_communication.client.errors import ClientError
from realtime_communication.client.events import (
    Closing,
    Connected,
    ConnectionEvent,
    DirectMessage,
    Disconnected,
    HistoryMessage,
    InboxEvent,
    Join,
    Lagged,
    Leave,
    Message,
    Position,
    Recovered,
    SubscriptionEvent,
    TokenExpiring,
)

_encoder = msgspec.json.Encoder()


def put(line: object) -> None:
    """One line of JSON on standard output, out at once: whoever reads a pipe waits for it. Raises BrokenPipeError."""
    sys.stdout.buffer.write(_encoder.encode(line) + b"\n")
    sys.stdout.buffer.flush()


def line_of(event: SubscriptionEvent | InboxEvent) -> dict[str, Any] | None:
    """The event as an object; None for what is told in words."""
    match event:
        case Message():
            place = {"type": "Message", "topic": event.topic, "epoch": event.epoch, "offset": event.offset}
            return {**place, "ts": event.ts, "from": event.sender, "payload": event.payload}
        case DirectMessage():
            place = {"type": "DirectMessage", "offset": event.offset, "ts": event.ts}
            return {**place, "from": event.sender, "payload": event.payload}
        case Join() | Leave():
            made = {"type": type(event).__name__, **msgspec.structs.asdict(event)}
            return {name: value for name, value in made.items() if value is not None}
        case _:
            return None


def history_line(topic: str, epoch: str, message: HistoryMessage) -> dict[str, Any]:
    """A message of the history, as `line_of` shows a live one."""
    return {
        "type": "Message",
        "topic": topic,
        "epoch": epoch,
        "offset": message.offset,
        "ts": message.ts,
        "from": message.sender,
        "payload": message.payload,
    }


def gap_of(event: SubscriptionEvent | InboxEvent) -> str | None:
    """What is missing, in words; None when nothing is."""
    match event:
        case Lagged(recovered=False, topic=topic, missed=missed, source=source):
            whose = {"queue": "this command did not keep up", "server": "this connection was too slow"}
            return f"gap: {missed} of {topic} are missing: {whose.get(source, 'they did not come')}"
        case Recovered(recovered=False, topic=topic, missed=None):
            return f"gap: the history of {topic} was lost; messages may be missing"
        case Recovered(recovered=False, topic=topic, missed=missed):
            return f"gap: {missed} of {topic} are missing: they are no longer in the history"
        case _:
            return None


def notice_of(event: ConnectionEvent) -> str | None:
    """What happens to the connection, in words; None for what need not be told."""
    match event:
        case Disconnected(code=code, reason=reason, retry_in=float() as retry_in):
            return f"the connection was lost ({f'{code} {reason}'.strip()}); again in {retry_in:.1f} s"
        case Connected(reconnected=True):
            return "connected again"
        case Closing(reason=reason):
            return f"the server is about to close this connection: {reason or 'it stops or restarts'}"
        case TokenExpiring(expires_at=expires_at):
            left = f" in {max(0, expires_at - time.time()):.0f} s" if expires_at is not None else ""
            return f"the token expires{left}, and then the connection ends: start again with another one"
        case _:
            return None


def notice(text: str | None, quiet: bool = False) -> None:
    """Tell people, on standard error."""
    if text is not None and not quiet:
        click.echo(f"rtc: {text}", err=True)


def progress(label: str, length: int, *, worth_it: bool) -> Any:
    """A bar on standard error, as a context manager, for work that goes on for long and prints elsewhere."""
    hidden = not worth_it or not sys.stderr.isatty() or sys.stdout.isatty()
    return click.progressbar(length=max(length, 1), label=label, file=sys.stderr, hidden=hidden)


def position_in(text: str | None, hint: str) -> Position | None:
    """`EPOCH:OFFSET`, or None for None. Raises click.BadParameter."""
    if text is None:
        return None
    epoch, colon, offset = text.rpartition(":")
    if not colon or not epoch or not (offset.isascii() and offset.isdigit() and len(offset) <= 16):
        raise click.BadParameter("must look like EPOCH:OFFSET, as in the lines of `rtc sub`", param_hint=hint)
    return Position(epoch, int(offset))


def is_passing(error: ClientError) -> bool:
    """Whether the same request may succeed in a while."""
    return getattr(error, "code", "") in ("rate_limited", "backpressure", "unavailable")
