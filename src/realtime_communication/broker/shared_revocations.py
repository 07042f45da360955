"""Revocations that hold on all nodes: which logins, and which users' earlier tokens, are no longer good.

Who revokes says it here once. It is told to the other nodes by an event, at once, and put into a set of the shared
state, from which a node that starts, or that was cut off, learns what it missed. Checking a token asks neither: every
node keeps what it knows (in `auth`), and `apply` tells it.

While Redis is away a revocation holds on its own node only. When the link is up again, each node adds all it knows to
the set and reads the whole: so nothing is lost when events were, nor when Redis comes back empty.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Literal

import msgspec

from realtime_communication.broker.events import EventBus
from realtime_communication.broker.redis_errors import RedisFailed
from realtime_communication.broker.sealing import Seal
from realtime_communication.broker.shared_state import SharedState
from realtime_communication.errors import CircuitOpen
from realtime_communication.observability.logs import get_logger
from realtime_communication.resilience.expiring import ExpiringTable
from realtime_communication.resilience.supervision import honour_cancellation

EVENT: Final = "revocation"
SET: Final = "revocations"
MAX_REVOCATIONS: Final = 1_000_000
RESYNC_SECS: Final = 30.0  # how long a lost event goes unnoticed at most
RETRY_SECS: Final = 1.0
_TURN_ENTRIES: Final = 1000

_log = get_logger(__name__)

Key = tuple[str, str]


class Revocation(msgspec.Struct, frozen=True):
    """The tokens of the login or the user `name` that were issued up to `at` are refused.

    Times are Unix time in seconds; by `until` all of these tokens have expired by themselves.
    """

    kind: Literal["login", "user"]
    name: str
    at: float
    until: float


class _Member(msgspec.Struct, frozen=True, array_like=True):
    """A member of the set in Redis: a revocation, and the mark of its bytes."""

    mark: str
    body: msgspec.Raw


class SharedRevocations:
    """The revocations of all nodes, as far as this one knows. `run` is a service task.

    `seal` marks what is put into the shared state. `joined` waits until that can be reached, and has become so more
    than that many times (RedisLink's). `apply` is told of each revocation that came from elsewhere; it must not raise.
    """

    def __init__(
        self,
        state: SharedState,
        bus: EventBus,
        seal: Seal,
        joined: Callable[[int], Awaitable[int]],
        apply: Callable[[Revocation], None],
        *,
        now: Callable[[], float] = time.time,
        resync_secs: float = RESYNC_SECS,
    ) -> None:
        self._state = state
        self._bus = bus
        self._seal = seal
        self._joined = joined
        self._apply = apply
        self._now = now
        self._resync_secs = resync_secs
        self._known: ExpiringTable[Key, Revocation] = ExpiringTable(MAX_REVOCATIONS)
        self.skipped = 0  # members of the set that no node put there
        self._unsaved: dict[Key, Revocation] = {}
        self._something = asyncio.Event()
        bus.subscribe(EVENT, self._on_event)

    def revoke(self, revocation: Revocation) -> None:
        """Tell the others what this node has already applied. Never waits. Raises MisuseError when it is too large."""
        self._bus.publish(EVENT, {"revocation": msgspec.to_builtins(revocation)})
        if self._learn(revocation):
            if len(self._unsaved) < MAX_REVOCATIONS:
                self._unsaved[revocation.kind, revocation.name] = revocation
            self._something.set()

    def known(self) -> list[Revocation]:
        """What holds now, as far as this node knows."""
        return [revocation for _, revocation, _ in self._known.items(self._now())]

    async def run(self) -> None:
        """Keep the set and this node's knowledge the same until this is cancelled."""
        generation = 0
        synced_at = 0.0
        while True:
            honour_cancellation()
            current = await self._joined(0)
            try:
                loop_time = asyncio.get_running_loop().time()
                if current != generation or loop_time - synced_at >= self._resync_secs:
                    await self._synchronize(everything=current != generation)
                    generation, synced_at = current, loop_time
                elif self._unsaved:
                    await self._save(list(self._unsaved.values()))
            except (RedisFailed, CircuitOpen) as error:
                _log.debug("revocations could not be shared yet", reason=str(error))
                await asyncio.sleep(RETRY_SECS)
                continue
            await self._wait(generation, synced_at + self._resync_secs)

    async def _wait(self, generation: int, deadline: float) -> None:
        """Until there is something to save, the link came up anew, or it is time to read the whole set."""
        if self._unsaved:
            return
        self._something.clear()
        joining = asyncio.ensure_future(self._joined(generation))
        joining.add_done_callback(lambda done: None if done.cancelled() else self._something.set())
        try:
            async with asyncio.timeout_at(deadline):
                await self._something.wait()
        except TimeoutError:
            return
        finally:
            joining.cancel()

    async def _synchronize(self, *, everything: bool) -> None:
        await self._save(self.known() if everything else list(self._unsaved.values()))
        for number, (member, _) in enumerate(await self._state.members(SET)):
            revocation = self._opened(member)
            if revocation is None:
                self.skipped += 1
            else:
                self._take(revocation)
            if number % _TURN_ENTRIES == _TURN_ENTRIES - 1:
                await asyncio.sleep(0)

    async def _save(self, revocations: list[Revocation]) -> None:
        await self._state.add_members(SET, [(self._sealed(each), each.until) for each in revocations])
        for each in revocations:
            key = (each.kind, each.name)
            if self._unsaved.get(key) == each:
                del self._unsaved[key]

    def _sealed(self, revocation: Revocation) -> bytes:
        body = msgspec.json.encode(revocation)
        return msgspec.json.encode(_Member(self._seal.mark(body), msgspec.Raw(body)))

    def _opened(self, encoded: bytes) -> Revocation | None:
        """A revocation out of the set; None when no node of this server put it there, or one of a newer version."""
        try:
            member = msgspec.json.decode(encoded, type=_Member)
            if not self._seal.is_genuine(bytes(member.body), member.mark):
                return None
            return msgspec.json.decode(member.body, type=Revocation)
        except (msgspec.MsgspecError, UnicodeError):
            return None

    def _on_event(self, payload: Mapping[str, Any]) -> None:
        self._take(msgspec.convert(payload.get("revocation"), Revocation))

    def _take(self, revocation: Revocation) -> None:
        if self._learn(revocation):
            self._apply(revocation)

    def _learn(self, revocation: Revocation) -> bool:
        """Remember a revocation; False where it says nothing new."""
        now = self._now()
        if revocation.until <= now:
            return False
        key = (revocation.kind, revocation.name)
        known = self._known.get(key, now)
        if known is not None:
            revocation = Revocation(
                revocation.kind,
                revocation.name,
                max(known.at, revocation.at),
                max(known.until, revocation.until),
            )
            if revocation == known:
                return False
        self._known.put(key, revocation, revocation.until, now)
        return True
