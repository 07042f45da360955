"""Sessions; `session.pxd` is the contract."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset, strlen

from realtime_communication._core.base.counters cimport Counters
from realtime_communication._core.base.memory cimport Slice, buffer_free, buffer_init, slice_of
from realtime_communication._core.hub.mailbox cimport (
    Mailbox,
    mailbox_free,
    mailbox_init,
    mailbox_push_last,
    mailbox_push_priority,
)
from realtime_communication._core.hub.settings cimport INFO_BYTES, Settings
from realtime_communication._core.wire.compression cimport decompress_message, detect_compression
from realtime_communication._core.wire.deflate cimport inflate_message
from realtime_communication._core.wire.envelope cimport (
    JSON_TEXT,
    envelope_parse,
    envelope_scratch_free,
    envelope_scratch_init,
)
from realtime_communication._core.wire.frames cimport (
    FRAME_CLOSE,
    FRAME_FAILED,
    FRAME_MESSAGE,
    FRAME_NEED_MORE,
    FRAME_PING,
    OP_PONG,
    OP_TEXT,
    FrameLimits,
    frame_next,
    frame_parser_free,
    write_close_frame,
)
from realtime_communication._core.wire.json_scan cimport json_skip_space, json_validate
from realtime_communication._core.wire.utf8 cimport utf8_valid

cdef enum:
    PONGS_WAITING = 16           # pongs that may wait behind a full socket; later ones replace the newest


cdef class Inbound:
    def __cinit__(self):
        envelope_scratch_init(&self.scratch)
        self.inflated = None

    def __dealloc__(self):
        envelope_scratch_free(&self.scratch)


cdef void session_init(Session* session, int fd, uint64_t serial, uint64_t now_ms) noexcept nogil:
    memset(session, 0, sizeof(Session))
    session.fd = fd
    session.serial = serial
    session.received_ms = now_ms
    session.since_ms = now_ms
    session.opened_ms = now_ms
    session.expires_at = -1
    session.refresh_at = -1
    buffer_init(&session.stash)
    buffer_init(&session.parked)
    mailbox_init(&session.mailbox)


cdef void session_free(Session* session) noexcept nogil:
    frame_parser_free(&session.parser)
    mailbox_free(&session.mailbox)
    buffer_free(&session.stash)
    buffer_free(&session.parked)
    free(session.custom)
    narrowing_free(session.narrowing)
    free(session.login)
    session.custom = NULL
    session.narrowing = NULL
    session.login = NULL


cdef void session_id(const Session* session, uint8_t* out) noexcept nogil:
    cdef int i
    cdef uint64_t value
    cdef uint8_t digit
    for i in range(32):
        value = session.id_high if i < 16 else session.id_low
        digit = <uint8_t> ((value >> (60 - 4 * (i & 15))) & 15)
        out[i] = digit + (48 if digit < 10 else 87)


cdef void session_close(Session* session, int code, const char* reason, uint64_t now_ms) noexcept nogil:
    cdef uint8_t frame[127]
    cdef size_t size
    if session.state >= SESSION_CLOSING:
        return
    session.state = SESSION_CLOSING
    session.since_ms = now_ms
    session.close_code = <uint16_t> code
    size = write_close_frame(frame, <uint16_t> code, <const uint8_t*> reason, strlen(reason))
    mailbox_push_last(&session.mailbox, session.flags & FLAG_BLOCKED != 0, frame, size)


cdef void session_answer_close(Session* session, Inbound inbound, uint64_t now_ms) noexcept:
    session_close(session, inbound.close_code, inbound.close_reason, now_ms)
    session.state = SESSION_LINGER
    session.since_ms = now_ms


cdef void answer_ping(Session* session, const uint8_t* data, size_t size) noexcept nogil:
    """Queue a pong. Behind a full socket only some are kept: RFC 6455, 5.5.3 lets the newest stand for the others."""
    cdef Mailbox* box = &session.mailbox
    if session.flags & FLAG_BLOCKED and box.priority_messages >= PONGS_WAITING and box.pong_at:
        if box.pong_at > box.priority_at and box.pong_end == box.priority.size:
            box.priority.size = box.pong_at - 1
            box.priority_messages -= 1
    cdef uint32_t start = <uint32_t> box.priority.size + 1
    if mailbox_push_priority(box, OP_PONG, False, data, size) == 0:
        box.pong_at = start
        box.pong_end = <uint32_t> box.priority.size


cdef int receive_message(Session* session, Inbound inbound, const Settings* settings) except -1:
    """Turn a whole message into a request; the close code when it can't be one, 0 otherwise, -2 when it is invalid."""
    cdef const uint8_t* data = inbound.frame.data
    cdef size_t size = inbound.frame.size
    cdef bint text = inbound.frame.opcode == OP_TEXT
    cdef int failure = 0
    cdef const FrameLimits* limits = &settings.anonymous if session.state == SESSION_ANONYMOUS else &settings.frames
    inbound.inflated = None
    if inbound.frame.compressed:
        inbound.inflated = inflate_message(data, size, limits.max_message, &failure)
        if inbound.inflated is None:
            return failure
        data = <const uint8_t*> <bytes> inbound.inflated
        size = len(<bytes> inbound.inflated)
        if text and not utf8_valid(data, size):
            return 1007
    if session.flags & FLAG_ECHO:
        inbound.frame.data = <uint8_t*> data
        inbound.frame.size = size
        return 0
    if not text and session.compression and detect_compression(data, size) == session.compression:
        unpacked = decompress_message(session.compression, data, size, limits.max_message, &failure)
        if unpacked is None:
            return failure
        inbound.inflated = unpacked
        data = <const uint8_t*> <bytes> unpacked
        size = len(<bytes> unpacked)
        if session.encoding == JSON_TEXT and not utf8_valid(data, size):
            return 1007
    elif text != (session.encoding == JSON_TEXT):
        return 1003
    inbound.message = slice_of(data, size)
    if envelope_parse(&inbound.scratch, session.encoding, data, size, 0, &inbound.request) < 0:
        return -2
    return 0


