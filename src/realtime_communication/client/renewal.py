"""When the token of a connection is replaced: when the server says that it ends soon.

The clock of this machine decides nothing: it may be wrong.
"""

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
    QueueFull,
    RequestError,
    RequestTimeout,
)
from realtime_communication.client.events import TokenExpiring

__all__ = ["TokenRenewal"]

_LEAST_SECS = 1.0
"""Shortest time between two tokens."""

_MOST_SECS = 60.0
"""A provider whose tokens are always about to end, or always the same, is asked in ever longer pauses, up to this."""

_RETRY_SECS = 5.0
"""Shortest wait after an attempt that failed for a reason that may pass."""

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
        self._pause = _LEAST_SECS
        self._stopped = False

    def due(self, expires_at: int | None) -> None:
        """The server wants a new token: the present one ends at ``expires_at``, in seconds since 1970."""
        if not self._credentials.renewable:
            self._remind(TokenExpiring(expires_at))
            return
        if self._running or self._timer is not None:
            return
        since = time.monotonic() - self._done_at
        if since >= 2 * self._pause:
            self._pause = _LEAST_SECS
        self._call_in(max(0.0, self._next_pause() - since))

    def reset(self) -> None:
        """The connection is another one: it has its own token, and hears in time about it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def stop(self) -> None:
        """Nothing is renewed from now on."""
        self._stopped = True
        self.reset()

    def _next_pause(self) -> float:
        """Longer each time, but not so long that the token ends in it."""
        pause = max(_LEAST_SECS, min(self._pause, self._credentials.remaining / 2))
        self._pause = min(2 * self._pause, _MOST_SECS)
        return pause

    def _call_in(self, secs: float) -> None:
        if not self._stopped:
            self._timer = asyncio.get_running_loop().call_later(secs, self._begin)

    def _begin(self) -> None:
        self._timer = None
        self._start(self._renew())

    async def _renew(self) -> None:
        self._running = True
        try:
            token = await self._credentials.new_token()
            if token == self._credentials.token:
                self._call_in(self._next_pause())  # the provider has no newer one yet
            else:
                await self._refresh(token)
        except RequestError as error:
            logger.warning("the server refused the new token: %s", error)
            self._credentials.refused()
        except (ConnectionLost, RequestTimeout, QueueFull) as error:
            logger.warning("the token could not be refreshed, trying again: %s", error)
            self._call_in(max(_RETRY_SECS, self._next_pause()))
        except AuthenticationFailed:
            self._give_up()
        except ClientClosed:
            pass
        finally:
            self._running = False
            self._done_at = time.monotonic()
