"""MessagePack, validated, walked and written without objects; `msgpack_scan.pxd` is the contract."""

from libc.math cimport isfinite
from libc.stddef cimport size_t
from libc.stdint cimport UINT32_MAX, int8_t, int16_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from realtime_communication._core.base.memory cimport (
    Buffer, Slice, buffer_append, buffer_byte, buffer_reserve, slice_of,
)
from realtime_communication._core.wire.utf8 cimport utf8_is_ascii, utf8_valid


cdef const char* msgpack_error_text(int error) noexcept nogil:
    if error == MSGPACK_TRUNCATED:
        return b"MessagePack ends within a value"
    if error == MSGPACK_RESERVED:
        return b"MessagePack has the reserved byte 0xc1"
    if error == MSGPACK_EXTENSION:
        return b"MessagePack extension types are not supported"
    if error == MSGPACK_KEY:
        return b"MessagePack map has a key that is not a string"
    if error == MSGPACK_UTF8:
        return b"MessagePack string is not UTF-8"
    if error == MSGPACK_NOT_FINITE:
        return b"MessagePack float is NaN or infinite"
    if error == MSGPACK_TOO_DEEP:
        return b"MessagePack is nested more than 128 levels deep"
    if error == MSGPACK_TRAILING:
        return b"MessagePack value is followed by more bytes"
    return b"invalid MessagePack"


cdef inline uint64_t read_big_endian(const uint8_t* data, size_t width) noexcept nogil:
    cdef uint64_t value = 0
    cdef size_t i
    for i in range(width):
        value = value << 8 | data[i]
    return value


cdef inline int set_number(MsgpackToken* token, double number) noexcept nogil:
    token.kind = MSGPACK_FLOAT
    token.number = number
    return 0 if isfinite(number) else MSGPACK_NOT_FINITE


cdef inline void set_unsigned(MsgpackToken* token, uint64_t value) noexcept nogil:
    token.kind = MSGPACK_UNSIGNED
    token.unsigned_value = value


cdef inline void set_signed(MsgpackToken* token, int64_t value) noexcept nogil:
    if value >= 0:
        set_unsigned(token, <uint64_t> value)
    else:
        token.kind = MSGPACK_NEGATIVE
        token.signed_value = value


# Takes `length` bytes at `*at` as the content of a string or binary value.
cdef inline int take_content(const uint8_t* data, size_t size, size_t* at, int kind, size_t length,
                             MsgpackToken* token) noexcept nogil:
    if size - at[0] < length:
        return MSGPACK_TRUNCATED
    token.kind = kind
    token.content = slice_of(data + at[0], length)
    if kind == MSGPACK_STRING and not utf8_is_ascii(data + at[0], length) and not utf8_valid(data + at[0], length):
        return MSGPACK_UTF8
    at[0] += length
    return 0


# Takes the head of a container; every item needs a byte at least, a pair two.
cdef inline int take_container(size_t size, size_t at, int kind, uint64_t count, MsgpackToken* token) noexcept nogil:
    cdef size_t least = count * 2 if kind == MSGPACK_MAP else count
    if size - at < least:
        return MSGPACK_TRUNCATED
    token.kind = kind
    token.count = <uint32_t> count
    return 0


# How many bytes of length or number follow the first byte 0xc4..0xdf of a value.
cdef inline size_t operand_width(uint8_t head) noexcept nogil:
    if head <= 0xC6:
        return <size_t> 1 << (head - 0xC4)
    if head == 0xCA:
        return 4
    if head == 0xCB:
        return 8
    if head <= 0xCF:
        return <size_t> 1 << (head - 0xCC)
    if head <= 0xD3:
        return <size_t> 1 << (head - 0xD0)
    if head <= 0xDB:
        return <size_t> 1 << (head - 0xD9)
    return 2 if head & 1 == 0 else 4


