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


# The index of the first byte from `at` on that ends a run of a string (a quote, a backslash, a control character);
# `size` when there is none. 16 bytes at a time where the processor has SSE2, else eight.
cdef extern from * nogil:
    """
    #include <endian.h>
    #include <stddef.h>
    #include <stdint.h>
    #include <string.h>
    #ifdef __SSE2__
    #include <emmintrin.h>
    #endif

    #ifndef RTC_JSON_PLAIN_RUN
    #define RTC_JSON_PLAIN_RUN
    static inline size_t rtc_json_plain_run(const uint8_t *data, size_t size, size_t at)
    {
        const uint64_t ones = UINT64_C(0x0101010101010101);
    #ifdef __SSE2__
        const __m128i quote = _mm_set1_epi8(34), backslash = _mm_set1_epi8(92), control = _mm_set1_epi8(31);
        while (size - at >= 16) {
            __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)(data + at));
            __m128i signs = _mm_or_si128(_mm_cmpeq_epi8(bytes, quote), _mm_cmpeq_epi8(bytes, backslash));
            __m128i ends = _mm_or_si128(signs, _mm_cmpeq_epi8(_mm_min_epu8(bytes, control), bytes));
            unsigned found = (unsigned)_mm_movemask_epi8(ends);
            if (found != 0)
                return at + (size_t)__builtin_ctz(found);
            at += 16;
        }
    #endif
        while (size - at >= 8) {
            uint64_t word, quotes, backslashes, found;
            memcpy(&word, data + at, 8);
            word = le64toh(word);
            quotes = word ^ ones * 34;
            backslashes = word ^ ones * 92;
            /* A subtraction may report a false byte only above a true one, so the lowest one is right. */
            found = (((word - ones * 32) & ~word) | ((quotes - ones) & ~quotes) | ((backslashes - ones) & ~backslashes))
                    & ones << 7;
            if (found != 0)
                return at + (size_t)(__builtin_ctzll(found) >> 3);
            at += 8;
        }
        while (at < size && data[at] >= 32 && data[at] != 34 && data[at] != 92)
            at++;
        return at;
    }
    #endif
    """
    size_t json_plain_run "rtc_json_plain_run"(const uint8_t* data, size_t size, size_t at)


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
