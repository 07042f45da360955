"""The kinds of credentials a request can carry: where each is found, and who verifies it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from typing import Any, Final, Generic, Protocol, TypeVar

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
from realtime_communication.auth.jwt import ALGORITHMS, JwtVerifier
from realtime_communication.auth.token_rules import Names
from realtime_communication.errors import AuthenticationFailed

T = TypeVar("T")

BYPASS_PRIORITY: Final = 1_000_000  # behind every priority the configuration allows
LAST_PRIORITY: Final = 2_000_000  # behind the bypass too


class Deferred(Generic[T]):
    """An Awaitable that begins its work when it is awaited; whoever has lost interest just drops it."""

    def __init__(self, begin: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._begin = begin

    def __await__(self) -> Generator[Any, Any, T]:
        return self._begin().__await__()


class Provider(Protocol):
    """One way to authenticate."""

    name: str
    priority: int

    def find(self, headers: Mapping[bytes, bytes], query: Mapping[str, str]) -> str | None:
        """The credential in a request, None when there is none. Raises AuthenticationFailed when it cannot be one."""

    def verify(self, credential: str, now: float) -> Identity | Awaitable[Identity]:
        """The identity, or an Awaitable of it where the network must be asked. Both raise AuthenticationFailed."""


class TokenProvider:
    """`Authorization: Bearer` or `?token=`. A subclass verifies."""

    def __init__(self, name: str, priority: int) -> None:
        self.name = name
        self.priority = priority

    def fits(self, names: Names) -> bool:
        """Whether a token of these names is this provider's to verify, where there are several."""
        raise NotImplementedError

    def serves(self, audience: str | None) -> bool:
        """Whether the token is for this provider's audience, which decides where several fit."""
        return True

    def find(self, headers: Mapping[bytes, bytes], query: Mapping[str, str]) -> str | None:
        """The token. Raises AuthenticationFailed when the header has another scheme."""
        authorization = headers.get(b"authorization")
        if authorization is None:
            return query.get("token")
        scheme, _, credential = authorization.decode("latin-1").partition(" ")
        if scheme.lower() != "bearer":
            raise AuthenticationFailed("the Authorization header must use the Bearer scheme")
        return credential.strip(" \t")

    def verify(self, credential: str, now: float) -> Identity | Awaitable[Identity]:
        """Raises AuthenticationFailed."""
        raise NotImplementedError


class JwtProvider(TokenProvider):
    """Tokens signed with the server's secret; `accept` is its verifier's."""

    def __init__(self, verifier: JwtVerifier, *, name: str = "jwt", priority: int = 1) -> None:
        super().__init__(name, priority)
        self._verifier = verifier
        self.accept = verifier.accept

    def fits(self, names: Names) -> bool:
        """Signed with a shared secret; the verifier knows which of the algorithms are accepted."""
        return names.algorithm in ALGORITHMS

    def verify(self, credential: str, now: float) -> Identity:
        """Raises AuthenticationFailed."""
        return self._verifier.verify(credential, now)


class NoTokenProvider(TokenProvider):
    """Finds tokens only to refuse them, where no provider for tokens is enabled.

    A credential that is present and cannot be checked is a wrong one; to overlook it would leave the client in doubt.
    """

    def __init__(self) -> None:
        super().__init__("no tokens", LAST_PRIORITY)

    def verify(self, credential: str, now: float) -> Identity:
        """Raises AuthenticationFailed."""
        raise AuthenticationFailed("tokens are not accepted here")


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
        self.logins = verifier.logins
        self._header = header.lower().encode()
        self._query_param = query_param

    def find(self, headers: Mapping[bytes, bytes], query: Mapping[str, str]) -> str | None:
        """The key."""
        given = headers.get(self._header)
        return given.decode("latin-1") if given is not None else query.get(self._query_param)

    def verify(self, credential: str, now: float) -> Identity:
        """Raises AuthenticationFailed."""
        identity = self._verifier.verify(credential)
        if identity is None:
            raise AuthenticationFailed("the API key is not known")
        return identity


class BypassProvider:
    """Believes `?user_id=`; for `testing.bypass_auth`, which the configuration allows in the test profile alone."""

    def __init__(self) -> None:
        self.name = "bypass"
        self.priority = BYPASS_PRIORITY

    def find(self, headers: Mapping[bytes, bytes], query: Mapping[str, str]) -> str | None:
        """The user's name."""
        return query.get("user_id")

    def verify(self, credential: str, now: float) -> Identity:
        """Raises AuthenticationFailed."""
        try:
            user_id = checked_name(credential, "user_id", MAX_USER_ID_BYTES)
        except ClaimError as error:
            raise AuthenticationFailed(str(error)) from None
        return Identity(user_id=user_id, permissions=READ | WRITE | SUBSCRIBE, credential="bypass")
