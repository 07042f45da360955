# MessagePack, walked where it lies: validated, never turned into objects; and the writers of its heads and scalars.
#
# Rules: no envelope, no recursion, linear time, and nothing is allocated from a length that a peer declares: a length
# is believed once its bytes are there. What has no form in JSON is an error: extension types (timestamps too), keys
# that are no strings, NaN and infinities, strings that are not UTF-8. Binary values pass. Containers nest at most
# MSGPACK_MAX_DEPTH deep. Equal keys of a nested map are passed on. (github.com/msgpack/msgpack, spec.md)

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from realtime_communication._core.base.memory cimport Buffer, Slice


cdef enum:
    MSGPACK_MAX_DEPTH = 128      # containers open at once, as for JSON


cdef enum MsgpackError:          # all negative, so that 0 is success
    MSGPACK_TRUNCATED = -1       # the bytes end within a value, or a length promises more than is there
    MSGPACK_RESERVED = -2        # the byte 0xc1
    MSGPACK_EXTENSION = -3       # an extension type
    MSGPACK_KEY = -4             # a map key that is no string
    MSGPACK_UTF8 = -5            # a string that is not UTF-8
    MSGPACK_NOT_FINITE = -6      # NaN or an infinity
    MSGPACK_TOO_DEEP = -7        # more than MSGPACK_MAX_DEPTH containers open
    MSGPACK_TRAILING = -8        # something behind the value


cdef enum MsgpackKind:
    MSGPACK_NIL = 0
    MSGPACK_BOOL = 1             # unsigned_value: 0 or 1
    MSGPACK_UNSIGNED = 2         # unsigned_value; also a signed form that holds no negative number
    MSGPACK_NEGATIVE = 3         # signed_value
    MSGPACK_FLOAT = 4            # number
    MSGPACK_STRING = 5           # content, UTF-8
    MSGPACK_BINARY = 6           # content
    MSGPACK_ARRAY = 7            # count items follow
    MSGPACK_MAP = 8              # count pairs follow


cdef struct MsgpackToken:        # a scalar, or the head of a container
    int kind                     # MsgpackKind
    uint32_t count
    uint64_t unsigned_value
    int64_t signed_value
    double number
    Slice content                # borrowed from the input


# What a MsgpackError means, as a constant text for people.
cdef const char* msgpack_error_text(int error) noexcept nogil
# Reads one scalar or the head of one container at `*at`, to behind it. 0 or a MsgpackError (`*at` stays).
cdef int msgpack_read(const uint8_t* data, size_t size, size_t* at, MsgpackToken* token) noexcept nogil
# Walks one value of any kind, with `depth` containers already open. 0 or a MsgpackError.
cdef int msgpack_skip_value(const uint8_t* data, size_t size, size_t* at, int depth) noexcept nogil
# Exactly one value and nothing else. 0 or a MsgpackError.
cdef int msgpack_validate(const uint8_t* data, size_t size) noexcept nogil

# Writers: the shortest form of each. 0, or -1 without memory (nothing is written then).
cdef int write_msgpack_map(Buffer* out, uint32_t count) noexcept nogil
cdef int write_msgpack_array(Buffer* out, uint32_t count) noexcept nogil
cdef int write_msgpack_string(Buffer* out, Slice text) noexcept nogil
cdef int write_msgpack_binary(Buffer* out, Slice content) noexcept nogil
cdef int write_msgpack_unsigned(Buffer* out, uint64_t value) noexcept nogil
cdef int write_msgpack_signed(Buffer* out, int64_t value) noexcept nogil
cdef int write_msgpack_bool(Buffer* out, bint value) noexcept nogil
cdef int write_msgpack_nil(Buffer* out) noexcept nogil
cdef int write_msgpack_double(Buffer* out, double value) noexcept nogil

# Bytes that the shortest form of an unsigned integer takes, and the form itself (returns the first byte behind it).
cdef uint32_t msgpack_unsigned_size(uint64_t value) noexcept nogil
cdef uint8_t* put_msgpack_unsigned(uint8_t* out, uint64_t value) noexcept nogil
