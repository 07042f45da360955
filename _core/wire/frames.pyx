"""RFC 6455 frames; `frames.pxd` is the contract. `FrameReader` and the functions let tests reach it from Python."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from realtime_communication._core.base.memory cimport buffer_append, buffer_free, buffer_init
from realtime_communication._core.wire.utf8 cimport (
    UTF8_BAD, UTF8_DONE, utf8_advance, utf8_is_ascii, utf8_prefix, utf8_valid,
)

cdef enum:
    STAGE_PAYLOAD = 14           # stages 0..13 are the header bytes held
    STAGE_RELEASE = 15           # an event was handed out of the buffer
    STAGE_CLOSED = 16            # nothing more is read

    FLAG_DEFLATE = 1             # RSV1 may be set
    FLAG_COMPRESSED = 2          # the open message has it set

    BIT_FIN = 0x80
    BIT_RSV1 = 0x40
    BITS_RSV23 = 0x30
    BITS_OPCODE = 0x0F
    BIT_CONTROL = 0x08
    BIT_MASK = 0x80


cdef void frame_parser_init(FrameParser* parser, bint deflate) noexcept nogil:
    buffer_init(&parser.buffer)
    parser.head.payload.control = 0
    parser.fragments = 0
    parser.stage = 0
    parser.opcode = 0
    parser.flags = FLAG_DEFLATE if deflate else 0
    parser.utf8 = UTF8_DONE


cdef void frame_parser_free(FrameParser* parser) noexcept nogil:
    buffer_free(&parser.buffer)
    parser.stage = STAGE_CLOSED


cdef size_t frame_parser_held(const FrameParser* parser) noexcept nogil:
    return parser.buffer.capacity


cdef void unmask(uint8_t* data, size_t size, uint32_t mask) noexcept nogil:
    cdef uint64_t wide = (<uint64_t> mask << 32) | mask
    cdef uint64_t word
    cdef uint64_t[4] words
    cdef uint32_t half
    cdef uint8_t pattern[4]
    cdef size_t at = 0
    while size - at >= 32:                     # four at a time, which compilers make vectors of
        memcpy(words, data + at, 32)
        words[0] ^= wide
        words[1] ^= wide
        words[2] ^= wide
        words[3] ^= wide
        memcpy(data + at, words, 32)
        at += 32
    while size - at >= 8:
        memcpy(&word, data + at, 8)
        word ^= wide
        memcpy(data + at, &word, 8)
        at += 8
    if size - at >= 4:
        memcpy(&half, data + at, 4)
        half ^= mask
        memcpy(data + at, &half, 4)
        at += 4
    memcpy(pattern, &mask, 4)
    size -= at
    data += at
    if size > 0:
        data[0] ^= pattern[0]
    if size > 1:
        data[1] ^= pattern[1]
    if size > 2:
        data[2] ^= pattern[2]


cdef inline uint32_t turned(uint32_t mask, size_t by) noexcept nogil:
    """The mask as it meets the byte `by` further on, whatever the machine's byte order."""
    cdef uint8_t twice[8]
    cdef uint32_t out
    memcpy(twice, &mask, 4)
    memcpy(twice + 4, &mask, 4)
    memcpy(&out, twice + (by & 3), 4)
    return out


cdef inline int fill_event(FrameEvent* event, int kind, int opcode, bint compressed, uint8_t* data,
                           size_t size) noexcept nogil:
    event.kind = kind
    event.opcode = opcode
    event.compressed = compressed
    event.data = data
    event.size = size
    event.close_code = 0
    event.reason = NULL
    return kind


cdef int frame_failed(FrameParser* parser, FrameEvent* event, uint16_t code, const char* reason) noexcept nogil:
    frame_parser_free(parser)
    fill_event(event, FRAME_FAILED, 0, False, NULL, 0)
    event.close_code = code
    event.reason = reason
    return FRAME_FAILED


cdef bint close_code_allowed(uint32_t code) noexcept nogil:
    if code < 1000 or code > 4999:
        return False
    if code >= 3000:                           # libraries and applications
        return True
    return code <= 1014 and not 1004 <= code <= 1006


# Header -----------------------------------------------------------------------------------------------------------

