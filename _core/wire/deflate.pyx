"""permessage-deflate; `deflate.pxd` is the contract. The functions without C types let tests reach it from Python."""

import zlib

try:
    from isal import isal_zlib as encoders     # igzip: 3 KB of JSON in 9 us where zlib takes 11, 64 KB in 90 for 290
except ImportError:                            # no wheel for this platform
    encoders = zlib

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t

from realtime_communication._core.base.memory cimport Slice, slice_is, slice_of

cdef extern from "Python.h":
    object PyMemoryView_FromMemory(char* data, Py_ssize_t size, int flags)
    int PyBUF_READ
    Py_ssize_t PY_SSIZE_T_MAX

cdef enum:
    WINDOW_LEAST = 9             # bits; zlib cannot compress raw deflate with 8
    WINDOW_MOST = 15
    GZIP_BITS = 16               # added to the window bits: a gzip frame
    LEVEL = 1                    # zlib's fastest; igzip's that compresses as well as that one
    MATCH_MARGIN = 262           # bytes of a window zlib keeps free, MIN_LOOKAHEAD of its deflate.h

    SEEN_SERVER_TAKEOVER = 1     # parameters of an offer
    SEEN_CLIENT_TAKEOVER = 2
    SEEN_SERVER_WINDOW = 4
    SEEN_CLIENT_WINDOW = 8

cdef object compressobj = encoders.compressobj
cdef object decompressobj = zlib.decompressobj
cdef object ZlibError = zlib.error
cdef object DEFLATED = zlib.DEFLATED
cdef int SYNC_FLUSH = zlib.Z_SYNC_FLUSH
cdef int FINISH = zlib.Z_FINISH

# A message ends inside the header of an empty stored block whose LEN and NLEN, 00 00 ff ff, are left out (RFC 7692,
# 7.2.1). Instead of these four bytes the decoder is given a stored block of known bytes and a final block: only
# where a message really ended as it must do exactly the known bytes come out and the stream end.
cdef bytes SENTINEL = b"whole it"
cdef bytes SENTINEL_BLOCKS = b"\x08\x00\xf7\xff" + SENTINEL + b"\x01\x00\x00\xff\xff"


# Negotiation ------------------------------------------------------------------------------------------------------

cdef struct Cursor:
    const uint8_t* at
    const uint8_t* end


cdef inline bint is_token(uint8_t byte) noexcept nogil:
    """RFC 9110, 5.6.2."""
    if byte >= 0x80 or byte <= 0x20 or byte == 0x7F:
        return False
    return not (byte == 0x22 or 0x28 <= byte <= 0x29 or byte == 0x2C or byte == 0x2F or 0x3A <= byte <= 0x40
                or 0x5B <= byte <= 0x5D or byte == 0x7B or byte == 0x7D)


cdef inline bint next_is(Cursor* cursor, uint8_t byte) noexcept nogil:
    """Skips spaces and tabs, then takes `byte` when it is next."""
    while cursor.at < cursor.end and (cursor.at[0] == 0x20 or cursor.at[0] == 0x09):
        cursor.at += 1
    if cursor.at < cursor.end and cursor.at[0] == byte:
        cursor.at += 1
        return True
    return False


cdef inline Slice read_token(Cursor* cursor) noexcept nogil:
    """Skips spaces, takes a token; an empty one when there is none."""
    cdef const uint8_t* start
    next_is(cursor, 0)
    start = cursor.at
    while cursor.at < cursor.end and is_token(cursor.at[0]):
        cursor.at += 1
    return slice_of(start, cursor.at - start)


cdef int read_number(Cursor* cursor) noexcept nogil:
    """Takes a token or quoted string; its value when it is 1..99 in its shortest form, else -1."""
    cdef uint8_t digits[2]
    cdef size_t count = 0
    cdef bint quoted = next_is(cursor, 0x22)
    cdef const uint8_t* start = cursor.at
    cdef uint8_t byte
    while cursor.at < cursor.end:
        byte = cursor.at[0]
        if quoted and byte == 0x22:
            break
        if quoted and byte == 0x5C and cursor.end - cursor.at >= 2:            # RFC 9110, 5.6.4: an escape
            cursor.at += 1
            byte = cursor.at[0]
        if not 0x30 <= byte <= 0x39 or count == 2:
            if quoted:
                cursor.at = start - 1          # the quote again, for whoever looks for the string's end
                return -1
            break
        digits[count] = byte - 0x30
        count += 1
        cursor.at += 1
    if quoted and not next_is(cursor, 0x22):
        cursor.at = start - 1
        return -1
    if count == 0 or digits[0] == 0 or (cursor.at < cursor.end and is_token(cursor.at[0])):
        return -1
    return digits[0] if count == 1 else digits[0] * 10 + digits[1]


cdef uint8_t parameter_of(Slice name) noexcept nogil:
    if slice_is(name, "server_no_context_takeover", 26):
        return SEEN_SERVER_TAKEOVER
    if slice_is(name, "client_no_context_takeover", 26):
        return SEEN_CLIENT_TAKEOVER
    if slice_is(name, "server_max_window_bits", 22):
        return SEEN_SERVER_WINDOW
    if slice_is(name, "client_max_window_bits", 22):
        return SEEN_CLIENT_WINDOW
    return 0


