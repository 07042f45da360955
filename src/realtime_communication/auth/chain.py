"""The authentication providers in the order of their priority, as the two callbacks the reactor calls.

A request is searched for each provider's credential in turn: its header first, then its query parameter. The first
credential found decides: when it is wrong the request is refused, and nothing else in it is tried. A request without
any is no error for a WebSocket, whose first message may still authenticate.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from realtime_communication.auth.api_key import ApiKeyVerifier
from realtime_communication.auth.identity import (
    MAX_USER_ID_BYTES,
    READ,
    SUBSCRIBE,
    WRITE,
    ClaimError,
    Identity,
    checked_name,
)
from realtime_communication.auth.jwt import MAX_TOKEN_BYTES, JwtRules, JwtVerifier
from realtime_communication.auth.tokens import TokenIssuer
from realtime_communication.config.schema import Auth, AuthProvider
from realtime_communication.errors import AuthenticationFailed
from realtime_communication.observability.logs import get_logger

Headers = Sequence[tuple[bytes, bytes]]  # names in lower case
Refusal = tuple[int, str, str, list[tuple[str, str]]]  # HTTP status, error code, message, extra headers

SECONDS_PER_HOUR: Final = 3600
LAST_PRIORITY: Final = 2_000_000  # behind every priority the configuration allows, and behind the bypass

_log = get_logger(__name__)
_HEX: Final = frozenset(b"0123456789abcdefABCDEF")


class MalformedRequestError(ValueError):
    """A query string that is not percent-encoded text, or something that must be unique and is there twice."""


class Provider(Protocol):
    """One way to authenticate."""

    name: str
    priority: int

    def find(self, headers: Mapping[bytes, bytes], query: Mapping[str, str]) -> str | None:
        """The credential in a request, None when there is none. Raises AuthenticationFailed when it cannot be one."""

    def verify(self, credential: str, now: float) -> Identity:
        """Raises AuthenticationFailed."""


class JwtProvider:
    """`Authorization: Bearer` or `?token=`."""

    def __init__(self, verifier: JwtVerifier, *, name: str = "jwt", priority: int = 1) -> None:
        self.name = name
        self.priority = priority
        self._verifier = verifier

    def find(self, headers: Mapping[bytes, bytes], query: Mapping[str, str]) -> str | None:
        authorization = headers.get(b"authorization")
        if authorization is None:
            return query.get("token")
        scheme, _, credential = authorization.decode("latin-1").partition(" ")
        if scheme.lower() != "bearer":
            raise AuthenticationFailed("the Authorization header must use the Bearer scheme")
        return credential.strip(" \t")

    def verify(self, credential: str, now: float) -> Identity:
        if len(credential) > MAX_TOKEN_BYTES:
            raise AuthenticationFailed(f"the token is longer than {MAX_TOKEN_BYTES} bytes")
        return self._verifier.verify(credential, now)


class ApiKeyProvider:
    """A header (`X-API-Key`) or a query parameter (`api_key`), both names configurable."""

    def __init__(
        self,
        verifier: ApiKeyVerifier,
        *,
        header: str = "X-API-Key",
        query_param: str = "api_key",
        name: str = "api_key",
        priority: int = 2,
    ) -> None:
        self.name = name
        self.priority = priority
        self._verifier = verifier
        self._header = header.lower().encode()
        self._query_param = query_param

    def find(self, headers: Mapping[bytes, bytes], query: Mapping[str, str]) -> str | None:
        given = headers.get(self._header)
        return given.decode("latin-1") if given is not None else query.get(self._query_param)

    def verify(self, credential: str, now: float) -> Identity:
        identity = self._verifier.verify(credential)
        if identity is None:
            raise AuthenticationFailed("the API key is not known")
        return identity


class NoTokenProvider(JwtProvider):
    """Finds tokens only to refuse them, where no provider for tokens is enabled.

    A credential that is present and cannot be checked is a wrong one; to overlook it would leave the client in doubt.
    """

    def __init__(self) -> None:
        self.name = "no tokens"
        self.priority = LAST_PRIORITY

    def verify(self, credential: str, now: float) -> Identity:
        raise AuthenticationFailed("tokens are not accepted here")


class BypassProvider:
    """Believes `?user_id=`; for `testing.bypass_auth`, which the configuration allows in the test profile alone."""

    name = "bypass"
    priority = 1_000_000

    def find(self, headers: Mapping[bytes, bytes], query: Mapping[str, str]) -> str | None:
        return query.get("user_id")

    def verify(self, credential: str, now: float) -> Identity:
        try:
            user_id = checked_name(credential, "user_id", MAX_USER_ID_BYTES)
        except ClaimError as error:
            raise AuthenticationFailed(str(error)) from None
        return Identity(user_id=user_id, permissions=READ | WRITE | SUBSCRIBE)


class AuthenticationChain:
    """All providers; `clock` gives seconds since the epoch."""

    def __init__(self, providers: Sequence[Provider], clock: Callable[[], float] = time.time) -> None:
        self._providers = sorted(providers, key=lambda provider: provider.priority)
        self._clock = clock

    def identify(self, headers: Headers, query: bytes) -> Identity | None:
        """The identity of a request; None when it carries no credential.

        Raises AuthenticationFailed when the first credential found is refused, MalformedRequestError when the query
        cannot be read.
        """
        first: dict[bytes, bytes] = {}
        for name, value in headers:
            if name in first and name == b"authorization":
                raise MalformedRequestError("the Authorization header is there twice")
            first.setdefault(name, value)
        parameters = parse_query(query) if query else {}
        for provider in self._providers:
            credential = provider.find(first, parameters)
            if credential is not None:
                return self._verify(provider, credential)
        return None

    def authenticate_upgrade(
        self, headers: Headers, query: bytes, peer: str, secure: bool = False
    ) -> Identity | Refusal | None:
        """What the reactor asks before it accepts a WebSocket. Never raises."""
        try:
            return self.identify(headers, query)
        except (AuthenticationFailed, MalformedRequestError) as error:
            return refusal_of(error)
        except Exception:
            _log.exception("authentication failed by an error of its own")
            return (500, "internal", "authentication failed", [])

    def authenticate_message(self, token: str | None, api_key: str | None, peer: str) -> Identity | tuple[str, str]:
        """What the reactor asks when the first message is `Authenticate`, and for `Refresh`. Never raises."""
        try:
            for provider in self._providers:
                credential = api_key if isinstance(provider, ApiKeyProvider) else token
                if credential is not None:
                    return self._verify(provider, credential)
        except AuthenticationFailed as error:
            return (error.code, error.message)
        except Exception:
            _log.exception("authentication failed by an error of its own")
            return ("internal", "authentication failed")
        return ("unauthorized", "this kind of credential is not accepted here")

    def _verify(self, provider: Provider, credential: str) -> Identity:
        try:
            return provider.verify(credential, self._clock())
        except AuthenticationFailed as error:
            _log.debug("credentials refused", provider=provider.name, reason=error.message)
            raise


def refusal_of(error: AuthenticationFailed | MalformedRequestError) -> Refusal:
    """The HTTP answer to a refused credential."""
    if isinstance(error, MalformedRequestError):
        return (400, "bad_request", str(error), [])
    # RFC 9110 section 11.6.1: a 401 names the scheme that would be accepted.
    return (401, error.code, error.message, [("WWW-Authenticate", 'Bearer error="invalid_token"')])


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


def chain_of(auth: Auth, *, bypass: bool) -> AuthenticationChain:
    """The providers the configuration enables; `bypass` adds the one that believes `?user_id=`.

    Raises ValueError when a secret, a key or a kind of provider cannot be used.
    """
    providers: list[Provider] = [_provider_of(provider, auth) for provider in auth.providers if provider.enabled]
    kinds = {provider.type for provider in auth.providers if provider.enabled}
    if "jwt" not in kinds:
        providers.append(NoTokenProvider())
    if "api_key" not in kinds:
        # Knows no key, so it refuses every one.
        providers.append(ApiKeyProvider(ApiKeyVerifier(()), priority=LAST_PRIORITY))
    if bypass:
        providers.append(BypassProvider())
    return AuthenticationChain(providers)


def _provider_of(provider: AuthProvider, auth: Auth) -> Provider:
    name = provider.name or provider.type
    if provider.type == "jwt":
        return JwtProvider(JwtVerifier(jwt_rules_of(auth)), name=name, priority=provider.priority)
    if provider.type == "api_key":
        return ApiKeyProvider(
            ApiKeyVerifier(provider.keys),
            header=provider.header,
            query_param=provider.query_param,
            name=name,
            priority=provider.priority,
        )
    raise ValueError(f"auth.providers: {name} is of a type that is not supported")


def jwt_rules_of(auth: Auth) -> JwtRules:
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
    )


def issuer_of(auth: Auth) -> TokenIssuer:
    """Issues tokens that this configuration accepts."""
    return TokenIssuer(
        secret=auth.jwt_secret,
        issuer=auth.jwt_issuer,
        audience=auth.jwt_audience,
        lifetime_secs=int(auth.access_token_expiry_hours * SECONDS_PER_HOUR),
        algorithm=auth.jwt_algorithms[0],
    )
