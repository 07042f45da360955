"""Tokens that are no longer accepted although they have not expired.

A revocation names a login, whose tokens are all refused, or a user, whose tokens issued up to then are. It is kept
until the last of those tokens would have expired. Verified tokens are held against the list each time one is presented,
and the connections that came in with one are closed at once.

The list is this process's. Whoever shares it with others listens with `on_revoked`, and hands what they tell to
`apply`.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, Protocol

import msgspec

from realtime_communication.auth.identity import MAX_LOGIN_BYTES, MAX_TIMESTAMP, MAX_USER_ID_BYTES, Identity
from realtime_communication.errors import AuthenticationFailed
from realtime_communication.observability.logs import get_logger
from realtime_communication.resilience.expiring import ExpiringTable

MAX_REVOCATIONS: Final = 1_000_000  # of each kind
MAX_REMEMBERED: Final = 1000  # of which it is known how many connections they closed, the latest ones
REVOKED_CODE: Final = 4401
REVOKED_REASON: Final = "token revoked"

_log = get_logger(__name__)


class Revocation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was revoked: the tokens of the login or the user `name` issued up to `at`, remembered up to `until`.

    Times are seconds since the epoch.
    """

    kind: Literal["login", "user"]
    name: str
    at: float
    until: float


class Disconnect(Protocol):
    """Closes the connections of a login or a user; how many there were."""

    def __call__(self, *, user_id: str | None = None, login: str | None = None, code: int, reason: str) -> int: ...


class RevocationStore(Protocol):
    """What the rest of the server needs of the list, wherever it is kept."""

    def check(self, identity: Identity, now: float) -> None:
        """Raises AuthenticationFailed when the token of `identity` is revoked."""

    def revoke(self, revocation: Revocation) -> int:
        """Refuse these tokens from now on. How many connections of this process were closed."""

    def earliest_issue(self, user_id: str, now: float) -> int:
        """The first `iat`, in whole seconds, that a new token of the user may have without being revoked itself."""

    def on_revoked(self, callback: Callable[[Revocation], None]) -> None:
        """Call `callback` with each revocation made here, in this thread. One that fails hurts nobody else."""

    def apply(self, event: Revocation | Mapping[str, Any]) -> int:
        """As `revoke` for one made elsewhere, which is not told on. Raises ValueError when it is malformed."""

    def take_closed(self, revocation: Revocation) -> int | None:
        """How many connections of this process a revocation has closed, told once; None for one not heard of."""


class Revocations:
    """The list in memory. `disconnect` closes connections; `clock` counts seconds since the epoch."""

    def __init__(
        self, disconnect: Disconnect, *, most: int = MAX_REVOCATIONS, clock: Callable[[], float] = time.time
    ) -> None:
        self._disconnect = disconnect
        self._clock = clock
        self._tables: dict[str, ExpiringTable[str, int]] = {"login": ExpiringTable(most), "user": ExpiringTable(most)}
        self._listeners: list[Callable[[Revocation], None]] = []
        self._closed: collections.OrderedDict[tuple[str, str, int], int] = collections.OrderedDict()

    def __len__(self) -> int:
        return sum(len(table) for table in self._tables.values())

    def check(self, identity: Identity, now: float) -> None:
        """As `RevocationStore.check`. A token that does not say when it was issued counts as one from long ago."""
        login = identity.login
        if login is not None and self._tables["login"].get(login, now) is not None:
            raise AuthenticationFailed("the token has been revoked")
        revoked_at = self._tables["user"].get(identity.user_id, now)
        if revoked_at is not None and (identity.issued_at or 0) < revoked_at + 1:
            raise AuthenticationFailed("the token has been revoked")

    def revoke(self, revocation: Revocation) -> int:
        """As `RevocationStore.revoke`."""
        closed = self.apply(revocation)
        for listener in self._listeners:
            try:
                listener(revocation)
            except Exception:
                _log.exception("a revocation could not be told on", of=revocation.kind)
        return closed

    def earliest_issue(self, user_id: str, now: float) -> int:
        """As `RevocationStore.earliest_issue`: a second later than now where the user was revoked within this one."""
        revoked_at = self._tables["user"].get(user_id, now)
        return int(now) if revoked_at is None else max(int(now), revoked_at + 1)

    def on_revoked(self, callback: Callable[[Revocation], None]) -> None:
        """As `RevocationStore.on_revoked`."""
        self._listeners.append(callback)

    def apply(self, event: Revocation | Mapping[str, Any]) -> int:
        """As `RevocationStore.apply`."""
        revocation = _checked(event)
        table, now = self._tables[revocation.kind], self._clock()
        if revocation.until > now:
            # Revoked twice: the later of each time holds.
            at = max(int(revocation.at), table.get(revocation.name, now) or 0)
            table.put(revocation.name, at, max(revocation.until, table.until(revocation.name)), now)
        closed = self._disconnect(
            user_id=revocation.name if revocation.kind == "user" else None,
            login=revocation.name if revocation.kind == "login" else None,
            code=REVOKED_CODE,
            reason=REVOKED_REASON,
        )
        _log.info("tokens revoked", of=revocation.kind, name=revocation.name, connections_closed=closed)
        self._remember(revocation, closed)
        return closed

    def take_closed(self, revocation: Revocation) -> int | None:
        """As `RevocationStore.take_closed`."""
        return self._closed.pop((revocation.kind, revocation.name, int(revocation.at)), None)

    def _remember(self, revocation: Revocation, closed: int) -> None:
        key = (revocation.kind, revocation.name, int(revocation.at))
        self._closed[key] = self._closed.get(key, 0) + closed
        if len(self._closed) > MAX_REMEMBERED:
            self._closed.popitem(last=False)


def _checked(event: Revocation | Mapping[str, Any]) -> Revocation:
    made = event if isinstance(event, Revocation) else msgspec.convert(event, Revocation)
    most = MAX_LOGIN_BYTES if made.kind == "login" else MAX_USER_ID_BYTES
    if not 1 <= len(made.name.encode()) <= most:
        raise ValueError(f"a revocation's `name` must have 1 to {most} bytes")
    if not (0 <= made.at <= MAX_TIMESTAMP and 0 <= made.until <= MAX_TIMESTAMP):
        raise ValueError("a revocation's `at` and `until` must be seconds since the epoch")
    return made
