# The head of an HTTP/1.1 request, read strictly (RFC 9110, RFC 9112).
#
# Rules: no socket, no allocation, nothing raised; time is linear in the bytes, also when they come one by one. What
# two parsers could read in two ways is refused, because behind this one there may be a second (the HTTP application
# gets the same bytes) and in front of it another (a proxy). All slices point into the caller's bytes.
#
# Use: head_find_end on whatever has arrived until it gives the head's size, then head_parse once.

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t

from realtime_communication._core.base.memory cimport Slice


cdef enum:
    HEAD_LIMIT = 16384           # bytes of a head, blank line included; nginx and Node.js have the same
    HEAD_MAX_FIELDS = 100        # header fields of a request; Apache has the same


cdef struct HeadField:
    Slice name                   # as it was sent; compare without regard to case
    Slice value                  # without the white space around it; may be empty


cdef struct HttpHead:            # about 3.3 KiB
    Slice method                 # upper case
    Slice target                 # as it was sent
    Slice path                   # of the target, still percent-encoded; begins with "/", or is "*" for OPTIONS
    Slice query                  # of the target, without "?"; data is NULL without one
    uint8_t version_minor        # of HTTP/1.x: 0 or 1
    bint chunked                 # Transfer-Encoding: chunked
    int64_t content_length       # bytes; -1 when the field is missing
    size_t size                  # bytes of the head, blank line included
    uint32_t count               # fields used
    HeadField fields[HEAD_MAX_FIELDS]


# Where the head ends: its size; 0 when more bytes are needed; a negative HTTP status when no bytes could save it. Above
# HEAD_LIMIT that is 431, but 400 where a list of protocols, extensions or cookies has no end.
# `data` always begins with the head's first byte. `progress` is 0 before the first call, and the caller keeps it
# unread: each byte is looked at once.
cdef Py_ssize_t head_find_end(const uint8_t* data, size_t size, uint32_t* progress) noexcept nogil

# Reads the head at the start of the bytes, which may go on behind it. 0, or an HTTP status (400, 431, 505) with a
# constant text for the peer in `reason`; then `out` must not be used.
cdef int head_parse(const uint8_t* data, size_t size, HttpHead* out, const char** reason) noexcept nogil

# The first field of that name (given in lower case), or NULL; and how many there are.
cdef const Slice* head_get(const HttpHead* head, const char* lower_name, size_t size) noexcept nogil
cdef uint32_t head_count(const HttpHead* head, const char* lower_name, size_t size) noexcept nogil
# Whether a comma-separated list, over all fields of that name, has the token (given in lower case, found in any).
cdef bint head_has_token(
    const HttpHead* head, const char* lower_name, size_t name_size, const char* lower_token, size_t token_size
) noexcept nogil
# Whether the peer asks for WebSocket: `Upgrade` has the token "websocket".
cdef bint head_wants_upgrade(const HttpHead* head) noexcept nogil
# All fields as a list of (name in lower case, value).
cdef list head_fields(const HttpHead* head)

# Takes the next element, without white space around it, off a comma-separated list; False when the list is used up.
# Elements may be empty.
cdef bint next_element(Slice* rest, Slice* element) noexcept nogil
# Without spaces and tabs around it.
cdef Slice trimmed(const uint8_t* data, size_t size) noexcept nogil
# A token of RFC 9110, 5.6.2: one or more letters, digits or !#$%&'*+-.^_`|~.
cdef bint is_token(Slice value) noexcept nogil
# A host with an optional port, as in `Host`: a name, an IPv4 or a bracketed IPv6 address.
cdef bint is_authority(Slice value) noexcept nogil


cdef inline uint8_t lower(uint8_t byte) noexcept nogil:
    return byte | 0x20 if 65 <= byte <= 90 else byte


# Equal to a text in lower case, in whatever case the bytes are.
cdef inline bint slice_is_lower(Slice value, const char* lower_text, size_t size) noexcept nogil:
    cdef size_t i
    if value.size != size:
        return False
    for i in range(size):
        if lower(value.data[i]) != <uint8_t> lower_text[i]:
            return False
    return True