cdef uint16_t check_first(const FrameParser* parser, const FrameLimits* limits, uint8_t first,
                          const char** reason) noexcept nogil:
    """The close code for what the first header byte breaks, or 0."""
    cdef uint8_t opcode = first & BITS_OPCODE
    cdef bint control = (opcode & BIT_CONTROL) != 0
    if first & BITS_RSV23:                     # RFC 6455, 5.2
        reason[0] = "reserved bit set"
        return 1002
    if first & BIT_RSV1 and (not parser.flags & FLAG_DEFLATE or control or opcode == OP_CONTINUATION):
        reason[0] = "unexpected compressed bit"            # RFC 7692, 6.1
        return 1002
    if opcode > OP_PONG or (opcode > OP_BINARY and not control):
        reason[0] = "reserved opcode"
        return 1002
    if control:
        if not first & BIT_FIN:                # RFC 6455, 5.5
            reason[0] = "fragmented control frame"
            return 1002
        return 0
    if opcode == OP_CONTINUATION:              # RFC 6455, 5.4
        if parser.opcode == 0:
            reason[0] = "continuation without a message"
            return 1002
        if parser.fragments >= limits.max_fragments:
            reason[0] = "too many fragments"
            return 1009
    elif parser.opcode != 0:
        reason[0] = "new message inside a message"
        return 1002
    return 0


cdef uint16_t check_size(const FrameParser* parser, const FrameLimits* limits, uint64_t size,
                         const char** reason) noexcept nogil:
    """The close code for a data frame of at least `size` payload bytes, or 0."""
    if size > limits.max_frame:
        reason[0] = "frame too big"
        return 1009
    if size > limits.max_message or parser.buffer.size > limits.max_message - size:
        reason[0] = "message too big"
        return 1009
    return 0


cdef uint16_t check_header(const FrameParser* parser, const FrameLimits* limits, size_t have,
                           const char** reason) noexcept nogil:
    """The close code for what the newest of `have` header bytes breaks, or 0."""
    cdef const uint8_t* header = parser.head.header
    cdef bint control = (header[0] & BIT_CONTROL) != 0
    cdef uint8_t short_length
    cdef size_t wide, known, i
    cdef uint64_t value = 0
    if have == 1:
        return check_first(parser, limits, header[0], reason)
    short_length = header[1] & 0x7F
    if have == 2:
        if not header[1] & BIT_MASK:           # RFC 6455, 5.1
            reason[0] = "unmasked frame"
            return 1002
        if control and short_length > CONTROL_MOST:
            reason[0] = "control frame too big"
            return 1002
        if header[0] & BITS_OPCODE == OP_CLOSE and short_length == 1:
            reason[0] = "close frame with half a code"
            return 1002
        if control or short_length > 125:
            return 0
        return check_size(parser, limits, short_length, reason)
    wide = 0 if short_length < 126 else (2 if short_length == 126 else 8)
    known = have - 2
    if known > wide:                           # a byte of the mask
        return 0
    for i in range(known):
        value = value << 8 | header[2 + i]
    if wide == 8 and header[2] & 0x80:         # RFC 6455, 5.2: the most significant bit is 0
        reason[0] = "length above 2^63"
        return 1002
    if (wide == 2 and known == 2 and value < 126) or (wide == 8 and known == 6 and value == 0):
        reason[0] = "length not in its shortest form"
        return 1002
    return check_size(parser, limits, value << 8 * (wide - known), reason)      # the least it can become


cdef inline uint64_t header_length(const uint8_t* header, size_t have) noexcept nogil:
    """The payload length of a complete header of `have` bytes."""
    cdef uint64_t value = 0
    cdef size_t i
    if have == 6:
        return header[1] & 0x7F
    for i in range(2, have - 4):
        value = value << 8 | header[i]
    return value


cdef inline size_t header_size(const uint8_t* header, size_t have) noexcept nogil:
    """Bytes of a client's header, as far as `have` bytes of it tell."""
    if have < 2:
        return 2
    if header[1] & 0x7F < 126:
        return 6
    return 8 if header[1] & 0x7F == 126 else 14


