"""`presence` and `history`: ask a running server about a topic."""

from __future__ import annotations

import click

from realtime_communication.cli.event_lines import history_line, notice, position_in, progress, put
from realtime_communication.cli.remote import Remote, with_remote
from realtime_communication.client.events import HistoryPage, Position

MOST_MESSAGES = 1000
MOST_IN_ALL = 10_000_000


@click.command()
@click.argument("topic")
@click.option("--count", "only_count", is_flag=True, help="Print how many sessions there are, and nothing else.")
@with_remote
def presence(remote: Remote, topic: str, only_count: bool) -> None:
    """Print who is on a topic: a line of JSON for each session.

    \b
    rtc presence room:42
    rtc presence room:42 --count
    """
    from realtime_communication.cli.endings import plain_endings

    with plain_endings(remote.endpoint.url), remote.publisher() as publisher:
        state = publisher.presence(topic)
        if only_count:
            put(state.count)
            return
        for member in state.members:
            made = {"user_id": member.user_id, "session_id": member.session_id, "joined_at": member.joined_at}
            put(made if member.info is None else made | {"info": member.info})
        if len(state.members) < state.count:
            notice(f"{state.count - len(state.members)} more sessions are on {topic} than the server lists")


@click.command()
@click.argument("topic")
@click.option(
    "--limit", type=click.IntRange(1, MOST_IN_ALL), default=100, show_default=True, help="Messages to print at most."
)
@click.option("--after", metavar="EPOCH:OFFSET", help="Begin after this position; with --reverse, before it.")
@click.option("--reverse", is_flag=True, help="Newest first, from the end.")
@click.option("--position", "only_position", is_flag=True, help="Print where the topic stands, as EPOCH:OFFSET.")
@with_remote
def history(remote: Remote, topic: str, limit: int, after: str | None, reverse: bool, only_position: bool) -> None:
    """Print the messages in a topic's history: a line of JSON each, as `rtc sub` does.

    \b
    rtc history room:42 --limit=20 --reverse
    rtc history room:42 --after=3f9c1d2e4b5a6978:1234
    rtc sub room:42 --from="$(rtc history room:42 --position)"
    """
    from realtime_communication.cli.endings import plain_endings

    start = position_in(after, "'--after'")
    with plain_endings(remote.endpoint.url), remote.publisher() as publisher:
        if only_position:
            position = publisher.history(topic, limit=1, reverse=True).position
            click.echo(f"{position.epoch}:{position.offset}")
            return
        with progress(f"history of {topic}", limit, worth_it=limit > MOST_MESSAGES) as bar:
            left = limit
            while left:
                page = publisher.history(topic, after=start, limit=min(left, MOST_MESSAGES), reverse=reverse)
                if start is not None:
                    notice(_gap(page, start, reverse))
                for message in page.messages:
                    put(history_line(topic, page.position.epoch, message))
                if not page.messages:
                    return
                left -= len(page.messages)
                bar.update(len(page.messages))
                start = Position(page.position.epoch, page.messages[-1].offset)


def _gap(page: HistoryPage, start: Position, reverse: bool) -> str | None:
    """What is missing between a position and the page behind it, in words; None when nothing is."""
    if page.position.epoch != start.epoch:
        return f"gap: the history of {page.topic} is another one than that of {start.epoch}"
    first = page.messages[0].offset if page.messages else page.position.offset + 1
    missed = first - start.offset - 1
    return None if reverse or missed <= 0 else f"gap: {missed} of {page.topic} are no longer in the history"