# The types with a number or a length behind their first byte; `operand` is that number.
cdef int read_long_form(const uint8_t* data, size_t size, size_t* at, uint8_t head, uint64_t operand,
                        MsgpackToken* token) noexcept nogil:
    cdef float single = 0
    cdef double number = 0
    cdef uint32_t bits
    if head <= 0xC6:
        return take_content(data, size, at, MSGPACK_BINARY, operand, token)
    if 0xD9 <= head <= 0xDB:
        return take_content(data, size, at, MSGPACK_STRING, operand, token)
    if head >= 0xDE:
        return take_container(size, at[0], MSGPACK_MAP, operand, token)
    if head >= 0xDC:
        return take_container(size, at[0], MSGPACK_ARRAY, operand, token)
    if head == 0xCA:
        bits = <uint32_t> operand
        memcpy(&single, &bits, 4)
        return set_number(token, single)
    if head == 0xCB:
        memcpy(&number, &operand, 8)
        return set_number(token, number)
    if head == 0xD0:
        set_signed(token, <int8_t> operand)
    elif head == 0xD1:
        set_signed(token, <int16_t> operand)
    elif head == 0xD2:
        set_signed(token, <int32_t> operand)
    elif head == 0xD3:
        set_signed(token, <int64_t> operand)
    else:
        set_unsigned(token, operand)
    return 0


cdef inline int read_token(const uint8_t* data, size_t size, size_t* at, MsgpackToken* token) noexcept nogil:
    cdef uint8_t head
    cdef size_t width
    if at[0] >= size:
        return MSGPACK_TRUNCATED
    head = data[at[0]]
    at[0] += 1
    if head <= 0x7F:
        set_unsigned(token, head)
        return 0
    if head >= 0xE0:
        set_signed(token, <int8_t> head)
        return 0
    if head <= 0x8F:
        return take_container(size, at[0], MSGPACK_MAP, head & 15, token)
    if head <= 0x9F:
        return take_container(size, at[0], MSGPACK_ARRAY, head & 15, token)
    if head <= 0xBF:
        return take_content(data, size, at, MSGPACK_STRING, head & 31, token)
    if head == 0xC0:
        token.kind = MSGPACK_NIL
        return 0
    if head == 0xC1:
        return MSGPACK_RESERVED
    if head <= 0xC3:
        token.kind = MSGPACK_BOOL
        token.unsigned_value = head & 1
        return 0
    if 0xC7 <= head <= 0xC9 or 0xD4 <= head <= 0xD8:
        return MSGPACK_EXTENSION
    width = operand_width(head)
    if size - at[0] < width:
        return MSGPACK_TRUNCATED
    at[0] += width
    return read_long_form(data, size, at, head, read_big_endian(data + at[0] - width, width), token)


cdef int msgpack_read(const uint8_t* data, size_t size, size_t* at, MsgpackToken* token) noexcept nogil:
    cdef size_t position = at[0]
    cdef int status = read_token(data, size, &position, token)
    if status == 0:
        at[0] = position
    return status


cdef int msgpack_skip_value(const uint8_t* data, size_t size, size_t* at, int depth) noexcept nogil:
    # For each open container: the tokens it still needs, and whether it is a map. In a map an even number of missing
    # tokens means that a key comes next.
    cdef uint64_t missing[MSGPACK_MAX_DEPTH]
    cdef bint is_map[MSGPACK_MAX_DEPTH]
    cdef int opened = 0
    cdef int status
    cdef bint key
    cdef MsgpackToken token
    while True:
        key = opened > 0 and is_map[opened - 1] and missing[opened - 1] & 1 == 0
        status = read_token(data, size, at, &token)
        if status < 0:
            return status
        if key and token.kind != MSGPACK_STRING:
            return MSGPACK_KEY
        if opened > 0:
            missing[opened - 1] -= 1
        if token.kind >= MSGPACK_ARRAY:
            if opened >= MSGPACK_MAX_DEPTH - depth:
                return MSGPACK_TOO_DEEP
            is_map[opened] = token.kind == MSGPACK_MAP
            missing[opened] = <uint64_t> token.count << is_map[opened]
            opened += 1
        while opened > 0 and missing[opened - 1] == 0:
            opened -= 1
        if opened == 0:
            return 0


cdef int msgpack_validate(const uint8_t* data, size_t size) noexcept nogil:
    cdef size_t at = 0
    cdef int status = msgpack_skip_value(data, size, &at, 0)
    if status < 0:
        return status
    return 0 if at == size else MSGPACK_TRAILING


# Appends one byte and `width` bytes of `value`, the highest first.
cdef int write_head(Buffer* out, uint8_t head, uint64_t value, int width) noexcept nogil:
    cdef uint8_t text[9]
    cdef int i
    text[0] = head
    for i in range(width, 0, -1):
        text[i] = <uint8_t> value
        value >>= 8
    return buffer_append(out, text, width + 1)


