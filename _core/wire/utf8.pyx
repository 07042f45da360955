"""Strict UTF-8 validation; `utf8.pxd` is the contract. The functions here let tests reach it from Python."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

cdef enum:
    ASCII_STEP = 32              # bytes looked at together


cdef inline bint is_tail(uint8_t byte) noexcept nogil:
    return (byte & 0xC0) == 0x80


cdef inline uint8_t lead_state(uint8_t byte) noexcept nogil:
    """What must follow `byte` as the first byte of a code point (RFC 3629, 4)."""
    if byte < 0x80:
        return UTF8_DONE
    if byte < 0xC2:
        return UTF8_BAD
    if byte < 0xE0:
        return UTF8_ONE
    if byte == 0xE0:
        return UTF8_AFTER_E0
    if byte == 0xED:
        return UTF8_AFTER_ED
    if byte < 0xF0:
        return UTF8_TWO
    if byte == 0xF0:
        return UTF8_AFTER_F0
    if byte < 0xF4:
        return UTF8_THREE
    if byte == 0xF4:
        return UTF8_AFTER_F4
    return UTF8_BAD


cdef inline uint8_t next_state(uint8_t state, uint8_t byte) noexcept nogil:
    if state == UTF8_DONE:
        return lead_state(byte)
    if state == UTF8_BAD or not is_tail(byte):
        return UTF8_BAD
    if state <= UTF8_THREE:
        return state - 1
    if state == UTF8_AFTER_E0:
        return UTF8_ONE if byte >= 0xA0 else UTF8_BAD
    if state == UTF8_AFTER_ED:
        return UTF8_ONE if byte < 0xA0 else UTF8_BAD
    if state == UTF8_AFTER_F0:
        return UTF8_TWO if byte >= 0x90 else UTF8_BAD
    return UTF8_TWO if byte < 0x90 else UTF8_BAD


cdef inline size_t ascii_run(const uint8_t* data, size_t size) noexcept nogil:
    """A length such that the bytes before it are ASCII; the byte there is not, or the end is near."""
    cdef uint64_t a, b, c, d
    cdef size_t at = 0
    while size - at >= ASCII_STEP:
        memcpy(&a, data + at, 8)
        memcpy(&b, data + at + 8, 8)
        memcpy(&c, data + at + 16, 8)
        memcpy(&d, data + at + 24, 8)
        if ((a | b | c | d) & <uint64_t> 0x8080808080808080) != 0:
            break
        at += ASCII_STEP
    while size - at >= 8:
        memcpy(&a, data + at, 8)
        if (a & <uint64_t> 0x8080808080808080) != 0:
            break
        at += 8
    while at < size and data[at] < 0x80:
        at += 1
    return at


cdef uint8_t utf8_advance(uint8_t state, const uint8_t* data, size_t size) noexcept nogil:
    cdef size_t at = 0
    while at < size:
        if state != UTF8_DONE:
            state = next_state(state, data[at])
            if state == UTF8_BAD:
                return UTF8_BAD
            at += 1
            continue
        if data[at] < 0x80:
            at += ascii_run(data + at, size - at)
        elif 0xC2 <= data[at] < 0xE0 and size - at >= 2 and is_tail(data[at + 1]):
            at += 2                            # whole two-byte code point
        elif (data[at] & 0xF0) == 0xE0 and size - at >= 3 and is_tail(data[at + 2]) \
                and next_state(lead_state(data[at]), data[at + 1]) == UTF8_ONE:
            at += 3                            # whole three-byte code point
        else:
            state = lead_state(data[at])
            if state == UTF8_BAD:
                return UTF8_BAD
            at += 1
    return state


cdef bint utf8_valid(const uint8_t* data, size_t size) noexcept nogil:
    return utf8_advance(UTF8_DONE, data, size) == UTF8_DONE


cdef size_t utf8_prefix(const uint8_t* data, size_t size, size_t limit) noexcept nogil:
    cdef size_t end = size
    if end > limit:
        end = limit
        while end > 0 and is_tail(data[end]):
            end -= 1
    return end


def is_valid(const uint8_t[::1] data not None):
    """Whether `data` is complete, strict UTF-8."""
    return bool(utf8_valid(&data[0] if data.shape[0] else NULL, data.shape[0]))


def is_ascii(const uint8_t[::1] data not None):
    """Whether every byte of `data` is below 0x80."""
    return bool(utf8_is_ascii(&data[0] if data.shape[0] else NULL, data.shape[0]))


def prefix(const uint8_t[::1] data not None, size_t limit):
    """Length of the longest prefix of valid text `data` within `limit` bytes that cuts no code point."""
    return utf8_prefix(&data[0] if data.shape[0] else NULL, data.shape[0], limit)


cdef class Utf8Reader:
    """A validation state held by Python, so that tests can feed text in pieces."""

    cdef uint8_t state

    def feed(self, const uint8_t[::1] data not None):
        """Take the next piece; False once a byte was bad."""
        self.state = utf8_advance(self.state, &data[0] if data.shape[0] else NULL, data.shape[0])
        return self.state != UTF8_BAD

    @property
    def complete(self):
        """Whether the text could end here."""
        return self.state == UTF8_DONE
