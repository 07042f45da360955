"""The authentication providers in the order of their priority, as the two callbacks the reactor calls.

A request is searched for each provider's credential in turn: its header first, then its query parameter. The first
credential found decides: when it is wrong the request is refused, and nothing else in it is tried. A request without
any is no error for a WebSocket, whose first message may still authenticate.

Where several providers take tokens, a token belongs to the one whose kind of algorithm and whose issuer it names; the
others pass it over, and it is refused when it is nobody's.

Most credentials are verified at once. One that needs the network, for the keys of an issuer, gives an Awaitable instead
of an answer, for the caller to await in the running loop.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import msgspec

from realtime_communication.auth.api_key import ApiKeyVerifier
from realtime_communication.auth.authority import issuer_of as issuer_of
from realtime_communication.auth.authority import jwt_rules_of
from realtime_communication.auth.custom_claims import is_wanted
from realtime_communication.auth.discovery import IssuerClient
from realtime_communication.auth.identity import Identity
from realtime_communication.auth.issuer_keys import IssuerKeys
from realtime_communication.auth.jwt import JwtVerifier
from realtime_communication.auth.mock_issuer import MockIssuer
from realtime_communication.auth.oidc import OAuth2Provider, OidcVerifier
from realtime_communication.auth.presence_info import presence_info
from realtime_communication.auth.providers import (
    LAST_PRIORITY,
    ApiKeyProvider,
    BypassProvider,
    Deferred,
    JwtProvider,
    NoTokenProvider,
    Provider,
    TokenProvider,
)
from realtime_communication.auth.revocation import RevocationStore
from realtime_communication.auth.token_rules import names_of
from realtime_communication.config.schema import Auth, AuthProvider, CustomClaims
from realtime_communication.errors import AuthenticationFailed, AuthenticationMissing, AuthenticationUnavailable
from realtime_communication.observability.logs import get_logger
from realtime_communication.resilience.breaker import CircuitBreaker

Headers = Sequence[tuple[bytes, bytes]]  # names in lower case
Refusal = tuple[int, str, str, list[tuple[str, str]]]  # HTTP status, error code, message, extra headers
MessageRefusal = tuple[str, str]  # error code, message

_log = get_logger(__name__)
_NO_QUERY: Final[dict[str, str]] = {}
_HEX: Final = frozenset(b"0123456789abcdefABCDEF")


class MalformedRequestError(ValueError):
    """A query string that is not percent-encoded text, or something that must be unique and is there twice."""


class AuthenticationChain:
    """All providers; `clock` gives seconds since the epoch.

    `revocations`, where there are any, holds tokens that are no longer accepted; `custom_claims` says what presence
    shows. `key_sources` are the issuers' keys: somebody must run the service of each.
    """

    def __init__(
        self,
        providers: Sequence[Provider],
        clock: Callable[[], float] = time.time,
        *,
        revocations: RevocationStore | None = None,
        custom_claims: CustomClaims | None = None,
        key_sources: Sequence[IssuerKeys] = (),
    ) -> None:
        self._providers = sorted(providers, key=lambda provider: provider.priority)
        self._tokens = [provider for provider in self._providers if isinstance(provider, TokenProvider)]
        self._many_tokens = len(self._tokens) > 1
        self._clock = clock
        self._revocations = revocations
        self._shown = custom_claims if custom_claims is not None and is_wanted(custom_claims) else None
        self.key_sources = tuple(key_sources)
        self._accept = self._accept_of_tokens()

    @property
    def key_logins(self) -> frozenset[str]:
        """The logins of all API keys that are accepted."""
        keys = (provider.logins for provider in self._providers if isinstance(provider, ApiKeyProvider))
        return frozenset().union(*keys)

    def identify(self, headers: Headers, query: bytes) -> Identity | Awaitable[Identity] | None:
        """The identity of a request, or an Awaitable of it; None when it carries no credential.

        Both raise AuthenticationFailed when the first credential found is refused, AuthenticationUnavailable when it
        cannot be checked now; this call MalformedRequestError too, when the query cannot be read.
        """
        first = _first_of(headers)
        return self._identify(first, parse_query(query) if query else {})

    def accept_token(self, token: str) -> Identity | None:
        """What `authenticate_upgrade` says to a request with the header `Authorization: Bearer` and `token`, and
        without a query, when that is an identity and nothing but the token decides; else None. Never raises."""
        if self._accept is None:
            return None
        now = self._clock()
        identity = self._accept(token, now)
        if identity is None or self._revocations is None:
            return identity
        try:
            self._revocations.check(identity, now)
        except AuthenticationFailed:
            return None  # the same is found again, with a line in the log
        return identity

    def authenticate_upgrade(
        self, headers: Headers, query: bytes, peer: str, secure: bool = False
    ) -> Identity | Refusal | Awaitable[Identity | Refusal] | None:
        """What the reactor asks before it accepts a WebSocket. Neither this nor what it returns ever raises.

        `peer` is the client's address with or without a port, "" where there is none.
        """
        try:
            first = _first_of(headers)
            found = self._identify(first, parse_query(query) if query else _NO_QUERY)
            if found is None or (self._shown is None and isinstance(found, Identity)):
                return found
            agent = first.get(b"user-agent", b"").decode("utf-8", "replace") if self._shown is not None else ""
            if isinstance(found, Identity):
                return self._presented(found, agent, peer)
            return Deferred(lambda: self._upgrade_later(found, agent, peer))
        except Exception as error:
            return _upgrade_refusal(error)

    def authenticate_message(
        self, token: str | None, api_key: str | None, peer: str
    ) -> Identity | MessageRefusal | Awaitable[Identity | MessageRefusal]:
        """What the reactor asks when the first message is `Authenticate`, and for `Refresh`. Never raises, as above."""
        try:
            found = self._identify_message(token, api_key)
            if isinstance(found, Identity):
                return self._presented(found, "", peer)
            return Deferred(lambda: self._message_later(found, peer))
        except Exception as error:
            return _message_refusal(error)

    async def _upgrade_later(self, found: Awaitable[Identity], agent: str, peer: str) -> Identity | Refusal:
        try:
            return self._presented(await found, agent, peer)
        except Exception as error:
            return _upgrade_refusal(error)

    async def _message_later(self, found: Awaitable[Identity], peer: str) -> Identity | MessageRefusal:
        try:
            return self._presented(await found, "", peer)
        except Exception as error:
            return _message_refusal(error)

    def _accept_of_tokens(self) -> Callable[[str, float], Identity | None] | None:
        """What accepts a bearer token, where its provider is asked first and alone, and presence shows nothing."""
        first = self._providers[0] if self._providers else None
        if not isinstance(first, JwtProvider) or self._many_tokens or self._shown is not None:
            return None
        return first.accept

    def _identify(
        self, first: Mapping[bytes, bytes], query: Mapping[str, str]
    ) -> Identity | Awaitable[Identity] | None:
        for provider in self._providers:
            credential = provider.find(first, query)
            if credential is not None and (not self._many_tokens or self._belongs(provider, credential)):
                return self._verify(provider, credential)
        return None

    def _identify_message(self, token: str | None, api_key: str | None) -> Identity | Awaitable[Identity]:
        for provider in self._providers:
            credential = api_key if isinstance(provider, ApiKeyProvider) else token
            if credential is not None and (not self._many_tokens or self._belongs(provider, credential)):
                return self._verify(provider, credential)
        raise AuthenticationFailed("this kind of credential is not accepted here")

    def _belongs(self, provider: Provider, credential: str) -> bool:
        """Whether `provider`, of several for tokens, is to verify the credential it has found.

        Raises AuthenticationFailed when nobody is.
        """
        if not isinstance(provider, TokenProvider):
            return True
        names = names_of(credential)
        fitting = [] if names is None else [one for one in self._tokens if one.fits(names)]
        if names is None or not fitting:
            raise AuthenticationFailed("the token's algorithm and issuer are of no provider of this server")
        return provider is next((one for one in fitting if one.serves(names.audience)), fitting[0])

    def _verify(self, provider: Provider, credential: str) -> Identity | Awaitable[Identity]:
        now = self._clock()
        try:
            found = provider.verify(credential, now)
        except AuthenticationFailed as error:
            raise _noted(error, provider) from None
        if isinstance(found, Identity):
            return self._accepted(found, provider, now)
        return Deferred(lambda: self._verify_later(found, provider))

    async def _verify_later(self, found: Awaitable[Identity], provider: Provider) -> Identity:
        try:
            identity = await found
        except AuthenticationFailed as error:
            raise _noted(error, provider) from None
        return self._accepted(identity, provider, self._clock())

    def _accepted(self, identity: Identity, provider: Provider, now: float) -> Identity:
        """`identity`, unless its token has been revoked by `now`."""
        if self._revocations is not None and identity.credential == "token":
            try:
                self._revocations.check(identity, now)
            except AuthenticationFailed as error:
                raise _noted(error, provider) from None
        return identity

    def _presented(self, identity: Identity, agent: str, peer: str) -> Identity:
        """`identity` with what its presence shows."""
        if self._shown is None:
            return identity
        info = presence_info(identity.claims, self._shown, user_agent=agent, address=address_of(peer))
        return msgspec.structs.replace(identity, presence_info=info)


def address_of(peer: str) -> str:
    """The address in `host:port` and `[host]:port`, or `peer` itself when there is no port."""
    if peer.startswith("["):
        return peer[1:].partition("]")[0]
    return peer.partition(":")[0] if peer.count(":") == 1 else peer


def _first_of(headers: Headers) -> dict[bytes, bytes]:
    first = dict(reversed(headers))
    if len(first) < len(headers) and sum(name == b"authorization" for name, _ in headers) > 1:
        raise MalformedRequestError("the Authorization header is there twice")
    return first


def _noted(error: AuthenticationFailed, provider: Provider) -> AuthenticationFailed:
    _log.debug("credentials refused", provider=provider.name, reason=error.message)
    return error


def _upgrade_refusal(error: Exception) -> Refusal:
    if isinstance(error, (AuthenticationFailed, MalformedRequestError)):
        return refusal_of(error)
    _log.exception("authentication failed by an error of its own")
    return (500, "internal", "authentication failed", [])


def _message_refusal(error: Exception) -> MessageRefusal:
    if isinstance(error, AuthenticationFailed):
        return (error.code, error.message)
    _log.exception("authentication failed by an error of its own")
    return ("internal", "authentication failed")


def refusal_of(error: AuthenticationFailed | MalformedRequestError) -> Refusal:
    """The HTTP answer to a refused credential."""
    if isinstance(error, MalformedRequestError):
        return (400, "bad_request", str(error), [])
    if isinstance(error, AuthenticationUnavailable):
        wait = math.ceil((error.retry_after_ms or 0) / 1000)
        return (503, error.code, error.message, [("Retry-After", str(max(1, wait)))])
    # RFC 9110 section 11.6.1: a 401 names the scheme that would be accepted; RFC 6750 section 3.1: and no error where
    # there were no credentials.
    challenge = "Bearer" if isinstance(error, AuthenticationMissing) else 'Bearer error="invalid_token"'
    return (401, error.code, error.message, [("WWW-Authenticate", challenge)])


def parse_query(query: bytes) -> dict[str, str]:
    """The parameters of a query string, percent-decoded, strictly.

    Raises MalformedRequestError on a broken escape, on bytes that are not UTF-8 after decoding, and on a parameter that
    is there twice (two readers could pick different ones).
    """
    parameters: dict[str, str] = {}
    for pair in query.split(b"&"):
        if not pair:
            continue
        name, _, value = pair.partition(b"=")
        key = _unquoted(name)
        if key in parameters:
            raise MalformedRequestError("a query parameter is there twice")
        parameters[key] = _unquoted(value)
    return parameters


def _unquoted(text: bytes) -> str:
    text = text.replace(b"+", b" ")
    if b"%" in text:
        head, *escaped = text.split(b"%")
        decoded = bytearray(head)
        for part in escaped:
            if len(part) < 2 or not _HEX.issuperset(part[:2]):
                raise MalformedRequestError("the query contains a broken percent escape")
            decoded.append(int(part[:2], 16))
            decoded += part[2:]
        text = bytes(decoded)
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise MalformedRequestError("the query is not UTF-8") from None


def chain_of(
    auth: Auth,
    *,
    bypass: bool,
    previous_secrets: tuple[str, ...] = (),
    revocations: RevocationStore | None = None,
    key_sources: Sequence[IssuerKeys] | None = None,
    clock: Callable[[], float] = time.time,
) -> AuthenticationChain:
    """The providers the configuration enables; `bypass` adds the one that believes `?user_id=`.

    `previous_secrets` are those before a rotation of `auth.jwt_secret`. `key_sources` are the issuers' keys as
    `key_sources_of` makes them; after a reload, those of the chain before. Raises ValueError when a secret, a key or an
    issuer cannot be used.
    """
    sources = key_sources_of(auth) if key_sources is None else key_sources
    keys = {source.issuer: source for source in sources}
    providers: list[Provider] = [
        _provider_of(provider, auth, previous_secrets, keys) for provider in auth.providers if provider.enabled
    ]
    if not any(isinstance(provider, TokenProvider) for provider in providers):
        providers.append(NoTokenProvider())
    if not any(isinstance(provider, ApiKeyProvider) for provider in providers):
        # Knows no key, so it refuses every one.
        providers.append(ApiKeyProvider(ApiKeyVerifier(()), priority=LAST_PRIORITY))
    if bypass:
        providers.append(BypassProvider())
    return AuthenticationChain(
        providers, clock, revocations=revocations, custom_claims=auth.custom_claims, key_sources=sources
    )


def key_sources_of(
    auth: Auth, *, breaker: CircuitBreaker | None = None, mock: MockIssuer | None = None
) -> tuple[IssuerKeys, ...]:
    """The keys of each issuer that is configured, to be fetched behind `breaker`, or taken from `mock`."""
    sources: dict[str, IssuerKeys] = {}
    for provider in auth.providers:
        if provider.type != "oauth2" or not provider.enabled or provider.issuer in sources:
            continue
        if mock is None:
            sources[provider.issuer] = IssuerKeys(provider.issuer, IssuerClient(provider.issuer).fetch, breaker=breaker)
        else:
            sources[provider.issuer] = mock.keys_for(provider.issuer)
    return tuple(sources.values())


def mock_issuer_of(auth: Auth, keys: Sequence[bytes] = ()) -> MockIssuer | None:
    """A stand-in for the issuers that are configured, None when there are none; `keys` are another one's."""
    issuers = {
        provider.issuer: provider.audience or auth.jwt_audience
        for provider in auth.providers
        if provider.type == "oauth2" and provider.enabled
    }
    return MockIssuer(issuers, keys) if issuers else None


def _provider_of(
    provider: AuthProvider, auth: Auth, previous_secrets: tuple[str, ...], keys: Mapping[str, IssuerKeys]
) -> Provider:
    name = provider.name or provider.type
    if provider.type == "jwt":
        verifier = JwtVerifier(jwt_rules_of(auth, previous_secrets))
        return JwtProvider(verifier, name=name, priority=provider.priority)
    if provider.type == "api_key":
        return ApiKeyProvider(
            ApiKeyVerifier(provider.keys),
            header=provider.header,
            query_param=provider.query_param,
            name=name,
            priority=provider.priority,
        )
    if provider.issuer not in keys:
        raise ValueError(f"auth.providers: the keys of {name} are not known; `issuer` is new or missing")
    return OAuth2Provider(
        OidcVerifier(keys[provider.issuer], provider.audience or auth.jwt_audience),
        name=name,
        priority=provider.priority,
    )
