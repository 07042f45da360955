"""The WebSocket opening handshake; `handshake.pxd` is the contract. The functions at the end show it to Python."""

import json

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t

from realtime_communication._core.base.memory cimport Slice, slice_is, slice_of
from realtime_communication._core.wire.http_head cimport (
    HttpHead, head_count, head_get, head_has_token, head_parse, is_authority, is_token, lower, next_element,
    slice_is_lower, trimmed,
)
from realtime_communication._core.wire.sha1 cimport sha1

cdef enum:
    KEY_SIZE = 24                # characters of 16 bytes in base64

cdef bytes ACCEPT_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"    # RFC 6455, 1.3
cdef const char* BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

cdef dict PHRASES = {            # RFC 9110, section 15; RFC 6585
    400: b"Bad Request",
    401: b"Unauthorized",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    413: b"Content Too Large",
    426: b"Upgrade Required",
    429: b"Too Many Requests",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    503: b"Service Unavailable",
    505: b"HTTP Version Not Supported",
}

cdef dict DEMANDED = {           # fields without which an answer with that status is not complete
    401: ((b"WWW-Authenticate", b"Bearer"),),                                      # RFC 9110, 11.6.1
    405: ((b"Allow", b"GET"),),                                                    # RFC 9110, 15.5.6
    426: ((b"Upgrade", b"websocket"), (b"Sec-WebSocket-Version", b"13")),          # RFC 9110, 15.5.22; RFC 6455, 4.4
}

cdef bytes FIELD_BREAKERS = bytes(range(32)) + b"\x7f"
cdef bytes TO_SPACES = bytes.maketrans(FIELD_BREAKERS, b" " * len(FIELD_BREAKERS))


cdef bint is_base64_letter(uint8_t byte) noexcept nogil:
    return 97 <= lower(byte) <= 122 or 48 <= byte <= 57 or byte == 43 or byte == 47


cdef bint is_key(Slice value) noexcept nogil:
    """Whether it is the base64 of 16 bytes (RFC 6455, 4.1)."""
    cdef size_t i
    if value.size != KEY_SIZE or value.data[22] != 61 or value.data[23] != 61:
        return False
    for i in range(22):
        if not is_base64_letter(value.data[i]):
            return False
    return True


cdef int handshake_check(const HttpHead* head, const char** code, const char** reason) noexcept nogil:
    cdef const Slice* value
    code[0] = b"bad_request"
    if not slice_is(head.method, b"GET", 3):
        reason[0] = b"a WebSocket is opened with GET"
        return 405
    if head.version_minor == 0:
        reason[0] = b"a WebSocket is opened with HTTP/1.1"
        return 400
    if not head_has_token(head, b"upgrade", 7, b"websocket", 9):
        reason[0] = b"Upgrade: websocket is missing"
        return 400
    if not head_has_token(head, b"connection", 10, b"upgrade", 7):
        reason[0] = b"Connection: Upgrade is missing"
        return 400
    if head.content_length > 0 or head.chunked:
        reason[0] = b"a handshake has no body"
        return 400
    if head_count(head, b"authorization", 13) > 1 or head_count(head, b"origin", 6) > 1:
        reason[0] = b"Authorization or Origin is repeated"
        return 400
    value = head_get(head, b"sec-websocket-version", 21)
    if value == NULL or not slice_is(value[0], b"13", 2) or head_count(head, b"sec-websocket-version", 21) != 1:
        code[0] = b"unsupported"
        reason[0] = b"WebSocket version 13 is needed"
        return 426
    value = head_get(head, b"sec-websocket-key", 17)
    if value == NULL or not is_key(value[0]) or head_count(head, b"sec-websocket-key", 17) != 1:
        reason[0] = b"bad Sec-WebSocket-Key"
        return 400
    return 0


cdef bint is_served(Slice offer, bint compression_enabled, int* encoding, int* compression) noexcept nogil:
    """Read the name of a subprotocol; PROTOCOL.md, section 1."""
    cdef Slice rest = offer
    if rest.size >= 11 and slice_is(slice_of(rest.data, 11), b"rtc.v1.json", 11):
        encoding[0] = ENCODING_JSON
        rest = slice_of(rest.data + 11, rest.size - 11)
    elif rest.size >= 14 and slice_is(slice_of(rest.data, 14), b"rtc.v1.msgpack", 14):
        encoding[0] = ENCODING_MSGPACK
        rest = slice_of(rest.data + 14, rest.size - 14)
    else:
        return False
    if rest.size == 0:
        compression[0] = COMPRESSION_NONE
        return True
    if slice_is(rest, b"+zstd", 5):
        compression[0] = COMPRESSION_ZSTD
    elif slice_is(rest, b"+lz4", 4):
        compression[0] = COMPRESSION_LZ4
    elif slice_is(rest, b"+gzip", 5):
        compression[0] = COMPRESSION_GZIP
    else:
        return False
    return compression_enabled


