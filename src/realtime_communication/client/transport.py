"""One WebSocket connection on picows: frames to whole messages, the close code, the pause of a full socket."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping

import picows

from realtime_communication.client.errors import (
    AuthenticationFailed,
    ConnectionLost,
    HandshakeRejected,
    ProtocolViolation,
)

__all__ = ["Connection", "open_connection"]

_NO_STATUS = 1005
_ABNORMAL = 1006
_LASTING_STATUS = frozenset({400, 403, 404, 405, 426, 431})
"""HTTP answers to an upgrade that another attempt would meet again."""


class TryAgain(ConnectionLost):
    """The server has no place now. ``after_secs`` is its ``Retry-After``."""

    def __init__(self, message: str, after_secs: float) -> None:
        super().__init__(message, code=1013)
        self.after_secs = after_secs


class Connection(picows.WSListener):
    """Calls ``on_open`` once, ``on_message`` for each whole message; ``ended`` gets the close code and reason."""

    def __init__(
        self, on_open: Callable[[Connection], None], on_message: Callable[[bytes], None], max_message_size: int
    ) -> None:
        self.subprotocol: str | None = None
        self.ended: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()
        self.writable = asyncio.Event()
        self.writable.set()
        self._on_open = on_open
        self._on_message = on_message
        self._max_message_size = max_message_size
        self._transport: picows.WSTransport | None = None
        self._fragments = bytearray()
        self._close: tuple[int, str] = (_ABNORMAL, "")

    def send(self, is_text: bool, data: bytes) -> None:
        """Queue one message; nothing happens when the connection is gone already."""
        if self._transport is not None and not self._transport.is_close_frame_sent:
            kind = picows.WSMsgType.TEXT if is_text else picows.WSMsgType.BINARY
            self._transport.send(kind, data)

    def close(
        self, code: picows.WSCloseCode = picows.WSCloseCode.OK, *, outcome: tuple[int, str] | None = None
    ) -> None:
        """Send a close frame and hang up. ``outcome`` is what ``ended`` tells instead of the peer's own close code."""
        if outcome is not None:
            self._close = outcome
        if self._transport is not None:
            if not self._transport.is_close_frame_sent:
                self._transport.send_close(code)
            self._transport.disconnect()

    # picows calls these

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        """The handshake is done."""
        self._transport = transport
        self.subprotocol = transport.response.headers.get("Sec-WebSocket-Protocol")
        try:
            self._on_open(self)
        except ProtocolViolation as error:
            self.close(picows.WSCloseCode.PROTOCOL_ERROR, outcome=(1002, str(error)))

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        """A frame came; its payload is only valid during this call."""
        kind = frame.msg_type
        if kind is picows.WSMsgType.CLOSE:
            self._close_received(frame.get_payload_as_bytes())
            return
        if kind not in (picows.WSMsgType.TEXT, picows.WSMsgType.BINARY, picows.WSMsgType.CONTINUATION):
            return
        data = frame.get_payload_as_bytes()
        if not frame.fin or self._fragments:
            self._fragments += data
            if len(self._fragments) > self._max_message_size:
                self.close(picows.WSCloseCode.MESSAGE_TOO_BIG, outcome=(_ABNORMAL, "the server's message is too big"))
                return
            if not frame.fin:
                return
            data = bytes(self._fragments)
            self._fragments.clear()
        try:
            self._on_message(data)
        except ProtocolViolation as error:
            self.close(picows.WSCloseCode.PROTOCOL_ERROR, outcome=(_ABNORMAL, str(error)))

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        """The socket is closed."""
        self.writable.set()
        if not self.ended.done():
            self.ended.set_result(self._close)

    def pause_writing(self) -> None:
        """The socket's buffer is full."""
        self.writable.clear()

    def resume_writing(self) -> None:
        """There is room again."""
        self.writable.set()

    def _close_received(self, payload: bytes) -> None:
        code = int.from_bytes(payload[:2], "big") if len(payload) >= 2 else _NO_STATUS
        self._close = (code, payload[2:].decode("utf-8", "replace"))
        self.close()


async def open_connection(
    url: str,
    factory: Callable[[], Connection],
    *,
    headers: Mapping[str, str],
    subprotocols: list[str],
    timeout: float,
    keepalive_interval: float,
    keepalive_timeout: float,
    max_message_size: int,
    ssl_context: ssl.SSLContext | None,
) -> Connection:
    """Open one connection. ``timeout`` in seconds spans the dial and the upgrade.

    Raises AuthenticationFailed (401), HandshakeRejected (an answer that will not change), TryAgain (503, 429)
    and ConnectionLost for everything that may pass.
    """
    offered = {"Sec-WebSocket-Protocol": ", ".join(subprotocols), **headers}
    try:
        async with asyncio.timeout(timeout):
            _, connection = await picows.ws_connect(
                factory,
                url,
                ssl_context=ssl_context,
                websocket_handshake_timeout=timeout,
                extra_headers=offered,
                max_frame_size=max_message_size,
                enable_auto_ping=True,
                auto_ping_idle_timeout=keepalive_interval,
                auto_ping_reply_timeout=keepalive_timeout,
                max_redirects=0,
            )
    except picows.WSHandshakeError as error:
        raise _refusal(error) from error
    except TimeoutError as error:
        raise ConnectionLost(f"no connection within {timeout:g} s") from error
    except (OSError, picows.WSError) as error:
        raise ConnectionLost(f"cannot connect: {error}") from error
    if not isinstance(connection, Connection):  # picows gives no listener when the peer hangs up without an answer
        raise ConnectionLost("the server hung up during the upgrade")
    return connection


def _refusal(error: picows.WSHandshakeError) -> ConnectionLost | AuthenticationFailed:
    response = error.response
    if response is None:
        return ConnectionLost(f"the upgrade failed: {error}")
    status = int(response.status)
    if status == 401:
        return AuthenticationFailed("the server refused the credentials (401)")
    if status in _LASTING_STATUS:
        return HandshakeRejected(f"the server refused the upgrade with status {status}", status=status)
    if status in (429, 503):
        retry_after = response.headers.get("Retry-After", "")
        return TryAgain(f"the server has no place now ({status})", float(retry_after) if retry_after.isdigit() else 0.0)
    return ConnectionLost(f"the server answered the upgrade with status {status}")
