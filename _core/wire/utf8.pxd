# Strict UTF-8 (RFC 3629), whole or in pieces cut anywhere.
#
# Rules: no allocation, no knowledge of what the text means. A bad byte is found at the first byte that decides it:
# C0, C1 and F5..FF at once, overlong forms, surrogates and what lies above U+10FFFF at the second byte.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy


cdef enum Utf8State:             # what may come next; a state fits a uint8_t
    UTF8_DONE = 0                # between code points
    UTF8_ONE = 1                 # one continuation byte, 80..BF
    UTF8_TWO = 2                 # two of them
    UTF8_THREE = 3               # three
    UTF8_AFTER_E0 = 4            # A0..BF, then one: no overlong form
    UTF8_AFTER_ED = 5            # 80..9F, then one: no surrogate
    UTF8_AFTER_F0 = 6            # 90..BF, then two: no overlong form
    UTF8_AFTER_F4 = 7            # 80..8F, then two: not above U+10FFFF
    UTF8_BAD = 8                 # stays bad


# The state after `size` more bytes; starts at UTF8_DONE. The text may end where it is UTF8_DONE.
cdef uint8_t utf8_advance(uint8_t state, const uint8_t* data, size_t size) noexcept nogil
# Whether the bytes are complete, valid text. Empty text is valid.
cdef bint utf8_valid(const uint8_t* data, size_t size) noexcept nogil
# The longest prefix of at most `limit` bytes of valid text that does not cut a code point.
cdef size_t utf8_prefix(const uint8_t* data, size_t size, size_t limit) noexcept nogil


# Whether all bytes are below 0x80; made for short text, where a call would cost more than the look.
cdef inline bint utf8_is_ascii(const uint8_t* data, size_t size) noexcept nogil:
    cdef uint64_t word, seen = 0
    cdef size_t at = 0
    if size >= 8:
        while size - at > 8:
            memcpy(&word, data + at, 8)
            seen |= word
            at += 8
        memcpy(&word, data + size - 8, 8)      # overlaps what was seen; reads no byte beyond the end
        seen |= word
    else:
        while at < size:
            seen |= data[at]
            at += 1
    return (seen & <uint64_t> 0x8080808080808080) == 0
