"""When the token of a connection is replaced: at the time the server names, or when it says that the token expires."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from realtime_communication.client.credentials import Credentials
from realtime_communication.client.errors import (
    AuthenticationFailed,
    ClientClosed,
    ConnectionLost,
    RequestError,
    RequestTimeout,
)
from realtime_communication.client.events import TokenExpiring

__all__ = ["TokenRenewal"]

_RETRY_SECS = 5.0
_REMINDER_CROSSED_SECS = 1.0

logger = logging.getLogger("realtime_communication.client")


class TokenRenewal:
    """Asks the provider of tokens and sends what it gives.

    ``refresh`` sends a token, ``start`` runs a coroutine as a task of the client, ``remind`` gets what the application
    has to be told where there is no provider, ``give_up`` ends the connection: there will be no token any more.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        refresh: Callable[[str], Awaitable[object]],
        start: Callable[[Coroutine[Any, Any, None]], None],
        remind: Callable[[TokenExpiring], None],
        give_up: Callable[[], None],
    ) -> None:
        self._credentials = credentials
        self._refresh = refresh
        self._start = start
        self._remind = remind
        self._give_up = give_up
        self._timer: asyncio.TimerHandle | None = None
        self._running = False
        self._done_at = -math.inf
        self._stopped = False

    def due(self, at: int | None, expires_at: int | None) -> None:
        """The token ends at ``expires_at`` and wants to be replaced at ``at``, in seconds since 1970 (None: now)."""
        if at is None and (self._running or time.monotonic() - self._done_at < _REMINDER_CROSSED_SECS):
            return  # the server's reminder and our request crossed
        self._cancel()
        self._credentials.expires_at = expires_at
        if self._credentials.renewable:
            self._call_in(0.0 if at is None else max(0.0, at - time.time()))
        elif at is None:
            self._remind(TokenExpiring(expires_at))

    def stop(self) -> None:
        """Nothing is renewed from now on."""
        self._stopped = True
        self._cancel()

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _call_in(self, secs: float) -> None:
        if not self._stopped:
            self._timer = asyncio.get_running_loop().call_later(secs, self._begin)

    def _begin(self) -> None:
        self._timer = None
        self._start(self._renew())

    async def _renew(self) -> None:
        self._running = True
        try:
            await self._refresh(await self._credentials.new_token())
            self._done_at = time.monotonic()
        except RequestError as error:
            logger.warning("the server refused the new token: %s", error)
            self._credentials.refused()
        except (ConnectionLost, RequestTimeout) as error:
            logger.warning("the token could not be refreshed, trying again: %s", error)
            self._call_in(_RETRY_SECS)
        except AuthenticationFailed:
            self._give_up()
        except ClientClosed:
            pass
        finally:
            self._running = False
