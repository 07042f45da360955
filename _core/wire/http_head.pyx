"""The head of an HTTP request, read strictly; `http_head.pxd` is the contract. `parse_head` shows it to Python."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcmp

from realtime_communication._core.base.memory cimport Slice, slice_is, slice_of

cdef enum:
    METHOD_LIMIT = 24            # bytes; the longest registered one has 17
    PROGRESS_BITS = 15           # of `progress`: the offset, at most HEAD_LIMIT; the lines seen are above
    MAX_LENGTH_DIGITS = 18       # of Content-Length: any such number fits 63 bits
    VERSION_SIZE = 8             # "HTTP/1.1"

cdef enum:                       # what a byte may be part of
    IN_TOKEN = 1                 # RFC 9110, 5.6.2
    IN_METHOD = 2                # upper-case letters and "-"
    IN_TARGET = 4                # visible ASCII but "#"
    IN_VALUE = 8                 # RFC 9110, 5.5: visible, space, tab, obs-text
    IN_ASCII_VALUE = 16          # the same without obs-text
    IN_HOST = 32                 # unreserved of RFC 3986: names and IPv4
    IN_IPV6 = 64

cdef uint8_t traits[256]

ctypedef enum FieldRule:
    PLAIN                        # obs-text is let through, as RFC 9110, 5.5 has it
    ASCII_ONLY
    HOST
    CONTENT_LENGTH
    TRANSFER_ENCODING


cdef inline bint all_are(const uint8_t* data, size_t size, uint8_t trait) noexcept nogil:
    cdef size_t i
    for i in range(size):
        if not traits[data[i]] & trait:
            return False
    return True


cdef inline bint is_digit(uint8_t byte) noexcept nogil:
    return 48 <= byte <= 57


cdef inline bint is_hex(uint8_t byte) noexcept nogil:
    return is_digit(byte) or 97 <= lower(byte) <= 102


cdef Slice trimmed(const uint8_t* data, size_t size) noexcept nogil:
    while size and (data[0] == 32 or data[0] == 9):
        data += 1
        size -= 1
    while size and (data[size - 1] == 32 or data[size - 1] == 9):
        size -= 1
    return slice_of(data, size)


cdef int version_status(const uint8_t* line, size_t size) noexcept nogil:
    """0 when a request line ends in a version that is served, else the HTTP status."""
    cdef const uint8_t* version
    if size < VERSION_SIZE + 1:
        return 400
    version = line + size - VERSION_SIZE
    if version[-1] != 32 or memcmp(version, b"HTTP/", 5) != 0:
        return 400
    if not is_digit(version[5]) or version[6] != 46 or not is_digit(version[7]) or version[5] == 48:
        return 400
    if version[5] != 49 or version[7] > 49:
        return 505
    return 0


cdef bint begins_lower(const uint8_t* line, size_t size, const char* lower_text, size_t length) noexcept nogil:
    return size >= length and slice_is_lower(slice_of(line, length), lower_text, length)


cdef int status_of_endless(const uint8_t* data) noexcept nogil:
    """Of a head that has not ended at HEAD_LIMIT: 400 when a list that no client has that long is the last line."""
    cdef size_t at = HEAD_LIMIT
    cdef const uint8_t* line
    while at and data[at - 1] != 10:
        at -= 1
    line = data + at
    at = HEAD_LIMIT - at
    if begins_lower(line, at, b"sec-websocket-protocol:", 23) or begins_lower(
            line, at, b"sec-websocket-extensions:", 25) or begins_lower(line, at, b"cookie:", 7):
        return 400
    return 431


cdef Py_ssize_t head_find_end(const uint8_t* data, size_t size, uint32_t* progress) noexcept nogil:
    cdef size_t at = progress[0] & ((1 << PROGRESS_BITS) - 1)
    cdef size_t lines = progress[0] >> PROGRESS_BITS
    cdef size_t end = size if size < HEAD_LIMIT else HEAD_LIMIT
    cdef size_t method_end
    cdef uint8_t byte
    cdef int status
    if at <= METHOD_LIMIT:
        # What cannot be a method is no HTTP: a TLS hello, say. At most these few bytes are looked at again.
        method_end = 0
        while method_end < end and traits[data[method_end]] & IN_METHOD and method_end < METHOD_LIMIT:
            method_end += 1
        if method_end < end and (method_end == 0 or data[method_end] != 32):
            return -400
    while at < end:
        byte = data[at]
        if byte == 10:
            if at == 0 or data[at - 1] != 13:
                return -400
            if lines == 0:
                status = version_status(data, at - 1)
                if status:
                    return -status
            elif at >= 3 and data[at - 2] == 10:
                return <Py_ssize_t> (at + 1)
            lines += 1
            if lines > HEAD_MAX_FIELDS + 1:
                return -431
        elif at and data[at - 1] == 13:
            return -400
        elif not traits[byte] & IN_VALUE and byte != 13:
            return -400
        at += 1
    if end == HEAD_LIMIT:
        return -status_of_endless(data)
    progress[0] = <uint32_t> (lines << PROGRESS_BITS | at)
    return 0


cdef bint next_line(const uint8_t** at, const uint8_t* end, Slice* line) noexcept nogil:
    """Take a line that ends in CRLF, without it; False when there is none, or a lone CR or LF."""
    cdef const uint8_t* byte = at[0]
    while byte < end and byte[0] != 13 and byte[0] != 10:
        byte += 1
    if end - byte < 2 or byte[0] != 13 or byte[1] != 10:
        return False
    line[0] = slice_of(at[0], byte - at[0])
    at[0] = byte + 2
    return True


cdef bint escapes_are_whole(Slice text) noexcept nogil:
    """Whether each "%" has its two hexadecimal digits (RFC 3986, 2.1)."""
    cdef size_t i
    for i in range(text.size):
        if text.data[i] == 37:
            if text.size - i < 3 or not is_hex(text.data[i + 1]) or not is_hex(text.data[i + 2]):
                return False
    return True


cdef bint split_target(Slice target, HttpHead* out, Slice* authority) noexcept nogil:
    """Read the request target (RFC 9112, 3.2); `authority` gets data only from an absolute one."""
    cdef size_t scheme = 0
    cdef size_t at = 0
    authority[0] = slice_of(NULL, 0)
    out.query = slice_of(NULL, 0)
    if target.size == 0 or not all_are(target.data, target.size, IN_TARGET) or not escapes_are_whole(target):
        return False
    if slice_is(target, b"*", 1):
        out.path = target
        return slice_is(out.method, b"OPTIONS", 7)
    if target.data[0] != 47:
        if slice_is_lower(slice_of(target.data, min(target.size, <size_t> 7)), b"http://", 7):
            scheme = 7
        elif slice_is_lower(slice_of(target.data, min(target.size, <size_t> 8)), b"https://", 8):
            scheme = 8
        else:
            return False
        at = scheme
        while at < target.size and target.data[at] != 47 and target.data[at] != 63:
            at += 1
        authority[0] = slice_of(target.data + scheme, at - scheme)
    out.path = slice_of(target.data + at, target.size - at)
    for at in range(out.path.size):
        if out.path.data[at] == 63:
            out.query = slice_of(out.path.data + at + 1, out.path.size - at - 1)
            out.path.size = at
            break
    if out.path.size == 0:
        # RFC 9112, 3.2.1: the empty path of an absolute target means "/".
        out.path = slice_of(<const char*> b"/", 1)
    return True


cdef int parse_request_line(Slice line, HttpHead* out, Slice* authority, const char** reason) noexcept nogil:
    cdef size_t method_size = 0
    cdef int status
    while method_size < line.size and traits[line.data[method_size]] & IN_METHOD:
        method_size += 1
    if method_size == 0 or method_size > METHOD_LIMIT or method_size == line.size or line.data[method_size] != 32:
        reason[0] = b"malformed method"
        return 400
    status = version_status(line.data, line.size)
    if status or line.size < method_size + 1 + VERSION_SIZE + 1:
        reason[0] = b"HTTP/1.1 is needed"
        return status if status else 400
    out.method = slice_of(line.data, method_size)
    out.version_minor = line.data[line.size - 1] - 48
    out.target = slice_of(line.data + method_size + 1, line.size - method_size - VERSION_SIZE - 2)
    if not split_target(out.target, out, authority):
        reason[0] = b"malformed request target"
        return 400
    return 0


cdef bint is_token(Slice value) noexcept nogil:
    return value.size != 0 and all_are(value.data, value.size, IN_TOKEN)


cdef bint is_authority(Slice value) noexcept nogil:
    cdef size_t at = 0
    cdef size_t digits
    cdef uint32_t port = 0
    if value.size and value.data[0] == 91:
        at = 1
        while at < value.size and traits[value.data[at]] & IN_IPV6:
            at += 1
        if at < 4 or at == value.size or value.data[at] != 93:
            return False
        at += 1
    else:
        while at < value.size and traits[value.data[at]] & IN_HOST:
            at += 1
        if at == 0:
            return False
    if at == value.size:
        return True
    digits = value.size - at - 1
    if value.data[at] != 58 or digits > 5:
        return False
    for at in range(at + 1, value.size):
        if not is_digit(value.data[at]):
            return False
        port = port * 10 + value.data[at] - 48
    return port <= 65535


cdef FieldRule rule_of(Slice name) noexcept nogil:
    """What holds for the value of that field; the first letter keeps it to one comparison or two."""
    cdef uint8_t first = lower(name.data[0])
    if first == c"h" and slice_is_lower(name, b"host", 4):
        return HOST
    if first == c"t" and slice_is_lower(name, b"transfer-encoding", 17):
        return TRANSFER_ENCODING
    if first == c"c":
        if slice_is_lower(name, b"content-length", 14):
            return CONTENT_LENGTH
        if slice_is_lower(name, b"cookie", 6) or slice_is_lower(name, b"connection", 10):
            return ASCII_ONLY
    if first == c"s" and name.size > 4 and slice_is_lower(slice_of(name.data, 4), b"sec-", 4):
        return ASCII_ONLY
    if first == c"u" and slice_is_lower(name, b"upgrade", 7):
        return ASCII_ONLY
    if first == c"o" and slice_is_lower(name, b"origin", 6):
        return ASCII_ONLY
    if first == c"a" and slice_is_lower(name, b"authorization", 13):
        return ASCII_ONLY
    return PLAIN


cdef bint read_length(Slice value, HttpHead* out) noexcept nogil:
    """RFC 9110, 8.6: digits and nothing else, once."""
    cdef size_t i
    if out.content_length >= 0 or value.size == 0 or value.size > MAX_LENGTH_DIGITS:
        return False
    out.content_length = 0
    for i in range(value.size):
        if not is_digit(value.data[i]):
            return False
        out.content_length = out.content_length * 10 + value.data[i] - 48
    return True


cdef int parse_field(Slice line, HttpHead* out, Slice* host, const char** reason) noexcept nogil:
    """Add one field; RFC 9112, section 5."""
    cdef size_t name_size = 0
    cdef HeadField* field
    cdef FieldRule rule
    while name_size < line.size and traits[line.data[name_size]] & IN_TOKEN:
        name_size += 1
    # Also a folded line, and white space before the colon (RFC 9112, 5.1 and 5.2).
    if name_size == 0 or name_size == line.size or line.data[name_size] != 58:
        reason[0] = b"malformed header field"
        return 400
    if out.count == HEAD_MAX_FIELDS:
        reason[0] = b"too many header fields"
        return 431
    field = &out.fields[out.count]
    out.count += 1
    field.name = slice_of(line.data, name_size)
    field.value = trimmed(line.data + name_size + 1, line.size - name_size - 1)
    rule = rule_of(field.name)
    if not all_are(field.value.data, field.value.size, IN_VALUE if rule == PLAIN else IN_ASCII_VALUE):
        reason[0] = b"bad character in a header field"
        return 400
    if rule == HOST:
        if host.data != NULL or not is_authority(field.value):
            reason[0] = b"bad Host"
            return 400
        host[0] = field.value
    elif rule == CONTENT_LENGTH:
        if not read_length(field.value, out):
            reason[0] = b"bad Content-Length"
            return 400
    elif rule == TRANSFER_ENCODING:
        if out.chunked or not slice_is_lower(field.value, b"chunked", 7):
            reason[0] = b"bad Transfer-Encoding"
            return 400
        out.chunked = True
    return 0


cdef bint same_authority(Slice one, Slice other) noexcept nogil:
    cdef size_t i
    if one.size != other.size:
        return False
    for i in range(one.size):
        if lower(one.data[i]) != lower(other.data[i]):
            return False
    return True


cdef int check_whole(const HttpHead* head, Slice host, Slice authority, const char** reason) noexcept nogil:
    """What only the whole head tells."""
    if host.data == NULL and head.version_minor == 1:
        reason[0] = b"Host is missing"                       # RFC 9112, 3.2
        return 400
    if authority.data != NULL and not same_authority(authority, host):
        reason[0] = b"Host differs from the request target"
        return 400
    if head.chunked and (head.content_length >= 0 or head.version_minor == 0):
        reason[0] = b"bad Transfer-Encoding"                 # RFC 9112, 6.1: a sign of request smuggling
        return 400
    return 0


cdef int head_parse(const uint8_t* data, size_t size, HttpHead* out, const char** reason) noexcept nogil:
    cdef const uint8_t* at = data
    cdef const uint8_t* end = data + (size if size < HEAD_LIMIT else HEAD_LIMIT)
    cdef Slice line
    cdef Slice host = slice_of(NULL, 0)
    cdef Slice authority
    cdef int status
    out.count = 0
    out.chunked = False
    out.content_length = -1
    reason[0] = b"malformed request line"
    if not next_line(&at, end, &line):
        return 400
    status = parse_request_line(line, out, &authority, reason)
    if status:
        return status
    while True:
        if not next_line(&at, end, &line):
            if end - data == HEAD_LIMIT:
                reason[0] = b"the request head is too large"
                return 431
            reason[0] = b"malformed line end"
            return 400
        if line.size == 0:
            break
        status = parse_field(line, out, &host, reason)
        if status:
            return status
    out.size = at - data
    return check_whole(out, host, authority, reason)


cdef const Slice* head_get(const HttpHead* head, const char* lower_name, size_t size) noexcept nogil:
    cdef uint32_t i
    for i in range(head.count):
        if slice_is_lower(head.fields[i].name, lower_name, size):
            return &head.fields[i].value
    return NULL


cdef uint32_t head_count(const HttpHead* head, const char* lower_name, size_t size) noexcept nogil:
    cdef uint32_t i
    cdef uint32_t count = 0
    for i in range(head.count):
        count += slice_is_lower(head.fields[i].name, lower_name, size)
    return count


cdef bint next_element(Slice* rest, Slice* element) noexcept nogil:
    cdef size_t at = 0
    if rest.data == NULL:
        return False
    while at < rest.size and rest.data[at] != 44:
        at += 1
    element[0] = trimmed(rest.data, at)
    if at == rest.size:
        rest[0] = slice_of(NULL, 0)
    else:
        rest[0] = slice_of(rest.data + at + 1, rest.size - at - 1)
    return True


cdef bint head_has_token(
    const HttpHead* head, const char* lower_name, size_t name_size, const char* lower_token, size_t token_size
) noexcept nogil:
    cdef uint32_t i
    cdef Slice rest
    cdef Slice element
    for i in range(head.count):
        if slice_is_lower(head.fields[i].name, lower_name, name_size):
            rest = head.fields[i].value
            while next_element(&rest, &element):
                if slice_is_lower(element, lower_token, token_size):
                    return True
    return False


cdef bint head_wants_upgrade(const HttpHead* head) noexcept nogil:
    return head_has_token(head, b"upgrade", 7, b"websocket", 9)


cdef bytes as_bytes(Slice value):
    return (<const char*> value.data)[:value.size]


cdef list head_fields(const HttpHead* head):
    cdef list out = []
    cdef uint32_t i
    for i in range(head.count):
        out.append((as_bytes(head.fields[i].name).lower(), as_bytes(head.fields[i].value)))
    return out


cdef int fill_traits() except -1:
    cdef int byte
    for byte in range(256):
        if 33 <= byte <= 126:
            traits[byte] |= IN_VALUE | IN_ASCII_VALUE
            if byte != 35:
                traits[byte] |= IN_TARGET
        if byte >= 128:
            traits[byte] |= IN_VALUE
    for byte in b" \t":
        traits[byte] |= IN_VALUE | IN_ASCII_VALUE
    for byte in b"ABCDEFGHIJKLMNOPQRSTUVWXYZ":
        traits[byte] |= IN_METHOD | IN_TOKEN | IN_HOST
        traits[byte + 32] |= IN_TOKEN | IN_HOST
    for byte in b"0123456789":
        traits[byte] |= IN_TOKEN | IN_HOST | IN_IPV6
    for byte in b"ABCDEFabcdef:.":
        traits[byte] |= IN_IPV6
    for byte in b"!#$%&'*+-.^_`|~":
        traits[byte] |= IN_TOKEN
    for byte in b"-._~":
        traits[byte] |= IN_HOST
    traits[45] |= IN_METHOD
    return 0


fill_traits()


class HeadRefused(Exception):
    """A request head that `parse_head` refused; args: HTTP status, text for the peer."""


cdef class EndFinder:
    """Looks for the end of a head in bytes that arrive piece by piece."""

    cdef uint32_t progress
    cdef readonly bytes data

    def __cinit__(self):
        self.data = b""

    def feed(self, bytes more not None):
        """Add bytes; the head's size, 0 when more are needed, or a negative HTTP status."""
        self.data += more
        return head_find_end(<const uint8_t*> self.data, len(self.data), &self.progress)