cdef int read_header(FrameParser* parser, const FrameLimits* limits, const uint8_t* data, size_t size, size_t* at,
                     FrameEvent* event) noexcept nogil:
    """Take header bytes from `data` until the stage is STAGE_PAYLOAD; else FRAME_NEED_MORE or FRAME_FAILED."""
    cdef const char* reason = NULL
    cdef uint64_t length
    cdef uint32_t mask
    cdef uint16_t code
    cdef size_t have = parser.stage
    cdef uint8_t first, opcode
    while have < 2 or have < header_size(parser.head.header, have):
        if at[0] == size:
            parser.stage = <uint8_t> have
            return fill_event(event, FRAME_NEED_MORE, 0, False, NULL, 0)
        parser.head.header[have] = data[at[0]]
        have += 1
        at[0] += 1
        code = check_header(parser, limits, have, &reason)
        if code != 0:
            return frame_failed(parser, event, code, reason)
    first = parser.head.header[0]
    length = header_length(parser.head.header, have)
    memcpy(&mask, parser.head.header + have - 4, 4)
    parser.head.payload.left = length
    parser.head.payload.mask = mask
    parser.head.payload.first = first
    parser.head.payload.control = 0
    parser.stage = STAGE_PAYLOAD
    opcode = first & BITS_OPCODE
    if opcode == OP_CONTINUATION:
        parser.fragments += 1
    elif opcode == OP_TEXT or opcode == OP_BINARY:
        parser.opcode = opcode
        parser.fragments = 1
        parser.utf8 = UTF8_DONE
        parser.flags = (parser.flags & FLAG_DEFLATE) | (FLAG_COMPRESSED if first & BIT_RSV1 else 0)
    elif opcode == OP_CLOSE:                   # no message is finished after it, so its state is free
        parser.utf8 = UTF8_DONE
    return FRAME_NEED_MORE


# Payload ----------------------------------------------------------------------------------------------------------

cdef uint16_t check_close(FrameParser* parser, const uint8_t* payload, size_t before, size_t have,
                          const char** reason) noexcept nogil:
    """The close code for what the bytes `before`..`have` of a close frame's payload break, or 0."""
    cdef uint8_t high
    if have == 0:
        return 0
    high = payload[0]                          # the whole range 0x__00..0x__ff may be out already
    if not (high == 0x03 or 0x0B <= high <= 0x13) \
            or (have >= 2 and not close_code_allowed(<uint32_t> high << 8 | payload[1])):
        reason[0] = "close code not allowed"   # RFC 6455, 7.4
        return 1002
    if have > 2:
        if before < 2:
            before = 2
        parser.utf8 = utf8_advance(parser.utf8, payload + before, have - before)
    if parser.utf8 == UTF8_BAD or (parser.head.payload.left == 0 and parser.utf8 != UTF8_DONE):
        reason[0] = "close reason is not UTF-8"            # RFC 6455, 5.5.1
        return 1007
    return 0


cdef int read_control(FrameParser* parser, uint8_t* chunk, size_t size, FrameEvent* event) noexcept nogil:
    """Take `size` unmasked bytes of a control frame; its event once whole, else FRAME_NEED_MORE or FRAME_FAILED."""
    cdef int opcode = parser.head.payload.first & BITS_OPCODE
    cdef size_t before = parser.head.payload.control
    cdef size_t have = before + size
    cdef uint8_t* payload = chunk
    cdef const char* reason = NULL
    cdef uint16_t code
    if before > 0 or parser.head.payload.left > 0:
        if buffer_append(&parser.buffer, chunk, size) < 0:
            return frame_failed(parser, event, 1011, "out of memory")
        parser.head.payload.control = <uint8_t> have
        payload = parser.buffer.data + (parser.buffer.size - have)
    if opcode == OP_CLOSE:
        code = check_close(parser, payload, before, have, &reason)
        if code != 0:
            return frame_failed(parser, event, code, reason)
    if parser.head.payload.left > 0:
        return fill_event(event, FRAME_NEED_MORE, 0, False, NULL, 0)
    parser.stage = STAGE_RELEASE if parser.head.payload.control > 0 else 0
    if opcode != OP_CLOSE:
        return fill_event(event, FRAME_PING if opcode == OP_PING else FRAME_PONG, opcode, False, payload, have)
    parser.stage = STAGE_CLOSED
    if have == 0:
        fill_event(event, FRAME_CLOSE, opcode, False, payload, 0)
        event.close_code = 1005                # RFC 6455, 7.1.5
    else:
        fill_event(event, FRAME_CLOSE, opcode, False, payload + 2, have - 2)
        event.close_code = <uint16_t> (<uint32_t> payload[0] << 8 | payload[1])
    return FRAME_CLOSE


