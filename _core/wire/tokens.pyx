"""Tokens signed with HS256; `tokens.pxd` is the contract."""

import hashlib
import hmac

import msgspec

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stddef cimport size_t
from libc.stdint cimport int8_t, uint8_t
from libc.string cimport memchr, memcmp

cdef extern from "Python.h":
    bint PyUnicode_IS_COMPACT_ASCII(object text)
    const uint8_t* PyUnicode_1BYTE_DATA(object text)
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL
    long long PyLong_AsLongLongAndOverflow(object number, int* overflow) except? -1

cdef enum:
    BLOCK = 64                   # bytes that SHA-256 takes at a time
    MAY_READ = 1
    MAY_WRITE = 2
    MAY_SUBSCRIBE = 4
    MAY_ALL = 15                 # an admin

cdef int8_t sextets[256]         # the value of a character of base64url, -1 for any other


cdef int fill_sextets() except -1:
    cdef int byte, value = 0
    for byte in range(256):
        sextets[byte] = -1
    for byte in b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_":
        sextets[byte] = <int8_t> value
        value += 1
    return 0


fill_sextets()


cdef Py_ssize_t base64url_decode(const uint8_t* text, size_t size, uint8_t* out) noexcept nogil:
    cdef const uint8_t* end = text + size - size % 4
    cdef uint8_t* start = out
    cdef int a, b, c, d
    if size == 0 or size % 4 == 1:
        return -1
    while text < end:
        a, b, c, d = sextets[text[0]], sextets[text[1]], sextets[text[2]], sextets[text[3]]
        if (a | b | c | d) < 0:
            return -1
        out[0] = <uint8_t> (a << 2 | b >> 4)
        out[1] = <uint8_t> ((b & 15) << 4 | c >> 2)
        out[2] = <uint8_t> ((c & 3) << 6 | d)
        text += 4
        out += 3
    if size % 4 == 0:
        return out - start
    # The last character carries bits of no byte. They must be 0: a value has one text only.
    a, b, c = sextets[text[0]], sextets[text[1]], 0
    if size % 4 == 3:
        c = sextets[text[2]]
    if (a | b | c) < 0 or (c & 3 if size % 4 == 3 else b & 15):
        return -1
    out[0] = <uint8_t> (a << 2 | b >> 4)
    if size % 4 == 2:
        return out + 1 - start
    out[1] = <uint8_t> ((b & 15) << 4 | c >> 2)
    return out + 2 - start


