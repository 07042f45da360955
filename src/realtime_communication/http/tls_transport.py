"""HTTP over TLS: an asyncio transport for connections whose handshake the reactor has made.

Rules: `Sealed` is sans-I/O: bytes of the socket in, bytes of the protocol out, and the other way round. `TlsTransport`
is the only part with a socket and an event loop; to its protocol it looks like asyncio's transport of a TLS server.

Theory: what the protocol writes waits unsealed, as a plain transport's does, and is sealed record by record when the
socket has taken the one before. So a peer that does not read costs one sealed record beside the protocol's own bytes.
OpenSSL writes into memory that all connections share: each call that may write is followed by `_collect`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import Any, Final, Protocol

from realtime_communication._core.io.tls_connection import TlsStream

RECEIVE_BYTES: Final = 16_384  # at a time: it bounds what the peer can make OpenSSL do in one go
RECORD_BYTES: Final = 16_384  # most that one TLS record carries (RFC 8446 section 5.1)
HIGH_WATER: Final = 65_536  # waiting bytes from which on the protocol shall pause, as asyncio's transports have it
REPLY_BYTES: Final = 4096  # most that TLS says by itself: answers to some 150 updates of keys, which are rare
SENDS: Final = 64  # records in a row; then the event loop gets its share


class Stream(Protocol):
    """A connection's TLS state, as the reactor hands it over."""

    @property
    def ssl_object(self) -> ssl.SSLObject: ...
    @property
    def incoming(self) -> ssl.MemoryBIO: ...
    @property
    def outgoing(self) -> ssl.MemoryBIO: ...
    @property
    def unsent(self) -> bytes: ...


def last_words(stream: Stream, data: bytes) -> bytes:
    """`data`, at most a record's worth, sealed as the last that is said on a connection. Raises ssl.SSLError."""
    sealed = Sealed(stream)
    sealed.seal(memoryview(data))
    sealed.notify()
    return bytes(sealed.next_bytes())


class Sealed:
    """The TLS of one connection, without its socket."""

    __slots__ = ("_incoming", "_outgoing", "_replied", "ended", "notified", "ssl_object", "unsent")

    def __init__(self, stream: Stream) -> None:
        self.ssl_object = stream.ssl_object
        self._incoming = stream.incoming
        self._outgoing = stream.outgoing
        self._replied = 0  # bytes that TLS said by itself
        self.unsent = memoryview(stream.unsent)  # sealed, and not taken by the socket yet
        self.ended = False  # the peer's close_notify has come
        self.notified = False  # ours is sealed

    def receive(self, data: bytes) -> bytes:
        """What `data` from the socket holds. Afterwards `ended` may be set. Raises ssl.SSLError."""
        if self.ended:
            return b""
        self._incoming.write(data)
        pieces = []
        try:
            while piece := self.ssl_object.read(RECORD_BYTES):
                pieces.append(piece)
            self.ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ended = True
        finally:
            self._replied += self._collect()
        if self._replied > REPLY_BYTES:
            raise ssl.SSLError(ssl.SSL_ERROR_SSL, "too many updates of keys")
        return b"".join(pieces)

    @property
    def pending(self) -> int:
        """Sealed bytes that wait for the socket."""
        return len(self.unsent)

    def seal(self, data: memoryview) -> int:
        """Seal the first bytes of `data`, at most a record's worth; how many. Only when nothing is pending."""
        try:
            return self.ssl_object.write(data[:RECORD_BYTES])
        finally:
            self._collect()

    def notify(self) -> None:
        """Seal close_notify: nothing follows (RFC 8446 section 6.1)."""
        if not self.notified:
            self.notified = True
            try:
                with contextlib.suppress(ssl.SSLError):  # it asks for the peer's, which may come or not
                    self.ssl_object.unwrap()
            finally:
                self._collect()

    def _collect(self) -> int:
        """Take what OpenSSL has written; how many bytes."""
        said = self._outgoing.read()
        if said:
            self.unsent = memoryview(bytes(self.unsent) + said)
        return len(said)

    def stream(self) -> TlsStream:
        """What this was made of, as it is now."""
        return TlsStream(self.ssl_object, self._incoming, self._outgoing, bytes(self.unsent))

    def next_bytes(self) -> memoryview:
        """What the socket is to get now; empty when all was taken."""
        return self.unsent

    def sent(self, count: int) -> None:
        """The socket took `count` bytes of the last `next_bytes`."""
        self.unsent = self.unsent[count:]