cdef int read_data(FrameParser* parser, uint8_t* chunk, size_t size, FrameEvent* event) noexcept nogil:
    """Take `size` unmasked bytes of a data frame; FRAME_MESSAGE once whole, else FRAME_NEED_MORE or FRAME_FAILED."""
    cdef bint compressed = (parser.flags & FLAG_COMPRESSED) != 0
    cdef bint frame_whole = parser.head.payload.left == 0
    cdef bint message_whole = frame_whole and parser.head.payload.first & BIT_FIN
    cdef int opcode = parser.opcode
    if opcode == OP_TEXT and not compressed:   # RFC 6455, 8.1
        parser.utf8 = utf8_advance(parser.utf8, chunk, size)
        if parser.utf8 == UTF8_BAD or (message_whole and parser.utf8 != UTF8_DONE):
            return frame_failed(parser, event, 1007, "text is not UTF-8")
    if message_whole and parser.buffer.size == 0:
        parser.opcode = 0
        parser.stage = 0
        return fill_event(event, FRAME_MESSAGE, opcode, compressed, chunk, size)
    if buffer_append(&parser.buffer, chunk, size) < 0:
        return frame_failed(parser, event, 1011, "out of memory")
    if message_whole:
        parser.opcode = 0
        parser.stage = STAGE_RELEASE
        return fill_event(event, FRAME_MESSAGE, opcode, compressed, parser.buffer.data, parser.buffer.size)
    if frame_whole:
        parser.stage = 0
    return fill_event(event, FRAME_NEED_MORE, 0, False, NULL, 0)


cdef int read_payload(FrameParser* parser, uint8_t* data, size_t size, size_t* at, FrameEvent* event) noexcept nogil:
    """Unmask and take what `data` has of the payload."""
    cdef uint8_t* chunk = data + at[0]
    cdef size_t chunk_size = size - at[0]
    if chunk_size > parser.head.payload.left:
        chunk_size = <size_t> parser.head.payload.left
    unmask(chunk, chunk_size, parser.head.payload.mask)
    parser.head.payload.mask = turned(parser.head.payload.mask, chunk_size)
    parser.head.payload.left -= chunk_size
    at[0] += chunk_size
    if parser.head.payload.first & BIT_CONTROL:
        return read_control(parser, chunk, chunk_size, event)
    return read_data(parser, chunk, chunk_size, event)


cdef void release(FrameParser* parser) noexcept nogil:
    """Take back what the event before was handed out of."""
    parser.buffer.size -= parser.head.payload.control
    parser.head.payload.control = 0
    parser.stage = 0
    if parser.opcode == 0 or parser.buffer.size == 0:
        buffer_free(&parser.buffer)


cdef int read_frames(FrameParser* parser, const FrameLimits* limits, uint8_t* data, size_t size, size_t* consumed,
                     FrameEvent* event) noexcept nogil:
    """What `frame_next` does for all that is not on its fast path."""
    cdef int kind
    consumed[0] = 0
    if parser.stage == STAGE_RELEASE:
        release(parser)
    while parser.stage != STAGE_CLOSED:
        if parser.stage != STAGE_PAYLOAD:
            kind = read_header(parser, limits, data, size, consumed, event)
            if parser.stage != STAGE_PAYLOAD:
                return kind
        kind = read_payload(parser, data, size, consumed, event)
        if kind != FRAME_NEED_MORE or parser.stage == STAGE_PAYLOAD:
            return kind
    buffer_free(&parser.buffer)
    consumed[0] = size
    return fill_event(event, FRAME_NEED_MORE, 0, False, NULL, 0)


cdef int frame_next(FrameParser* parser, const FrameLimits* limits, uint8_t* data, size_t size, size_t* consumed,
                    FrameEvent* event) noexcept nogil:
    cdef size_t length
    cdef size_t head = 6
    cdef uint32_t mask
    cdef uint8_t first
    if parser.stage != 0 or parser.opcode != 0 or size < 6 \
            or (data[0] != BIT_FIN | OP_TEXT and data[0] != BIT_FIN | OP_BINARY):
        return read_frames(parser, limits, data, size, consumed, event)
    length = data[1] ^ BIT_MASK                # 128 and more without the mask bit
    if length == 126 and size >= 8:
        length = <size_t> data[2] << 8 | data[3]
        head = 8
        if length < 126:                       # not in its shortest form
            return read_frames(parser, limits, data, size, consumed, event)
    elif length > 125:
        return read_frames(parser, limits, data, size, consumed, event)
    if length > size - head or length > limits.max_frame or length > limits.max_message:
        return read_frames(parser, limits, data, size, consumed, event)
    memcpy(&mask, data + head - 4, 4)
    consumed[0] = head + length
    first = data[0]
    data += head
    unmask(data, length, mask)
    if first == BIT_FIN | OP_TEXT and not utf8_is_ascii(data, length) and not utf8_valid(data, length):
        return frame_failed(parser, event, 1007, "text is not UTF-8")
    return fill_event(event, FRAME_MESSAGE, first & BITS_OPCODE, False, data, length)


