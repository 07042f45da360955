"""Calls and notes between the supervisor and a worker, both ways, over a connected Unix stream socket.

Theory of operation. A frame is a u32 (little endian), the size of what follows, and a MessagePack array:
[CALL, number, method, params], [NOTE, 0, method, params], [ANSWER, number, result] or [ERROR, number, kind, message].
Each side numbers its own calls. Frames of one side arrive in order, and handlers that are plain functions run in that
order, between two frames; each coroutine handler is a task of its own. Whatever MessagePack carries may travel: None,
booleans, numbers, text, bytes, lists and dictionaries.

Both ends are this program, and still everything has a bound: the size of a frame, the calls that wait for an answer on
either side, and what is queued for a peer that does not read. A peer beyond one of the last two is cut off.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import socket
import struct
from collections.abc import Callable
from typing import Any, Final, cast

import msgspec

from realtime_communication.errors import ControlClosed, ControlError
from realtime_communication.observability.logs import get_logger

MAX_FRAME_BYTES: Final = 32 << 20
MAX_CALLS: Final = 1024  # that wait for an answer, in each direction
MAX_UNSENT_BYTES: Final = 64 << 20
CALL_SECS: Final = 5.0
MAX_ERROR_TEXT: Final = 2000

CALL: Final = 0
NOTE: Final = 1
ANSWER: Final = 2
ERROR: Final = 3

Handler = Callable[[dict[str, Any]], Any]
"""Gets the params of a call or a note; what it returns, or what its coroutine returns, is the answer to a call."""

_SIZE: Final = struct.Struct("<I")
_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(list[Any]).decode

_log = get_logger(__name__)


class ControlChannel:
    """One end. `run` has to run, as a task, for anything to move; it takes the socket over.

    Handlers are given with `on` before that, or before the peer may call them.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._handlers: dict[str, Handler] = {}
        self._transport: asyncio.Transport | None = None
        self._early: list[bytes] = []  # sent before `run` began
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self._gone = asyncio.Event()

    @property
    def closed(self) -> bool:
        """Whether the peer is gone, or this end was closed."""
        return self._gone.is_set()

    def on(self, method: str, handler: Handler) -> None:
        """Let `handler` answer the calls of a method, and take its notes. An exception is an error answer."""
        self._handlers[method] = handler

    async def run(self) -> None:
        """Move frames until the peer is gone or this is cancelled. Never raises but for cancellation."""
        loop = asyncio.get_running_loop()
        try:
            if not self.closed:
                await loop.create_unix_connection(lambda: _Frames(self), sock=self._sock)
            await self._gone.wait()
        except OSError:
            pass  # the peer went before this began
        finally:
            self.close()

    async def call(self, method: str, params: dict[str, Any] | None = None, timeout_secs: float = CALL_SECS) -> Any:
        """What the peer's handler answers.

        Raises ControlError when the handler failed or the call is too much, ControlClosed when the peer is gone, and
        TimeoutError; the peer may carry out a call whose answer was not waited for.
        """
        if len(self._waiting) >= MAX_CALLS:
            raise ControlError(f"{method}: {MAX_CALLS} calls wait for an answer already")
        number = next(self._numbers)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            if not self._send([CALL, number, method, params or {}]):
                raise ControlClosed(f"{method}: the other process is gone")
            async with asyncio.timeout(timeout_secs):
                return await answer
        finally:
            del self._waiting[number]

    def notify(self, method: str, params: dict[str, Any] | None = None) -> None:
        """Tell the peer something; a peer that is gone does not hear it. Raises ControlError when it is too large."""
        self._send([NOTE, 0, method, params or {}])

    def close(self) -> None:
        """End it: what waits for an answer gets ControlClosed, what is being answered is cancelled."""
        if self._transport is not None:
            self._transport.abort()
        else:
            self._sock.close()
        self._ended()

    # What the transport tells

    def _began(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        transport.writelines(self._early)
        self._early.clear()

    def _ended(self) -> None:
        self._gone.set()
        self._early.clear()
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(ControlClosed("the other process is gone"))
                answer.exception()  # who waited may have been cancelled meanwhile
        for task in self._answering:
            task.cancel()

    def _received(self, body: bytes) -> None:
        """Take a frame. Raises ValueError, TypeError or msgspec.MsgspecError when it is none."""
        kind, number, *rest = _decode(body)
        if kind in (ANSWER, ERROR):
            answer = self._waiting.get(number)
            if answer is None or answer.done():
                return  # nobody waits any more
            if kind == ANSWER:
                answer.set_result(rest[0])
            else:
                answer.set_exception(ControlError(rest[1], rest[0]))
        elif kind in (CALL, NOTE):
            self._handle(number if kind == CALL else None, *rest)
        else:
            raise ValueError(f"a frame of kind {kind}")

    # Answering

    def _handle(self, number: int | None, method: str, params: dict[str, Any]) -> None:
        handler = self._handlers.get(method)
        try:
            if handler is None:
                raise ControlError(f"{method}: no such method")
            if len(self._answering) >= MAX_CALLS:
                raise ControlError(f"{method}: {MAX_CALLS} calls are being answered already")
            result = handler(params)
        except Exception as error:
            self._failed(number, method, error)
            return
        if inspect.isawaitable(result):
            task = asyncio.get_running_loop().create_task(self._answer(number, method, result), name=method)
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)
        else:
            self._succeeded(number, method, result)

    async def _answer(self, number: int | None, method: str, waiting: Any) -> None:
        try:
            result = await waiting
        except Exception as error:
            self._failed(number, method, error)
        else:
            self._succeeded(number, method, result)

    def _succeeded(self, number: int | None, method: str, result: Any) -> None:
        if number is None:
            return
        try:
            self._send([ANSWER, number, result])
        except Exception as error:  # it cannot travel
            self._failed(number, method, error)

    def _failed(self, number: int | None, method: str, error: Exception) -> None:
        if number is not None:
            self._send([ERROR, number, type(error).__name__, f"{method}: {error}"[:MAX_ERROR_TEXT]])
            return
        try:
            raise error
        except Exception:
            _log.exception("a note of another process could not be taken", method=method)

    def _send(self, message: list[Any]) -> bool:
        """Queue a frame; False when the peer is gone. Raises ControlError when it is too large, TypeError."""
        if self.closed:
            return False
        body = _encode(message)
        if len(body) > MAX_FRAME_BYTES:
            raise ControlError(f"a frame of {len(body)} bytes is over the bound of {MAX_FRAME_BYTES}")
        frame = _SIZE.pack(len(body)) + body
        if self._transport is None:
            self._early.append(frame)
            return True
        self._transport.write(frame)
        if self._transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            _log.error("another process does not read what it is sent: it is cut off", unsent_bytes=MAX_UNSENT_BYTES)
            self.close()
            return False
        return True


class _Frames(asyncio.Protocol):
    """Cuts what arrives into frames for a channel."""

    def __init__(self, channel: ControlChannel) -> None:
        self._channel = channel
        self._received = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._channel._began(cast("asyncio.Transport", transport))

    def data_received(self, data: bytes) -> None:
        self._received += data
        try:
            self._take_frames()
        except (ValueError, TypeError, IndexError, msgspec.MsgspecError) as error:
            _log.error("another process sent what is no frame: it is cut off", reason=str(error))
            self._channel.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._channel._ended()

    def _take_frames(self) -> None:
        start, received = 0, self._received
        while len(received) - start >= _SIZE.size and not self._channel.closed:
            (size,) = _SIZE.unpack_from(received, start)
            if size > MAX_FRAME_BYTES:
                raise ValueError(f"a frame of {size} bytes is over the bound of {MAX_FRAME_BYTES}")
            end = start + _SIZE.size + size
            if end > len(received):
                break
            self._channel._received(bytes(received[start + _SIZE.size : end]))
            start = end
        del received[:start]
