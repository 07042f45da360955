"""`sub`: print what comes on topics, one line of JSON for each event."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from collections.abc import AsyncIterable

import click

from realtime_communication.cli.event_lines import gap_of, line_of, notice, notice_of, position_in, put
from realtime_communication.cli.remote import Remote, with_remote
from realtime_communication.client.events import ConnectionEvent, InboxEvent, Position, SubscriptionEvent

MOST_HISTORY = 1000
MOST_EVENTS = 1_000_000_000


@click.command("sub")
@click.argument("topics", nargs=-1, metavar="TOPIC...")
@click.option("--history", type=click.IntRange(0, MOST_HISTORY), default=0, help="So many earlier messages come first.")
@click.option("--from", "start", metavar="EPOCH:OFFSET", help="Continue after this position (of one topic).")
@click.option("--presence", is_flag=True, help="Print who comes and goes, too.")
@click.option("--direct", is_flag=True, help="Print direct messages to the user of the credentials, too.")
@click.option("--count", type=click.IntRange(1, MOST_EVENTS), help="End after so many lines.")
@click.option("--quiet", is_flag=True, help="Say nothing on standard error of lost connections; gaps are told.")
@with_remote
def subscribe(
    remote: Remote,
    topics: tuple[str, ...],
    history: int,
    start: str | None,
    presence: bool,
    direct: bool,
    count: int | None,
    quiet: bool,
) -> None:
    """Print what comes on topics: a line of JSON for each event, until Ctrl-C.

    The connection is opened again when it is lost, and continues where it was; what is missing nevertheless is told on
    standard error, in lines that begin with `rtc: gap`.

    \b
    rtc sub room:42 room:43
    rtc sub room:42 --history=20 --presence
    rtc sub room:42 --count=1 | jq .payload
    rtc sub room:42 --from=3f9c1d2e4b5a6978:1234
    """
    from realtime_communication.cli.endings import plain_endings

    if not topics and not direct:
        raise click.UsageError("name a topic, or give --direct")
    if len(set(topics)) != len(topics):
        raise click.UsageError("a topic is named twice")
    position = position_in(start, "'--from'")
    if position is not None and len(topics) != 1:
        raise click.UsageError("--from is for exactly one topic")
    with plain_endings(remote.url):
        asyncio.run(_follow(remote, topics, history, position, presence, direct, count, quiet))


async def _follow(
    remote: Remote,
    topics: tuple[str, ...],
    history: int,
    position: Position | None,
    presence: bool,
    direct: bool,
    count: int | None,
    quiet: bool,
) -> None:
    def on_event(event: ConnectionEvent) -> None:
        notice(notice_of(event), quiet)

    async with remote.client(on_event) as client:
        ended = _end_of_reader()
        printing = _Printing(count)
        tasks = [asyncio.create_task(ended)]
        if direct:
            tasks.append(asyncio.create_task(printing.read(client.direct_messages())))
        try:
            for topic in topics:
                subscription = await client.subscribe(topic, history=history, presence=presence, recover=position)
                tasks.append(asyncio.create_task(printing.read(subscription)))
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


class _Printing:
    """Prints the events of several subscriptions, up to ``count`` lines together."""

    def __init__(self, count: int | None) -> None:
        self._left = count

    async def read(self, events: AsyncIterable[SubscriptionEvent] | AsyncIterable[InboxEvent]) -> None:
        """Returns when the last line that is wanted was printed, or there is nothing more. Raises BrokenPipeError."""
        async for event in events:
            if self._left == 0:
                return
            notice(gap_of(event))
            line = line_of(event)
            if line is None:
                continue
            put(line)
            if self._left is not None:
                self._left -= 1
                if self._left == 0:
                    return


async def _end_of_reader() -> None:
    """Raises BrokenPipeError when nobody reads standard output any more, although nothing is written meanwhile."""
    descriptor = sys.stdout.fileno()
    gone = asyncio.Event()
    loop = asyncio.get_running_loop()
    is_pipe = stat.S_ISFIFO(os.fstat(descriptor).st_mode)
    if is_pipe:
        loop.add_reader(descriptor, gone.set)  # nothing can be read there: epoll tells of the error alone
    try:
        await gone.wait()
    finally:
        if is_pipe:
            loop.remove_reader(descriptor)
    raise BrokenPipeError
