# JSON Web Tokens signed with HS256 in compact form (RFC 7515, RFC 7519), accepted in one go.
#
# Rules: says yes and nothing else. What it accepts, the rules of the control plane (`auth/token_rules`,
# `auth/identity`) accept with the same identity; of everything else it only says that it is not sure, and the rules
# find the answer and its reason. So it may be narrower than they are, in rare forms, and never wider. No clock, no log.
# Of a token nothing is kept but its header, which says the same in all tokens of an issuer. The hash is OpenSSL's
# through `hashlib`, the JSON decoder is the rules' own.
#
# Of a secret only the two states of SHA-256 behind the padded key are kept (RFC 2104, section 4), which the hash clears
# when they are dropped.

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t


cdef enum:
    TOKEN_MOST = 8192            # characters of a token
    TOKEN_SIGNATURE = 43         # characters of base64url for the 32 bytes of SHA-256
    TOKEN_LEEWAY_SECS = 5        # `nbf` and `iat` may be so far ahead; `exp` never
    TOKEN_NAME_MOST = 128        # bytes of UTF-8 of `user_id`, `sub` and `session_id`
    TOKEN_PATTERN_MOST = 255     # bytes of UTF-8 of a topic pattern
    TOKEN_KEY_ID_MOST = 64       # characters of `kid`


# No time in a token is later; seconds since the epoch. Milliseconds would be, and the year 9999.
cdef inline int64_t token_latest() noexcept nogil:
    return 4294967295


# Decodes base64url without padding (RFC 7515, section 2) into `out`, which has room for 3 bytes each 4 characters.
# The number of bytes, or -1 when the text is empty, has another character, or is not the one text of its value.
cdef Py_ssize_t base64url_decode(const uint8_t* text, size_t size, uint8_t* out) noexcept nogil


cdef class Hs256Tokens:
    cdef list inner              # SHA-256 behind the key's inner pad, for each secret
    cdef list outer              # the same for the outer pad
    cdef object decode           # of JSON
    cdef object identity         # called with the fields of an identity by name
    cdef object types            # the `typ` that are accepted, in lower case
    cdef str issuer              # what `iss` must be; None leaves it out
    cdef str audience            # what `aud` must be; None leaves it out
    cdef bint validate_exp
    cdef bint validate_nbf
    cdef bytes known_header      # the newest header that fitted, as it stands in the token
    cdef object read(self, str token, double now)
    cdef bint header_is_good(self, const uint8_t* text, size_t size) except -1
    cdef bint header_fits(self, dict header) except -1
    cdef bint is_signed(self, bytes signed, bytes signature) except -1
    cdef bint parties_fit(self, dict claims) except -1
    cdef object identity_of(self, dict claims, double now)
