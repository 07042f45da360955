"""Variants; `variants.pxd` is the contract."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t

from realtime_communication._core.base.memory cimport Buffer, buffer_append, buffer_free, buffer_init, buffer_reserve
from realtime_communication._core.wire.compression cimport compress_message
from realtime_communication._core.wire.deflate cimport deflate_message
from realtime_communication._core.wire.envelope cimport JSON_TEXT
from realtime_communication._core.wire.frames cimport OP_BINARY, OP_TEXT, frame_header_size, write_frame_header


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
