"""Refresh tokens: each may be used once, for a new pair (RFC 9700 section 4.14.2).

A refresh token is a JWT of a type of its own, `rt+jwt`, so that it never passes for an access token nor the other way
round. Those that follow from one another are a family; each names its generation. Only the family's newest generation
may be used. An older one was copied from somebody, and which of the two is the thief cannot be told: all of the login
is revoked. A family has an id of its own, because a login may be given several first pairs.

Nothing is kept of a family before its first refresh. The generation that first comes in of a family that is not known,
after a restart say, is taken for its newest; a later one that does not follow from it shows what happened.
"""

from __future__ import annotations

import enum
import uuid
from collections.abc import Mapping
from typing import Any, Final, Protocol

import jwt
import msgspec

from realtime_communication.auth.identity import MAX_LOGIN_BYTES, ClaimError, checked_name, identity_from_claims
from realtime_communication.auth.jwt import JwtRules, JwtVerifier
from realtime_communication.auth.token_rules import check_parties, check_times
from realtime_communication.errors import AuthenticationFailed
from realtime_communication.resilience.expiring import ExpiringTable

REFRESH_TYPE: Final = "rt+jwt"
MAX_FAMILIES: Final = 1_000_000
MAX_FAMILY_BYTES: Final = 64
MAX_GENERATION: Final = 2**53


class Rotation(enum.Enum):
    """What became of an attempt to use a generation."""

    DONE = "done"
    REUSED = "reused"  # this generation was used before, or is none that was given out last


class FamilyStore(Protocol):
    """Remembers the newest generation of each family, wherever that is kept."""

    async def rotate(self, family: str, generation: int, until: float, now: float) -> Rotation:
        """Use up `generation`; the next one is then the newest, up to `until`. Atomic: of two, one is REUSED."""


class Families:
    """Generations in memory, of the families that have been refreshed."""

    def __init__(self, most: int = MAX_FAMILIES) -> None:
        self._newest: ExpiringTable[str, int] = ExpiringTable(most)

    def __len__(self) -> int:
        return len(self._newest)

    def newest(self, family: str, now: float) -> int | None:
        """The newest generation of the family, None when it is not known."""
        return self._newest.get(family, now)

    async def rotate(self, family: str, generation: int, until: float, now: float) -> Rotation:
        """As `FamilyStore.rotate`."""
        newest = self.newest(family, now)
        if newest is not None and generation != newest:
            return Rotation.REUSED
        self.note(family, generation + 1, until, now)
        return Rotation.DONE

    def note(self, family: str, newest: int, until: float, now: float) -> None:
        """Make `newest` the newest generation of the family, up to `until`."""
        self._newest.put(family, newest, max(until, self._newest.until(family)), now)


class RefreshClaims(msgspec.Struct, frozen=True, kw_only=True):
    """A verified refresh token: what the next pair is made of."""

    user_id: str
    login: str
    family: str
    generation: int
    issued_at: float | None
    expires_at: int
    lifetime_secs: int  # of access tokens
    claims: Mapping[str, Any]


class RefreshTokens:
    """Signs and verifies refresh tokens by `rules`, whose switches do not count here: every claim is checked."""

    def __init__(self, rules: JwtRules) -> None:
        self._rules = rules
        self._verifier = JwtVerifier(rules, types=(REFRESH_TYPE,))

    def sign(
        self,
        access_claims: Mapping[str, Any],
        *,
        family: str | None,
        generation: int,
        issued_at: int,
        lifetime_secs: int,
    ) -> str:
        """The refresh token that goes with the access token of these claims. `family` is None for a new one."""
        kept = ("sub", "user_id", "session_id", "iss", "aud", "roles", "permissions", "topics", "user_metadata")
        claims: dict[str, Any] = {name: access_claims[name] for name in kept if name in access_claims}
        claims |= {
            "iat": issued_at,
            "nbf": issued_at,
            "exp": issued_at + lifetime_secs,
            "family": family or uuid.uuid4().hex,
            "generation": generation,
            "lifetime": access_claims["exp"] - access_claims["iat"],
        }
        return jwt.encode(
            claims, self._rules.secret, algorithm=self._rules.algorithms[0], headers={"typ": REFRESH_TYPE}
        )

    def verify(self, token: str, now: float) -> RefreshClaims:
        """What `token` stands for at `now`. Raises AuthenticationFailed."""
        claims = self._verifier.signed_claims(token)
        times = check_times(claims, now)
        check_parties(claims, issuer=self._rules.issuer, audience=self._rules.audience)
        generation, lifetime = claims.get("generation"), claims.get("lifetime")
        if type(generation) is not int or not 0 <= generation < MAX_GENERATION:
            raise AuthenticationFailed("the refresh token's `generation` is malformed")
        if type(lifetime) is not int or lifetime < 1 or times.expires_at is None:
            raise AuthenticationFailed("the refresh token's `lifetime` is malformed")
        try:
            identity = identity_from_claims(claims, expires_at=times.expires_at)
            login = checked_name(claims.get("session_id"), "session_id", MAX_LOGIN_BYTES)
            family = checked_name(claims.get("family"), "family", MAX_FAMILY_BYTES)
        except ClaimError as error:
            raise AuthenticationFailed(f"the refresh token's claims are refused: {error}") from None
        return RefreshClaims(
            user_id=identity.user_id,
            login=login,
            family=family,
            generation=generation,
            issued_at=times.issued_at,
            expires_at=times.expires_at,
            lifetime_secs=lifetime,
            claims=claims,
        )

    def signed_claims(self, token: str) -> dict[str, Any]:
        """The claims of `token`, expired or not. Raises AuthenticationFailed when this server did not sign it so."""
        return self._verifier.signed_claims(token)
