"""JSON to MessagePack and back; `transcode.pxd` is the contract."""

from cpython.conversion cimport Py_DTSF_ADD_DOT_0, PyOS_double_to_string
from cpython.mem cimport PyMem_Free
from libc.stddef cimport size_t
from libc.stdint cimport UINT64_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, strlen

from realtime_communication._core.base.memory cimport (
    Buffer, Slice, buffer_append, buffer_byte, buffer_free, buffer_init, buffer_reserve, slice_of, write_decimal,
)
from realtime_communication._core.wire.json_scan cimport (
    JSON_MAX_DEPTH, json_skip_number, json_skip_space, json_skip_string, json_unescape, json_unsigned,
    write_json_string,
)
from realtime_communication._core.wire.msgpack_scan cimport (
    MSGPACK_ARRAY, MSGPACK_BINARY, MSGPACK_FLOAT, MSGPACK_MAP, MSGPACK_MAX_DEPTH, MSGPACK_NEGATIVE,
    MSGPACK_NIL, MSGPACK_STRING, MSGPACK_UNSIGNED, MsgpackToken, msgpack_read, write_msgpack_array, write_msgpack_bool,
    write_msgpack_double, write_msgpack_map, write_msgpack_nil, write_msgpack_signed, write_msgpack_string,
    write_msgpack_unsigned,
)

cdef extern from "Python.h":
    double PyOS_string_to_double(const char* text, char** end, PyObject* overflow) except? -1.0
    ctypedef struct PyObject

cdef enum:
    SHORT_NUMBER = 64            # bytes of a number that is converted without an allocation

cdef const char* BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


# --- JSON to MessagePack
#
# A MessagePack container says first how many items it has, so one pass counts the items of every container, in the
# order in which they open, and a second one writes.

# Appends one uint32_t for each container of `data` to `counts`: its items, or its pairs. 0 or -1.
cdef int count_items(const uint8_t* data, size_t size, Buffer* counts) noexcept nogil:
    cdef size_t open_counts[JSON_MAX_DEPTH]  # index into `counts` of each open container
    cdef int opened = 0
    cdef size_t at = 0
    cdef uint32_t count
    cdef bint escaped
    cdef uint8_t byte
    while at < size:
        byte = data[at]
        if byte == 34:
            if json_skip_string(data, size, &at, &escaped) < 0:
                return -1
            continue
        at += 1
        if byte == 123 or byte == 91:
            at = json_skip_space(data, size, at)
            count = 1
            if at < size and (data[at] == 125 or data[at] == 93):
                count = 0
            if opened == JSON_MAX_DEPTH:
                return -1
            open_counts[opened] = counts.size // sizeof(uint32_t)
            opened += 1
            if buffer_append(counts, &count, sizeof(uint32_t)) < 0:
                return -1
        elif byte == 125 or byte == 93:
            opened -= 1
            if opened < 0:
                return -1
        elif byte == 44 and opened > 0:
            (<uint32_t*> counts.data)[open_counts[opened - 1]] += 1
    return 0


cdef int parse_double(const uint8_t* data, size_t size, double* value) noexcept with gil:
    cdef char short_text[SHORT_NUMBER]
    cdef bytes long_text
    cdef char* text = short_text
    try:
        if size < SHORT_NUMBER:
            memcpy(short_text, data, size)
            short_text[size] = 0
        else:
            long_text = (<const char*> data)[:size]
            text = long_text
        value[0] = PyOS_string_to_double(text, NULL, NULL)
        return 0
    except Exception:
        return -1


cdef int write_number(Buffer* out, const uint8_t* data, size_t size, bint integral) noexcept nogil:
    cdef bint negative = data[0] == 45
    cdef uint64_t value
    cdef double number
    if integral:
        if not negative and json_unsigned(slice_of(data, size), UINT64_MAX, &value) == 0:
            return write_msgpack_unsigned(out, value)
        if negative and json_unsigned(slice_of(data + 1, size - 1), <uint64_t> 1 << 63, &value) == 0:
            return write_msgpack_signed(out, <int64_t> (0 - value))
    if parse_double(data, size, &number) < 0:
        return -1
    return write_msgpack_double(out, number)


