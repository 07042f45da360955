"""Maps and arrays of either encoding, member by member; `members.pxd` is the contract."""

from libc.stddef cimport size_t
from libc.stdint cimport UINT64_MAX, uint8_t
from libc.string cimport memchr

from realtime_communication._core.base.memory cimport (
    Buffer, Slice, buffer_free, buffer_init, buffer_reserve, slice_of,
)
from realtime_communication._core.wire.json_scan cimport (
    JSON_SYNTAX, JSON_TRUNCATED, json_error_text, json_plain_run, json_skip_space, json_skip_string, json_skip_value,
    json_unescape, json_unsigned,
)
from realtime_communication._core.wire.msgpack_scan cimport (
    MSGPACK_ARRAY, MSGPACK_BOOL, MSGPACK_FLOAT, MSGPACK_KEY, MSGPACK_MAP, MSGPACK_NIL, MSGPACK_STRING,
    MSGPACK_UNSIGNED, MsgpackToken, msgpack_error_text, msgpack_read, msgpack_skip_value,
)
from realtime_communication._core.wire.transcode cimport JSON_TEXT, MSGPACK


# What lies between the quotes of a JSON string.
cdef int plain_string(Strings* strings, Slice content, Slice* text) noexcept nogil:
    cdef Buffer* buffer = strings.text
    cdef size_t before = buffer.size
    if before == 0 and buffer_reserve(buffer, strings.room) < 0:
        return MEMBERS_NO_MEMORY
    if json_unescape(content, buffer) < 0:
        return MEMBERS_NO_MEMORY
    text[0] = slice_of(buffer.data + before, buffer.size - before)
    return 0


# Walks `"key" :` and the space around it.
cdef inline int next_key(Container* walk, size_t* at, Slice* key) noexcept nogil:
    cdef size_t start = at[0] + 1
    cdef size_t end
    cdef bint escaped = False
    cdef int status
    if at[0] >= walk.size:
        return JSON_TRUNCATED
    if walk.data[at[0]] != 34:
        return JSON_SYNTAX
    end = json_plain_run(walk.data, walk.size, start)
    if walk.size - end >= 2 and walk.data[end] == 34 and walk.data[end + 1] == 58:
        key[0] = slice_of(walk.data + start, end - start)
        at[0] = json_skip_space(walk.data, walk.size, end + 2)
        return 0
    status = json_skip_string(walk.data, walk.size, at, &escaped)
    if status < 0:
        return status
    key[0] = slice_of(walk.data + start, at[0] - start - 1)
    if escaped:
        status = plain_string(walk.strings, key[0], key)
        if status < 0:
            return status
    at[0] = json_skip_space(walk.data, walk.size, at[0])
    if at[0] >= walk.size:
        return JSON_TRUNCATED
    if walk.data[at[0]] != 58:
        return JSON_SYNTAX
    at[0] = json_skip_space(walk.data, walk.size, at[0] + 1)
    return 0


cdef int next_json(Container* walk, Slice* key, Slice* value) noexcept nogil:
    cdef const uint8_t* data = walk.data
    cdef size_t at = json_skip_space(data, walk.size, walk.at)
    cdef size_t start
    cdef int status
    if at >= walk.size:
        return JSON_TRUNCATED
    if data[at] == (125 if walk.is_map else 93):
        walk.at = at + 1
        return 0
    if walk.started:
        if data[at] != 44:
            return JSON_SYNTAX
        at = json_skip_space(data, walk.size, at + 1)
    walk.started = True
    if walk.is_map:
        status = next_key(walk, &at, key)
        if status < 0:
            return status
    start = at
    if at < walk.size and data[at] == 34:
        at = json_plain_run(data, walk.size, at + 1)
        if at < walk.size and data[at] == 34:
            value[0] = slice_of(data + start, at + 1 - start)
            walk.at = at + 1
            return 1
        at = start
    status = json_skip_value(data, walk.size, &at, walk.depth)
    if status < 0:
        return status
    value[0] = slice_of(data + start, at - start)
    walk.at = at
    return 1