cdef int choose_subprotocol(
    const HttpHead* head, bint compression_enabled, int* encoding, int* compression, Slice* chosen
) noexcept nogil:
    cdef Slice[MAX_OFFERS] offers
    cdef size_t count = 0
    cdef size_t i
    cdef uint32_t field
    cdef Slice rest
    cdef Slice offer
    cdef int offered_encoding = ENCODING_JSON
    cdef int offered_compression = COMPRESSION_NONE
    encoding[0] = ENCODING_JSON
    compression[0] = COMPRESSION_NONE
    chosen[0] = slice_of(NULL, 0)
    for field in range(head.count):
        if not slice_is_lower(head.fields[field].name, b"sec-websocket-protocol", 22):
            continue
        rest = head.fields[field].value
        while next_element(&rest, &offer):
            if count == MAX_OFFERS or not is_token(offer):
                return 400
            for i in range(count):           # RFC 6455, 4.1: all of them unique; few enough to look at each
                if offers[i].size == offer.size and slice_is(offer, <const char*> offers[i].data, offer.size):
                    return 400
            offers[count] = offer
            count += 1
            if chosen.data == NULL and is_served(
                offer, compression_enabled, &offered_encoding, &offered_compression
            ):
                encoding[0] = offered_encoding
                compression[0] = offered_compression
                chosen[0] = offer
    return 400 if count and chosen.data == NULL else 0


cdef bint bearer_token(Slice authorization, Slice* token) noexcept nogil:
    if authorization.size < 7 or not slice_is_lower(slice_of(authorization.data, 7), b"bearer ", 7):
        return False
    token[0] = trimmed(authorization.data + 7, authorization.size - 7)
    return True


cdef struct OriginParts:         # RFC 6454, section 4
    Slice scheme
    Slice host
    uint32_t port                # 0 when there is none, neither written nor the scheme's


cdef bint same_lower(Slice one, Slice other) noexcept nogil:
    cdef size_t i
    if one.size != other.size:
        return False
    for i in range(one.size):
        if lower(one.data[i]) != lower(other.data[i]):
            return False
    return True


cdef uint32_t default_port(Slice scheme) noexcept nogil:
    if slice_is_lower(scheme, b"https", 5) or slice_is_lower(scheme, b"wss", 3):
        return 443
    if slice_is_lower(scheme, b"http", 4) or slice_is_lower(scheme, b"ws", 2):
        return 80
    return 0


cdef bint parse_origin(Slice text, OriginParts* out) noexcept nogil:
    """Read a serialized origin: scheme "://" host [ ":" port ] and nothing else."""
    cdef size_t at = 0
    cdef size_t i
    while at < text.size and text.data[at] != 58:
        at += 1
    if at == 0 or text.size - at < 4 or text.data[at + 1] != 47 or text.data[at + 2] != 47:
        return False
    out.scheme = slice_of(text.data, at)
    out.host = slice_of(text.data + at + 3, text.size - at - 3)
    if not is_token(out.scheme) or not is_authority(out.host):
        return False
    out.port = default_port(out.scheme)
    at = out.host.size
    while at and 48 <= out.host.data[at - 1] <= 57:
        at -= 1
    # is_authority lets a colon without digits behind it pass; an origin has none.
    if at and out.host.data[at - 1] == 58:
        if at == out.host.size:
            return False
        out.port = 0
        for i in range(at, out.host.size):
            out.port = out.port * 10 + out.host.data[i] - 48
        out.host.size = at - 1
    return True


cdef bint origin_allowed(Slice origin, list allowed) except -1:
    cdef OriginParts asked
    cdef OriginParts entry
    cdef bytes text
    cdef bint valid = parse_origin(origin, &asked)
    for item in allowed:
        text = encoded(item)
        if text == b"*":
            return True
        if not valid or not parse_origin(slice_of(<const char*> text, len(text)), &entry):
            continue
        if asked.port == entry.port and same_lower(asked.scheme, entry.scheme) and same_lower(asked.host, entry.host):
            return True
    return False


cdef bytes encoded(object text):
    return text if isinstance(text, bytes) else str(text).encode("utf-8", "replace")