cdef int write_text(Buffer* out, Slice content, bint escaped, Buffer* plain) noexcept nogil:
    if not escaped:
        return write_msgpack_string(out, content)
    plain.size = 0
    if json_unescape(content, plain) < 0:
        return -1
    return write_msgpack_string(out, slice_of(plain.data, plain.size))


# Writes the token at `*at` of a validated text; `containers` counts those that have been opened.
cdef int write_token(Buffer* out, const uint8_t* data, size_t size, size_t* at, Buffer* counts, size_t* containers,
                     Buffer* plain) noexcept nogil:
    cdef uint8_t byte = data[at[0]]
    cdef size_t start = at[0]
    cdef bint flag
    cdef uint32_t count
    if byte == 34:
        if json_skip_string(data, size, at, &flag) < 0:
            return -1
        return write_text(out, slice_of(data + start + 1, at[0] - start - 2), flag, plain)
    if byte == 45 or 48 <= byte <= 57:
        if json_skip_number(data, size, at, &flag) < 0:
            return -1
        return write_number(out, data + start, at[0] - start, flag)
    if byte == 123 or byte == 91:
        at[0] += 1
        if containers[0] == counts.size // sizeof(uint32_t):
            return -1            # only text that was never validated has a bracket that was not counted
        count = (<uint32_t*> counts.data)[containers[0]]
        containers[0] += 1
        return write_msgpack_map(out, count) if byte == 123 else write_msgpack_array(out, count)
    if byte == 116 or byte == 110:
        at[0] += 4
        return write_msgpack_bool(out, True) if byte == 116 else write_msgpack_nil(out)
    if byte == 102:
        at[0] += 5
        return write_msgpack_bool(out, False)
    at[0] += 1                   # space, comma, colon, closing bracket
    return 0


cdef int json_to_msgpack(Slice payload, Buffer* out) noexcept nogil:
    cdef Buffer counts
    cdef Buffer plain
    cdef size_t at = 0
    cdef size_t containers = 0
    cdef size_t start = out.size
    cdef int status
    buffer_init(&counts)
    buffer_init(&plain)
    status = count_items(payload.data, payload.size, &counts)
    while status == 0 and at < payload.size:
        status = write_token(out, payload.data, payload.size, &at, &counts, &containers, &plain)
    if status == 0 and (at > payload.size or out.size == start):
        status = -1
    buffer_free(&counts)
    buffer_free(&plain)
    return status


# --- MessagePack to JSON

cdef int write_json_double(Buffer* out, double value) noexcept with gil:
    cdef char* text = NULL
    cdef int status
    try:
        text = PyOS_double_to_string(value, 114, 0, Py_DTSF_ADD_DOT_0, NULL)
    except Exception:
        pass
    if text == NULL:
        return -1
    status = buffer_append(out, text, strlen(text))
    PyMem_Free(text)
    return status


