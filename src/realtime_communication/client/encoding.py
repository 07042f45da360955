"""rtc.v1 in bytes: the envelopes as typed structs, JSON and MessagePack, whole-message compression.

Knows no socket and no state. An envelope of a type this client does not know is None, as a later server may send one;
anything else that does not decode is a ProtocolViolation.
"""

from __future__ import annotations

import zlib
from typing import Any, Literal, TypeAlias

import lz4.frame  # type: ignore[import-untyped]
import msgspec
import zstandard

from realtime_communication.client.errors import ProtocolViolation
from realtime_communication.client.events import HistoryMessage, Member

Format: TypeAlias = Literal["json", "msgpack"]
Compression: TypeAlias = Literal["zstd", "lz4", "gzip"]

PROTOCOL = "rtc.v1"
COMPRESS_FROM_BYTES = 1024
"""Smaller messages are sent as they are; the server's default threshold."""

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_LZ4_MAGIC = b"\x04\x22\x4d\x18"
_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_WINDOW_BITS = 31  # zlib's way to ask for the gzip container


class Envelope(msgspec.Struct, tag_field="type"):
    """What all envelopes from the server share; ``id`` is that of the request answered."""

    id: int | str | None = None


class ConnectedEnvelope(Envelope, tag="Connected"):
    session_id: str = ""
    user_id: str = ""
    node_id: str = ""
    protocol: str = PROTOCOL
    heartbeat_interval_secs: float = 30
    expires_at: int | None = None
    refresh_at: int | None = None


class SubscribedEnvelope(Envelope, tag="Subscribed", kw_only=True):
    topic: str
    epoch: str
    offset: int
    recovered: bool = False
    messages: list[HistoryMessage] = []


class UnsubscribedEnvelope(Envelope, tag="Unsubscribed", kw_only=True):
    topic: str


class AckEnvelope(Envelope, tag="Ack", kw_only=True):
    topic: str = ""
    epoch: str = ""
    offset: int = 0
    delivered: list[str] = []
    offline: list[str] = []


class PresenceStateEnvelope(Envelope, tag="PresenceState", kw_only=True):
    topic: str
    count: int
    members: list[Member] = []


class HistoryPageEnvelope(Envelope, tag="HistoryPage", kw_only=True):
    topic: str
    epoch: str
    offset: int
    messages: list[HistoryMessage] = []


class RefreshedEnvelope(Envelope, tag="Refreshed"):
    expires_at: int | None = None
    refresh_at: int | None = None


class PongEnvelope(Envelope, tag="Pong", kw_only=True):
    ts: int


class MessageEnvelope(Envelope, tag="Message", kw_only=True):
    topic: str
    offset: int
    ts: int
    sender: str = msgspec.field(name="from")
    payload: Any


class DirectMessageEnvelope(Envelope, tag="DirectMessage", kw_only=True):
    offset: int
    ts: int
    sender: str = msgspec.field(name="from")
    payload: Any


class JoinEnvelope(Envelope, tag="Join", kw_only=True):
    topic: str
    user_id: str
    session_id: str
    info: dict[str, Any] | None = None


class LeaveEnvelope(Envelope, tag="Leave", kw_only=True):
    topic: str
    user_id: str
    session_id: str


class LaggedEnvelope(Envelope, tag="Lagged", kw_only=True):
    topic: str
    missed: int
    epoch: str
    offset: int
    recovered: bool = False


class TokenExpiringEnvelope(Envelope, tag="TokenExpiring"):
    expires_at: int | None = None


class ClosingEnvelope(Envelope, tag="Closing"):
    code: int = 1001
    reason: str = ""
    reconnect: bool = True
    after_ms: int = 0


class ErrorEnvelope(Envelope, tag="Error", kw_only=True):
    code: str
    message: str = ""
    retry_after_ms: int | None = None
    scope: str | None = None


ServerEnvelope: TypeAlias = (
    ConnectedEnvelope
    | SubscribedEnvelope
    | UnsubscribedEnvelope
    | AckEnvelope
    | PresenceStateEnvelope
    | HistoryPageEnvelope
    | RefreshedEnvelope
    | PongEnvelope
    | MessageEnvelope
    | DirectMessageEnvelope
    | JoinEnvelope
    | LeaveEnvelope
    | LaggedEnvelope
    | TokenExpiringEnvelope
    | ClosingEnvelope
    | ErrorEnvelope
)


class _Type(msgspec.Struct):
    type: str


