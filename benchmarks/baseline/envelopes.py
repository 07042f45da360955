"""The envelopes of `rtc.v1` as tagged structs, and the two encodings that carry them.

What lives here: shapes, their limits, and bytes in both directions. What it does not know: connections, topics, users.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

TYPE_FIELD = "type"

RequestId = Annotated[int, Meta(ge=0, le=2**53 - 1)] | Annotated[str, Meta(max_length=64)]
OptionalId = RequestId | UnsetType
MAX_ID_BYTES = 64
Count = Annotated[int, Meta(ge=0, le=1000)]
Key = Annotated[str, Meta(min_length=1, max_length=128)]


class RequestError(Exception):
    """A request that cannot be served; `code` is one of the protocol's error codes."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Position(msgspec.Struct):
    """A place in a topic's history."""

    epoch: str
    offset: Annotated[int, Meta(ge=0)]


# --- client to server ------------------------------------------------------------------------------------------------


class Request(msgspec.Struct, kw_only=True, tag_field=TYPE_FIELD, tag=str):
    id: OptionalId = UNSET


class Authenticate(Request, kw_only=True):
    token: str | None = None
    api_key: str | None = None


class Subscribe(Request, kw_only=True):
    topic: str
    recover: Position | None = None
    history: Count = 0
    presence: bool = False


class Unsubscribe(Request, kw_only=True):
    topic: str


class Broadcast(Request, kw_only=True):
    topic: str
    payload: Raw
    exclude_self: bool = False
    idempotency_key: Key | None = None


class DirectMessage(Request, kw_only=True):
    to: str | list[str]
    payload: Raw
    idempotency_key: Key | None = None


class Presence(Request, kw_only=True):
    topic: str


class History(Request, kw_only=True):
    topic: str
    after: Position | None = None
    limit: Count = 100
    reverse: bool = False


class Refresh(Request, kw_only=True):
    token: str


class Ping(Request, kw_only=True):
    pass


AnyRequest = Authenticate | Subscribe | Unsubscribe | Broadcast | DirectMessage | Presence | History | Refresh | Ping


# --- server to client ------------------------------------------------------------------------------------------------


class Reply(msgspec.Struct, kw_only=True, tag_field=TYPE_FIELD, tag=str):
    """The answer to a request; carries the request's `id` when it had one."""

    id: OptionalId = UNSET


class Connected(Reply, kw_only=True):
    session_id: str
    user_id: str
    node_id: str
    protocol: Literal["rtc.v1"] = "rtc.v1"
    heartbeat_interval_secs: int
    expires_at: int | None
    refresh_at: int | None


class Entry(msgspec.Struct, rename={"from_": "from"}):
    """One message of a topic's history."""

    offset: int
    ts: int
    from_: str
    payload: Raw


class Subscribed(Reply, kw_only=True):
    topic: str
    epoch: str
    offset: int
    recovered: bool
    messages: list[Entry]


class Unsubscribed(Reply, kw_only=True):
    topic: str


class BroadcastAck(Reply, kw_only=True, tag="Ack"):
    topic: str
    epoch: str
    offset: int


class DirectAck(Reply, kw_only=True, tag="Ack"):
    delivered: list[str]
    offline: list[str]


class Member(msgspec.Struct):
    user_id: str
    session_id: str
    joined_at: int


class PresenceState(Reply, kw_only=True):
    topic: str
    count: int
    members: list[Member]


class HistoryPage(Reply, kw_only=True):
    topic: str
    epoch: str
    offset: int
    messages: list[Entry]


class Refreshed(Reply, kw_only=True):
    expires_at: int | None
    refresh_at: int | None


class Pong(Reply, kw_only=True):
    ts: int


class Error(Reply, kw_only=True):
    code: str
    message: str


class Event(msgspec.Struct, kw_only=True, tag_field=TYPE_FIELD, tag=str):
    """What the server sends unasked."""


class Message(Event, kw_only=True, rename={"from_": "from"}):
    topic: str
    offset: int
    ts: int
    from_: str
    payload: Raw


class DirectMessageEvent(Event, kw_only=True, rename={"from_": "from"}, tag="DirectMessage"):
    offset: int
    ts: int
    from_: str
    payload: Raw


class Join(Event, kw_only=True):
    topic: str
    user_id: str
    session_id: str


class Leave(Event, kw_only=True):
    topic: str
    user_id: str
    session_id: str


class TokenExpiring(Event, kw_only=True):
    expires_at: int


class Closing(Event, kw_only=True):
    code: int
    reason: str
    reconnect: bool
    after_ms: int


# --- encodings -------------------------------------------------------------------------------------------------------


class Encoding:
    """One of the protocol's encodings: a subprotocol and how its envelopes become bytes."""

    def __init__(self, subprotocol: str, module: Any, *, text: bool) -> None:
        self.subprotocol = subprotocol
        self.text = text
        self._requests = module.Decoder(AnyRequest)
        self._plain = module.Decoder()
        self._encoder = module.Encoder()

    def encode(self, envelope: Any) -> bytes:
        encoded: bytes = self._encoder.encode(envelope)
        return encoded

    def decode_plain(self, raw: Raw) -> Any:
        return self._plain.decode(raw)

    def decode_request(self, data: str | bytes) -> AnyRequest:
        """The request in a WebSocket message. Raises RequestError (`bad_request`) naming the field at fault."""
        try:
            request: AnyRequest = self._requests.decode(data)
        except (msgspec.DecodeError, RecursionError, UnicodeError) as problem:
            raise RequestError("bad_request", str(problem) or "the message cannot be read") from problem
        if isinstance(request.id, str) and len(request.id.encode()) > MAX_ID_BYTES:
            raise RequestError("bad_request", f"`id` may have at most {MAX_ID_BYTES} bytes")
        return request

    def request_id(self, data: str | bytes) -> OptionalId:
        """The `id` of a request that `decode_request` refused, so that its error can still be matched to it."""
        try:
            fields = self.decode_plain(Raw(data.encode() if isinstance(data, str) else data))
            request_id = msgspec.convert(fields["id"], RequestId) if "id" in fields else UNSET
            too_long = isinstance(request_id, str) and len(request_id.encode()) > MAX_ID_BYTES
            return UNSET if too_long else request_id
        except (msgspec.DecodeError, RecursionError, UnicodeError, AttributeError, TypeError):
            return UNSET


JSON = Encoding("rtc.v1.json", msgspec.json, text=True)
MSGPACK = Encoding("rtc.v1.msgpack", msgspec.msgpack, text=False)
ENCODINGS = {encoding.subprotocol: encoding for encoding in (JSON, MSGPACK)}


class Payload:
    """A payload as it came in, and in the other encoding once somebody needs it there."""

    __slots__ = ("_forms",)

    def __init__(self, raw: Raw, encoding: Encoding) -> None:
        self._forms = {encoding: raw}

    def form(self, encoding: Encoding) -> Raw:
        form = self._forms.get(encoding)
        if form is None:
            (source, raw) = next(iter(self._forms.items()))
            form = Raw(encoding.encode(source.decode_plain(raw)))
            self._forms[encoding] = form
        return form