cdef int write_msgpack_map(Buffer* out, uint32_t count) noexcept nogil:
    if count < 16:
        return buffer_byte(out, <uint8_t> (0x80 | count))
    if count <= 0xFFFF:
        return write_head(out, 0xDE, count, 2)
    return write_head(out, 0xDF, count, 4)


cdef int write_msgpack_array(Buffer* out, uint32_t count) noexcept nogil:
    if count < 16:
        return buffer_byte(out, <uint8_t> (0x90 | count))
    if count <= 0xFFFF:
        return write_head(out, 0xDC, count, 2)
    return write_head(out, 0xDD, count, 4)


cdef int write_msgpack_string(Buffer* out, Slice text) noexcept nogil:
    if text.size > UINT32_MAX or buffer_reserve(out, text.size + 5) < 0:
        return -1
    if text.size < 32:
        buffer_byte(out, <uint8_t> (0xA0 | text.size))
    elif text.size <= 0xFF:
        write_head(out, 0xD9, text.size, 1)
    elif text.size <= 0xFFFF:
        write_head(out, 0xDA, text.size, 2)
    else:
        write_head(out, 0xDB, text.size, 4)
    return buffer_append(out, text.data, text.size)


cdef int write_msgpack_binary(Buffer* out, Slice content) noexcept nogil:
    if content.size > UINT32_MAX or buffer_reserve(out, content.size + 5) < 0:
        return -1
    if content.size <= 0xFF:
        write_head(out, 0xC4, content.size, 1)
    elif content.size <= 0xFFFF:
        write_head(out, 0xC5, content.size, 2)
    else:
        write_head(out, 0xC6, content.size, 4)
    return buffer_append(out, content.data, content.size)


cdef uint32_t msgpack_unsigned_size(uint64_t value) noexcept nogil:
    if value <= 0x7F:
        return 1
    if value <= 0xFF:
        return 2
    if value <= 0xFFFF:
        return 3
    return 5 if value <= UINT32_MAX else 9


cdef uint8_t* put_msgpack_unsigned(uint8_t* out, uint64_t value) noexcept nogil:
    cdef uint32_t width = msgpack_unsigned_size(value) - 1
    cdef uint32_t i
    if width == 0:
        out[0] = <uint8_t> value
        return out + 1
    # 0xcc, 0xcd, 0xce, 0xcf for 1, 2, 4, 8 bytes
    out[0] = 0xCC + (width >> 1) - (width >> 3)
    for i in range(width, 0, -1):
        out[i] = <uint8_t> value
        value >>= 8
    return out + width + 1


cdef int write_msgpack_unsigned(Buffer* out, uint64_t value) noexcept nogil:
    if buffer_reserve(out, 9) < 0:
        return -1
    out.size = put_msgpack_unsigned(out.data + out.size, value) - out.data
    return 0


cdef int write_msgpack_signed(Buffer* out, int64_t value) noexcept nogil:
    if value >= 0:
        return write_msgpack_unsigned(out, <uint64_t> value)
    if value >= -32:
        return buffer_byte(out, <uint8_t> value)
    if value >= -0x80:
        return write_head(out, 0xD0, <uint64_t> value, 1)
    if value >= -0x8000:
        return write_head(out, 0xD1, <uint64_t> value, 2)
    if value >= -(<int64_t> 1 << 31):
        return write_head(out, 0xD2, <uint64_t> value, 4)
    return write_head(out, 0xD3, <uint64_t> value, 8)


cdef int write_msgpack_bool(Buffer* out, bint value) noexcept nogil:
    return buffer_byte(out, <uint8_t> (0xC2 + value))


cdef int write_msgpack_nil(Buffer* out) noexcept nogil:
    return buffer_byte(out, 0xC0)


cdef int write_msgpack_double(Buffer* out, double value) noexcept nogil:
    cdef uint64_t bits = 0
    memcpy(&bits, &value, 8)
    return write_head(out, 0xCB, bits, 8)


def validate(bytes data not None):
    """Check that `data` is one MessagePack value; raises ValueError that says what is wrong."""
    cdef int status = msgpack_validate(<const uint8_t*> data, len(data))
    if status < 0:
        raise ValueError(msgpack_error_text(status).decode("ascii"))
