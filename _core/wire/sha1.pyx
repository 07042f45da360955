"""SHA-1; `sha1.pxd` is the contract. `digest` shows it to Python."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

cdef enum:
    BLOCK = 64                   # bytes taken at a time
    LENGTH = 8                   # bytes of the message's size at the end of the last block


cdef inline uint32_t rotated(uint32_t value, int bits) noexcept nogil:
    return (value << bits) | (value >> (32 - bits))


cdef void take_block(uint32_t* state, const uint8_t* block) noexcept nogil:
    """FIPS 180-4, section 6.1.2."""
    cdef uint32_t w[80]
    cdef uint32_t a = state[0], b = state[1], c = state[2], d = state[3], e = state[4]
    cdef uint32_t mixed, step
    cdef int i
    for i in range(16):
        w[i] = (<uint32_t> block[4 * i] << 24 | <uint32_t> block[4 * i + 1] << 16
                | <uint32_t> block[4 * i + 2] << 8 | block[4 * i + 3])
    for i in range(16, 80):
        w[i] = rotated(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1)
    for i in range(80):
        if i < 20:
            mixed = (d ^ (b & (c ^ d))) + <uint32_t> 0x5a827999
        elif i < 40:
            mixed = (b ^ c ^ d) + <uint32_t> 0x6ed9eba1
        elif i < 60:
            mixed = ((b & c) | (d & (b | c))) + <uint32_t> 0x8f1bbcdc
        else:
            mixed = (b ^ c ^ d) + <uint32_t> 0xca62c1d6
        step = rotated(a, 5) + mixed + e + w[i]
        e = d
        d = c
        c = rotated(b, 30)
        b = a
        a = step
    state[0] += a
    state[1] += b
    state[2] += c
    state[3] += d
    state[4] += e


cdef void sha1(const uint8_t* data, size_t size, uint8_t* out) noexcept nogil:
    cdef uint32_t[5] state
    cdef uint8_t[2 * BLOCK] last
    cdef uint64_t bits = <uint64_t> size * 8
    cdef size_t left = size, whole
    cdef int i
    state[0], state[1], state[2] = <uint32_t> 0x67452301, <uint32_t> 0xefcdab89, <uint32_t> 0x98badcfe
    state[3], state[4] = <uint32_t> 0x10325476, <uint32_t> 0xc3d2e1f0
    while left >= BLOCK:
        take_block(state, data)
        data += BLOCK
        left -= BLOCK
    memset(last, 0, sizeof(last))
    if left:
        memcpy(last, data, left)
    last[left] = 0x80
    whole = BLOCK if left + 1 + LENGTH <= BLOCK else 2 * BLOCK
    for i in range(LENGTH):
        last[whole - 1 - i] = <uint8_t> (bits >> (8 * i))
    take_block(state, last)
    if whole > BLOCK:
        take_block(state, last + BLOCK)
    for i in range(20):
        out[i] = <uint8_t> (state[i // 4] >> (24 - 8 * (i % 4)))


def digest(bytes data not None):
    """The 20 bytes of the hash."""
    cdef uint8_t out[20]
    sha1(<const uint8_t*> data, len(data), out)
    return (<const char*> out)[:20]
