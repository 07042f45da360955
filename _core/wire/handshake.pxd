# The WebSocket opening handshake (RFC 6455, section 4) on a parsed head, and the HTTP answers that come of it.
#
# Rules: no socket, no clock, no credentials; a decision is a status with a stable code and a text for the peer. Only
# what makes bytes may raise, and then only MemoryError.

from libc.stddef cimport size_t

from realtime_communication._core.base.memory cimport Slice
from realtime_communication._core.wire.http_head cimport HttpHead


cdef enum:
    ENCODING_JSON = 0
    ENCODING_MSGPACK = 1
    COMPRESSION_NONE = 0
    COMPRESSION_ZSTD = 1
    COMPRESSION_LZ4 = 2
    COMPRESSION_GZIP = 3
    MAX_OFFERS = 64              # subprotocols that a client may list; browsers send a few


# Whether a request on a WebSocket path is a handshake: 0, or an HTTP status (400, 405, 426) with a code and a text,
# both constant.
cdef int handshake_check(const HttpHead* head, const char** code, const char** reason) noexcept nogil

# Chooses the first subprotocol of the client's list that is served. 0 with `chosen` as the client wrote it, or its
# data NULL when the client has no list (JSON without compression then). 400 when none of the list is served, or it is
# malformed, has more than MAX_OFFERS entries or one twice.
cdef int choose_subprotocol(
    const HttpHead* head, bint compression_enabled, int* encoding, int* compression, Slice* chosen
) noexcept nogil

# The token of an Authorization field whose scheme is Bearer (RFC 6750, section 2.1); False for another scheme.
cdef bint bearer_token(Slice authorization, Slice* token) noexcept nogil

# Whether an `Origin` is in the list of serialized origins (str or bytes): scheme, host and port are equal, where case
# does not count and a missing port is the scheme's. "*" in the list allows all; "null" and what is no origin is in no
# other list.
cdef bint origin_allowed(Slice origin, list allowed) except -1

# `Sec-WebSocket-Accept` for a key (RFC 6455, 4.2.2).
cdef bytes accept_key(Slice key)
# The 101 answer; no line for a subprotocol without data, or for empty `extensions`.
cdef bytes upgrade_response(Slice key, Slice subprotocol, bytes extensions)
# A whole answer that refuses a request and ends the connection, its body {"error":{"code":…,"message":…}}. Texts are
# str or bytes; `extra_headers` is a list of (name, value), or None. What a status demands is added unless given:
# `Allow` for 405, `WWW-Authenticate` for 401, `Upgrade` and `Sec-WebSocket-Version` for 426.
cdef bytes refusal(int status, object code, object message, list extra_headers)
