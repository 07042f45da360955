"""Messages as zstd, lz4 and gzip frames; `compression.pxd` is the contract. The `def` functions are for tests."""

import zlib

import lz4.frame
import zstandard

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp

from realtime_communication._core.wire.deflate cimport gzip_frame

cdef extern from "Python.h":
    object PyMemoryView_FromMemory(char* data, Py_ssize_t size, int flags)
    int PyBUF_READ
    Py_ssize_t PY_SSIZE_T_MAX

cdef enum:
    GZIP_BITS = 16               # added to zlib's window bits: a gzip frame instead of a zlib one
    WINDOW_MOST = 15
    ZSTD_BLOCK_MOST = 131072     # bytes a block can inflate to; RFC 8878, 3.1.1.2.4
    READ_MOST = 131072           # bytes inflated at a time while the size is unknown

cdef object zstd_encoder = zstandard.ZstdCompressor(level=1, write_content_size=True)
cdef object ZstdDecompressor = zstandard.ZstdDecompressor
cdef object zstd_decoder = ZstdDecompressor()
cdef object ZstdError = zstandard.ZstdError
cdef object lz4_compress = lz4.frame.compress
cdef object Lz4Decompressor = lz4.frame.LZ4FrameDecompressor
cdef object decompressobj = zlib.decompressobj
cdef object ZlibError = zlib.error


cdef struct ZstdFrame:           # what a frame's structure tells before it is decoded
    bint size_known
    uint64_t size                # bytes of content, as declared
    uint64_t window              # bytes the decoder has to keep
    uint64_t most                # bytes the blocks can make at most


cdef int detect_compression(const uint8_t* data, size_t size) noexcept nogil:
    if size >= 4 and memcmp(data, b"\x28\xb5\x2f\xfd", 4) == 0:
        return COMPRESSION_ZSTD
    if size >= 4 and memcmp(data, b"\x04\x22\x4d\x18", 4) == 0:
        return COMPRESSION_LZ4
    if size >= 2 and memcmp(data, b"\x1f\x8b", 2) == 0:
        return COMPRESSION_GZIP
    return COMPRESSION_NONE


cdef uint64_t little_endian(const uint8_t* data, size_t size) noexcept nogil:
    cdef uint64_t value = 0
    while size > 0:
        size -= 1
        value = value << 8 | data[size]
    return value


cdef size_t read_zstd_header(const uint8_t* data, size_t size, ZstdFrame* out) noexcept nogil:
    """Bytes of the frame header behind the magic number (RFC 8878, 3.1.1.1); 0 when malformed or cut."""
    cdef size_t window_size, id_size, content_size, at
    cdef bint single
    if size < 6 or data[4] & 0x08:             # reserved bit
        return 0
    single = (data[4] & 0x20) != 0
    window_size = 0 if single else 1
    id_size = <size_t> 1 << (data[4] & 3) >> 1
    content_size = <size_t> 1 << (data[4] >> 6)
    if content_size == 1 and not single:
        content_size = 0
    at = 5
    if size - at < window_size + id_size + content_size:
        return 0
    if not single:
        out.window = <uint64_t> 1 << (10 + (data[at] >> 3))
        out.window += out.window // 8 * (data[at] & 7)
    at += window_size + id_size
    out.size_known = content_size > 0
    out.size = little_endian(data + at, content_size)
    if content_size == 2:
        out.size += 256
    if single:
        out.window = out.size
    return at + content_size


cdef bint read_zstd_frame(const uint8_t* data, size_t size, ZstdFrame* out) noexcept nogil:
    """Whether the bytes have the structure of exactly one frame (RFC 8878, 3.1.1)."""
    cdef size_t at = read_zstd_header(data, size, out)
    cdef size_t tail, taken
    cdef uint32_t block, made
    if at == 0:
        return False
    tail = 4 if data[4] & 0x04 else 0          # checksum
    out.most = 0
    while size - at >= 3:
        block = <uint32_t> little_endian(data + at, 3)
        at += 3
        taken = made = block >> 3
        if (block >> 1) & 3 == 1:              # one byte repeated
            taken = 1
        elif (block >> 1) & 3 == 2:
            made = ZSTD_BLOCK_MOST
        elif (block >> 1) & 3 == 3:
            return False
        if size - at < taken:
            return False
        at += taken
        out.most += made
        if block & 1:
            return size - at == tail and (not out.size_known or out.size <= out.most)
    return False


