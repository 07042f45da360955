"""Keys of the schema that govern webhooks about connections and topics. See `schema.py`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from realtime_communication.config.keys import Section, Spec, signing_key

WEBHOOK_EVENTS = ("connect", "disconnect", "topic_occupied", "topic_vacated")


class Webhooks(Section, frozen=True, kw_only=True):
    """Signed POSTs, each with a list of events, that tell a receiver of connections and topics."""

    url: Annotated[
        str, Spec("http(s) URL that gets the POSTs; empty for none.", maximum=2048, secret=True, live=True)
    ] = ""
    secret: Annotated[str, signing_key(live=True)] = ""
    events: Annotated[
        tuple[str, ...],
        Spec(f"What is told: any of {', '.join(f'`{event}`' for event in WEBHOOK_EVENTS)}.", live=True),
    ] = WEBHOOK_EVENTS
    max_batch: Annotated[int, Spec("Most events in one POST.", minimum=1, maximum=1000, unit="events", live=True)] = 100
    batch_wait_ms: Annotated[
        float,
        Spec(
            "How long an event waits for others to go with it.",
            minimum=0,
            maximum=60_000,
            unit="milliseconds",
            live=True,
        ),
    ] = 100.0


def event_problems(webhooks: Webhooks) -> Iterator[tuple[str, str]]:
    """What is wrong with the list of events."""
    if any(event not in WEBHOOK_EVENTS for event in webhooks.events):
        yield "webhooks.events", f"must be a list of {', '.join(WEBHOOK_EVENTS)}"
    elif len(set(webhooks.events)) < len(webhooks.events) or not webhooks.events:
        yield "webhooks.events", f"must name at least one of {', '.join(WEBHOOK_EVENTS)}, each once"
