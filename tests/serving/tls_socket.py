"""A TLS client on a blocking socket that may read in one thread and write in another.

`ssl.SSLSocket` may not before Python 3.13: its reads and writes work on one OpenSSL object without a lock.
"""

import contextlib
import socket
import ssl
import threading
from typing import Any


class TlsSocket:
    """The handshake is made at once. What it does not know goes to the socket itself."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self.raw = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="127.0.0.1")
        self._lock = threading.Lock()
        self._send_lock = threading.Lock()
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self._send()
                self._take()
            except ssl.SSLError:
                self._send()  # the alert
                raise
            else:
                break
        self._send()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)

    def _send(self) -> None:
        with self._send_lock:
            with self._lock:
                data = self.outgoing.read()
            self.raw.sendall(data)

    def _take(self) -> None:
        data = self.raw.recv(1 << 18)
        if not data:
            raise EOFError("the stream ended without close_notify")
        with self._lock:
            self.incoming.write(data)

    def sendall(self, data: bytes) -> None:
        """Seal and send `data`."""
        with self._lock:
            self.tls.write(data) if len(data) <= 16_384 else self._seal(memoryview(data))
        self._send()

    def _seal(self, data: memoryview) -> None:
        while data:
            data = data[self.tls.write(data) :]

    def recv(self, size: int) -> bytes:
        """At most `size` bytes, b"" behind close_notify. Raises EOFError when the stream ends without it."""
        while True:
            try:
                with self._lock:
                    return self.tls.read(size)
            except ssl.SSLWantReadError:
                self._take()
            except ssl.SSLZeroReturnError:
                return b""

    def notify(self) -> None:
        """Send close_notify."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        self._send()
