"""What each endpoint takes and answers, by its handler: the one source of `/openapi.json`.

A route without an entry here is none of the public API: pages, and what the profile `dev` adds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal

import msgspec

from realtime_communication.auth.authority import Pair, RefreshRequest, RevokeRequest
from realtime_communication.auth.grants import TokenRequest
from realtime_communication.http import admin, api, auth, batch, directory, health, overview, schemas, sse, topics

Needs = Literal["nothing", "read", "write", "subscribe", "admin", "a credential"]


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint.

    - `answer`, `body`, `query`: types; the fields of `query`'s struct are its parameters
    - `needs`: the permission or role
    - `in_url`: credentials may stand in the query, too
    - `media`: of the answer, where it is no JSON
    - `statuses`: answers beside those that follow from the rest, with what they are
    """

    tag: str
    summary: str
    text: str = ""
    needs: Needs = "nothing"
    in_url: bool = False
    answer: Any
    body: Any = None
    body_required: bool = True
    query: type[msgspec.Struct] = schemas.NoQuery
    media: str = "application/json"
    statuses: Mapping[int, Any] = {}
    headers: Mapping[str, str] = {}


MESSAGES, TOPICS, CONNECTIONS, TOKENS, OPERATION = "messages", "topics", "connections", "tokens", "operation"

OPERATIONS: Final[Mapping[Callable[..., Any], Operation]] = {
    api.publish: Operation(
        tag=MESSAGES,
        summary="Publish on a topic",
        needs="write",
        in_url=True,
        body=schemas.PublishRequest,
        answer=schemas.Published,
    ),
    api.send: Operation(
        tag=MESSAGES,
        summary="Send to users",
        needs="write",
        in_url=True,
        body=schemas.SendRequest,
        answer=schemas.Sent,
    ),
    batch.batch: Operation(
        tag=MESSAGES,
        summary="Publish and send many",
        text="One answer for each entry, in their order; one that is refused keeps no other back.",
        needs="write",
        in_url=True,
        body=Annotated[list[schemas.Entry], msgspec.Meta(min_length=1, max_length=1000)],
        answer=list[schemas.EntryAnswer],
    ),
    sse.events: Operation(
        tag=MESSAGES,
        summary="Messages as Server-Sent Events",
        text="The data of each event is an envelope of rtc.v1, as `/asyncapi.json` describes them. The answer begins"
        " once every topic is subscribed. `Last-Event-ID` goes on behind the last event that was seen.",
        needs="subscribe",
        in_url=True,
        query=schemas.StreamQuery,
        answer=str,
        media="text/event-stream",
        headers={"Last-Event-ID": "the id of the last event that was seen"},
    ),
    topics.presence: Operation(
        tag=TOPICS, summary="Who is on a topic", needs="read", in_url=True, answer=schemas.Presence
    ),
    topics.history: Operation(
        tag=TOPICS,
        summary="Messages of a topic",
        needs="read",
        in_url=True,
        query=schemas.HistoryQuery,
        answer=schemas.History,
    ),
    directory.topics: Operation(
        tag=TOPICS,
        summary="The topics there are",
        needs="read",
        in_url=True,
        query=schemas.TopicsQuery,
        answer=schemas.Topics,
    ),
    topics.subscribe: Operation(
        tag=TOPICS,
        summary="Subscribe a user's sessions",
        needs="admin",
        body=schemas.SubscriptionRequest,
        answer=schemas.SubscribedUser,
    ),
    topics.unsubscribe: Operation(
        tag=TOPICS,
        summary="End subscriptions of a user's sessions",
        needs="admin",
        body=schemas.SubscriptionRequest,
        answer=schemas.UnsubscribedUser,
    ),
    directory.connections: Operation(
        tag=CONNECTIONS,
        summary="Who is connected",
        needs="admin",
        query=schemas.ConnectionsQuery,
        answer=schemas.Connections,
    ),
    directory.disconnect: Operation(
        tag=CONNECTIONS,
        summary="Close connections",
        needs="admin",
        body=schemas.DisconnectRequest,
        answer=schemas.Disconnected,
    ),
    auth.token: Operation(
        tag=TOKENS,
        summary="Issue an access and a refresh token",
        text="For API keys and administrators; nobody gives away more than they have.",
        needs="a credential",
        body=TokenRequest,
        answer=Pair,
    ),
    auth.refresh: Operation(
        tag=TOKENS,
        summary="The next pair of tokens",
        text="A refresh token is good once. One that is used again revokes all that came of it.",
        body=RefreshRequest,
        answer=Pair,
        statuses={401: schemas.Failure},
    ),
    auth.revoke: Operation(
        tag=TOKENS,
        summary="Revoke tokens and close their connections",
        text="For administrators, for the owner, and for whoever holds the `token`. Exactly one field.",
        body=RevokeRequest,
        answer=schemas.Revoked,
        statuses={401: schemas.Failure, 403: schemas.Failure},
    ),
    health.report: Operation(tag=OPERATION, summary="The state of the server", answer=schemas.Health),
    health.live: Operation(tag=OPERATION, summary="Whether the process lives", answer=schemas.Live),
    health.ready: Operation(
        tag=OPERATION,
        summary="Whether new connections are welcome",
        answer=schemas.Ready,
        statuses={503: schemas.Ready},
    ),
    admin.show_config: Operation(
        tag=OPERATION, summary="The configuration in force", needs="admin", answer=schemas.EffectiveConfig
    ),
    admin.change_rate_limits: Operation(
        tag=OPERATION,
        summary="Change rate limits",
        needs="admin",
        body=schemas.RateLimitsRequest,
        answer=schemas.RateLimits,
    ),
    admin.change_log_level: Operation(
        tag=OPERATION, summary="Change the log level", needs="admin", body=schemas.LogLevel, answer=schemas.LogLevel
    ),
    admin.stats: Operation(
        tag=OPERATION, summary="What the server has done and holds", needs="admin", answer=schemas.Stats
    ),
    overview.overview: Operation(
        tag=OPERATION,
        summary="The server at a glance",
        text="All workers as one; latencies, slowest consumers and the latest warnings included. Publications are timed"
        " while this is asked every few seconds, so latencies are there from the second answer on.",
        needs="admin",
        answer=schemas.Overview,
    ),
    overview.events: Operation(
        tag=OPERATION,
        summary="The server at a glance, every second",
        text="Server-Sent Events: `overview` with the data of `/admin/overview`; `refused` with a code and a message"
        " when the credentials are good no more, and then the end.",
        needs="admin",
        answer=str,
        media="text/event-stream",
    ),
    overview.connection: Operation(
        tag=CONNECTIONS,
        summary="One connection and its topics",
        needs="admin",
        answer=schemas.ConnectionInFull,
        statuses={400: schemas.Failure, 404: schemas.Failure},
    ),
    admin.drain: Operation(
        tag=OPERATION,
        summary="Send the clients elsewhere",
        text="There is no way back but a restart.",
        needs="admin",
        body=schemas.DrainRequest,
        body_required=False,
        answer=schemas.Draining,
    ),
}