cdef const char* failure_reason(int code) noexcept nogil:
    if code == 1003:
        return b"this encoding does not use this kind of frame"
    if code == 1007:
        return b"the message's bytes do not fit its encoding"
    if code == 1009:
        return b"message larger than max_message_size"
    return b"internal error"


cdef int session_receive(Session* session, Inbound inbound, const Settings* settings, Counters* counters,
                         uint8_t* data, size_t size, size_t* consumed) except -1:
    cdef size_t used = 0
    cdef int kind, outcome
    cdef const FrameLimits* limits
    consumed[0] = 0
    while True:
        limits = &settings.anonymous if session.state == SESSION_ANONYMOUS else &settings.frames
        kind = frame_next(&session.parser, limits, data + consumed[0], size - consumed[0], &used, &inbound.frame)
        consumed[0] += used
        if kind == FRAME_NEED_MORE:
            return EVENT_NEED_MORE
        if kind == FRAME_MESSAGE:
            if session.state >= SESSION_CLOSING:
                continue
            outcome = receive_message(session, inbound, settings)
            if outcome == 0:
                return EVENT_ECHO if session.flags & FLAG_ECHO else EVENT_REQUEST
            if outcome == -2:
                return EVENT_INVALID
            counters.protocol_errors += 1
            inbound.close_code = outcome
            inbound.close_reason = failure_reason(outcome)
            consumed[0] = size
            return EVENT_CLOSED
        if kind == FRAME_PING:
            if session.state < SESSION_CLOSING:
                answer_ping(session, inbound.frame.data, inbound.frame.size)
        elif kind == FRAME_CLOSE:
            inbound.close_code = inbound.frame.close_code
            inbound.close_reason = b""
            consumed[0] = size
            return EVENT_CLOSED
        elif kind == FRAME_FAILED:
            counters.protocol_errors += 1
            inbound.close_code = inbound.frame.close_code
            inbound.close_reason = inbound.frame.reason
            consumed[0] = size
            return EVENT_CLOSED


cdef Patterns* patterns_new(object patterns) except? NULL:
    cdef Patterns* made
    cdef size_t size = 0
    cdef uint8_t* at
    if patterns is None:
        return NULL
    encoded = [(<str> pattern).encode() for pattern in patterns]
    for item in encoded:
        size += len(<bytes> item)
    made = <Patterns*> malloc(sizeof(Patterns) + len(encoded) * sizeof(Slice) + size)
    if made == NULL:
        raise MemoryError
    made.count = <uint32_t> len(encoded)
    at = <uint8_t*> made + sizeof(Patterns) + len(encoded) * sizeof(Slice)
    for i, item in enumerate(encoded):
        size = len(<bytes> item)
        memcpy(at, <const char*> <bytes> item, size)
        made.items[<size_t> i].data = at
        made.items[<size_t> i].size = size
        at += size
    return made


