# The forms in which one envelope leaves the server: encoding x compression. An envelope is framed once per variant that
# somebody uses, never once per connection.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t

from realtime_communication._core.base.memory cimport Buffer, Slice, buffer_shrink
from realtime_communication._core.hub.message cimport Message


cdef enum:
    DEFLATE_LOWEST = 9           # window bits of permessage-deflate
    DEFLATE_HIGHEST = 15
    FORMS = 11                   # plain, zstd, lz4, gzip, deflate with 9 to 15 window bits
    VARIANTS = 22                # FORMS for each encoding
    SCRATCH_KEPT = 262144        # bytes a buffer for envelopes keeps from one to the next
    SCRATCH_LEAST = 16384        # what it is left with when it had more


# `compression` is a message compression (0 none); it wins over permessage-deflate. window_bits 0: no deflate.
cdef inline uint8_t variant_of(int encoding, int compression, int window_bits) noexcept nogil:
    cdef int form = compression
    if compression == 0 and window_bits:
        form = 4 + window_bits - DEFLATE_LOWEST
    return <uint8_t> (encoding * FORMS + form)


cdef inline int variant_encoding(uint8_t variant) noexcept nogil:
    return variant // FORMS


cdef inline bint variant_is_plain(uint8_t variant) noexcept nogil:
    return variant % FORMS == 0


# Appends the frame of an envelope. It is compressed when the variant says so, it has at least `threshold` bytes and
# compression makes it smaller; otherwise plain. 0, or -1 without memory, with `out` as it was.
cdef int variant_frame(uint8_t variant, const uint8_t* envelope, size_t size, uint32_t threshold,
                       Buffer* out) noexcept


# Appends the Message (or, `direct`, the DirectMessage) envelope of a publication; `piece` is for use in between.
# 0, or -1 without memory.
cdef int message_envelope(Buffer* out, Buffer* piece, int encoding, bint direct, Slice topic,
                          const Message* message) noexcept nogil


# Empties a buffer that is used over and over, and gives back what one large message left it with.
cdef inline void trim(Buffer* buffer) noexcept nogil:
    buffer.size = 0
    if buffer.capacity > SCRATCH_KEPT:
        buffer_shrink(buffer, SCRATCH_LEAST)
