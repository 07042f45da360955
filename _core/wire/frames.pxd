# RFC 6455 frames: bytes in, whole messages and control frames out; and the headers of what the server sends.
#
# Rules: no socket, no clock, no envelope. The parser unmasks in place, so the input must be writable. A message that
# arrives whole in one frame is handed out where it lies in the input; only what is cut by a read or a fragment
# border is copied into the parser's own buffer.
#
# Theory of operation: the header is checked byte by byte as it comes, each rule at the first byte that shows it
# broken, so that a stream gives the same result wherever it is cut. Nothing is allocated from a declared length: the
# buffer grows with what has arrived. A control frame may come between the fragments of a message (RFC 6455, 5.4); one
# that is itself cut is gathered behind the message's bytes in the same buffer and taken off again when handed out.
# A short, whole, unfragmented text or binary frame takes the fast path at the head of `frame_next`.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from realtime_communication._core.base.memory cimport Buffer


cdef enum Opcode:                # RFC 6455, 5.2
    OP_CONTINUATION = 0
    OP_TEXT = 1
    OP_BINARY = 2
    OP_CLOSE = 8
    OP_PING = 9
    OP_PONG = 10


cdef enum FrameKind:
    FRAME_NEED_MORE = 0          # the input is used up
    FRAME_MESSAGE = 1            # one whole data message
    FRAME_PING = 2
    FRAME_PONG = 3
    FRAME_CLOSE = 4              # the peer's close frame; nothing that follows is read
    FRAME_FAILED = 5             # the peer broke the protocol; close with close_code, read nothing more


cdef enum:
    FRAME_HEADER_MOST = 10       # bytes of the longest header the server writes
    CONTROL_MOST = 125           # payload bytes of a control frame; RFC 6455, 5.5
    CLOSE_REASON_MOST = 123      # bytes of a close reason
    CLOSE_FRAME_MOST = 127       # bytes of a whole close frame


cdef struct FrameLimits:
    uint64_t max_frame           # payload bytes of one frame
    uint64_t max_message         # payload bytes of one reassembled message, as it is on the wire
    uint32_t max_fragments       # frames of one message


cdef struct FrameEvent:
    int kind                     # FrameKind
    int opcode                   # OP_TEXT or OP_BINARY for FRAME_MESSAGE; OP_PING, OP_PONG, OP_CLOSE
    bint compressed              # FRAME_MESSAGE with RSV1: still to inflate, its UTF-8 not yet checked
    # Payload, unmasked (FRAME_CLOSE: the reason behind the code); valid until the next call or a change of the input;
    # NULL for FRAME_NEED_MORE and FRAME_FAILED.
    uint8_t* data
    size_t size
    uint16_t close_code          # FRAME_CLOSE: the peer's, 1005 when it gave none; FRAME_FAILED: the one to send
    const char* reason           # FRAME_FAILED: a constant ASCII text for the close frame, else NULL


cdef struct FramePayload:        # a frame whose header is complete
    uint64_t left                # payload bytes still to come
    uint32_t mask                # turned so that its first byte in memory meets the next payload byte
    uint8_t first                # first header byte: FIN, RSV, opcode
    uint8_t control              # bytes of a cut control frame at the end of `buffer`


cdef union FrameHead:
    uint8_t header[14]           # stage < 14: the header bytes so far
    FramePayload payload         # stage 14 and 15


cdef struct FrameParser:         # 40 bytes, one in every connection; holds no heap between messages
    Buffer buffer                # what is copied of a message that is cut, then of a cut control frame
    FrameHead head
    uint32_t fragments           # frames of the open message so far
    uint8_t stage                # 0..13 header bytes held, 14 in the payload, 15 to release, 16 closed
    uint8_t opcode               # of the open message, 0 between messages
    uint8_t flags                # deflate negotiated; open message compressed
    uint8_t utf8                 # Utf8State of the open text message, or of a close reason


# `deflate`: permessage-deflate was negotiated, RSV1 is allowed (RFC 7692, 6).
cdef void frame_parser_init(FrameParser* parser, bint deflate) noexcept nogil
# Frees the buffer; the parser then reads nothing more, until initialised again.
cdef void frame_parser_free(FrameParser* parser) noexcept nogil
# Heap bytes held.
cdef size_t frame_parser_held(const FrameParser* parser) noexcept nogil
# Reads up to the end of the next message or control frame. Sets `consumed`, fills `event` and returns its kind. Call
# again with the rest of the input until FRAME_NEED_MORE, which consumes all of it; that last call also frees the memory
# of the message before. After FRAME_CLOSE and FRAME_FAILED all input is swallowed and FRAME_NEED_MORE returned.
# Without memory: FRAME_FAILED with 1011. `limits` may change from call to call.
cdef int frame_next(FrameParser* parser, const FrameLimits* limits, uint8_t* data, size_t size, size_t* consumed,
                    FrameEvent* event) noexcept nogil


# XORs the mask, given as it lies in memory, over the bytes (RFC 6455, 5.3).
cdef void unmask(uint8_t* data, size_t size, uint32_t mask) noexcept nogil


# Bytes of the header of an unmasked frame.
cdef inline size_t frame_header_size(size_t payload) noexcept nogil:
    if payload < 126:
        return 2
    if payload < 65536:
        return 4
    return 10


# Writes the header of a server's frame: FIN set, unmasked, minimal length. Returns the first byte behind it.
cdef inline uint8_t* write_frame_header(uint8_t* out, int opcode, bint rsv1, size_t payload) noexcept nogil:
    cdef int shift
    out[0] = <uint8_t> (0x80 | (0x40 if rsv1 else 0) | opcode)
    if payload < 126:
        out[1] = <uint8_t> payload
        return out + 2
    if payload < 65536:
        out[1] = 126
        out[2] = <uint8_t> (payload >> 8)
        out[3] = <uint8_t> payload
        return out + 4
    out[1] = 127
    for shift in range(8):
        out[2 + shift] = <uint8_t> (<uint64_t> payload >> (56 - 8 * shift))
    return out + 10


# Writes a whole close frame into the 127 bytes of `out`, returns its size. A code of 0 or 1005 makes an empty payload
# (RFC 6455, 7.1.5). The reason is cut to 123 bytes at a code point's border, and left out when it is not valid UTF-8.
cdef size_t write_close_frame(uint8_t* out, uint16_t code, const uint8_t* reason, size_t size) noexcept nogil
# Whether a peer may send this close code (RFC 6455, 7.4, and the IANA registry).
cdef bint close_code_allowed(uint32_t code) noexcept nogil