cdef object view_of(const uint8_t* data, size_t size):
    return PyMemoryView_FromMemory(<char*> data, <Py_ssize_t> size, PyBUF_READ)


cdef bytes compress_message(int form, const uint8_t* data, size_t size):
    if size == 0:
        data = b""
    if form == COMPRESSION_NONE:
        return (<const char*> data)[:size]
    if form == COMPRESSION_ZSTD:
        return zstd_encoder.compress(view_of(data, size))
    if form == COMPRESSION_LZ4:
        return lz4_compress(view_of(data, size))
    if form == COMPRESSION_GZIP:
        return gzip_frame(data, size)
    raise ValueError(f"no message compression {form}")


cdef object read_bounded(object reader, size_t limit):
    """All that `reader` has, or at least one byte more than `limit` of it."""
    cdef size_t total = 0
    cdef bytes piece
    pieces = []
    while total <= limit:
        piece = reader.read(READ_MOST)
        if not piece:
            break
        pieces.append(piece)
        total += len(piece)
    return b"".join(pieces)


cdef object unzstd_message(const uint8_t* data, size_t size, size_t limit, int* failure):
    cdef ZstdFrame frame
    cdef bytes out
    if not read_zstd_frame(data, size, &frame):
        failure[0] = 1007
        return None
    if (frame.size_known and frame.size > limit) or (frame.window > ZSTD_WINDOW_MOST and frame.window > limit):
        failure[0] = 1009
        return None
    if frame.size_known and frame.size > 0:    # decoded in one pass, straight into the result
        return zstd_decoder.decompress(view_of(data, size))
    # A decoder of its own: one that is kept would keep its window as well.
    out = read_bounded(ZstdDecompressor().stream_reader(view_of(data, size)), limit)
    if <size_t> len(out) > limit:
        failure[0] = 1009
        return None
    return out


cdef object decode_bounded(object decoder, const uint8_t* data, size_t size, size_t limit, int* failure):
    """For decoders with the interface of `bz2.BZ2Decompressor`."""
    cdef Py_ssize_t most = PY_SSIZE_T_MAX if limit >= <size_t> PY_SSIZE_T_MAX else <Py_ssize_t> limit + 1
    cdef bytes out = decoder.decompress(view_of(data, size), most)
    if <size_t> len(out) > limit:
        failure[0] = 1009
        return None
    if not decoder.eof or decoder.unused_data:
        failure[0] = 1007
        return None
    return out


cdef object decompress_message(int form, const uint8_t* data, size_t size, size_t limit, int* failure):
    failure[0] = 0
    if form == COMPRESSION_NONE:
        if size <= limit:
            return (<const char*> data)[:size] if size else b""
        failure[0] = 1009
        return None
    if detect_compression(data, size) != form:
        failure[0] = 1007
        return None
    try:
        if form == COMPRESSION_ZSTD:
            return unzstd_message(data, size, limit, failure)
        if form == COMPRESSION_LZ4:
            return decode_bounded(Lz4Decompressor(), data, size, limit, failure)
        return decode_bounded(decompressobj(GZIP_BITS + WINDOW_MOST), data, size, limit, failure)
    except MemoryError:
        failure[0] = 1011
    except (ZstdError, ZlibError, RuntimeError, EOFError):     # lz4 raises RuntimeError
        failure[0] = 1007
    return None


# For tests --------------------------------------------------------------------------------------------------------

def detect(bytes data not None):
    """The form of a message: 0 none, 1 zstd, 2 lz4, 3 gzip."""
    return detect_compression(<const uint8_t*> data, len(data))


def compress(int form, bytes data not None):
    """One frame that holds `data`; raises ValueError for an unknown form."""
    return compress_message(form, <const uint8_t*> data, len(data))


def decompress(int form, bytes data not None, size_t limit):
    """What the frame holds, or the close code."""
    cdef int failure = 0
    message = decompress_message(form, <const uint8_t*> data, len(data), limit, &failure)
    return failure if message is None else message
