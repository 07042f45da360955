"""RFC 6455 frames in plain Python: a client's frame builder, and a slow parser as the oracle of `_core/wire/frames`."""

from collections.abc import Iterator
from dataclasses import dataclass

from model.utf8 import BadText, TextModel

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
CONTINUATION = 0

Event = tuple[object, ...]


def masked(payload: bytes, mask: bytes) -> bytes:
    """XOR as RFC 6455, 5.3 writes it."""
    return bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


def client_frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = b"\x37\xfa\x21\x3d",
    declared: int | None = None,
    form: int | None = None,
) -> bytes:
    """A client's frame; wrong where asked by `declared` length, its `form` (7, 16, 64 bits), `rsv` 0..7, no `mask`."""
    length = len(payload) if declared is None else declared
    if form is None:
        form = 7 if length < 126 else 16 if length < 65536 else 64
    short = {7: length, 16: 126, 64: 127}[form]
    head = bytes([fin << 7 | rsv << 4 | opcode, (mask is not None) << 7 | short])
    head += length.to_bytes({7: 0, 16: 2, 64: 8}[form], "big") if form != 7 else b""
    return head + payload if mask is None else head + mask + masked(payload, mask)


def close_payload(code: int, reason: bytes = b"") -> bytes:
    """The payload of a close frame."""
    return code.to_bytes(2, "big") + reason


@dataclass
class Limits:
    """What the server bounds: payload bytes of a frame and of a message, frames of a message."""

    max_frame: int = 1 << 20
    max_message: int = 1 << 20
    max_fragments: int = 1024


class _Fault(Exception):
    def __init__(self, code: int) -> None:
        self.code = code


class _Cut(Exception):
    """The stream ends here for now."""


ALLOWED_CODES = {1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)}


class FrameModel:
    """Reads a stream that lies there in one piece, one byte after the other."""

    def __init__(self, stream: bytes, deflate: bool, limits: Limits) -> None:
        self.rest: Iterator[int] = iter(stream)
        self.deflate = deflate
        self.limits = limits
        self.message: bytearray | None = None
        self.opcode = 0
        self.compressed = False
        self.fragments = 0
        self.text = TextModel()

    def byte(self) -> int:
        """The next byte."""
        for byte in self.rest:
            return byte
        raise _Cut

    def first(self) -> tuple[bool, bool, int]:
        """FIN, RSV1 and opcode of the next frame."""
        byte = self.byte()
        fin, rsv1, rsv23, opcode = byte >= 128, bool(byte & 64), byte & 48, byte & 15
        if rsv23 or opcode not in (0, 1, 2, 8, 9, 10):
            raise _Fault(1002)
        if rsv1 and not (self.deflate and opcode in (1, 2)):
            raise _Fault(1002)
        if opcode >= 8 and not fin:
            raise _Fault(1002)
        if opcode == CONTINUATION and self.message is None:
            raise _Fault(1002)
        if opcode in (1, 2) and self.message is not None:
            raise _Fault(1002)
        if opcode == CONTINUATION and self.fragments >= self.limits.max_fragments:
            raise _Fault(1009)
        return fin, rsv1, opcode

    def bound(self, least: int) -> None:
        """Refuse a data frame of at least that many bytes when they are too many."""
        if least > self.limits.max_frame or least + len(self.message or b"") > self.limits.max_message:
            raise _Fault(1009)

    def length(self, opcode: int) -> int:
        """The payload's length."""
        byte = self.byte()
        short = byte & 127
        if byte < 128 or (opcode >= 8 and short > 125) or (opcode == CLOSE and short == 1):
            raise _Fault(1002)
        if short < 126:
            if opcode < 8:
                self.bound(short)
            return short
        size = 2 if short == 126 else 8
        value = 0
        for position in range(size):
            byte = self.byte()
            if size == 8 and position == 0 and byte >= 128:
                raise _Fault(1002)
            value = value * 256 + byte
            if (size == 2 and position == 1 and value < 126) or (size == 8 and position == 5 and value == 0):
                raise _Fault(1002)
            self.bound(value * 256 ** (size - 1 - position))
        return value

    def close_byte(self, payload: bytearray, reason: TextModel) -> None:
        """Check the newest byte of a close frame."""
        if len(payload) == 1 and not any(code >> 8 == payload[0] for code in ALLOWED_CODES):
            raise _Fault(1002)
        if len(payload) == 2 and int.from_bytes(payload, "big") not in ALLOWED_CODES:
            raise _Fault(1002)
        if len(payload) > 2:
            reason.push(payload[-1])

    def control(self, opcode: int, length: int, mask: bytes) -> Event:
        """Read the payload of a control frame."""
        payload = bytearray()
        reason = TextModel()
        for position in range(length):
            payload.append(self.byte() ^ mask[position % 4])
            if opcode == CLOSE:
                self.close_byte(payload, reason)
        if opcode == CLOSE:
            reason.end()
            return ("close", int.from_bytes(payload[:2], "big") if payload else 1005, bytes(payload[2:]))
        return ("ping" if opcode == PING else "pong", bytes(payload))

    def data(self, fin: bool, length: int, mask: bytes) -> Event | None:
        """Read the payload of a data frame."""
        assert self.message is not None
        for position in range(length):
            byte = self.byte() ^ mask[position % 4]
            self.message.append(byte)
            if self.opcode == TEXT and not self.compressed:
                self.text.push(byte)
        if not fin:
            return None
        if self.opcode == TEXT and not self.compressed:
            self.text.end()
        event = ("message", self.opcode, self.compressed, bytes(self.message))
        self.message = None
        return event

    def frame(self) -> Event | None:
        """Read one frame."""
        fin, rsv1, opcode = self.first()
        length = self.length(opcode)
        mask = bytes(self.byte() for _ in range(4))
        if opcode >= 8:
            return self.control(opcode, length, mask)
        if opcode == CONTINUATION:
            self.fragments += 1
        else:
            self.message, self.opcode, self.compressed, self.fragments = bytearray(), opcode, rsv1, 1
            self.text = TextModel()
        return self.data(fin, length, mask)

    def events(self) -> list[Event]:
        """All events of the stream; a failure is ("failed", code) and the last."""
        out: list[Event] = []
        try:
            while True:
                event = self.frame()
                if event is not None:
                    out.append(event)
                    if event[0] == "close":
                        return out
        except _Cut:
            return out
        except BadText:
            return [*out, ("failed", 1007)]
        except _Fault as fault:
            return [*out, ("failed", fault.code)]


def expected_events(stream: bytes, *, deflate: bool = False, limits: Limits | None = None) -> list[Event]:
    """What a correct parser makes of `stream`, without the texts of failures."""
    return FrameModel(stream, deflate, limits or Limits()).events()
