"""Variants; `variants.pxd` is the contract."""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint8_t

from realtime_communication._core.base.memory cimport (
    Buffer,
    Slice,
    buffer_append,
    buffer_free,
    buffer_init,
    buffer_reserve,
    slice_of,
)
from realtime_communication._core.hub.message cimport Message, message_payload, message_sender
from realtime_communication._core.wire.compression cimport compress_message
from realtime_communication._core.wire.deflate cimport deflate_message
from realtime_communication._core.wire.envelope cimport JSON_TEXT
from realtime_communication._core.wire.frames cimport OP_BINARY, OP_TEXT, frame_header_size, write_frame_header
from realtime_communication._core.wire.outbound cimport (
    message_rest_size,
    write_direct_message_prefix,
    write_message_prefix,
    write_message_rest,
    write_string,
)
from realtime_communication._core.wire.transcode cimport transcode

cdef int append_frame(Buffer* out, int opcode, bint rsv1, const uint8_t* data, size_t size) noexcept nogil:
    if buffer_reserve(out, frame_header_size(size) + size) < 0:
        return -1
    out.size = write_frame_header(out.data + out.size, opcode, rsv1, size) - out.data
    buffer_append(out, data, size)
    return 0


cdef bytes compressed(int form, const uint8_t* envelope, size_t size):
    """The envelope in that form; None when there is no memory for it."""
    try:
        if form < 4:
            return compress_message(form, envelope, size)
        return deflate_message(envelope, size, form - 4 + DEFLATE_LOWEST)
    except MemoryError:
        return None


cdef int variant_frame(uint8_t variant, const uint8_t* envelope, size_t size, uint32_t threshold,
                       Buffer* out) noexcept:
    cdef int form = variant % FORMS
    cdef int opcode = OP_TEXT if variant_encoding(variant) == JSON_TEXT else OP_BINARY
    cdef bytes packed
    if form != 0 and size >= threshold:
        packed = compressed(form, envelope, size)
        if packed is not None and <size_t> len(packed) < size:
            return append_frame(out, OP_BINARY if form < 4 else opcode, form >= 4, <const uint8_t*> packed,
                                len(packed))
    return append_frame(out, opcode, False, envelope, size)


cdef int message_envelope(Buffer* out, Buffer* piece, int encoding, bint direct, Slice topic,
                          const Message* message) noexcept nogil:
    cdef Slice payload = message_payload(message)
    cdef Slice sender
    cdef size_t sender_size, rest
    piece.size = 0
    if write_string(piece, encoding, message_sender(message)) < 0:
        return -1
    sender_size = piece.size
    if message.encoding != encoding:
        if transcode(payload, message.encoding, encoding, piece) < 0:
            return -1
        payload = slice_of(piece.data + sender_size, piece.size - sender_size)
    sender = slice_of(piece.data, sender_size)
    if direct:
        if write_direct_message_prefix(out, encoding) < 0:
            return -1
    elif write_message_prefix(out, encoding, topic) < 0:
        return -1
    rest = message_rest_size(encoding, message.offset, message.ts, sender, payload)
    if buffer_reserve(out, rest) < 0:
        return -1
    write_message_rest(out.data + out.size, encoding, message.offset, message.ts, sender, payload)
    out.size += rest
    trim(piece)
    return 0


def frame(int variant, bytes envelope not None, int threshold):
    """The frame of `envelope` in `variant`; compressed from `threshold` bytes on. Raises MemoryError, ValueError."""
    cdef Buffer out
    if not 0 <= variant < VARIANTS:
        raise ValueError(f"variant: {variant} is not between 0 and {VARIANTS - 1}")
    buffer_init(&out)
    try:
        if variant_frame(<uint8_t> variant, <const uint8_t*> envelope, len(envelope), threshold, &out) < 0:
            raise MemoryError
        return (<const char*> out.data)[:out.size]
    finally:
        buffer_free(&out)


def index(int encoding, int compression, int window_bits):
    """The variant of an encoding (0 JSON, 1 MessagePack), message compression and deflate window."""
    return variant_of(encoding, compression, window_bits)