cdef int write_base64(Buffer* out, Slice content) noexcept nogil:
    cdef size_t at = 0
    cdef uint32_t bits
    cdef uint8_t* text
    if content.size > <size_t> 1 << 62 or buffer_reserve(out, (content.size + 2) // 3 * 4 + 2) < 0:
        return -1
    text = out.data + out.size
    text[0] = 34
    text += 1
    while content.size - at >= 3:
        bits = <uint32_t> content.data[at] << 16 | <uint32_t> content.data[at + 1] << 8 | content.data[at + 2]
        text[0] = BASE64[bits >> 18]
        text[1] = BASE64[bits >> 12 & 63]
        text[2] = BASE64[bits >> 6 & 63]
        text[3] = BASE64[bits & 63]
        text += 4
        at += 3
    if at < content.size:
        bits = <uint32_t> content.data[at] << 16
        if content.size - at == 2:
            bits |= <uint32_t> content.data[at + 1] << 8
        text[0] = BASE64[bits >> 18]
        text[1] = BASE64[bits >> 12 & 63]
        text[2] = BASE64[bits >> 6 & 63] if content.size - at == 2 else 61
        text[3] = 61
        text += 4
    text[0] = 34
    out.size = text + 1 - out.data
    return 0


cdef int write_signed(Buffer* out, bint negative, uint64_t magnitude) noexcept nogil:
    if buffer_reserve(out, 21) < 0:
        return -1
    if negative:
        buffer_byte(out, 45)
    out.size = write_decimal(out.data + out.size, magnitude) - out.data
    return 0


cdef int write_scalar(Buffer* out, const MsgpackToken* token) noexcept nogil:
    if token.kind == MSGPACK_STRING:
        return write_json_string(out, token.content)
    if token.kind == MSGPACK_UNSIGNED:
        return write_signed(out, False, token.unsigned_value)
    if token.kind == MSGPACK_NEGATIVE:
        return write_signed(out, True, 0 - <uint64_t> token.signed_value)
    if token.kind == MSGPACK_FLOAT:
        return write_json_double(out, token.number)
    if token.kind == MSGPACK_BINARY:
        return write_base64(out, token.content)
    if token.kind == MSGPACK_NIL:
        return buffer_append(out, b"null", 4)
    if token.unsigned_value:
        return buffer_append(out, b"true", 4)
    return buffer_append(out, b"false", 5)


# What stands before the next token of an open container that still needs `missing` of them.
cdef inline int write_separator(Buffer* out, bint in_map, uint64_t missing) noexcept nogil:
    cdef uint8_t last = out.data[out.size - 1]
    if in_map and missing & 1:
        return buffer_byte(out, 58)
    if last == 123 or last == 91:            # the bracket that has just opened: all else ends in another byte
        return 0
    return buffer_byte(out, 44)


cdef int msgpack_to_json(Slice payload, Buffer* out) noexcept nogil:
    # For each open container: the tokens it still needs, and its closing bracket.
    cdef uint64_t missing[MSGPACK_MAX_DEPTH]
    cdef uint8_t closers[MSGPACK_MAX_DEPTH]
    cdef int opened = 0
    cdef size_t at = 0
    cdef int status
    cdef MsgpackToken token
    while True:
        if msgpack_read(payload.data, payload.size, &at, &token) < 0:
            return -1
        if opened > 0:
            if write_separator(out, closers[opened - 1] == 125, missing[opened - 1]) < 0:
                return -1
            missing[opened - 1] -= 1
        if token.kind >= MSGPACK_ARRAY:
            if opened == MSGPACK_MAX_DEPTH:
                return -1
            closers[opened] = 125 if token.kind == MSGPACK_MAP else 93
            missing[opened] = <uint64_t> token.count << (token.kind == MSGPACK_MAP)
            status = buffer_byte(out, closers[opened] - 2)
            opened += 1
        else:
            status = write_scalar(out, &token)
        if status < 0:
            return -1
        while opened > 0 and missing[opened - 1] == 0:
            opened -= 1
            if buffer_byte(out, closers[opened]) < 0:
                return -1
        if opened == 0:
            return 0 if at == payload.size else -1


cdef int transcode(Slice payload, int source, int target, Buffer* out) noexcept nogil:
    cdef size_t start = out.size
    cdef int status
    if source == target:
        return buffer_append(out, payload.data, payload.size)
    status = json_to_msgpack(payload, out) if target == MSGPACK else msgpack_to_json(payload, out)
    if status < 0:
        out.size = start
    return status


def convert(bytes payload not None, int source, int target):
    """Return the valid value `payload` of encoding `source` in encoding `target` (0 JSON, 1 MessagePack).

    Raises ValueError when it could not be converted.
    """
    cdef Buffer out
    buffer_init(&out)
    try:
        if transcode(slice_of(<const uint8_t*> payload, len(payload)), source, target, &out) < 0:
            raise ValueError("not a valid value")
        return (<const char*> out.data)[:out.size]
    finally:
        buffer_free(&out)