class TlsTransport(asyncio.Transport):
    """Joins `protocol` to the non-blocking socket of `stream`, which is the transport's from now on.

    To be made in the running loop; `protocol.connection_made` is called at once. The socket is closed in the end,
    after `protocol.connection_lost`.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, stream: Stream, protocol: asyncio.Protocol
    ) -> None:
        super().__init__()
        self._loop = loop
        self._sock = sock
        self._fd = sock.fileno()
        self._protocol: asyncio.BaseProtocol = protocol
        self._sealed = Sealed(stream)
        self._waiting = bytearray()  # written by the protocol, not sealed yet
        self._high, self._low = HIGH_WATER, HIGH_WATER // 4
        self._reading = False  # the loop asks for input
        self._writing = False  # the loop waits for the socket to take bytes
        self._paused = False  # the protocol wants no input
        self._told_to_pause = False  # the protocol was asked to write no more
        self._eof_written = False
        self._shut = False  # the socket's sending side is
        self._eof_seen = False
        self._closing = False
        self._over = False  # connection_lost was called, or is about to be
        self._extra = {
            "socket": sock,
            "sockname": _address(sock.getsockname),
            "peername": _address(sock.getpeername),
            "sslcontext": stream.ssl_object.context,
            "ssl_object": stream.ssl_object,
            "peercert": stream.ssl_object.getpeercert(),
            "cipher": stream.ssl_object.cipher(),
        }
        self._call(protocol.connection_made, self)
        self._receive(b"")  # the end may have come with the first request
        self._flush()
        self._ask_for_input()

    # --- what a protocol asks

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """`socket`, `peername`, `sslcontext` and so on, as asyncio names them."""
        return self._extra.get(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Give the connection to another protocol."""
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Whose connection it is."""
        return self._protocol

    def is_closing(self) -> bool:
        """Whether `close` or `abort` was called, or the connection is lost."""
        return self._closing

    def close(self) -> None:
        """Close when all that was written has left; no more input."""
        if self._closing:
            return
        self._closing = True
        self._ask_for_input()
        self._flush()

    def abort(self) -> None:
        """Close at once; what has not left is lost."""
        self._lose(None)

    def stream(self) -> TlsStream:
        """The state of TLS, for whoever goes on with the connection; only `abort` may follow.

        To be called when nothing waits to be sent.
        """
        return self._sealed.stream()

    # --- reading

    def is_reading(self) -> bool:
        """Whether the protocol gets input."""
        return not self._paused and not self._closing

    def pause_reading(self) -> None:
        """No `data_received` until `resume_reading`."""
        self._paused = True
        self._ask_for_input()

    def resume_reading(self) -> None:
        """Ends `pause_reading`."""
        self._paused = False
        self._ask_for_input()

    def _ask_for_input(self) -> None:
        wanted = not (self._paused or self._closing or self._eof_seen or self._over)
        if wanted and not self._reading:
            self._loop.add_reader(self._fd, self._on_readable)
        elif self._reading and not wanted:
            self._loop.remove_reader(self._fd)
        self._reading = wanted

    def _on_readable(self) -> None:
        try:
            data = self._sock.recv(RECEIVE_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lose(error)
            return
        if data:
            self._receive(data)
            self._flush()  # an answer to an update of keys
        else:
            self._end_of_input()

    def _receive(self, data: bytes) -> None:
        """Give the protocol what `data` holds, and tell it of the end."""
        if self._over:
            return
        try:
            opened = self._sealed.receive(data)
        except ssl.SSLError as error:
            self._send_some()  # the alert that says why
            self._lose(error)
            return
        if opened and not self._closing:
            self._call(self._protocol.data_received, opened)  # type: ignore[attr-defined]
        if self._sealed.ended:
            self._end_of_input()

    def _end_of_input(self) -> None:
        if self._eof_seen or self._over:
            return
        self._eof_seen = True
        self._ask_for_input()
        if not self._call(self._protocol.eof_received):  # type: ignore[attr-defined]
            self.close()

    # --- writing

    def get_write_buffer_size(self) -> int:
        """Bytes that wait for the socket."""
        return len(self._waiting) + self._sealed.pending

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Low and high water in bytes."""
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """The protocol pauses above `high` waiting bytes, and goes on at `low` (a quarter of `high`)."""
        if high is None:
            high = HIGH_WATER if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high}) must be at least low ({low}), and low at least 0")
        self._high, self._low = high, low
        self._tell_protocol()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send `data`, now or when the socket takes it. Raises RuntimeError behind `write_eof`."""
        if self._eof_written:
            raise RuntimeError("cannot write behind write_eof")
        if self._closing or not data:
            return
        self._waiting += data
        self._flush()

    def can_write_eof(self) -> bool:
        """TLS ends each direction on its own (RFC 8446 section 6.1)."""
        return True

    def write_eof(self) -> None:
        """Nothing follows what was written; input goes on."""
        self._eof_written = True
        self._flush()

    def _flush(self) -> None:
        """Send as much as the socket takes; then what follows: the end of the stream, or of the connection."""
        if self._over:
            return
        if not self._writing and not self._send_some():
            return
        left = bool(self.get_write_buffer_size())
        if left and not self._writing:
            self._loop.add_writer(self._fd, self._on_writable)
        elif self._writing and not left:
            self._loop.remove_writer(self._fd)
        self._writing = left
        self._tell_protocol()
        if not left and self._closing:
            self._lose(None)

    def _on_writable(self) -> None:
        if not self._send_some():
            return
        if self.get_write_buffer_size():
            self._tell_protocol()
        else:
            self._flush()

    def _send_some(self) -> bool:
        """Send as much as the socket takes; False when the connection is over."""
        try:
            for _ in range(SENDS):
                data = self._sealed.next_bytes()
                if data:
                    self._sealed.sent(self._sock.send(data))
                elif self._waiting:
                    with memoryview(self._waiting) as waiting:
                        count = self._sealed.seal(waiting)
                    del self._waiting[:count]
                elif (self._closing or self._eof_written) and not self._sealed.notified:
                    self._sealed.notify()
                else:
                    break
            else:
                return True
            if self._eof_written and not self._shut:
                self._shut = True
                self._sock.shutdown(socket.SHUT_WR)
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:  # ssl.SSLError is one
            self._lose(error)
            return False
        return True

    def _tell_protocol(self) -> None:
        waiting = self.get_write_buffer_size()
        if waiting > self._high and not self._told_to_pause:
            self._told_to_pause = True
            self._call(self._protocol.pause_writing)
        elif waiting <= self._low and self._told_to_pause:
            self._told_to_pause = False
            self._call(self._protocol.resume_writing)

    # --- the end

    def _lose(self, error: Exception | None) -> None:
        if self._over:
            return
        self._over = self._closing = True
        self._ask_for_input()
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._fd)
        self._waiting = bytearray()
        self._loop.call_soon(self._end, error)

    def _end(self, error: Exception | None) -> None:
        try:
            self._protocol.connection_lost(error)
        finally:
            self._sock.close()

    def _call(self, function: Any, *arguments: Any) -> Any:
        """A callback of the protocol; one that fails ends this connection only."""
        try:
            return function(*arguments)
        except Exception as error:
            self._loop.call_exception_handler(
                {"message": "a protocol failed", "exception": error, "transport": self, "protocol": self._protocol}
            )
            self._lose(error)
            return None


def _address(ask: Any) -> Any:
    try:
        return ask()
    except OSError:
        return None
