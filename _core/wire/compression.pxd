# Whole messages as one standard zstd, lz4 or gzip frame (the `+zstd`, `+lz4`, `+gzip` subprotocols).
#
# Rules: no state between messages. What comes from a peer is bounded in output, in work and in the decoder's own
# memory: the frame's structure is checked before anything is allocated for it, and a window above ZSTD_WINDOW_MOST
# (or the limit, when that is larger) is refused. For one thread: the zstd objects behind it are shared.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t


cdef enum MessageCompression:
    COMPRESSION_NONE = 0
    COMPRESSION_ZSTD = 1         # RFC 8878
    COMPRESSION_LZ4 = 2          # LZ4 frame format 1.6
    COMPRESSION_GZIP = 3         # RFC 1952


cdef enum:
    ZSTD_WINDOW_MOST = 8388608   # bytes; what RFC 8878, 3.1.1.1.2 recommends every decoder to support


# The form of a binary message, by its first bytes. A message too short to hold a magic number has none.
cdef int detect_compression(const uint8_t* data, size_t size) noexcept nogil
# One frame that holds the bytes, its size written into it where the form can. Raises MemoryError, and ValueError for
# an unknown form.
cdef bytes compress_message(int form, const uint8_t* data, size_t size)
# What the one frame holds; or None with `failure` set to the close code: 1009 above `limit` bytes or for a window that
# is too large, 1007 for what is not exactly one whole frame of that form, 1011 without memory. Raises nothing.
cdef object decompress_message(int form, const uint8_t* data, size_t size, size_t limit, int* failure)
