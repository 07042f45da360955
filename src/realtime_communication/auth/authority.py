"""The life of a login: its first pair of tokens, the pairs that follow, and its end.

Puts together what signs tokens, what remembers the generations of refresh tokens, and what remembers revocations. A
reload makes a new one over the same stores.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from realtime_communication.auth.custom_claims import issued_claims
from realtime_communication.auth.grants import Grant, InvalidField, TokenRequest, grant_of
from realtime_communication.auth.identity import ADMIN, MAX_TIMESTAMP, Identity, identity_from_claims
from realtime_communication.auth.jwt import JwtRules, JwtVerifier
from realtime_communication.auth.refresh import FamilyStore, RefreshTokens, Rotation
from realtime_communication.auth.revocation import Revocation, RevocationStore
from realtime_communication.auth.token_rules import MAX_TOKEN_BYTES
from realtime_communication.auth.tokens import TokenIssuer
from realtime_communication.config.schema import Auth, CustomClaims
from realtime_communication.errors import AuthenticationFailed, AuthenticationMissing, RequestRefused
from realtime_communication.observability.logs import get_logger

SECONDS_PER_HOUR: Final = 3600
SECONDS_PER_DAY: Final = 86_400

_log = get_logger(__name__)


class Requester(msgspec.Struct, frozen=True):
    """Where a request for tokens comes from."""

    user_agent: str
    address: str


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """An access token and the refresh token that goes with it, as they are answered. Times are seconds."""

    access_token: str
    token_type: str = "Bearer"
    expires_in: int
    expires_at: int
    refresh_token: str
    refresh_expires_at: int
    session_id: str
    user_id: str


class RefreshRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /auth/refresh`."""

    refresh_token: str


class RevokeRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /auth/revoke`: one of the three."""

    token: str | None = None
    session_id: str | None = None
    user_id: str | None = None


class TokenAuthority:
    """Issues, refreshes and revokes. Every `now` is seconds since the epoch.

    `previous_secrets` are those before a rotation: tokens they signed can still be refreshed and revoked.
    """

    def __init__(
        self,
        auth: Auth,
        revocations: RevocationStore,
        families: FamilyStore,
        previous_secrets: tuple[str, ...] = (),
    ) -> None:
        rules = jwt_rules_of(auth, previous_secrets)
        self.custom_claims: CustomClaims = auth.custom_claims
        self._issuer = issuer_of(auth)
        self._access = JwtVerifier(rules)
        self._refresh = RefreshTokens(rules)
        self._refresh_secs = max(1, int(auth.refresh_token_expiry_days * SECONDS_PER_DAY))
        self._expires = auth.validate_exp
        self._revocations = revocations
        self._families = families

    def issue(self, request: TokenRequest, by: Identity, requester: Requester, now: float) -> Pair:
        """A login's first pair, for which only an admin or an API key may ask.

        Raises RequestRefused (`forbidden`) and InvalidField.
        """
        if by.credential != "api_key" and not by.may(ADMIN):
            raise RequestRefused("forbidden", "tokens are issued to API keys and admins")
        grant = grant_of(request, by, most_secs=self._issuer.lifetime_secs)
        if grant.login is not None:
            self._check_login(grant, now)
        pair = self._pair(grant, requester, now, family=None, generation=0)
        _log.info("token issued", user=pair.user_id, login=pair.session_id, by=by.user_id)
        return pair

    async def refresh(self, request: RefreshRequest, requester: Requester, now: float) -> Pair:
        """The next pair of a login. Raises AuthenticationFailed.

        A refresh token that was used before ends its login: tokens are revoked, connections closed.
        """
        held = self._refresh.verify(request.refresh_token, now)
        self._revocations.check(
            Identity(user_id=held.user_id, login=held.login, issued_at=held.issued_at, credential="token"), now
        )
        until = now + self._refresh_secs
        rotation = await self._families.rotate(held.family, held.generation, until, now)
        if rotation is Rotation.REUSED:
            _log.warning("a refresh token was used twice: its login is revoked", user=held.user_id, login=held.login)
            self._revoke("login", held.login, now, held.expires_at)
            raise AuthenticationFailed("the refresh token was used before: its login is revoked")
        claims = held.claims
        topics = claims.get("topics")
        grant = Grant(
            user_id=held.user_id,
            roles=tuple(claims.get("roles", ())),
            permissions=tuple(claims.get("permissions", ())),
            topics=None if topics is None else {name: tuple(patterns) for name, patterns in topics.items()},
            login=held.login,
            user_metadata=claims.get("user_metadata"),
            lifetime_secs=min(held.lifetime_secs, self._issuer.lifetime_secs),
        )
        return self._pair(grant, requester, now, family=held.family, generation=held.generation + 1)

    def revoke(self, request: RevokeRequest, by: Identity | None, now: float) -> tuple[Revocation, int]:
        """End a login, or all those of a user: what was revoked, and how many connections of this process were closed.

        An admin may end any, everybody else their own login. Whoever brings no credentials (None), as after the access
        token has expired, may end the login of a token they hold: `token` is then the credential. Raises
        AuthenticationFailed, RequestRefused (`forbidden`) and InvalidField.
        """
        given = [name for name in ("token", "session_id", "user_id") if getattr(request, name) is not None]
        if len(given) != 1:
            raise InvalidField("exactly one of token, session_id and user_id must be there")
        if by is None:
            return self._revoke_held(request.token, now)
        admin = by.may(ADMIN)
        if request.token is not None:
            user_id, login, expires_at = self._named_by(request.token)
            if not admin and user_id != by.user_id:
                raise RequestRefused("forbidden", "token: only its owner and an admin may revoke it")
            return self._revoke("login", login, now, expires_at)
        if request.session_id is not None:
            if not admin and (by.credential != "token" or request.session_id != by.login):
                raise RequestRefused("forbidden", "session_id: only an admin may revoke another login than their own")
            return self._revoke("login", request.session_id, now, by.expires_at if not admin else None)
        if not admin:
            raise RequestRefused("forbidden", "user_id: only an admin may revoke all of a user")
        assert request.user_id is not None
        return self._revoke("user", request.user_id, now, None)

    def _revoke_held(self, token: str | None, now: float) -> tuple[Revocation, int]:
        if token is None:
            raise AuthenticationMissing
        try:
            _, login, expires_at = self._named_by(token)
        except InvalidField as error:
            raise AuthenticationFailed(str(error)) from None
        return self._revoke("login", login, now, expires_at)

    def _check_login(self, grant: Grant, now: float) -> None:
        issued_at = self._revocations.earliest_issue(grant.user_id, now)
        try:
            self._revocations.check(Identity(user_id=grant.user_id, login=grant.login, issued_at=issued_at), now)
        except AuthenticationFailed:
            raise InvalidField("session_id: this login has been revoked; leave it out for a new one") from None

    def _named_by(self, token: str) -> tuple[str, str, int]:
        """User, login and expiry of an access or a refresh token of this server, expired ones included."""
        try:
            claims = self._signed_claims(token)
            expires_at = claims["exp"] if type(claims.get("exp")) is int else 0
            identity = identity_from_claims(claims, expires_at=expires_at)
        except (AuthenticationFailed, ValueError):
            raise InvalidField("token: is none of this server's") from None
        if identity.login is None:
            raise InvalidField("token: has no session_id to be revoked by; an admin can revoke its user")
        return identity.user_id, identity.login, min(expires_at, MAX_TIMESTAMP)

    def _signed_claims(self, token: str) -> Mapping[str, Any]:
        try:
            return self._access.signed_claims(token)
        except AuthenticationFailed:
            return self._refresh.signed_claims(token)

    def _revoke(self, kind: str, name: str, now: float, expires_at: int | None) -> tuple[Revocation, int]:
        longest = int(now) + max(self._refresh_secs, self._issuer.lifetime_secs)
        until = max(longest, expires_at or 0) if self._expires else MAX_TIMESTAMP
        try:
            made = msgspec.convert({"kind": kind, "name": name, "at": int(now), "until": until}, Revocation)
            return made, self._revocations.revoke(made)
        except ValueError:
            raise InvalidField(f"{'session_id' if kind == 'login' else 'user_id'}: is too short or too long") from None

    def _pair(self, grant: Grant, requester: Requester, now: float, *, family: str | None, generation: int) -> Pair:
        further = issued_claims(
            self.custom_claims,
            user_metadata=grant.user_metadata,
            user_agent=requester.user_agent,
            address=requester.address,
        )
        issued_at = self._revocations.earliest_issue(grant.user_id, now)
        claims = self._issuer.claims(
            grant.user_id,
            issued_at,
            roles=grant.roles,
            permissions=grant.permissions,
            topics=grant.topics,
            login=grant.login,
            lifetime_secs=grant.lifetime_secs,
            further=further,
        )
        access = self._issuer.sign(claims)
        refresh = self._refresh.sign(
            claims, family=family, generation=generation, issued_at=issued_at, lifetime_secs=self._refresh_secs
        )
        if max(len(access), len(refresh)) > MAX_TOKEN_BYTES:
            raise InvalidField(f"topics, roles and user_metadata make a token of more than {MAX_TOKEN_BYTES} bytes")
        return Pair(
            access_token=access,
            expires_in=claims["exp"] - int(now),
            expires_at=claims["exp"],
            refresh_token=refresh,
            refresh_expires_at=issued_at + self._refresh_secs,
            session_id=claims["session_id"],
            user_id=grant.user_id,
        )


def jwt_rules_of(auth: Auth, previous_secrets: tuple[str, ...] = ()) -> JwtRules:
    """What the configuration holds tokens against."""
    return JwtRules(
        secret=auth.jwt_secret,
        issuer=auth.jwt_issuer,
        audience=auth.jwt_audience,
        algorithms=auth.jwt_algorithms,
        validate_issuer=auth.validate_issuer,
        validate_audience=auth.validate_audience,
        validate_exp=auth.validate_exp,
        validate_nbf=auth.validate_nbf,
        previous_secrets=previous_secrets,
    )


def issuer_of(auth: Auth) -> TokenIssuer:
    """Issues tokens that this configuration accepts."""
    return TokenIssuer(
        secret=auth.jwt_secret,
        issuer=auth.jwt_issuer,
        audience=auth.jwt_audience,
        lifetime_secs=max(1, int(auth.access_token_expiry_hours * SECONDS_PER_HOUR)),
        algorithm=auth.jwt_algorithms[0],
    )