cdef bint read_offer(Cursor* cursor, DeflateOffer* out) noexcept nogil:
    """Takes one offer as far as it is acceptable; whether it is, to its end (RFC 7692, 7.1)."""
    cdef uint8_t seen = 0
    cdef uint8_t parameter
    cdef int value
    out.server_window_bits = WINDOW_MOST
    out.server_window_asked = False
    if not slice_is(read_token(cursor), "permessage-deflate", 18):
        return False
    while next_is(cursor, 0x3B):
        parameter = parameter_of(read_token(cursor))
        if parameter == 0 or parameter & seen:
            return False
        seen |= parameter
        if not next_is(cursor, 0x3D):
            if parameter == SEEN_SERVER_WINDOW:                # 7.1.2.1: must have a value
                return False
            continue
        value = read_number(cursor)
        if parameter == SEEN_SERVER_WINDOW and WINDOW_LEAST <= value <= WINDOW_MOST:
            out.server_window_bits = <uint8_t> value
            out.server_window_asked = True
        elif parameter != SEEN_CLIENT_WINDOW or not WINDOW_LEAST <= value <= WINDOW_MOST:
            return False
    return cursor.at == cursor.end or cursor.at[0] == 0x2C


cdef void skip_offer(Cursor* cursor) noexcept nogil:
    """Goes behind the next comma outside of quotes, or to the end."""
    cdef bint quoted = False
    while cursor.at < cursor.end:
        if cursor.at[0] == 0x22:
            quoted = not quoted
        elif quoted and cursor.at[0] == 0x5C and cursor.end - cursor.at >= 2:
            cursor.at += 1
        elif not quoted and cursor.at[0] == 0x2C:
            cursor.at += 1
            return
        cursor.at += 1


cdef void deflate_negotiate(Slice header, DeflateOffer* out) noexcept nogil:
    cdef Cursor cursor
    cursor.at = header.data
    cursor.end = header.data + header.size
    out.accepted = False
    while cursor.at < cursor.end and not out.accepted:
        out.accepted = read_offer(&cursor, out)
        skip_offer(&cursor)


cdef bytes deflate_response(const DeflateOffer* offer):
    cdef bytes answer = b"permessage-deflate; server_no_context_takeover; client_no_context_takeover"
    if offer.server_window_asked:
        answer += b"; server_max_window_bits=%d" % offer.server_window_bits
    return answer


# Messages ---------------------------------------------------------------------------------------------------------

cdef object inflate_bounded(const uint8_t* data, size_t size, size_t limit, int* failure):
    """`inflate_message` for one that is not empty; raises what zlib raises."""
    cdef object decoder = decompressobj(-WINDOW_MOST)
    cdef Py_ssize_t most = PY_SSIZE_T_MAX if limit >= <size_t> PY_SSIZE_T_MAX else <Py_ssize_t> limit + 1
    cdef bytes out = decoder.decompress(PyMemoryView_FromMemory(<char*> data, <Py_ssize_t> size, PyBUF_READ), most)
    if <size_t> len(out) > limit:
        failure[0] = 1009
        return None
    if decoder.eof:
        if decoder.unused_data in (b"", b"\x00"):
            return out
    elif decoder.decompress(SENTINEL_BLOCKS, len(SENTINEL) + 1) == SENTINEL and decoder.eof \
            and not decoder.unused_data:
        return out
    failure[0] = 1007
    return None


cdef object inflate_message(const uint8_t* data, size_t size, size_t limit, int* failure):
    failure[0] = 0
    if size == 0:
        return b""
    try:
        return inflate_bounded(data, size, limit, failure)
    except ZlibError:
        failure[0] = 1007
    except MemoryError:
        failure[0] = 1011
    return None


cdef int window_for(size_t size, int most) noexcept nogil:
    """Window bits for a message: a window larger than it only costs time, zlib clears and allocates by it."""
    cdef int bits = WINDOW_LEAST
    while bits < most and (<size_t> 1 << bits) < size + MATCH_MARGIN:
        bits += 1
    return bits


cdef bytes encode(const uint8_t* data, size_t size, int bits, int container, int flush):
    """What the encoder makes of the bytes; `container` is -1 for none (raw deflate) or GZIP_BITS."""
    cdef int memory_level = min(bits - 6, 8)   # as many symbols a block as the window has bytes
    cdef int wbits = -bits if container < 0 else bits + container
    cdef object encoder = compressobj(LEVEL, DEFLATED, wbits, memory_level)
    cdef bytes out = encoder.compress(PyMemoryView_FromMemory(<char*> data, <Py_ssize_t> size, PyBUF_READ))
    return out + <bytes> encoder.flush(flush)


cdef bytes deflate_message(const uint8_t* data, size_t size, int window_bits):
    cdef bytes out
    if size == 0:
        return b"\x00"                         # RFC 7692, 7.2.3.6
    out = encode(data, size, window_for(size, window_bits), -1, SYNC_FLUSH)
    return out[:len(out) - 4]


cdef bytes gzip_frame(const uint8_t* data, size_t size):
    return encode(data, size, window_for(size, WINDOW_MOST), GZIP_BITS, FINISH)


# For tests --------------------------------------------------------------------------------------------------------

def negotiate(bytes header not None):
    """The answer's header value and the window in bits, or None when no offer in `header` is acceptable."""
    cdef DeflateOffer offer
    deflate_negotiate(slice_of(<const uint8_t*> header, len(header)), &offer)
    if not offer.accepted:
        return None
    return deflate_response(&offer), offer.server_window_bits


def inflate(bytes data not None, size_t limit):
    """The message in `data`, or the close code."""
    cdef int failure = 0
    message = inflate_message(<const uint8_t*> data, len(data), limit, &failure)
    return failure if message is None else message


def deflate(bytes data not None, int window_bits=WINDOW_MOST):
    """`data` as a compressed message; raises ValueError for a window outside 9..15."""
    if not WINDOW_LEAST <= window_bits <= WINDOW_MOST:
        raise ValueError("window_bits is 9 to 15")
    return deflate_message(<const uint8_t*> data, len(data), window_bits)


def encoder():
    """The name of the module that compresses."""
    return encoders.__name__
