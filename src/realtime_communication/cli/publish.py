"""`pub`: publish a message, or each line of standard input."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator
from typing import Any, Final

import click
import msgspec

from realtime_communication.cli.event_lines import is_passing, notice, notice_of, progress, put
from realtime_communication.cli.remote import Remote, with_remote
from realtime_communication.client.errors import RequestError
from realtime_communication.client.events import ConnectionEvent

LONGEST_LINE: Final = 16 * 1024 * 1024
LINES_AHEAD: Final = 100
LEAST_WAIT_SECS: Final = 0.1
_CHUNK: Final = 65_536
_STANDARD_INPUT: Final = 0
_INBOX: Final = "@"


@click.command("pub")
@click.argument("topic")
@click.argument("payload", required=False)
@click.option("--json", "form", flag_value="json", help="The payload must be JSON.")
@click.option("--text", "form", flag_value="text", help="The payload is text, also where it looks like JSON.")
@click.option("--idempotency-key", help="What has this key already is not published again. For one payload.")
@click.option("--quiet", is_flag=True, help="Print no positions.")
@with_remote
def publish(
    remote: Remote, topic: str, payload: str | None, form: str | None, idempotency_key: str | None, quiet: bool
) -> None:
    """Publish PAYLOAD on TOPIC; or each line of standard input, when PAYLOAD is - or left out.

    What is JSON is sent as JSON, anything else as text. Each publication is printed with its position. A TOPIC of @ and
    a user's name is that user's inbox: the payload goes there as a direct message. Where a limit is used up, the rest
    of the lines waits and goes on; any other refusal ends the command and tells the line.

    \b
    rtc pub room:42 '{"text": "hello"}'
    rtc pub room:42 --text 42
    rtc pub @alice '"your report is ready"'
    tail -f app.log | rtc pub logs:app - --text
    """
    from realtime_communication.cli.endings import plain_endings

    if payload is not None and payload != "-":
        lines = None
        try:
            value = _value(payload.encode("utf-8", "surrogateescape"), form)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="'PAYLOAD'") from None
    else:
        if payload is None and sys.stdin.isatty():
            raise click.UsageError("give a PAYLOAD, or - to type lines")
        if idempotency_key is not None:
            raise click.UsageError("--idempotency-key is for one payload, not for lines of standard input")
        lines, value = _Lines(), None
    with plain_endings(remote.url):
        asyncio.run(_publish(remote, topic, lines, value, form, idempotency_key, quiet))


async def _publish(
    remote: Remote, topic: str, lines: _Lines | None, value: Any, form: str | None, key: str | None, quiet: bool
) -> None:
    def on_event(event: ConnectionEvent) -> None:
        notice(notice_of(event))

    async with remote.client(on_event) as client:

        async def send(value: Any, key: str | None) -> None:
            made: dict[str, Any]
            if topic.startswith(_INBOX):
                delivery = await client.direct(topic.removeprefix(_INBOX), value, idempotency_key=key)
                made = {"to": topic, "online": bool(delivery.delivered)}
            else:
                position = await client.publish(topic, value, idempotency_key=key)
                made = {"topic": topic, "epoch": position.epoch, "offset": position.offset}
            if not quiet:
                put(made)

        if lines is None:
            await send(value, key)
            return
        number = 0
        with lines.progress() as bar:
            async for line in lines.read():
                number += 1
                try:
                    parsed = _value(line, form)
                except ValueError as error:
                    raise click.ClickException(f"line {number} {error}") from None
                await _patiently(send, parsed, number)
                bar.update(len(line) + 1)


async def _patiently(send: Any, value: Any, number: int) -> None:
    """Send one line, waiting where the server wants it. Raises RequestError that names the line, and as `send`."""
    while True:
        try:
            await send(value, None)
            return
        except RequestError as error:
            if not is_passing(error):
                raise RequestError(error.code, f"line {number}: {error.message}", field=error.field) from None
            await asyncio.sleep(max(error.retry_after or 0.0, LEAST_WAIT_SECS))


def _value(data: bytes, form: str | None) -> Any:
    """The payload that is written so. Raises ValueError."""
    if form != "text":
        try:
            return msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            if form == "json":
                raise ValueError(f"is no JSON: {error}; --text sends it as text") from None
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ValueError("is no UTF-8 text") from None


class _Lines:
    """Lines of standard input, read by a thread of its own: it may wait for the next one for hours."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()
        self._room = threading.Semaphore(LINES_AHEAD)

    def progress(self) -> Any:
        """A bar over the bytes of a file that is standard input; nothing is shown otherwise."""
        size = os.fstat(_STANDARD_INPUT).st_size  # 0 of anything else
        return progress("publishing", size, worth_it=size > 0)

    async def read(self) -> AsyncIterator[bytes]:
        """The lines, without their ends; empty ones are left out. Raises click.ClickException, OSError."""
        threading.Thread(target=self._fill, args=(asyncio.get_running_loop(),), daemon=True).start()
        while (found := await self._queue.get()) is not None:
            self._room.release()
            if isinstance(found, Exception):
                raise found
            if found:
                yield found

    def _fill(self, loop: asyncio.AbstractEventLoop) -> None:
        """Rules: no buffered file, whose lock a waiting thread would hold at the interpreter's end."""
        rest = b""
        try:
            while data := os.read(_STANDARD_INPUT, _CHUNK):
                *lines, rest = (rest + data).split(b"\n")
                if len(rest) > LONGEST_LINE:
                    raise click.ClickException(f"a line of standard input is longer than {LONGEST_LINE} bytes")
                for line in lines:
                    self._put(loop, line.removesuffix(b"\r"))
            self._put(loop, rest)
            self._put(loop, None)
        except RuntimeError:  # the loop has ended, nobody waits for lines any more
            return
        except (OSError, click.ClickException) as error:
            self._put(loop, error)

    def _put(self, loop: asyncio.AbstractEventLoop, found: bytes | Exception | None) -> None:
        self._room.acquire()
        loop.call_soon_threadsafe(self._queue.put_nowait, found)