_KNOWN_TYPES = frozenset(struct.__struct_config__.tag for struct in Envelope.__subclasses__())


class Codec:
    """Envelopes to WebSocket messages and back, for one negotiated subprotocol."""

    def __init__(self, format: Format, compression: Compression | None, max_message_size: int) -> None:
        self.format: Format = format
        self.compression: Compression | None = compression
        self.max_message_size = max_message_size
        self._encode = msgspec.json.encode if format == "json" else msgspec.msgpack.encode
        self._decoder: msgspec.json.Decoder[ServerEnvelope] | msgspec.msgpack.Decoder[ServerEnvelope]
        self._type_decoder: msgspec.json.Decoder[_Type] | msgspec.msgpack.Decoder[_Type]
        if format == "json":
            self._decoder = msgspec.json.Decoder(ServerEnvelope)
            self._type_decoder = msgspec.json.Decoder(_Type)
        else:
            self._decoder = msgspec.msgpack.Decoder(ServerEnvelope)
            self._type_decoder = msgspec.msgpack.Decoder(_Type)

    @staticmethod
    def subprotocols(format: Format, compression: Compression | None) -> list[str]:
        """What to offer, best first. Without support for the compression the server takes the plain form."""
        plain = f"{PROTOCOL}.{format}"
        return [f"{plain}+{compression}", plain] if compression else [plain]

    @classmethod
    def from_subprotocol(cls, subprotocol: str | None, max_message_size: int) -> Codec:
        """The codec the server chose. Raises ProtocolViolation for a name this client does not know."""
        name, _, suffix = (subprotocol or f"{PROTOCOL}.json").partition("+")
        formats: dict[str, Format] = {f"{PROTOCOL}.json": "json", f"{PROTOCOL}.msgpack": "msgpack"}
        compressions: dict[str, Compression | None] = {"": None, "zstd": "zstd", "lz4": "lz4", "gzip": "gzip"}
        if name not in formats or suffix not in compressions:
            raise ProtocolViolation(f"the server chose the unknown subprotocol {subprotocol!r}")
        return cls(formats[name], compressions[suffix], max_message_size)

    def encode(self, envelope: dict[str, Any]) -> tuple[bool, bytes]:
        """One WebSocket message: (whether it goes into a text frame, its bytes).

        Raises TypeError or ValueError for a payload the format cannot express.
        """
        data = self._encode(envelope)
        if self.compression and len(data) >= COMPRESS_FROM_BYTES:
            return False, _compress(self.compression, data)
        return self.format == "json", data

    def decode(self, data: bytes) -> ServerEnvelope | None:
        """The envelope in one WebSocket message, or None for a type that is not known here.

        Raises ProtocolViolation.
        """
        if self.compression:
            data = self._decompress(data)
        try:
            return self._decoder.decode(data)
        except msgspec.MsgspecError as error:
            try:
                if self._type_decoder.decode(data).type not in _KNOWN_TYPES:
                    return None
            except msgspec.MsgspecError:
                pass
            raise ProtocolViolation(f"the server sent no valid envelope: {error}") from error

    def _decompress(self, data: bytes) -> bytes:
        """The message in ``data``, which may or may not be compressed. Never inflates beyond ``max_message_size``."""
        limit = self.max_message_size
        try:
            if self.compression == "zstd" and data[:4] == _ZSTD_MAGIC:
                plain = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(data).read(limit + 1)
            elif self.compression == "lz4" and data[:4] == _LZ4_MAGIC:
                plain = lz4.frame.LZ4FrameDecompressor().decompress(data, max_length=limit + 1)
            elif self.compression == "gzip" and data[:2] == _GZIP_MAGIC:
                plain = zlib.decompressobj(_GZIP_WINDOW_BITS).decompress(data, limit + 1)
            else:
                return data
        except (zstandard.ZstdError, RuntimeError, EOFError, zlib.error) as error:
            raise ProtocolViolation(f"the server sent a broken {self.compression} frame") from error
        if len(plain) > limit:
            raise ProtocolViolation(f"a message of the server inflates to more than {limit} bytes")
        return bytes(plain)


def _compress(compression: Compression, data: bytes) -> bytes:
    if compression == "zstd":
        return zstandard.ZstdCompressor(level=1).compress(data)
    if compression == "lz4":
        return bytes(lz4.frame.compress(data))
    compressor = zlib.compressobj(1, zlib.DEFLATED, _GZIP_WINDOW_BITS)
    return compressor.compress(data) + compressor.flush()
