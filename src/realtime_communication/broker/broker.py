"""What one node has of what the nodes share: with Redis, or with the stand-ins inside this process."""

from __future__ import annotations

import asyncio
import secrets as random_secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from realtime_communication.broker.events import EventBus, EventCodec
from realtime_communication.broker.memory import MemoryEvents, MemoryState
from realtime_communication.broker.sealing import Seal
from realtime_communication.broker.shared_state import SharedState
from realtime_communication.config.schema import Config
from realtime_communication.resilience.breaker import CircuitBreaker
from realtime_communication.resilience.supervision import Service

if TYPE_CHECKING:
    from realtime_communication.broker.redis_feed import Feed
    from realtime_communication.broker.redis_link import RedisLink


class Broker(msgspec.Struct, frozen=True, kw_only=True):
    """The parts. `services` have to run for anything to reach other nodes; `link` and `feed` are None without
    Redis.

    `seal` is for marking what is put into `state` and must not be forged there, `event_seal` marks `events`.
    `joined` waits until `state` can be reached and `events` come, and has become so more than that many times. With
    `shared` others than this process use `state`.
    """

    events: EventBus
    state: SharedState
    seal: Seal
    joined: Callable[[int], Awaitable[int]]
    event_seal: Seal
    services: tuple[Service, ...] = ()
    link: RedisLink | None = None
    shared: bool = False
    feed: Feed | None = None

    def renew_secrets(self, secrets: Sequence[str]) -> None:
        """Seal with the first of other signing secrets, and accept each of them."""
        given = [secret for secret in secrets if secret]
        if given:
            self.seal.renew(given)
            self.event_seal.renew(given)


def uses_redis(config: Config) -> bool:
    """Whether Redis is looked for at all."""
    return not (config.testing.use_in_memory_storage or config.development.mock_external_services)


def broker_of(
    config: Config,
    node_id: str,
    breakers: Mapping[str, CircuitBreaker],
    previous_secrets: Sequence[str] = (),
    server: str = "",
) -> Broker:
    """The parts that the configuration asks for; nothing is connected before the services run.

    `previous_secrets` are signing secrets that other nodes may still have, `server` is as for EventCodec. Raises
    ConfigurationError.
    """
    given = [secret for secret in (config.auth.jwt_secret, *previous_secrets) if secret]
    # Without one (only with testing.bypass_auth) nobody can be told from anybody: no other node is believed.
    secrets = given or [random_secrets.token_hex()]
    seal, event_seal = Seal(secrets, "shared state"), Seal(secrets, "events")
    if not uses_redis(config):
        return Broker(events=MemoryEvents(), state=MemoryState(), seal=seal, event_seal=event_seal, joined=_at_once)
    # redis-py takes longer to import than all the rest of this server: a node without Redis starts without it.
    from realtime_communication.broker.redis_events import RedisEvents
    from realtime_communication.broker.redis_feed import Feed
    from realtime_communication.broker.redis_link import RedisLink
    from realtime_communication.broker.redis_state import RedisState

    link = RedisLink(config.redis, breakers["redis"])
    codec = EventCodec(node_id, event_seal, server)
    feed = Feed(link)
    events = RedisEvents(link, feed, codec, breakers["message_queue"])
    return Broker(
        events=events,
        state=RedisState(link),
        seal=seal,
        event_seal=event_seal,
        joined=feed.joined,
        services=(
            Service("Redis link", link.run),
            Service("Redis feed", feed.run),
            Service("Redis events", events.run),
        ),
        link=link,
        shared=True,
        feed=feed,
    )


async def _at_once(after: int = 0) -> int:
    """What is in this process is there from the start, and never comes back because it never goes."""
    if after >= 1:
        await asyncio.get_running_loop().create_future()
    return 1
