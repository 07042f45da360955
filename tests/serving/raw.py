"""Bytes on a socket: requests no client library would send, frames as they are."""

import base64
import contextlib
import json
import os
import socket
import ssl
import struct
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from serving.peer import JSON
from serving.tokens import token

WAIT_SECS = 20.0
KEY = base64.b64encode(b"sixteen bytes ok").decode()

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA


@dataclass(frozen=True)
class Answer:
    """An HTTP response. ``status`` is 0 when the connection ended without one."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)

    @property
    def error_code(self) -> str:
        """Of the JSON error body."""
        return str(self.json["error"]["code"])

    @property
    def error_message(self) -> str:
        """Of the JSON error body."""
        return str(self.json["error"]["message"])


@dataclass(frozen=True)
class Frame:
    """One frame from the server."""

    fin: bool
    rsv: int
    opcode: int
    payload: bytes

    @property
    def close_code(self) -> int:
        """Of a close frame; 1005 when it has none."""
        assert self.opcode == CLOSE, f"no close frame: {self}"
        return int(struct.unpack(">H", self.payload[:2])[0]) if self.payload else 1005


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    masked: bool = True,
    declared: int | None = None,
    wide: bool = False,
) -> bytes:
    """A client frame. ``declared`` replaces the length, ``wide`` uses the eight byte form for any length."""
    length = len(payload) if declared is None else declared
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    mask_bit = 0x80 if masked else 0
    if wide or length > 0xFFFF:
        head += bytes([mask_bit | 127]) + struct.pack(">Q", length)
    elif length > 125:
        head += bytes([mask_bit | 126]) + struct.pack(">H", length)
    else:
        head += bytes([mask_bit | length])
    if not masked:
        return head + payload
    mask = os.urandom(4)
    pad = mask * (len(payload) // 4 + 1)
    return head + mask + bytes(a ^ b for a, b in zip(payload, pad, strict=False))


def close_frame(code: int, reason: bytes = b"") -> bytes:
    return frame(CLOSE, struct.pack(">H", code) + reason)


def envelope(**fields: Any) -> bytes:
    """A JSON envelope in a text frame."""
    return frame(TEXT, json.dumps(fields).encode())


def upgrade(
    *,
    method: str = "GET",
    target: str = "/ws",
    version: str = "HTTP/1.1",
    user: str | None = "raw",
    drop: tuple[str, ...] = (),
    extra: tuple[str, ...] = (),
    subprotocol: str | None = JSON,
    **changed: str,
) -> bytes:
    """An upgrade request. Keyword ``host``, ``upgrade``, … replaces a header's value; ``extra`` adds whole lines."""
    headers = {
        "host": "localhost",
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec_websocket_version": "13",
        "sec_websocket_key": KEY,
    }
    if subprotocol is not None:
        headers["sec_websocket_protocol"] = subprotocol
    if user is not None:
        headers["authorization"] = f"Bearer {token(user)}"
    headers.update(changed)
    lines = [f"{method} {target} {version}"]
    lines += [f"{name.replace('_', '-').title()}: {value}" for name, value in headers.items() if name not in drop]
    lines += extra
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


class RawSocket:
    """A TCP connection to the server; with a context, one over TLS."""

    def __init__(
        self,
        port: int,
        *,
        host: str = "127.0.0.1",
        receive_buffer: int | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(WAIT_SECS)
        self.socket.connect((host, port))
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname=host)
        self.data = b""

    @classmethod
    def over(cls, made: socket.socket) -> Self:
        """Over a connection that is there already."""
        raw = cls.__new__(cls)
        raw.socket, raw.data = made, b""
        return raw

    @classmethod
    def upgraded(
        cls,
        port: int,
        user: str = "raw",
        *,
        address: str = "127.0.0.1",
        receive_buffer: int | None = None,
        tls: ssl.SSLContext | None = None,
        **options: Any,
    ) -> Self:
        """An open WebSocket connection, ``Connected`` read already."""
        raw = cls(port, host=address, receive_buffer=receive_buffer, tls=tls)
        raw.send(upgrade(user=user, **options))
        answer = raw.answer()
        assert answer.status == 101, answer
        connected = raw.frame()
        assert connected.opcode in (TEXT, BINARY), connected
        return raw

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """All of ``data``. A peer that has hung up meanwhile is no error here."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(data)

    def reset(self) -> None:
        """End the connection with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def read_more(self) -> bool:
        """Read once. Returns False at the end of the stream."""
        try:
            data = self.socket.recv(262_144)
        except ConnectionResetError:
            return False
        self.data += data
        return bool(data)

    def at_end(self, timeout: float = WAIT_SECS) -> bool:
        """Whether the server ends the connection within ``timeout`` seconds; what comes before is kept in ``data``."""
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                if not self.read_more():
                    return True
            except TimeoutError:
                return False
            finally:
                self.socket.settimeout(WAIT_SECS)
        return False

    def answer(self) -> Answer:
        """The next HTTP response."""
        while b"\r\n\r\n" not in self.data:
            if not self.read_more():
                return Answer(0, {}, self.data)
        head, _, self.data = self.data.partition(b"\r\n\r\n")
        status_line, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        status = int(status_line.split(" ")[1])
        length = 0 if status == 101 else int(headers.get("content-length", "0"))
        while len(self.data) < length:
            if not self.read_more():
                break
        body, self.data = self.data[:length], self.data[length:]
        return Answer(status, headers, body)

    def frame(self) -> Frame:
        """The next frame. Raises EOFError at the end of the stream."""
        while True:
            parsed = self._parse()
            if parsed is not None:
                return parsed
            if not self.read_more():
                raise EOFError("the connection ended inside or before a frame")

    def json(self) -> dict[str, Any]:
        """The envelope in the next frame."""
        received = self.frame()
        assert received.opcode == TEXT, received
        decoded: dict[str, Any] = json.loads(received.payload)
        return decoded

    def closed_with(self) -> int:
        """Read up to the close frame and the end of the stream. Returns its code, 1006 when there was none."""
        code = 1006
        try:
            while True:
                received = self.frame()
                if received.opcode == CLOSE:
                    code = received.close_code
                    self.send(frame(CLOSE, received.payload[:2]))
        except EOFError:
            return code

    def ping_works(self) -> bool:
        """Whether the connection still serves requests."""
        self.send(envelope(type="Ping", id="still there?"))
        while True:
            received = self.frame()
            if received.opcode == TEXT and json.loads(received.payload).get("id") == "still there?":
                return True
            if received.opcode == CLOSE:
                return False

    def _parse(self) -> Frame | None:
        data = self.data
        if len(data) < 2:
            return None
        length, at = data[1] & 0x7F, 2
        if length == 126:
            if len(data) < 4:
                return None
            length, at = struct.unpack(">H", data[2:4])[0], 4
        elif length == 127:
            if len(data) < 10:
                return None
            length, at = struct.unpack(">Q", data[2:10])[0], 10
        assert not data[1] & 0x80, "a server's frame must not be masked"
        if len(data) - at < length:
            return None
        self.data = data[at + length :]
        return Frame(bool(data[0] & 0x80), data[0] >> 4 & 7, data[0] & 0xF, data[at : at + length])


def exchange(port: int, request: bytes) -> Answer:
    """Send ``request`` on a connection of its own and read one response."""
    with RawSocket(port) as raw:
        raw.send(request)
        return raw.answer()