cdef size_t write_close_frame(uint8_t* out, uint16_t code, const uint8_t* reason, size_t size) noexcept nogil:
    cdef uint8_t* at
    if code == 0 or code == 1005:
        write_frame_header(out, OP_CLOSE, False, 0)
        return 2
    size = utf8_prefix(reason, size, CLOSE_REASON_MOST)
    if not utf8_valid(reason, size):
        size = 0
    at = write_frame_header(out, OP_CLOSE, False, 2 + size)
    at[0] = <uint8_t> (code >> 8)
    at[1] = <uint8_t> code
    if size:
        memcpy(at + 2, reason, size)
    return 4 + size


# For tests --------------------------------------------------------------------------------------------------------

cdef object event_tuple(const FrameEvent* event):
    if event.kind == FRAME_FAILED:
        return ("failed", event.close_code, event.reason.decode("ascii"))
    data = (<const char*> event.data)[:event.size]
    if event.kind == FRAME_MESSAGE:
        return ("message", event.opcode, bool(event.compressed), data)
    if event.kind == FRAME_CLOSE:
        return ("close", event.close_code, data)
    return ("ping" if event.kind == FRAME_PING else "pong", data)


cdef class FrameReader:
    """A `FrameParser` held by Python: bytes in, a list of events out."""

    cdef FrameParser parser
    cdef FrameLimits limits

    def __cinit__(self, bint deflate=False, uint64_t max_frame=1 << 20, uint64_t max_message=1 << 20,
                  uint32_t max_fragments=1024):
        frame_parser_init(&self.parser, deflate)
        self.limits.max_frame = max_frame
        self.limits.max_message = max_message
        self.limits.max_fragments = max_fragments

    def __dealloc__(self):
        frame_parser_free(&self.parser)

    def feed(self, bytes data not None):
        """Read `data`; return the events in it.

        An event is ("message", opcode, compressed, payload), ("ping", payload), ("pong", payload),
        ("close", code, reason) or ("failed", close code, text); nothing follows the last two.
        """
        cdef bytearray copy = bytearray(data)
        cdef uint8_t* at = <uint8_t*> copy
        cdef size_t left = len(copy)
        cdef size_t consumed = 0
        cdef FrameEvent event
        events = []
        while frame_next(&self.parser, &self.limits, at, left, &consumed, &event) != FRAME_NEED_MORE:
            events.append(event_tuple(&event))
            at += consumed
            left -= consumed
        if consumed != left:
            raise AssertionError(f"{left - consumed} bytes left unread")
        return events

    @property
    def held(self):
        """Heap bytes the parser holds."""
        return frame_parser_held(&self.parser)


def parser_size():
    """Bytes of a `FrameParser`."""
    return sizeof(FrameParser)


def frame_header(int opcode, bint rsv1, size_t payload):
    """The header of a server's frame with `payload` bytes."""
    cdef uint8_t out[FRAME_HEADER_MOST]
    cdef uint8_t* end = write_frame_header(out, opcode, rsv1, payload)
    if <size_t> (end - out) != frame_header_size(payload):
        raise AssertionError("frame_header_size disagrees with write_frame_header")
    return (<const char*> out)[:end - out]


def close_frame(uint16_t code, bytes reason not None):
    """A server's close frame."""
    cdef uint8_t out[CLOSE_FRAME_MOST]
    cdef size_t size = write_close_frame(out, code, <const uint8_t*> reason, len(reason))
    return (<const char*> out)[:size]


def unmasked(bytes data not None, bytes mask not None):
    """`data` with the four bytes of `mask` XORed over it; raises ValueError for another size of mask."""
    cdef bytearray copy = bytearray(data)
    cdef uint32_t value
    if len(mask) != 4:
        raise ValueError("a mask has four bytes")
    memcpy(&value, <const uint8_t*> mask, 4)
    unmask(<uint8_t*> copy, len(copy), value)
    return bytes(copy)
