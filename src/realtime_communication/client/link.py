"""Keeps one connection after the other up, and decides when to give up."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from realtime_communication.client import events
from realtime_communication.client.backoff import Backoff
from realtime_communication.client.credentials import Credentials
from realtime_communication.client.encoding import Codec
from realtime_communication.client.errors import (
    AuthenticationFailed,
    ClientError,
    ConnectionLost,
    HandshakeRejected,
)
from realtime_communication.client.protocol import ClientProtocol, State
from realtime_communication.client.transport import Connection, TryAgain

__all__ = ["Dial", "Link"]

Dial = Callable[[Callable[[], Connection], dict[str, str]], Awaitable[Connection]]
"""Opens one connection, made by the factory, with these credentials in its headers."""

_CLOSE_ABNORMAL = 1006
_CLOSE_UNAUTHORIZED = 4401
_CLOSE_DISCONNECTED = 4403

logger = logging.getLogger("realtime_communication.client")


class Link:
    """Runs until it is stopped or ``failure`` is set: no further connection makes sense.

    ``last_error`` is what ended the latest attempt. ``on_change`` is called after every change of the protocol that has
    outputs or something to send; ``on_lost`` after each connection or attempt that ended. Without ``reconnect`` the
    first lost connection is the end, without ``retry_open`` only a failure before the first one stands.
    """

    def __init__(
        self,
        protocol: ClientProtocol,
        credentials: Credentials,
        dial: Dial,
        backoff: Backoff,
        *,
        reconnect: bool,
        retry_open: bool = True,
        greeting_timeout: float,
        max_message_size: int,
        on_change: Callable[[], None],
        on_lost: Callable[[events.Disconnected], None],
    ) -> None:
        self.connection: Connection | None = None
        self.failure: ClientError | None = None
        self.last_error: ClientError | None = None
        self._protocol = protocol
        self._credentials = credentials
        self._dial = dial
        self._backoff = backoff
        self._goes_on = reconnect and retry_open
        self._goes_on_once_established = reconnect
        self._greeting_timeout = greeting_timeout
        self._max_message_size = max_message_size
        self._on_change = on_change
        self._on_lost = on_lost
        self._stopping = False
        self._stay_away_until = 0.0

    async def run(self) -> None:
        """Connection after connection. Raises nothing but CancelledError."""
        while not self._stopping:
            code, reason, wait_secs = await self._one_connection()
            if self._is_over():
                break
            delay = self._backoff.next_delay(max(wait_secs, self._stay_away_until - time.monotonic(), 0.0))
            self._on_lost(events.Disconnected(code, reason, delay))
            await asyncio.sleep(delay)

    def _is_over(self) -> bool:
        return self._stopping or self.failure is not None

    def stop(self) -> None:
        """The connection is closed and no other follows."""
        self._stopping = True
        if self.connection is not None:
            self.connection.close()

    def established(self) -> None:
        """The server greeted us."""
        self._credentials.accepted()
        self._goes_on = self._goes_on_once_established
        self._backoff.reset()

    def stay_away(self, after_ms: int) -> None:
        """The server asks not to be bothered before."""
        self._stay_away_until = time.monotonic() + after_ms / 1000

    def drop_credentials(self) -> None:
        """The token will not be renewed: end the connection and decide as if the server had done so."""
        if self.connection is not None:
            self.connection.close(outcome=(_CLOSE_UNAUTHORIZED, "no new token"))

    async def _one_connection(self) -> tuple[int, str, float]:
        """Dial and serve until the connection ends: (close code, reason, seconds to wait at least)."""
        try:
            connection = await self._dial(self._new_connection, await self._credentials.headers())
        except AuthenticationFailed as error:
            self._refused(error)
            return _CLOSE_UNAUTHORIZED, str(error), 0.0
        except ConnectionLost as error:
            self._lost(error, for_good=isinstance(error, HandshakeRejected))
            return error.code, str(error), error.after_secs if isinstance(error, TryAgain) else 0.0
        greeting = asyncio.get_running_loop().call_later(self._greeting_timeout, self._check_greeting, connection)
        try:
            code, reason = await asyncio.shield(connection.ended)
        finally:
            greeting.cancel()
            self.connection = None
            connection.close()
        self._protocol.connection_lost(code, reason)
        self._on_change()
        self._after_close(code, reason)
        return code, reason, 0.0

    def _after_close(self, code: int, reason: str) -> None:
        """Whether to come back after a close code: protocol section 3."""
        words = f"the connection was closed with {code} {reason}".rstrip()
        closing = self._protocol.closing
        if code == _CLOSE_DISCONNECTED:
            self.last_error = self.failure = AuthenticationFailed(words, code=str(code))
        elif code == _CLOSE_UNAUTHORIZED:
            self._refused(AuthenticationFailed(words, code=str(code)))
        else:
            error = ConnectionLost(words, code=code, reason=reason)
            self._lost(error, for_good=closing is not None and not closing.reconnect)

    def _refused(self, error: AuthenticationFailed) -> None:
        self.last_error = error
        if not self._credentials.refused() or not self._goes_on:
            self.failure = error

    def _lost(self, error: ConnectionLost, *, for_good: bool) -> None:
        self.last_error = error
        if for_good or not self._goes_on:
            self.failure = error

    def _new_connection(self) -> Connection:
        return Connection(self._connection_made, self._message_received, self._max_message_size)

    def _connection_made(self, connection: Connection) -> None:
        self.connection = connection
        self._protocol.connection_made(Codec.from_subprotocol(connection.subprotocol, self._max_message_size))

    def _message_received(self, data: bytes) -> None:
        self._protocol.receive_message(data, asyncio.get_running_loop().time())
        self._on_change()

    def _check_greeting(self, connection: Connection) -> None:
        if self._protocol.state is not State.OPEN:
            connection.close(outcome=(_CLOSE_ABNORMAL, "the server did not greet in time"))