cdef bint patterns_match(const Patterns* patterns, Slice topic) noexcept nogil:
    cdef uint32_t i
    if patterns == NULL:
        return True
    for i in range(patterns.count):
        if pattern_matches(patterns.items[i], topic):
            return True
    return False


cdef bint pattern_matches(Slice pattern, Slice topic) noexcept nogil:
    if pattern.size and pattern.data[pattern.size - 1] == b"*":
        pattern.size -= 1
        return topic.size >= pattern.size and memcmp(topic.data, pattern.data, pattern.size) == 0
    return topic.size == pattern.size and memcmp(topic.data, pattern.data, pattern.size) == 0


cdef Info* info_new(object info) except? NULL:
    cdef bytes text = info
    cdef const uint8_t* data
    cdef size_t size, at
    cdef Info* made
    if text is None:
        return NULL
    data = <const uint8_t*> text
    size = len(text)
    if size > INFO_BYTES:
        raise ValueError(f"presence_info: {size} bytes, at most {INFO_BYTES}")
    at = json_skip_space(data, size, 0)
    if at == size or data[at] != b"{" or json_validate(data, size) < 0 or not utf8_valid(data, size):
        raise ValueError("presence_info: not a JSON object")
    made = <Info*> malloc(sizeof(Info) + size)
    if made == NULL:
        raise MemoryError
    made.size = <uint32_t> size
    memcpy(&made.data[0], data, size)
    return made


cdef Narrowing* narrowing_new(object subscribe_patterns, object publish_patterns, object info) except? NULL:
    cdef Narrowing* made
    if subscribe_patterns is None and publish_patterns is None and info is None:
        return NULL
    made = <Narrowing*> calloc(1, sizeof(Narrowing))
    if made == NULL:
        raise MemoryError
    try:
        made.subscribe_patterns = patterns_new(subscribe_patterns)
        made.publish_patterns = patterns_new(publish_patterns)
        made.info = info_new(info)
    except BaseException:
        narrowing_free(made)
        raise
    return made


cdef void narrowing_free(Narrowing* narrowing) noexcept nogil:
    if narrowing == NULL:
        return
    free(narrowing.subscribe_patterns)
    free(narrowing.publish_patterns)
    free(narrowing.info)
    free(narrowing)


cdef inline int hex_value(uint8_t digit) noexcept nogil:
    if 48 <= digit <= 57:
        return digit - 48
    return digit - 87 if 97 <= digit <= 102 else -1


cdef bint pack_digits(const uint8_t* digits, uint8_t* out) noexcept nogil:
    """32 hexadecimal digits as 16 bytes; False when they are something else."""
    cdef int i, high, low
    for i in range(16):
        high, low = hex_value(digits[2 * i]), hex_value(digits[2 * i + 1])
        if high < 0 or low < 0:
            return False
        out[i] = <uint8_t> (high << 4 | low)
    return True


cdef Login* login_new(object text) except? NULL:
    cdef bytes encoded
    cdef uint8_t digits[16]
    cdef const uint8_t* data
    cdef size_t size
    cdef bint packed
    cdef Login* made
    if text is None:
        return NULL
    encoded = (<str> text).encode()
    data = <const uint8_t*> encoded
    size = len(encoded)
    if size > LOGIN_BYTES:
        raise ValueError(f"login: {size} bytes, at most {LOGIN_BYTES}")
    packed = size == 32 and pack_digits(data, digits)
    if packed:
        data = digits
        size = sizeof(digits)
    made = <Login*> malloc(sizeof(Login) + size)
    if made == NULL:
        raise MemoryError
    made.size = <uint8_t> size
    made.packed = packed
    memcpy(&made.text[0], data, size)
    return made


cdef str login_text(const Login* login):
    if login == NULL:
        return None
    text = (<const char*> &login.text[0])[:login.size]
    return text.hex() if login.packed else text.decode()
