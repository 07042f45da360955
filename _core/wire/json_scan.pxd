# RFC 8259 JSON, walked where it lies: validated, never turned into objects.
#
# Rules: no envelope, no allocation but in a caller's Buffer, linear time, no recursion. The text is UTF-8 that the
# caller has checked (`utf8_valid`); everything else that could be wrong with it is found here. Stricter than the RFC
# where a value would have no exact counterpart elsewhere: a number beyond the range of a double and an escaped lone
# surrogate are errors, and containers nest at most JSON_MAX_DEPTH deep. Equal keys of a nested object are passed on.
#
# A position is an index `at` into `data`; a function that fails leaves it at or near the fault.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint64_t

from realtime_communication._core.base.memory cimport Buffer, Slice


cdef enum:
    JSON_MAX_DEPTH = 128         # containers open at once; the bound of most decoders lies between 100 and 1,000


cdef enum JsonError:             # all negative, so that 0 is success
    JSON_TRUNCATED = -1          # the text ends within a value
    JSON_SYNTAX = -2             # a byte that the grammar does not allow here
    JSON_TOO_DEEP = -3           # more than JSON_MAX_DEPTH containers open
    JSON_RANGE = -4              # a number that no finite double can hold
    JSON_ESCAPE = -5             # an unknown escape, or one half of a surrogate pair
    JSON_CONTROL = -6            # a bare control character within a string
    JSON_TRAILING = -7           # something behind the value


# What a JsonError means, as a constant text for people.
cdef const char* json_error_text(int error) noexcept nogil


cdef inline size_t json_skip_space(const uint8_t* data, size_t size, size_t at) noexcept nogil:
    while at < size and (data[at] == 32 or data[at] == 10 or data[at] == 13 or data[at] == 9):
        at += 1
    return at


# Walks one string whose opening quote is at `*at`, to behind its closing quote. `*escaped` tells whether it has to be
# unescaped (else its content is what lies between the quotes). 0 or a JsonError.
cdef int json_skip_string(const uint8_t* data, size_t size, size_t* at, bint* escaped) noexcept nogil
# Walks one number to behind its last byte. `*integral` is true without fraction and exponent. 0 or a JsonError.
cdef int json_skip_number(const uint8_t* data, size_t size, size_t* at, bint* integral) noexcept nogil
# Walks one value of any kind that begins exactly at `*at`, with `depth` containers already open. 0 or a JsonError.
cdef int json_skip_value(const uint8_t* data, size_t size, size_t* at, int depth) noexcept nogil
# Exactly one value with space around it, and nothing else. 0 or a JsonError. Does not look at the UTF-8.
cdef int json_validate(const uint8_t* data, size_t size) noexcept nogil
# Appends what a walked string means; `content` is what lies between its quotes. Never more bytes than it has.
# 0, or -1 without memory.
cdef int json_unescape(Slice content, Buffer* out) noexcept nogil
# The value of a walked integral number without a sign; -1 when it is more than `most`.
cdef int json_unsigned(Slice digits, uint64_t most, uint64_t* value) noexcept nogil
# Appends `text` (UTF-8) in quotes; quote, backslash and control characters escaped. 0, or -1 without memory.
cdef int write_json_string(Buffer* out, Slice text) noexcept nogil
