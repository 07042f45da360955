"""One HTTP connection: aiohttp's protocol with a strict guard in front of its parser.

Connections do not come from a listening socket but from the reactor, which has read at least one request head from
them. `HttpServer.adopt` takes such a socket over together with the bytes that were already read. When a later request
of the connection asks for a WebSocket, as on one that a proxy keeps for all its requests, the socket goes back to the
reactor, with that request and once all before it is answered: `HttpServer.give_back`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from aiohttp import HttpVersion11, web
from aiohttp.web_protocol import RequestHandler

from realtime_communication._core.io.tls_connection import TlsStream
from realtime_communication.http.answers import error_response, response_of, set_headers
from realtime_communication.http.forwarding import site_of_peer, trusted_proxies
from realtime_communication.http.framing import RequestGuard, State, Violation
from realtime_communication.http.newcomers import Newcomers
from realtime_communication.http.services import SERVICES, Services
from realtime_communication.http.tls_transport import Stream, TlsTransport, last_words
from realtime_communication.observability.logs import get_logger
from realtime_communication.observability.metrics import UNMATCHED

KEEP_ALIVE_SECS: Final = 10.0  # silence, or a head that does not end, on a connection that is waiting for a request
LINGER_SECS: Final = 2.0  # how long bytes behind an error are read and thrown away, so that the answer arrives
MAX_WAITING_REQUESTS: Final = 32  # pipelined and not answered yet
MAX_CONNECTIONS: Final = 4096  # per worker, event streams left out; each costs some ten KiB

_log = get_logger(__name__)
# A request that no parser accepts. It makes aiohttp put an error answer behind those that are still due.
_NO_REQUEST: Final = b"\x00\r\n\r\n"
_FULL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
    b"Connection: close\r\nContent-Length: 72\r\n\r\n"
    b'{"error":{"code":"unavailable","message":"too many open HTTP requests"}}'
)


GiveBack: TypeAlias = Callable[[int, bytearray, TlsStream | None], None]
"""Takes a socket, what was read of a request for a WebSocket and of what follows it, and the state of TLS."""


class BodyRefused(TimeoutError):
    """Raised where a handler reads a body that broke the rules.

    A TimeoutError because aiohttp takes those for granted while it reads the rest of a body nobody wanted.
    """

    def __init__(self, violation: Violation) -> None:
        super().__init__(violation.message)
        self.violation = violation


class HttpConnection(RequestHandler):
    """aiohttp's connection, which sees only what the guard lets through.

    Without `give_back` a later request for a WebSocket ends it.
    """

    __slots__ = (
        "_answered",
        "_ended",
        "_first",
        "_give_back",
        "_guard",
        "_newcomers",
        "_payload",
        "_services",
        "on_lost",
    )

    def __init__(
        self,
        manager: web.Server,
        services: Services,
        first: bytes,
        max_body: int,
        give_back: GiveBack | None = None,
        newcomers: Newcomers[HttpConnection] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(manager, **options)
        self._services = services
        self._give_back = give_back
        self._newcomers = newcomers  # which it is one of until it has authenticated
        self._first = first
        self._guard = RequestGuard(max_body, MAX_WAITING_REQUESTS)
        self._answered = 0
        self._payload: Any = None  # of the last request, when it has one
        self._ended = asyncio.Event()
        self.on_lost: Callable[[], None] | None = None  # called when the peer has gone

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self._newcomers is not None:
            config = self._services.config
            bounds = config.websocket
            site = site_of_peer(self._address(), trusted_proxies(config.security.trusted_proxies))
            self._newcomers.add(self, site, bounds.max_unauthenticated, bounds.max_unauthenticated_per_address)
        first, self._first = self._first, b""
        self.data_received(first)

    def settle(self) -> None:
        """A request has brought good credentials: the connection is bounded as one of those that did."""
        if self._newcomers is not None:
            self._newcomers.remove(self)

    def crowd_out(self, reason: str) -> None:
        """End at once, to make room for others."""
        self._services.crowded_out += 1
        self._services.refusals.tell(peer=self._peer(), status=503, reason=reason)
        transport = self.transport
        self.force_close()
        if transport is not None:
            transport.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        self.settle()
        self._ended.set()
        super().connection_lost(exc)
        if self.on_lost is not None:
            self.on_lost()

    def data_received(self, data: bytes) -> None:
        """Pass on what the guard accepts; aiohttp itself calls this without data to go on after a pause."""
        guard = self._guard
        if not data:
            super().data_received(data)
            return
        if guard.state is State.OVER:
            return
        passed = guard.feed(data, self._answered)
        if passed:
            super().data_received(passed)
            if self._messages:
                self._payload = self._messages[-1][1]
        violation = guard.violation
        if violation is not None:
            self._refuse(violation)
        elif guard.state is State.LEAVING:
            if self.transport is not None:
                self.transport.pause_reading()
            self._leave()

    def resume_writing(self) -> None:
        """What was written has left, down to the transport's low water."""
        super().resume_writing()
        self._leave()

    def _refuse(self, violation: Violation) -> None:
        self._services.refusals.tell(peer=self._peer(), status=violation.status, reason=violation.message)
        metrics = self._services.metrics
        if metrics is not None and not violation.in_body:  # no handler will see it, and so no middleware
            metrics.observe_http("", UNMATCHED, violation.status, 0.0)
        if violation.in_body and self._payload is not None:
            self._payload.set_exception(BodyRefused(violation))
        else:
            super().data_received(_NO_REQUEST)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer when no handler could be called, or one failed in an unforeseen way."""
        violation = self._guard.violation
        if violation is not None:
            response = error_response(violation.status, violation.code, violation.message)
        elif status == 400:
            response = error_response(400, "bad_request", "the request is malformed")
        else:
            _log.error("an HTTP request failed outside its handler", error=type(exc).__name__)
            response = error_response(500, "internal", "the server failed to answer this request")
        set_headers(response, self._services.config.security, secure=request.secure)
        # aiohttp stands HTTP/1.0 in for a request it could not read.
        request._version = HttpVersion11
        response.force_close()
        return response

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send the answer; after a violation, go on reading for a while so that a reset does not destroy it."""
        if isinstance(resp, web.HTTPException):
            resp = response_of(resp)
        violation = self._guard.violation
        last = self._guard.state is State.OVER and not self._messages
        if last:
            resp.force_close()
        resp, reset = await super().finish_response(request, resp, start_time)
        self._answered += 1
        if violation is not None and last and not reset:
            await self._linger()
        if resp.keep_alive and not reset:
            self._leave()
        return resp, reset

    def _leave(self) -> None:
        """Give a connection away that asks for a WebSocket, once every answer before has left."""
        transport, guard = self.transport, self._guard
        if guard.state is not State.LEAVING or self._answered < guard.requests:
            return
        if transport is None or transport.is_closing() or self._close:
            return
        if self._give_back is None:
            self.force_close()
            return
        if transport.get_write_buffer_size():
            transport.set_write_buffer_limits(0)  # `resume_writing` comes when nothing is left
            return
        try:
            fd = os.dup(transport.get_extra_info("socket").fileno())
        except OSError:
            self.force_close()  # no descriptor is left
            return
        # This end of the socket is closed, without a word to the peer; the connection lives on in the other one.
        stream = transport.stream() if isinstance(transport, TlsTransport) else None
        transport.abort()
        self._give_back(fd, guard.rest, stream)

    def _peer(self) -> str:
        """The other end's address and port, as lines about other peers name it; "" on a Unix socket."""
        address = self._address()
        if not address or self.transport is None:
            return ""
        port = self.transport.get_extra_info("peername")[1]
        return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"

    def _address(self) -> str:
        """The other end's address; "" on a Unix socket."""
        name = None if self.transport is None else self.transport.get_extra_info("peername")
        return name[0] if isinstance(name, tuple) else ""

    async def _linger(self) -> None:
        transport = self.transport
        if transport is None:
            return
        with contextlib.suppress(OSError, RuntimeError):
            transport.write_eof()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECS):
                await self._ended.wait()


