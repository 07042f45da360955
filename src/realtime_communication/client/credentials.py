"""What the client shows at the door, and when it needs something new."""

from __future__ import annotations

import asyncio
import base64
import logging
import math
import time
from collections.abc import Awaitable, Callable

import msgspec

from realtime_communication.client.errors import AuthenticationFailed, ConnectionLost

__all__ = ["Credentials", "TokenProvider"]

TokenProvider = Callable[[], Awaitable[str]]
"""Gives a valid access token. Raises AuthenticationFailed when there will be none any more."""

REFUSED_IN_A_ROW = 3
"""Fresh tokens of a provider that the server may refuse before the client gives up."""

_EXPIRY_MARGIN_SECS = 5.0

logger = logging.getLogger("realtime_communication.client")


class Credentials:
    """A token, a provider of tokens or an API key; none of them is ever logged or put into a URL.

    How long a token of the provider lasts is counted from when it came, so that the clock of this machine does not
    matter. ``provider_timeout`` is in seconds.
    """

    def __init__(
        self, token: str | None, provider: TokenProvider | None, api_key: str | None, provider_timeout: float
    ) -> None:
        self.token = token
        self._provider = provider
        self._api_key = api_key
        self._provider_timeout = provider_timeout
        self._needs_new = False
        self._refusals = 0
        self._latest: str | None = None  # of the provider
        self._latest_ends = math.inf  # monotonic

    @property
    def renewable(self) -> bool:
        """Whether a new token can be had."""
        return self._provider is not None

    async def headers(self) -> dict[str, str]:
        """For the next upgrade. Raises as ``new_token``."""
        headers: dict[str, str] = {}
        if self._api_key is not None:
            headers["X-API-Key"] = self._api_key
        if self.renewable and (self.token is None or self._needs_new or self._is_old()):
            self.token = await self.new_token()
            self._needs_new = False
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        return headers

    async def new_token(self) -> str:
        """Ask the provider. Raises AuthenticationFailed (its own word) or ConnectionLost (what else it raised)."""
        assert self._provider is not None, "there is no token provider"
        try:
            async with asyncio.timeout(self._provider_timeout):
                token = await self._provider()
        except AuthenticationFailed:
            self._refusals = REFUSED_IN_A_ROW
            raise
        except Exception as error:
            logger.warning("the token provider failed: %r", error)
            raise ConnectionLost(f"the token provider failed: {error!r}") from error
        if token != self._latest:
            self._latest = token
            self._latest_ends = time.monotonic() + lifetime(token)
        return token

    @property
    def remaining(self) -> float:
        """Seconds until the provider's latest token ends, at most; infinite when it does not say."""
        return self._latest_ends - time.monotonic()

    def accepted(self) -> None:
        """The server took them."""
        self._refusals = 0

    def refused(self) -> bool:
        """The server did not, or takes them no longer. Returns whether another attempt makes sense."""
        self._refusals += 1
        self._needs_new = True
        return self.renewable and self._refusals < REFUSED_IN_A_ROW

    def _is_old(self) -> bool:
        return self.token == self._latest and self.remaining < _EXPIRY_MARGIN_SECS


class _Times(msgspec.Struct):
    iat: float
    exp: float


def lifetime(token: str) -> float:
    """Seconds from ``iat`` to ``exp`` of a JWT, whose signature is the server's business; infinite for what is none."""
    parts = token.split(".")
    if len(parts) != 3:
        return math.inf
    try:
        claims = msgspec.json.decode(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)), type=_Times)
    except ValueError:  # msgspec's errors are some, too
        return math.inf
    return claims.exp - claims.iat
