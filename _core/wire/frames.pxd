# RFC 6455 frames: bytes in, whole messages and control frames out; and the headers of what the server sends.
#
# Rules: no socket, no clock, no envelope. The parser unmasks in place, so the input must be writable. A message that
# arrives whole in one frame is handed out where it lies in the input; only what is cut by a read or a fragment
# border is copied into the parser's own buffer.

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


cdef struct FrameLimits:
    uint64_t max_frame           # payload bytes of one frame
    uint64_t max_message         # payload bytes of one reassembled message, as it is on the wire
    uint32_t max_fragments       # frames of one message


cdef struct FrameEvent:
    int kind                     # FrameKind
    int opcode                   # OP_TEXT or OP_BINARY for FRAME_MESSAGE
    bint compressed              # FRAME_MESSAGE with RSV1: still to inflate, its UTF-8 not yet checked
    uint8_t* data                # payload, unmasked; valid until the next call or a change of the input
    size_t size
    uint16_t close_code          # FRAME_CLOSE: the peer's, 1005 when it gave none; FRAME_FAILED: the one to send
    const char* reason           # FRAME_FAILED: a constant text for the close frame