class HttpServer:
    """Serves `application` on connections that are handed over.

    `max_body` gives the bound of a request body in bytes at the time a connection arrives. `give_back`, to be set
    before the first one does, takes those that ask for a WebSocket later on; their descriptors are its own then.
    """

    give_back: GiveBack

    def __init__(self, application: web.Application, max_body: Callable[[], int]) -> None:
        self._runner = web.AppRunner(
            application,
            handle_signals=False,
            access_log=None,
            keepalive_timeout=KEEP_ALIVE_SECS,
            lingering_time=LINGER_SECS,
            auto_decompress=False,
        )
        self._services = application[SERVICES]
        self._max_body = max_body
        self._adopting: set[asyncio.Task[None]] = set()
        self._newcomers: Newcomers[HttpConnection] = Newcomers(HttpConnection.crowd_out)

    async def start(self) -> None:
        """To be awaited in the running loop before `adopt` is called."""
        await self._runner.setup()

    def adopt(self, fd: int, data: bytes, peer: str, stream: Stream | None = None) -> None:
        """Take over the socket `fd`, from which `data` has been read. Never raises; the socket is closed in the end.

        `stream` is the state of a connection over TLS.
        """
        sock = socket.socket(fileno=fd)
        sock.setblocking(False)
        manager = self._runner.server
        # Streams are under websocket.max_connections instead.
        if manager is None or (
            len(manager.connections) + len(self._adopting) - self._services.open_streams >= MAX_CONNECTIONS
            and not self._newcomers.make_room("too many open HTTP connections")
        ):
            with contextlib.suppress(OSError):
                sock.send(_FULL if stream is None else last_words(stream, _FULL))
            sock.close()
            return
        task = asyncio.get_running_loop().create_task(self._connect(manager, sock, data, stream), name=f"adopt {peer}")
        self._adopting.add(task)
        task.add_done_callback(self._adopting.discard)

    async def _connect(self, manager: web.Server, sock: socket.socket, data: bytes, stream: Stream | None) -> None:
        loop = asyncio.get_running_loop()

        def connection() -> HttpConnection:
            return HttpConnection(
                manager,
                self._services,
                data,
                self._max_body(),
                self.give_back,
                self._newcomers,
                loop=loop,
                **manager._kwargs,
            )

        if stream is not None:
            TlsTransport(loop, sock, stream, connection())
            return
        try:
            await loop.connect_accepted_socket(connection, sock)
        except OSError:
            sock.close()  # the peer is gone already

    async def shutdown(self, timeout: float) -> None:
        """Let requests that are being answered finish for at most `timeout` seconds, then close every connection."""
        manager = self._runner.server
        if manager is not None:
            manager.pre_shutdown()
            await manager.shutdown(timeout)
        await self._runner.cleanup()
