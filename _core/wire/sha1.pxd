# SHA-1 (FIPS 180-4), which the opening handshake of WebSocket answers with (RFC 6455, section 4.2.2).
#
# Rules: for that answer alone. Nothing may rest on SHA-1 that has to withstand somebody. It is here because asking
# OpenSSL through Python for the hash of 60 bytes takes several times as long as making it.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t


# Writes the 20 bytes of the hash.
cdef void sha1(const uint8_t* data, size_t size, uint8_t* out) noexcept nogil