cdef bytes decoded_segment(const uint8_t* text, size_t size):
    """The bytes of a segment, None when it is no base64url."""
    cdef bytes out = PyBytes_FromStringAndSize(NULL, <Py_ssize_t> (size // 4 * 3 + (size % 4) * 3 // 4))
    if base64url_decode(text, size, <uint8_t*> PyBytes_AS_STRING(out)) < 0:
        return None
    return out


cdef class Hs256Tokens:

    def __init__(self, secrets not None, identity not None, *, types not None, str issuer, str audience,
                 bint validate_exp, bint validate_nbf):
        cdef bytes key
        self.inner = []
        self.outer = []
        for secret in secrets:
            key = secret if len(secret) <= BLOCK else hashlib.sha256(secret).digest()
            key = key.ljust(BLOCK, b"\0")
            self.inner.append(hashlib.sha256(bytes([byte ^ 0x36 for byte in key])))
            self.outer.append(hashlib.sha256(bytes([byte ^ 0x5C for byte in key])))
        self.decode = msgspec.json.Decoder().decode
        self.identity = identity
        self.types = frozenset(types)
        self.issuer = issuer
        self.audience = audience
        self.validate_exp = validate_exp
        self.validate_nbf = validate_nbf
        self.known_header = b""

    def accept(self, str token not None, double now):
        """The identity of a token that is certainly good, else None."""
        try:
            return self.read(token, now)
        except (msgspec.DecodeError, ValueError, RecursionError):
            return None

    cdef object read(self, str token, double now):
        cdef const uint8_t* text
        cdef const uint8_t* end
        cdef const uint8_t* payload
        cdef const uint8_t* signature
        cdef bytes document
        if not PyUnicode_IS_COMPACT_ASCII(token) or len(token) > TOKEN_MOST:
            return None
        text = PyUnicode_1BYTE_DATA(token)
        end = text + len(token)
        payload = <const uint8_t*> memchr(text, c".", <size_t> (end - text))
        if payload == NULL:
            return None
        payload += 1
        signature = <const uint8_t*> memchr(payload, c".", <size_t> (end - payload))
        if signature == NULL or end - signature != TOKEN_SIGNATURE + 1:
            return None
        signature += 1
        if not self.header_is_good(text, <size_t> (payload - 1 - text)):
            return None
        document = decoded_segment(signature, TOKEN_SIGNATURE)
        if document is None or not self.is_signed((<const char*> text)[:signature - 1 - text], document):
            return None
        document = decoded_segment(payload, <size_t> (signature - 1 - payload))
        if document is None:
            return None
        value = self.decode(document)
        return self.identity_of(value, now) if type(value) is dict else None

    cdef bint header_is_good(self, const uint8_t* text, size_t size) except -1:
        """Whether this text is a header that fits; that of the token before, most likely, is not read again."""
        cdef bytes document
        if size and <size_t> len(self.known_header) == size and (
                memcmp(<const char*> self.known_header, text, size) == 0):
            return True
        document = decoded_segment(text, size)
        if document is None:
            return False
        value = self.decode(document)
        if type(value) is not dict or not self.header_fits(value):
            return False
        self.known_header = (<const char*> text)[:size]
        return True

    cdef bint header_fits(self, dict header) except -1:
        """Whether it is of HS256 and has nothing but `alg`, and a `typ` and a `kid` as they should be."""
        cdef Py_ssize_t known = 1
        if header.get("alg") != "HS256":
            return False
        if "typ" not in header:
            if "jwt" not in self.types:
                return False
        else:
            known += 1
            kind = header["typ"]
            if type(kind) is not str or (<str> kind).lower() not in self.types:
                return False
        if "kid" in header:
            known += 1
            if not is_key_id(header["kid"]):
                return False
        return len(header) == known

    cdef bint is_signed(self, bytes signed, bytes signature) except -1:
        """Every secret is tried every time, so that the time taken does not tell which of them has signed."""
        cdef bint found = False
        cdef Py_ssize_t i
        for i in range(len(self.inner)):
            inner = self.inner[i].copy()
            inner.update(signed)
            outer = self.outer[i].copy()
            outer.update(inner.digest())
            if hmac.compare_digest(outer.digest(), signature):
                found = True
        return found

    cdef bint parties_fit(self, dict claims) except -1:
        """Whether `iss` and `aud` are exactly what they should be."""
        return (self.issuer is None or claims.get("iss") == self.issuer) and (
            self.audience is None or claims.get("aud") == self.audience)

    cdef object identity_of(self, dict claims, double now):
        cdef object issued_at = None, expires_at = None, refresh_at, login, topics
        cdef object subscribe = None, publish = None
        cdef object user_id = user_of(claims)
        cdef int permissions
        if "iat" in claims:
            if not is_time(claims["iat"], now + TOKEN_LEEWAY_SECS):
                return None
            issued_at = float(claims["iat"])
        if self.validate_nbf and "nbf" in claims and not is_time(claims["nbf"], now + TOKEN_LEEWAY_SECS):
            return None
        if self.validate_exp:
            expires_at = claims.get("exp")
            if not is_whole_time(expires_at) or expires_at <= now:
                return None
        login = claims.get("session_id")
        if user_id is None or not self.parties_fit(claims) or (
                login is not None and not is_name(login, TOKEN_NAME_MOST)):
            return None
        permissions = permissions_of(claims.get("roles"), claims.get("permissions"))
        if permissions < 0:
            return None
        refresh_at = claims.get("refresh_threshold")
        if refresh_at is not None:
            if not is_whole_time(refresh_at):
                return None
            if expires_at is not None and refresh_at > expires_at:
                refresh_at = expires_at
        topics = claims.get("topics")
        if topics is not None:
            if type(topics) is not dict or len(topics) != ("subscribe" in topics) + ("publish" in topics):
                return None
            subscribe = patterns_of(topics.get("subscribe"))
            publish = patterns_of(topics.get("publish"))
            if subscribe is False or publish is False:
                return None
        return self.identity(
            user_id=user_id, login=login, permissions=permissions, expires_at=expires_at, refresh_at=refresh_at,
            subscribe_patterns=subscribe, publish_patterns=publish, issued_at=issued_at, claims=claims)


cdef object user_of(dict claims):
    """`user_id`, or `sub` where there is none; None when neither is there or one is no name."""
    cdef object user_id = claims.get("user_id")
    cdef object subject = claims.get("sub")
    if "user_id" in claims and not is_name(user_id, TOKEN_NAME_MOST):
        return None
    if "sub" in claims and not is_name(subject, TOKEN_NAME_MOST):
        return None
    return subject if user_id is None else user_id


cdef bint is_key_id(object value) except -1:
    """Letters, digits and `._:-`, never two dots together."""
    cdef const uint8_t* text
    cdef Py_ssize_t i, size
    if type(value) is not str or not PyUnicode_IS_COMPACT_ASCII(value):
        return False
    text = PyUnicode_1BYTE_DATA(value)
    size = len(<str> value)
    for i in range(size):
        if text[i] == c"." and i > 0 and text[i - 1] == c".":
            return False
        if not (c"a" <= text[i] <= c"z" or c"A" <= text[i] <= c"Z" or c"0" <= text[i] <= c"9"
                or text[i] in (c".", c"_", c":", c"-")):
            return False
    return 1 <= size <= TOKEN_KEY_ID_MOST


cdef bint is_time(object value, double latest) except -1:
    """Whether it is a number of seconds since the epoch, a fraction allowed (RFC 7519, NumericDate), up to `latest`."""
    if type(value) is float:
        return 0 <= <double> value <= token_latest() and <double> value <= latest  # not true of what is no number
    return is_whole_time(value) and value <= latest


cdef bint is_whole_time(object value) except -1:
    cdef int overflow = 0
    cdef long long number
    if type(value) is not int:
        return False
    number = PyLong_AsLongLongAndOverflow(value, &overflow)
    return not overflow and 0 <= number <= token_latest()


cdef bint is_name(object value, Py_ssize_t most) except -1:
    """Whether it is a text of 1 to `most` bytes of UTF-8 without control characters. Raises UnicodeEncodeError."""
    cdef const uint8_t* text
    cdef Py_ssize_t i, size = 0
    if type(value) is not str:
        return False
    text = <const uint8_t*> PyUnicode_AsUTF8AndSize(value, &size)
    if not 1 <= size <= most:
        return False
    for i in range(size):
        # U+0080 to U+009F are C2 80 to C2 9F.
        if text[i] < 0x20 or text[i] == 0x7F or (text[i] == 0xC2 and text[i + 1] <= 0x9F):
            return False
    return True


cdef int permissions_of(object roles, object permissions) except -2:
    """The bits of two claims, -1 when either is neither absent nor a list of strings."""
    cdef int bits = 0
    cdef bint admin = False
    if roles is not None:
        if type(roles) is not list:
            return -1
        for name in <list> roles:
            if type(name) is not str:
                return -1
            admin = admin or <str> name == "admin"
    if permissions is not None:
        if type(permissions) is not list:
            return -1
        for name in <list> permissions:
            if type(name) is not str:
                return -1
            if <str> name == "read":
                bits |= MAY_READ
            elif <str> name == "write":
                bits |= MAY_WRITE
            elif <str> name == "subscribe":
                bits |= MAY_SUBSCRIBE
    return MAY_ALL if admin else bits


cdef object patterns_of(object value):
    """A tuple of topic patterns, None when it is None, False when it is no list of them."""
    if value is None:
        return None
    if type(value) is not list:
        return False
    for pattern in <list> value:
        if not is_name(pattern, TOKEN_PATTERN_MOST) or (<str> pattern).find("*", 0, len(<str> pattern) - 1) >= 0:
            return False
    return tuple(<list> value)


def decoded(bytes segment not None):
    """Strict base64url without padding; None for what is not the one text of a value."""
    return decoded_segment(<const uint8_t*> PyBytes_AS_STRING(segment), <size_t> len(segment))
