"""RFC 8259 JSON, validated and walked without objects; `json_scan.pxd` is the contract."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy

from realtime_communication._core.base.memory cimport (
    Buffer, Slice, buffer_append, buffer_byte, buffer_free, buffer_init, buffer_reserve, slice_of,
)

cdef enum:
    QUOTE = 34
    BACKSLASH = 92
    MAX_DIGITS = 309             # decimal digits of the integers that a double can hold

# 2**1024 - 2**970, the least magnitude that rounds to infinity; its MAX_DIGITS digits.
cdef const char* INFINITY_DIGITS = (
    b"17976931348623158079372897140530341507993413271003782693617377898044"
    b"49682927647509466490179775872070963302864166928879109465555478519404"
    b"02630657488671505820681908902000708383676273854845817711531764475730"
    b"27006985557136695962284291481986083493647529271907416844436551070434"
    b"2711559699508093042880177904174497792"
)


cdef const char* json_error_text(int error) noexcept nogil:
    if error == JSON_TRUNCATED:
        return b"JSON ends within a value"
    if error == JSON_TOO_DEEP:
        return b"JSON is nested more than 128 levels deep"
    if error == JSON_RANGE:
        return b"JSON number is out of the range of a double"
    if error == JSON_ESCAPE:
        return b"JSON string has an invalid escape"
    if error == JSON_CONTROL:
        return b"JSON string has a bare control character"
    if error == JSON_TRAILING:
        return b"JSON value is followed by more text"
    return b"invalid JSON"


# The number that four hexadecimal digits at `at` give, or -1.
cdef int hex4(const uint8_t* data, size_t size, size_t at) noexcept nogil:
    cdef int value = 0
    cdef uint8_t digit
    cdef size_t i
    if size - at < 4:
        return -1
    for i in range(at, at + 4):
        digit = data[i]
        if 48 <= digit <= 57:
            value = value * 16 + digit - 48
        elif 65 <= digit <= 70 or 97 <= digit <= 102:
            value = value * 16 + (digit & 7) + 9
        else:
            return -1
    return value


# The code point of the escape `\uXXXX` whose first digit is at `*at`, and of the other half of its pair when there
# has to be one; `*at` moves behind it. -1 for a lone surrogate or bad digits.
cdef int read_code_point(const uint8_t* data, size_t size, size_t* at) noexcept nogil:
    cdef int high = hex4(data, size, at[0])
    cdef int low
    if high < 0 or 0xDC00 <= high <= 0xDFFF:
        return -1
    at[0] += 4
    if high < 0xD800 or high > 0xDFFF:
        return high
    if size - at[0] < 6 or data[at[0]] != BACKSLASH or data[at[0] + 1] != 117:
        return -1
    low = hex4(data, size, at[0] + 2)
    if low < 0xDC00 or low > 0xDFFF:
        return -1
    at[0] += 6
    return 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00)


# What the byte behind a backslash stands for, 0 for `u` and for what may not stand there.
cdef inline uint8_t simple_escape(uint8_t letter) noexcept nogil:
    if letter == QUOTE or letter == BACKSLASH or letter == 47:
        return letter
    if letter == 98:
        return 8
    if letter == 102:
        return 12
    if letter == 110:
        return 10
    if letter == 114:
        return 13
    if letter == 116:
        return 9
    return 0


cdef int json_skip_string(const uint8_t* data, size_t size, size_t* at, bint* escaped) noexcept nogil:
    cdef size_t position = at[0] + 1
    escaped[0] = False
    while True:
        position = json_plain_run(data, size, position)
        if position >= size:
            at[0] = size
            return JSON_TRUNCATED
        if data[position] == QUOTE:
            at[0] = position + 1
            return 0
        at[0] = position
        if data[position] != BACKSLASH:
            return JSON_CONTROL
        escaped[0] = True
        position += 1
        if position >= size:
            return JSON_TRUNCATED
        if simple_escape(data[position]) != 0:
            position += 1
        elif data[position] != 117:
            return JSON_ESCAPE
        else:
            position += 1
            if read_code_point(data, size, &position) < 0:
                return JSON_ESCAPE


cdef inline size_t skip_digits(const uint8_t* data, size_t size, size_t at) noexcept nogil:
    while at < size and 48 <= data[at] <= 57:
        at += 1
    return at


# Whether the digits in data[at:end] (a point among them is skipped), times ten to the power `exponent`, stay below
# what rounds to infinity. The power counts from the point, or from the end without one.
cdef bint is_finite(const uint8_t* data, size_t at, size_t end, int64_t exponent) noexcept nogil:
    cdef const uint8_t* point = <const uint8_t*> memchr(data + at, 46, end - at)
    cdef size_t whole_end = end if point == NULL else <size_t> (point - data)
    cdef size_t digits = 0
    while at < end and (data[at] == 48 or data[at] == 46):
        at += 1
    if at == end:
        return True
    # The value is 0.ddd times ten to the power `exponent`, its first d not 0.
    if at < whole_end:
        exponent += <int64_t> (whole_end - at)
    else:
        exponent -= <int64_t> (at - whole_end - 1)
    if exponent != MAX_DIGITS:
        return exponent < MAX_DIGITS
    while at < end and digits < MAX_DIGITS:
        if data[at] != 46:
            if data[at] != <uint8_t> INFINITY_DIGITS[digits]:
                return data[at] < <uint8_t> INFINITY_DIGITS[digits]
            digits += 1
        at += 1
    return digits < MAX_DIGITS


cdef int json_skip_number(const uint8_t* data, size_t size, size_t* at, bint* integral) noexcept nogil:
    cdef size_t position = at[0]
    cdef size_t first, whole_end, mantissa_end
    cdef int64_t exponent = 0
    cdef bint negative
    integral[0] = True
    if position < size and data[position] == 45:
        position += 1
    first = position
    if position < size and data[position] == 48:
        position += 1
    else:
        position = skip_digits(data, size, position)
    whole_end = position
    at[0] = position
    if whole_end == first:
        return JSON_TRUNCATED if position >= size else JSON_SYNTAX
    if position < size and data[position] == 46:
        integral[0] = False
        position = skip_digits(data, size, position + 1)
        at[0] = position
        if position == whole_end + 1:
            return JSON_TRUNCATED if position >= size else JSON_SYNTAX
    mantissa_end = position
    if position < size and data[position] | 32 == 101:
        integral[0] = False
        position += 1
        negative = position < size and data[position] == 45
        if negative or position < size and data[position] == 43:
            position += 1
        at[0] = position
        if position >= size:
            return JSON_TRUNCATED
        if not 48 <= data[position] <= 57:
            return JSON_SYNTAX
        while position < size and 48 <= data[position] <= 57:
            if exponent < (<int64_t> 1 << 56):
                exponent = exponent * 10 + data[position] - 48
            position += 1
        at[0] = position
        if negative:
            exponent = -exponent
    if <int64_t> (whole_end - first) + exponent >= MAX_DIGITS and not is_finite(data, first, mantissa_end, exponent):
        return JSON_RANGE
    return 0


# Walks `"key" :` and the space around it, to the first byte of the member's value.
cdef inline int skip_key(const uint8_t* data, size_t size, size_t* at) noexcept nogil:
    cdef bint escaped = False
    cdef int status
    if at[0] >= size:
        return JSON_TRUNCATED
    if data[at[0]] != QUOTE:
        return JSON_SYNTAX
    status = json_skip_string(data, size, at, &escaped)
    if status < 0:
        return status
    at[0] = json_skip_space(data, size, at[0])
    if at[0] >= size:
        return JSON_TRUNCATED
    if data[at[0]] != 58:
        return JSON_SYNTAX
    at[0] = json_skip_space(data, size, at[0] + 1)
    return 0


cdef inline int skip_literal(const uint8_t* data, size_t size, size_t* at, const char* text,
                             size_t length) noexcept nogil:
    cdef size_t there = size - at[0]
    if there >= length:
        if memcmp(data + at[0], text, length) != 0:
            return JSON_SYNTAX
        at[0] += length
        return 0
    return JSON_TRUNCATED if memcmp(data + at[0], text, there) == 0 else JSON_SYNTAX


cdef inline int skip_scalar(const uint8_t* data, size_t size, size_t* at) noexcept nogil:
    cdef bint ignored = False
    cdef uint8_t first = data[at[0]]
    if first == QUOTE:
        return json_skip_string(data, size, at, &ignored)
    if first == 45 or 48 <= first <= 57:
        return json_skip_number(data, size, at, &ignored)
    if first == 116:
        return skip_literal(data, size, at, b"true", 4)
    if first == 102:
        return skip_literal(data, size, at, b"false", 5)
    if first == 110:
        return skip_literal(data, size, at, b"null", 4)
    return JSON_SYNTAX


cdef int json_skip_value(const uint8_t* data, size_t size, size_t* at, int depth) noexcept nogil:
    cdef uint8_t closers[JSON_MAX_DEPTH]     # the bracket that ends each open container
    cdef int opened = 0
    cdef int status
    cdef uint8_t byte
    while True:
        # A value has to begin here.
        if at[0] >= size:
            return JSON_TRUNCATED
        byte = data[at[0]]
        if byte == 123 or byte == 91:
            if opened >= JSON_MAX_DEPTH - depth:
                return JSON_TOO_DEEP
            closers[opened] = byte + 2
            opened += 1
            at[0] = json_skip_space(data, size, at[0] + 1)
            if at[0] >= size:
                return JSON_TRUNCATED
            if data[at[0]] != byte + 2:
                if byte == 123:
                    status = skip_key(data, size, at)
                    if status < 0:
                        return status
                continue
        else:
            status = skip_scalar(data, size, at)
            if status < 0:
                return status
        # A value has ended, or a container is empty: close what ends here, up to the next value.
        while True:
            if opened == 0:
                return 0
            at[0] = json_skip_space(data, size, at[0])
            if at[0] >= size:
                return JSON_TRUNCATED
            byte = data[at[0]]
            if byte == closers[opened - 1]:
                opened -= 1
                at[0] += 1
            elif byte == 44:
                at[0] = json_skip_space(data, size, at[0] + 1)
                if closers[opened - 1] == 125:
                    status = skip_key(data, size, at)
                    if status < 0:
                        return status
                break
            else:
                return JSON_SYNTAX


cdef int json_validate(const uint8_t* data, size_t size) noexcept nogil:
    cdef size_t at = json_skip_space(data, size, 0)
    cdef int status = json_skip_value(data, size, &at, 0)
    if status < 0:
        return status
    return 0 if json_skip_space(data, size, at) == size else JSON_TRAILING


# Writes a code point that is no surrogate as UTF-8, returns how many bytes it took.
cdef inline size_t write_utf8(uint8_t* out, int code_point) noexcept nogil:
    if code_point < 0x80:
        out[0] = <uint8_t> code_point
        return 1
    if code_point < 0x800:
        out[0] = <uint8_t> (0xC0 | code_point >> 6)
        out[1] = <uint8_t> (0x80 | code_point & 0x3F)
        return 2
    if code_point < 0x10000:
        out[0] = <uint8_t> (0xE0 | code_point >> 12)
        out[1] = <uint8_t> (0x80 | code_point >> 6 & 0x3F)
        out[2] = <uint8_t> (0x80 | code_point & 0x3F)
        return 3
    out[0] = <uint8_t> (0xF0 | code_point >> 18)
    out[1] = <uint8_t> (0x80 | code_point >> 12 & 0x3F)
    out[2] = <uint8_t> (0x80 | code_point >> 6 & 0x3F)
    out[3] = <uint8_t> (0x80 | code_point & 0x3F)
    return 4


cdef int json_unescape(Slice content, Buffer* out) noexcept nogil:
    cdef const uint8_t* data = content.data
    cdef const uint8_t* backslash
    cdef size_t at = 0
    cdef size_t end
    cdef uint8_t* target
    if content.size == 0:
        return 0
    if buffer_reserve(out, content.size) < 0:
        return -1
    target = out.data + out.size
    while at < content.size:
        backslash = <const uint8_t*> memchr(data + at, BACKSLASH, content.size - at)
        end = content.size if backslash == NULL else <size_t> (backslash - data)
        memcpy(target, data + at, end - at)
        target += end - at
        at = end + 2
        if backslash == NULL or at > content.size:
            break
        if data[at - 1] == 117:
            target += write_utf8(target, read_code_point(data, content.size, &at))
        else:
            target[0] = simple_escape(data[at - 1])
            target += 1
    out.size = target - out.data
    return 0


cdef int json_unsigned(Slice digits, uint64_t most, uint64_t* value) noexcept nogil:
    cdef uint64_t sum = 0
    cdef uint64_t digit
    cdef size_t i
    if digits.size == 0:
        return -1
    for i in range(digits.size):
        if not 48 <= digits.data[i] <= 57:
            return -1
        digit = digits.data[i] - 48
        if sum > (most - digit) // 10:
            return -1
        sum = sum * 10 + digit
    value[0] = sum
    return 0


cdef inline uint8_t escape_letter(uint8_t byte) noexcept nogil:
    if byte == QUOTE or byte == BACKSLASH:
        return byte
    if byte == 8:
        return 98
    if byte == 9:
        return 116
    if byte == 10:
        return 110
    if byte == 12:
        return 102
    if byte == 13:
        return 114
    return 117


cdef int write_escape(Buffer* out, uint8_t byte) noexcept nogil:
    cdef uint8_t text[6]
    text[0] = BACKSLASH
    text[1] = escape_letter(byte)
    if text[1] != 117:
        return buffer_append(out, text, 2)
    text[2] = 48
    text[3] = 48
    text[4] = 48 + (byte >> 4)
    text[5] = 48 + (byte & 15) if byte & 15 < 10 else 87 + (byte & 15)
    return buffer_append(out, text, 6)


cdef int write_json_string(Buffer* out, Slice text) noexcept nogil:
    cdef size_t start = out.size
    cdef size_t at = 0
    cdef size_t end
    if text.size > <size_t> 1 << 62 or buffer_reserve(out, text.size + 2) < 0:
        return -1
    end = json_plain_run(text.data, text.size, 0)
    out.data[out.size] = QUOTE
    out.size += 1
    if end == text.size:
        memcpy(out.data + out.size, text.data, end)
        out.size += end + 1
        out.data[out.size - 1] = QUOTE
        return 0
    while True:
        if buffer_append(out, text.data + at, end - at) < 0:
            break
        if end == text.size:
            if buffer_byte(out, QUOTE) < 0:
                break
            return 0
        if write_escape(out, text.data[end]) < 0:
            break
        at = end + 1
        end = json_plain_run(text.data, text.size, at)
    out.size = start
    return -1


def validate(bytes data not None):
    """Check that `data`, which is UTF-8, is one JSON value; raises ValueError that says what is wrong."""
    cdef int status = json_validate(<const uint8_t*> data, len(data))
    if status < 0:
        raise ValueError(json_error_text(status).decode("ascii"))


def unescape(bytes content not None):
    """Return what stands between the quotes of a valid JSON string as the UTF-8 it means; raises MemoryError."""
    cdef Buffer out
    buffer_init(&out)
    try:
        if json_unescape(slice_of(<const uint8_t*> content, len(content)), &out) < 0:
            raise MemoryError
        return (<const char*> out.data)[:out.size]
    finally:
        buffer_free(&out)


def quote(bytes text not None):
    """Return UTF-8 `text` as a JSON string; raises MemoryError."""
    cdef Buffer out
    buffer_init(&out)
    try:
        if write_json_string(&out, slice_of(<const uint8_t*> text, len(text))) < 0:
            raise MemoryError
        return (<const char*> out.data)[:out.size]
    finally:
        buffer_free(&out)