cdef int next_msgpack(Container* walk, Slice* key, Slice* value) noexcept nogil:
    cdef MsgpackToken token
    cdef size_t start
    cdef int status
    if walk.left == 0:
        return 0
    walk.left -= 1
    if walk.is_map:
        status = msgpack_read(walk.data, walk.size, &walk.at, &token)
        if status < 0:
            return status
        if token.kind != MSGPACK_STRING:
            return MSGPACK_KEY
        key[0] = token.content
    start = walk.at
    status = msgpack_skip_value(walk.data, walk.size, &walk.at, walk.depth)
    if status < 0:
        return status
    value[0] = slice_of(walk.data + start, walk.at - start)
    return 1


cdef int next_member(Container* walk, Slice* key, Slice* value) noexcept nogil:
    return next_json(walk, key, value) if walk.encoding == JSON_TEXT else next_msgpack(walk, key, value)


cdef bint open_container(Container* walk, Strings* strings, int encoding, Slice data, bint is_map,
                         int depth) noexcept nogil:
    cdef MsgpackToken token
    walk.strings = strings
    walk.encoding = encoding
    walk.data = data.data
    walk.size = data.size
    walk.depth = depth
    walk.is_map = is_map
    walk.started = False
    walk.left = 0
    walk.at = 0
    if encoding == JSON_TEXT:
        walk.at = json_skip_space(data.data, data.size, 0)
        if walk.at >= data.size or data.data[walk.at] != (123 if is_map else 91):
            return False
        walk.at += 1
        return True
    if msgpack_read(data.data, data.size, &walk.at, &token) < 0:
        return False
    walk.left = token.count
    return token.kind == (MSGPACK_MAP if is_map else MSGPACK_ARRAY)


cdef int read_value(Strings* strings, int encoding, Slice value, MsgpackToken* token) noexcept nogil:
    cdef uint8_t first = value.data[0]
    cdef size_t at = 0
    if encoding == MSGPACK:
        msgpack_read(value.data, value.size, &at, token)
    elif first == 34:
        token.kind = MSGPACK_STRING
        token.content = slice_of(value.data + 1, value.size - 2)
        if memchr(token.content.data, 92, token.content.size) != NULL:
            return plain_string(strings, token.content, &token.content)
    elif first == 123:
        token.kind = MSGPACK_MAP
    elif first == 91:
        token.kind = MSGPACK_ARRAY
    elif first == 116 or first == 102:
        token.kind = MSGPACK_BOOL
        token.unsigned_value = first == 116
    elif first == 110:
        token.kind = MSGPACK_NIL
    elif json_unsigned(value, UINT64_MAX, &token.unsigned_value) == 0:
        token.kind = MSGPACK_UNSIGNED
    else:
        token.kind = MSGPACK_FLOAT
    return 0


def members(bytes data not None, int encoding, bint is_map=True):
    """Return (key, encoded value) for each member of the map `data`, or ("", encoded value) for each item of an array.

    Raises ValueError when `data` is no such container, or a broken one; what stands behind it is not looked at.
    """
    cdef Buffer text
    cdef Strings strings
    cdef Container walk
    cdef Slice value
    cdef Slice key = slice_of(NULL, 0)
    cdef int status
    cdef list out = []
    strings.text = &text
    strings.room = len(data)
    buffer_init(&text)
    try:
        if not open_container(&walk, &strings, encoding, slice_of(<const uint8_t*> data, len(data)), is_map, 1):
            raise ValueError("not a container of this kind")
        while True:
            status = next_member(&walk, &key, &value)
            if status <= 0:
                break
            out.append(((<const char*> key.data)[:key.size].decode(), (<const char*> value.data)[:value.size]))
        if status == MEMBERS_NO_MEMORY:
            raise MemoryError
        if status < 0:
            text_of_error = json_error_text(status) if encoding == JSON_TEXT else msgpack_error_text(status)
            raise ValueError(text_of_error.decode("ascii"))
        return out
    finally:
        buffer_free(&text)
