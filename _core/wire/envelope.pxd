# The envelope of `rtc.v1` requests, in JSON and MessagePack: one message in, a `Request` of borrowed slices out.
#
# Rules: no session, no permissions, no limits that depend on the configuration. Everything of the input is validated,
# also what is ignored. Payloads stay the bytes they are. What the server sends is written by `outbound`.
#
# An envelope is exactly one map (JSON object) with at most MAX_KEYS different keys. It is walked once to find the
# fields; then those that its type has are read, in the order of the protocol's table, and the first that breaks a
# rule is the error. A field that the type does not have is ignored, like an unknown one. A null is no value of any
# field but `payload`. Control characters are U+0000-U+001F and U+007F-U+009F.

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from realtime_communication._core.base.memory cimport Buffer, Slice
from realtime_communication._core.wire.transcode cimport Encoding, JSON_TEXT, MSGPACK, ENCODINGS


cdef enum RequestType:           # the order of the protocol's table
    REQUEST_NONE = 0
    REQUEST_AUTHENTICATE = 1
    REQUEST_SUBSCRIBE = 2
    REQUEST_UNSUBSCRIBE = 3
    REQUEST_BROADCAST = 4
    REQUEST_DIRECT_MESSAGE = 5
    REQUEST_PRESENCE = 6
    REQUEST_HISTORY = 7
    REQUEST_REFRESH = 8
    REQUEST_PING = 9
    REQUEST_TYPES = 10           # one more than the last


cdef enum ErrorCode:             # the order of the protocol's list
    ERROR_NONE = 0
    ERROR_BAD_REQUEST = 1
    ERROR_UNAUTHORIZED = 2
    ERROR_FORBIDDEN = 3
    ERROR_TOKEN_EXPIRED = 4
    ERROR_TOPIC_INVALID = 5
    ERROR_NOT_SUBSCRIBED = 6
    ERROR_RATE_LIMITED = 7
    ERROR_BACKPRESSURE = 8
    ERROR_TOO_MANY_TARGETS = 9
    ERROR_TOO_LARGE = 10
    ERROR_UNSUPPORTED = 11
    ERROR_UNAVAILABLE = 12
    ERROR_INTERNAL = 13
    ERROR_CODES = 14             # one more than the last


cdef enum:
    MAX_KEYS = 64                # keys of one envelope; the protocol has 15
    MAX_ID_SIZE = 64             # bytes of a string id
    MAX_TOPIC_SIZE = 255         # bytes of a topic
    MAX_USER_ID_SIZE = 128       # bytes of a user id
    MAX_EPOCH_SIZE = 64          # bytes of an epoch
    MAX_IDEMPOTENCY_KEY_SIZE = 128   # bytes
    MAX_HISTORY = 1000           # messages of one Subscribe or History
    SCRATCH_KEPT = 65536         # bytes that a scratch keeps from one request to the next, for text and for targets


cdef enum IdKind:
    ID_NONE = 0
    ID_INTEGER = 1
    ID_STRING = 2


cdef struct Request:
    int type                     # RequestType; REQUEST_NONE when it could not be read
    int encoding                 # Encoding of `id` and `payload`
    int id_kind                  # IdKind
    Slice id                     # the token as it came, to be written back in the same encoding
    Slice topic                  # UTF-8, 1 to MAX_TOPIC_SIZE bytes
    bint topic_is_all            # Broadcast with topic "*"
    Slice payload                # one encoded value, validated
    bint has_payload
    Slice idempotency_key        # data is NULL when absent
    bint exclude_self
    bint presence
    bint reverse
    int64_t history              # -1 when absent
    int64_t limit                # -1 when absent
    bint has_position            # Subscribe's `recover` or History's `after`
    Slice epoch
    uint64_t offset              # 0..2^53-1
    Slice token                  # data is NULL when absent
    Slice api_key                # data is NULL when absent
    const Slice* targets         # `to`; repeated ids are not removed
    uint32_t target_count
    int error                    # ErrorCode
    const char* error_field      # constant text, "" when the fault belongs to no field
    const char* error_message    # constant text for people: the field and the limit it broke


cdef struct EnvelopeScratch:     # what a request points into besides its input; one serves any number of connections
    Buffer text                  # unescaped strings
    Slice* targets               # owned
    size_t target_capacity       # items allocated


cdef void envelope_scratch_init(EnvelopeScratch* scratch) noexcept nogil
cdef void envelope_scratch_free(EnvelopeScratch* scratch) noexcept nogil

# Reads one envelope. 0; or -1 with `out.error`, `out.error_field` and `out.error_message` set, and with `out.id` and
# `out.type` when they could be read before the fault. The slices of `out` point into `data` and `scratch` and are
# valid until either changes. Without memory the error is ERROR_UNAVAILABLE.
#
# `forced_type` 0: a WebSocket message; the caller has checked the UTF-8 of JSON. Otherwise a body without `type` and
# `id` (they are ignored), to be read as a request of that type; its UTF-8 is checked here.
cdef int envelope_parse(EnvelopeScratch* scratch, int encoding, const uint8_t* data, size_t size, int forced_type,
                        Request* out) noexcept nogil

# Whether `topic` is a topic's name: 1 to MAX_TOPIC_SIZE bytes, no control characters, no `*`, and no `{…}`, which Redis
# would take for a hash tag. It is UTF-8 already.
cdef bint topic_valid(Slice topic) noexcept nogil
# Whether `user_id` is one: 1 to MAX_USER_ID_SIZE bytes, no control characters. It is UTF-8 already.
cdef bint user_id_valid(Slice user_id) noexcept nogil

# Names as the protocol writes them; "" for a number that is none.
cdef const char* request_name(int type) noexcept nogil
cdef const char* error_name(int code) noexcept nogil
# The ErrorCode of a name, ERROR_NONE when there is none such.
cdef int error_code_of(Slice name) noexcept nogil
