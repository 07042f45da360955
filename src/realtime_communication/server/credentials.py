"""What a worker knows of credentials: the chain that checks them, the authority that issues them, and what is revoked.

A reload makes a new chain and a new authority over the same state: revocations, the generations of refresh tokens and
the issuers' keys stay. Connections of an API key that is gone, or has other rights now, are closed. After a change of
`auth.jwt_secret` tokens signed with the one before are good until the last of them would have expired; a restart ends
that.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Callable, Collection, Sequence

import msgspec

from realtime_communication._core.hub.hub import Hub
from realtime_communication.auth.authority import TokenAuthority
from realtime_communication.auth.chain import AuthenticationChain, chain_of, key_sources_of, mock_issuer_of
from realtime_communication.auth.issuer_keys import IssuerKeys
from realtime_communication.auth.refresh import Families, FamilyStore, Rotation
from realtime_communication.auth.revocation import REVOKED_CODE, Revocation, Revocations
from realtime_communication.broker import shared_revocations
from realtime_communication.broker.broker import Broker
from realtime_communication.broker.redis_errors import RedisFailed
from realtime_communication.broker.shared_revocations import SharedRevocations
from realtime_communication.broker.shared_state import Rotation as SharedRotation
from realtime_communication.broker.shared_state import SharedState
from realtime_communication.config.schema import Auth, Config
from realtime_communication.errors import AuthenticationUnavailable, CircuitOpen
from realtime_communication.observability.logs import get_logger
from realtime_communication.resilience.breaker import CircuitBreaker

MAX_PREVIOUS_SECRETS = 4
KEY_GONE_REASON = "API key revoked"
RETRY_AFTER_MS = 1000
SECONDS_PER_HOUR = 3600
SECONDS_PER_DAY = 86_400

_log = get_logger(__name__)


class Credentials:
    """`chain` and `authority` are those in force. `run_keys` and `shared.run` are service tasks.

    `mock_keys`: what a mock issuer signs with, the same in all workers of a node.
    """

    def __init__(
        self,
        config: Config,
        hub: Hub,
        broker: Broker,
        breaker: CircuitBreaker,
        clock: Callable[[], float] = time.time,
        mock_keys: Sequence[bytes] = (),
    ) -> None:
        self._bypass = config.testing.bypass_auth
        self._disconnect = hub.disconnect
        self._breaker = breaker
        self._broker = broker
        self._clock = clock
        self._secret = config.auth.jwt_secret
        self._previous: list[tuple[str, float]] = []  # earlier secrets, and until when they are good
        self._changed = asyncio.Event()
        self.mock = mock_issuer_of(config.auth, mock_keys) if config.development.mock_external_services else None
        self._revoked = self.revocations = Revocations(hub.disconnect, clock=clock)
        self._families = families_of(broker, strict=config.redis.required)
        self.shared = SharedRevocations(broker.state, broker.events, broker.seal, broker.joined, self._apply)
        self._revoked.on_revoked(self._share)
        sources = key_sources_of(config.auth, breaker=breaker, mock=self.mock)
        self.chain, self.authority = self._made(config.auth, (), sources)

    def prepare(self, config: Config) -> Callable[[], None]:
        """Make what a new configuration asks for; calling what this returns puts it into force.

        Raises ValueError when a secret, a key or an issuer cannot be used.
        """
        auth, now = config.auth, self._clock()
        previous = [(secret, until) for secret, until in self._previous if until > now and secret != auth.jwt_secret]
        if auth.jwt_secret != self._secret:
            previous = [(self._secret, now + longest_life_secs(auth)), *previous][:MAX_PREVIOUS_SECRETS]
        known = {source.issuer: source for source in self.chain.key_sources}
        wanted = key_sources_of(auth, breaker=self._breaker, mock=self.mock)
        sources = tuple(known.get(source.issuer, source) for source in wanted)
        chain, authority = self._made(auth, tuple(secret for secret, _ in previous), sources)

        def commit() -> None:
            self._secret, self._previous = auth.jwt_secret, previous
            gone = self.chain.key_logins - chain.key_logins
            self.chain, self.authority = chain, authority
            self._end_keys(gone)
            self._broker.renew_secrets([auth.jwt_secret, *(secret for secret, _ in previous)])
            self._changed.set()

        return commit

    @property
    def earliest_end(self) -> float | None:
        """When the next earlier secret ceases to be good (seconds since the epoch), None without any."""
        return min((until for _, until in self._previous), default=None)

    async def run_keys(self) -> None:
        """Keep the keys of all issuers fresh, those of a reload too, until this is cancelled."""
        while True:
            self._changed.clear()
            await _until(self._changed, self.chain.key_sources)

    def _made(
        self, auth: Auth, previous: tuple[str, ...], sources: tuple[IssuerKeys, ...]
    ) -> tuple[AuthenticationChain, TokenAuthority]:
        chain = chain_of(
            auth,
            bypass=self._bypass,
            previous_secrets=previous,
            revocations=self._revoked,
            key_sources=sources,
            clock=self._clock,
        )
        return chain, TokenAuthority(auth, self._revoked, self._families, previous)

    def _end_keys(self, logins: Collection[str]) -> None:
        for login in logins:
            closed = self._disconnect(login=login, code=REVOKED_CODE, reason=KEY_GONE_REASON)
            if closed:
                _log.info("an API key is gone or has changed: its connections are closed", connections_closed=closed)

    def _share(self, revocation: Revocation) -> None:
        self.shared.revoke(
            shared_revocations.Revocation(revocation.kind, revocation.name, revocation.at, revocation.until)
        )

    def _apply(self, revocation: shared_revocations.Revocation) -> None:
        self._revoked.apply(
            msgspec.to_builtins(revocation) | {"at": int(revocation.at), "until": int(revocation.until)}
        )


class SharedFamilies:
    """The generations of refresh tokens: this node's own, and those that all nodes find in the shared state.

    While that cannot be reached what this node knows decides, so that its users stay signed on; a token that is used
    on two nodes meanwhile is found out by neither. With `strict` (`redis.required`) nobody is refreshed then.

    What this node knows is never too new: a generation before it was used, whatever the shared state says, which may
    have missed that. It may be too old: a later generation was given out by another node.
    """

    def __init__(self, state: SharedState, is_reachable: Callable[[], bool], *, strict: bool) -> None:
        self._own = Families()
        self._state = state
        self._is_reachable = is_reachable
        self._strict = strict

    async def rotate(self, family: str, generation: int, until: float, now: float) -> Rotation:
        """As `FamilyStore.rotate`. Raises AuthenticationUnavailable."""
        if self._was_used(family, generation, now):
            if self._is_reachable():
                with contextlib.suppress(RedisFailed, CircuitOpen):
                    await self._state.revoke_family(family, max(1.0, until - now))
            return Rotation.REUSED
        if self._is_reachable():
            try:
                attempt = uuid.uuid4().hex
                shared = await self._state.compare_and_rotate(family, generation, attempt, max(1.0, until - now))
            except (RedisFailed, CircuitOpen):
                pass
            else:
                if shared is not SharedRotation.ROTATED:
                    return Rotation.REUSED
                self._own.note(family, generation + 1, until, now)
                return Rotation.DONE
        if self._strict:
            raise AuthenticationUnavailable("refresh tokens cannot be checked", retry_after_ms=RETRY_AFTER_MS)
        # Looked at anew: another request may have used it while this one waited for the state.
        if self._was_used(family, generation, now):
            return Rotation.REUSED
        self._own.note(family, generation + 1, until, now)
        return Rotation.DONE

    def _was_used(self, family: str, generation: int, now: float) -> bool:
        return generation < (self._own.newest(family, now) or 0)


def families_of(broker: Broker, *, strict: bool) -> FamilyStore:
    """Where the generations of refresh tokens are kept: in this process, and with Redis in what all nodes share."""
    link = broker.link
    if not broker.shared:
        return Families()
    return SharedFamilies(broker.state, lambda: link is None or link.is_up, strict=strict)


def longest_life_secs(auth: Auth) -> float:
    """How long after its issue a token may still be good."""
    return max(auth.access_token_expiry_hours * SECONDS_PER_HOUR, auth.refresh_token_expiry_days * SECONDS_PER_DAY)


async def _until(changed: asyncio.Event, sources: tuple[IssuerKeys, ...]) -> None:
    """Run the services of `sources` until `changed` is set. Raises what one of them raises."""
    loop = asyncio.get_running_loop()
    running = [loop.create_task(source.run(), name=f"keys of {source.issuer}") for source in sources]
    waiting = loop.create_task(changed.wait())
    try:
        done, _ = await asyncio.wait([*running, waiting], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in (*running, waiting):
            task.cancel()
        await asyncio.gather(*running, waiting, return_exceptions=True)