cdef class RequestHead:
    """A parsed `HttpHead` over its own copy of the bytes."""

    cdef HttpHead head
    cdef bytes data

    def __init__(self, bytes data not None):
        """Raises HeadRefused."""
        cdef const char* reason = b""
        self.data = data
        cdef int status = head_parse(<const uint8_t*> self.data, len(self.data), &self.head, &reason)
        if status:
            self.head.count = 0
            raise HeadRefused(status, (<bytes> reason).decode())

    @property
    def method(self):
        """Method."""
        return as_bytes(self.head.method)

    @property
    def target(self):
        """Request target as sent."""
        return as_bytes(self.head.target)

    @property
    def path(self):
        """Path of the target."""
        return as_bytes(self.head.path)

    @property
    def query(self):
        """Query of the target, or None."""
        return None if self.head.query.data == NULL else as_bytes(self.head.query)

    @property
    def version_minor(self):
        """Minor HTTP version."""
        return self.head.version_minor

    @property
    def size(self):
        """Bytes of the head."""
        return self.head.size

    @property
    def content_length(self):
        """Content-Length, or None."""
        return None if self.head.content_length < 0 else self.head.content_length

    @property
    def chunked(self):
        """Whether the body is chunked."""
        return self.head.chunked

    @property
    def fields(self):
        """(lower-case name, value) in order."""
        return head_fields(&self.head)

    @property
    def wants_upgrade(self):
        """Whether it asks for WebSocket."""
        return head_wants_upgrade(&self.head)

    def get(self, bytes lower_name not None):
        """The first value of that name, or None."""
        cdef const Slice* value = head_get(&self.head, lower_name, len(lower_name))
        return None if value == NULL else as_bytes(value[0])

    def count(self, bytes lower_name not None):
        """Fields of that name."""
        return head_count(&self.head, lower_name, len(lower_name))

    def has_token(self, bytes lower_name not None, bytes lower_token not None):
        """Whether the list in the fields of that name has the token."""
        return head_has_token(&self.head, lower_name, len(lower_name), lower_token, len(lower_token))