cdef bytes field_text(object text):
    """A field name or value that cannot end its line: RFC 9110, 5.5 has what could do so replaced by spaces."""
    return encoded(text).translate(TO_SPACES).strip()


cdef bytes as_bytes(Slice value):
    return (<const char*> value.data)[:value.size]


cdef bytes accept_key(Slice key):
    cdef bytes asked = as_bytes(key) + ACCEPT_GUID
    cdef uint8_t digest[21]
    cdef uint8_t text[28]
    cdef uint32_t bits
    cdef int i
    sha1(<const uint8_t*> asked, len(asked), digest)
    digest[20] = 0
    for i in range(7):
        bits = <uint32_t> digest[3 * i] << 16 | <uint32_t> digest[3 * i + 1] << 8 | digest[3 * i + 2]
        text[4 * i] = BASE64[bits >> 18]
        text[4 * i + 1] = BASE64[bits >> 12 & 63]
        text[4 * i + 2] = BASE64[bits >> 6 & 63]
        text[4 * i + 3] = BASE64[bits & 63]
    text[27] = 61                # 20 bytes are two bits short of 27 characters
    return (<const char*> text)[:28]


cdef bytes upgrade_response(Slice key, Slice subprotocol, bytes extensions):
    cdef list parts = [
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ",
        accept_key(key),
    ]
    if subprotocol.data != NULL:
        parts += (b"\r\nSec-WebSocket-Protocol: ", as_bytes(subprotocol))
    if extensions:
        parts += (b"\r\nSec-WebSocket-Extensions: ", extensions)
    parts.append(b"\r\n\r\n")
    return b"".join(parts)


cdef bytes refusal(int status, object code, object message, list extra_headers):
    cdef bytes body = json.dumps(
        {"error": {"code": encoded(code).decode("utf-8", "replace"),
                   "message": encoded(message).decode("utf-8", "replace")}},
        separators=(",", ":"),
    ).encode()
    cdef list fields = [(field_text(name), field_text(value)) for name, value in extra_headers or ()]
    given = {name.lower() for name, _ in fields}
    fields += [(name, value) for name, value in DEMANDED.get(status, ()) if name.lower() not in given]
    lines = [
        b"HTTP/1.1 %d %s" % (status, PHRASES.get(status, b"Error")),
        b"Content-Type: application/json",
        b"Content-Length: %d" % len(body),
        b"Cache-Control: no-store",
        # RFC 9110, 7.8: whoever sends Upgrade names it here.
        b"Connection: Upgrade, close" if status == 426 else b"Connection: close",
        *[name + b": " + value for name, value in fields],
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


cdef int parse_for_python(bytes data, HttpHead* head) except -1:
    cdef const char* reason = b""
    cdef int status = head_parse(<const uint8_t*> data, len(data), head, &reason)
    if status:
        raise ValueError(status, (<bytes> reason).decode())
    return 0


def check_handshake(bytes data not None):
    """(status, code, reason) for a request head, or None when it is a handshake; raises ValueError for a bad head."""
    cdef HttpHead head
    cdef const char* code = b""
    cdef const char* reason = b""
    parse_for_python(data, &head)
    cdef int status = handshake_check(&head, &code, &reason)
    return (status, (<bytes> code).decode(), (<bytes> reason).decode()) if status else None


def subprotocol_of(bytes data not None, bint compression_enabled):
    """(encoding, compression, chosen or None) for a request head, or None when it is refused; raises ValueError."""
    cdef HttpHead head
    cdef int encoding = -1
    cdef int compression = -1
    cdef Slice chosen
    parse_for_python(data, &head)
    if choose_subprotocol(&head, compression_enabled, &encoding, &compression, &chosen):
        return None
    return encoding, compression, None if chosen.data == NULL else as_bytes(chosen)


def is_origin_allowed(bytes origin not None, list allowed not None):
    """Whether an `Origin` is in a list of origins."""
    return origin_allowed(slice_of(<const char*> origin, len(origin)), allowed)


def accept_for(bytes key not None):
    """`Sec-WebSocket-Accept` for a key."""
    return accept_key(slice_of(<const char*> key, len(key)))


def upgrade_answer(bytes key not None, bytes subprotocol, bytes extensions not None):
    """The 101 answer."""
    cdef Slice chosen = slice_of(NULL, 0)
    if subprotocol is not None:
        chosen = slice_of(<const char*> subprotocol, len(subprotocol))
    return upgrade_response(slice_of(<const char*> key, len(key)), chosen, extensions)


def refusal_answer(int status, code, message, list extra_headers = None):
    """A whole answer that refuses a request."""
    return refusal(status, code, message, extra_headers)
