"""`rtc.v1` requests, in JSON and MessagePack; `envelope.pxd` is the contract."""

from libc.stddef cimport size_t
from libc.stdint cimport UINT64_MAX, int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memset, strlen

from realtime_communication._core.base.memory cimport Slice, buffer_free, buffer_init, slice_is, slice_of
from realtime_communication._core.wire.json_scan cimport json_error_text, json_skip_space
from realtime_communication._core.wire.members cimport (
    MEMBERS_NO_MEMORY, Container, Strings, next_member, open_container, read_value,
)
from realtime_communication._core.wire.msgpack_scan cimport (
    MSGPACK_BOOL, MSGPACK_STRING, MSGPACK_UNSIGNED, MsgpackToken, msgpack_error_text,
)
from realtime_communication._core.wire.utf8 cimport utf8_valid

cdef enum:                       # fields: the keys that any request has
    FIELD_TYPE = 0
    FIELD_ID = 1
    FIELD_TOPIC = 2
    FIELD_PAYLOAD = 3
    FIELD_TO = 4
    FIELD_RECOVER = 5
    FIELD_HISTORY = 6
    FIELD_PRESENCE = 7
    FIELD_EXCLUDE_SELF = 8
    FIELD_IDEMPOTENCY_KEY = 9
    FIELD_AFTER = 10
    FIELD_LIMIT = 11
    FIELD_REVERSE = 12
    FIELD_TOKEN = 13
    FIELD_API_KEY = 14
    FIELDS = 15                  # also: an unknown key

cdef enum:
    MAX_SAFE_INTEGER = 9007199254740991      # 2**53 - 1, the last integer that every JSON reader holds exactly
    FIRST_TARGETS = 16           # items of the first allocation

cdef const char* REQUEST_NAMES[10]
REQUEST_NAMES[:] = [b"", b"Authenticate", b"Subscribe", b"Unsubscribe", b"Broadcast", b"DirectMessage", b"Presence",
                    b"History", b"Refresh", b"Ping"]

cdef const char* ERROR_NAMES[14]
ERROR_NAMES[:] = [b"", b"bad_request", b"unauthorized", b"forbidden", b"token_expired", b"topic_invalid",
                  b"not_subscribed", b"rate_limited", b"backpressure", b"too_many_targets", b"too_large",
                  b"unsupported", b"unavailable", b"internal"]

cdef const char* FIELD_NAMES[15]
FIELD_NAMES[:] = [b"type", b"id", b"topic", b"payload", b"to", b"recover", b"history", b"presence", b"exclude_self",
                  b"idempotency_key", b"after", b"limit", b"reverse", b"token", b"api_key"]

cdef const char* FIELD_TWICE[15]
FIELD_TWICE[:] = [
    b"type occurs twice", b"id occurs twice", b"topic occurs twice", b"payload occurs twice", b"to occurs twice",
    b"recover occurs twice", b"history occurs twice", b"presence occurs twice", b"exclude_self occurs twice",
    b"idempotency_key occurs twice", b"after occurs twice", b"limit occurs twice", b"reverse occurs twice",
    b"token occurs twice", b"api_key occurs twice",
]

# What each field has to be; said when it is missing or different.
cdef const char* FIELD_RULES[15]
FIELD_RULES[:] = [
    b"type must be Authenticate, Subscribe, Unsubscribe, Broadcast, DirectMessage, Presence, History, Refresh or Ping",
    b"id must be an integer from 0 to 9007199254740991 or a string of at most 64 bytes",
    b"topic must be a string of 1 to 255 bytes without control characters, '*' and '{...}'",
    b"payload is missing",
    b"to must be a user id (1 to 128 bytes without control characters) or a list of at least one",
    b"recover must have an epoch (a string of 1 to 64 bytes) and an offset (an integer from 0 to 9007199254740991)",
    b"history must be an integer from 0 to 1000",
    b"presence must be true or false",
    b"exclude_self must be true or false",
    b"idempotency_key must be a string of 1 to 128 bytes",
    b"after must have an epoch (a string of 1 to 64 bytes) and an offset (an integer from 0 to 9007199254740991)",
    b"limit must be an integer from 0 to 1000",
    b"reverse must be true or false",
    b"token must be a string",
    b"api_key must be a string",
]

cdef const char* NO_CREDENTIALS[2]
NO_CREDENTIALS[:] = [b"token is missing", b"token or api_key is missing"]


cdef struct Fields:              # what the first walk found
    EnvelopeScratch* scratch
    Strings strings
    int encoding
    Slice values[15]             # encoded values; data is NULL for an absent field
    Request* out


cdef const char* request_name(int type) noexcept nogil:
    return REQUEST_NAMES[type if 0 < type < REQUEST_TYPES else 0]


cdef const char* error_name(int code) noexcept nogil:
    return ERROR_NAMES[code if 0 < code < ERROR_CODES else 0]


cdef int error_code_of(Slice name) noexcept nogil:
    cdef int code
    for code in range(1, ERROR_CODES):
        if slice_is(name, ERROR_NAMES[code], strlen(ERROR_NAMES[code])):
            return code
    return ERROR_NONE


cdef void envelope_scratch_init(EnvelopeScratch* scratch) noexcept nogil:
    buffer_init(&scratch.text)
    scratch.targets = NULL
    scratch.target_capacity = 0


cdef void envelope_scratch_free(EnvelopeScratch* scratch) noexcept nogil:
    buffer_free(&scratch.text)
    free(scratch.targets)
    scratch.targets = NULL
    scratch.target_capacity = 0


# Empties the scratch; what a large request left behind goes back to the heap.
cdef void clear_scratch(EnvelopeScratch* scratch) noexcept nogil:
    if scratch.text.capacity > SCRATCH_KEPT:
        buffer_free(&scratch.text)
    scratch.text.size = 0
    if scratch.target_capacity * sizeof(Slice) > SCRATCH_KEPT:
        free(scratch.targets)
        scratch.targets = NULL
        scratch.target_capacity = 0


cdef int fail(Request* out, int code, const char* field, const char* message) noexcept nogil:
    out.error = code
    out.error_field = field
    out.error_message = message
    return -1


# --- the first walk: which fields there are

cdef inline bint key_is(Slice key, const char* name, size_t size) noexcept nogil:
    return memcmp(key.data, name, size) == 0


# The field of a key, FIELDS when it is unknown.
cdef int field_of(Slice key) noexcept nogil:
    if key.size == 2:
        if key_is(key, b"id", 2):
            return FIELD_ID
        return FIELD_TO if key_is(key, b"to", 2) else FIELDS
    if key.size == 4:
        return FIELD_TYPE if key_is(key, b"type", 4) else FIELDS
    if key.size == 5:
        if key_is(key, b"topic", 5):
            return FIELD_TOPIC
        if key_is(key, b"token", 5):
            return FIELD_TOKEN
        if key_is(key, b"after", 5):
            return FIELD_AFTER
        return FIELD_LIMIT if key_is(key, b"limit", 5) else FIELDS
    if key.size == 7:
        if key_is(key, b"payload", 7):
            return FIELD_PAYLOAD
        if key_is(key, b"recover", 7):
            return FIELD_RECOVER
        if key_is(key, b"history", 7):
            return FIELD_HISTORY
        if key_is(key, b"reverse", 7):
            return FIELD_REVERSE
        return FIELD_API_KEY if key_is(key, b"api_key", 7) else FIELDS
    if key.size == 8:
        return FIELD_PRESENCE if key_is(key, b"presence", 8) else FIELDS
    if key.size == 12:
        return FIELD_EXCLUDE_SELF if key_is(key, b"exclude_self", 12) else FIELDS
    if key.size == 15:
        return FIELD_IDEMPOTENCY_KEY if key_is(key, b"idempotency_key", 15) else FIELDS
    return FIELDS


# The RequestType of a name, REQUEST_NONE when there is none such.
cdef int type_of(Slice name) noexcept nogil:
    if name.size == 4:
        return REQUEST_PING if key_is(name, b"Ping", 4) else REQUEST_NONE
    if name.size == 7:
        if key_is(name, b"History", 7):
            return REQUEST_HISTORY
        return REQUEST_REFRESH if key_is(name, b"Refresh", 7) else REQUEST_NONE
    if name.size == 8:
        return REQUEST_PRESENCE if key_is(name, b"Presence", 8) else REQUEST_NONE
    if name.size == 9:
        if key_is(name, b"Broadcast", 9):
            return REQUEST_BROADCAST
        return REQUEST_SUBSCRIBE if key_is(name, b"Subscribe", 9) else REQUEST_NONE
    if name.size == 11:
        return REQUEST_UNSUBSCRIBE if key_is(name, b"Unsubscribe", 11) else REQUEST_NONE
    if name.size == 12:
        return REQUEST_AUTHENTICATE if key_is(name, b"Authenticate", 12) else REQUEST_NONE
    if name.size == 13:
        return REQUEST_DIRECT_MESSAGE if key_is(name, b"DirectMessage", 13) else REQUEST_NONE
    return REQUEST_NONE


cdef int fail_scan(Request* out, int encoding, int status) noexcept nogil:
    if status == MEMBERS_NO_MEMORY:
        return fail(out, ERROR_UNAVAILABLE, b"", b"out of memory")
    if encoding == JSON_TEXT:
        return fail(out, ERROR_BAD_REQUEST, b"", json_error_text(status))
    return fail(out, ERROR_BAD_REQUEST, b"", msgpack_error_text(status))


# Finds the values of all known fields and validates everything else. 0, or -1 with the error set.
cdef int find_fields(Fields* fields, Slice data) noexcept nogil:
    cdef Request* out = fields.out
    cdef Container walk
    cdef Slice unknown[MAX_KEYS]
    cdef Slice key, value
    cdef int unknown_count = 0
    cdef int known_count = 0
    cdef int field, i
    cdef int status = 0
    if not open_container(&walk, &fields.strings, fields.encoding, data, True, 1):
        return fail(out, ERROR_BAD_REQUEST, b"", b"a message must be one object (map)")
    while True:
        status = next_member(&walk, &key, &value)
        if status <= 0:
            break
        if known_count + unknown_count == MAX_KEYS:
            return fail(out, ERROR_BAD_REQUEST, b"", b"a message must have at most 64 keys")
        field = field_of(key)
        if field < FIELDS:
            known_count += 1
            if fields.values[field].data != NULL:
                return fail(out, ERROR_BAD_REQUEST, FIELD_NAMES[field], FIELD_TWICE[field])
            fields.values[field] = value
            continue
        for i in range(unknown_count):
            if unknown[i].size == key.size and memcmp(unknown[i].data, key.data, key.size) == 0:
                return fail(out, ERROR_BAD_REQUEST, b"", b"a key occurs twice")
        unknown[unknown_count] = key
        unknown_count += 1
    if status < 0:
        return fail_scan(out, fields.encoding, status)
    if fields.encoding == JSON_TEXT:
        walk.at = json_skip_space(data.data, data.size, walk.at)
    if walk.at != data.size:
        return fail(out, ERROR_BAD_REQUEST, b"", b"a message must be one object (map) and nothing behind it")
    return 0


# --- the second walk: what the fields say

cdef int fail_field(Fields* fields, int code, int field) noexcept nogil:
    return fail(fields.out, code, FIELD_NAMES[field], FIELD_RULES[field])


# Reads a field as a token of the kind wanted. 1, 0 when it is absent, -1 with the error set.
cdef int take(Fields* fields, int field, int kind, MsgpackToken* token) noexcept nogil:
    if fields.values[field].data == NULL:
        return 0
    if read_value(&fields.strings, fields.encoding, fields.values[field], token) < 0:
        return fail_scan(fields.out, fields.encoding, MEMBERS_NO_MEMORY)
    if token.kind != kind:
        return fail_field(fields, ERROR_BAD_REQUEST, field)
    return 1


cdef int take_bool(Fields* fields, int field, bint* value) noexcept nogil:
    cdef MsgpackToken token
    cdef int status = take(fields, field, MSGPACK_BOOL, &token)
    if status > 0:
        value[0] = token.unsigned_value != 0
    return -1 if status < 0 else 0


# A count of messages.
cdef int take_count(Fields* fields, int field, int64_t* value) noexcept nogil:
    cdef MsgpackToken token
    cdef int status = take(fields, field, MSGPACK_UNSIGNED, &token)
    if status > 0:
        if token.unsigned_value > MAX_HISTORY:
            return fail_field(fields, ERROR_BAD_REQUEST, field)
        value[0] = <int64_t> token.unsigned_value
    return -1 if status < 0 else 0


cdef int take_string(Fields* fields, int field, size_t least, size_t most, Slice* value) noexcept nogil:
    cdef MsgpackToken token
    cdef int status = take(fields, field, MSGPACK_STRING, &token)
    if status > 0:
        if token.content.size < least or token.content.size > most:
            return fail_field(fields, ERROR_BAD_REQUEST, field)
        value[0] = token.content
    return -1 if status < 0 else 0


cdef inline bint is_control(const uint8_t* data, size_t size, size_t at) noexcept nogil:
    return (data[at] < 32 or data[at] == 127
            or data[at] == 0xC2 and at + 1 < size and 0x80 <= data[at + 1] <= 0x9F)


cdef bint topic_valid(Slice topic) noexcept nogil:
    cdef bint brace = False
    cdef size_t i
    if topic.size < 1 or topic.size > MAX_TOPIC_SIZE:
        return False
    for i in range(topic.size):
        if topic.data[i] == 42 or is_control(topic.data, topic.size, i) or brace and topic.data[i] == 125:
            return False
        brace = brace or topic.data[i] == 123
    return True


cdef bint user_id_valid(Slice user_id) noexcept nogil:
    cdef size_t i
    if user_id.size < 1 or user_id.size > MAX_USER_ID_SIZE:
        return False
    for i in range(user_id.size):
        if is_control(user_id.data, user_id.size, i):
            return False
    return True


cdef int take_topic(Fields* fields) noexcept nogil:
    cdef Request* out = fields.out
    cdef MsgpackToken token
    cdef int status = take(fields, FIELD_TOPIC, MSGPACK_STRING, &token)
    if status < 0:
        return -1
    if status == 0:
        return fail_field(fields, ERROR_BAD_REQUEST, FIELD_TOPIC)
    out.topic_is_all = out.type == REQUEST_BROADCAST and slice_is(token.content, b"*", 1)
    if not out.topic_is_all and not topic_valid(token.content):
        return fail_field(fields, ERROR_TOPIC_INVALID, FIELD_TOPIC)
    out.topic = token.content
    return 0


cdef int take_payload(Fields* fields) noexcept nogil:
    if fields.values[FIELD_PAYLOAD].data == NULL:
        return fail_field(fields, ERROR_BAD_REQUEST, FIELD_PAYLOAD)
    fields.out.payload = fields.values[FIELD_PAYLOAD]
    fields.out.has_payload = True
    return 0


# `recover` or `after`: a map with `epoch` and `offset`, each once.
cdef int take_position(Fields* fields, int field) noexcept nogil:
    cdef Request* out = fields.out
    cdef Container walk
    cdef MsgpackToken token
    cdef Slice key, value
    cdef bint has_epoch = False
    cdef bint has_offset = False
    cdef bint wrong = False
    if fields.values[field].data == NULL:
        return 0
    wrong = not open_container(&walk, &fields.strings, fields.encoding, fields.values[field], True, 2)
    while not wrong:
        if next_member(&walk, &key, &value) <= 0:
            break
        if read_value(&fields.strings, fields.encoding, value, &token) < 0:
            return fail_scan(out, fields.encoding, MEMBERS_NO_MEMORY)
        if slice_is(key, b"epoch", 5):
            wrong = (has_epoch or token.kind != MSGPACK_STRING or token.content.size < 1
                     or token.content.size > MAX_EPOCH_SIZE)
            out.epoch = token.content
            has_epoch = True
        elif slice_is(key, b"offset", 6):
            wrong = has_offset or token.kind != MSGPACK_UNSIGNED or token.unsigned_value > <uint64_t> MAX_SAFE_INTEGER
            out.offset = token.unsigned_value
            has_offset = True
    if wrong or not has_epoch or not has_offset:
        return fail_field(fields, ERROR_BAD_REQUEST, field)
    out.has_position = True
    return 0


cdef int add_target(Fields* fields, Slice value) noexcept nogil:
    cdef EnvelopeScratch* scratch = fields.scratch
    cdef size_t capacity = scratch.target_capacity
    cdef MsgpackToken token
    cdef Slice* targets
    if read_value(&fields.strings, fields.encoding, value, &token) < 0:
        return fail_scan(fields.out, fields.encoding, MEMBERS_NO_MEMORY)
    if token.kind != MSGPACK_STRING or not user_id_valid(token.content):
        return fail_field(fields, ERROR_BAD_REQUEST, FIELD_TO)
    if fields.out.target_count == capacity:
        capacity = capacity * 2 if capacity else FIRST_TARGETS
        targets = <Slice*> realloc(scratch.targets, capacity * sizeof(Slice))
        if targets == NULL:
            return fail_scan(fields.out, fields.encoding, MEMBERS_NO_MEMORY)
        scratch.targets = targets
        scratch.target_capacity = capacity
    scratch.targets[fields.out.target_count] = token.content
    fields.out.target_count += 1
    return 0


# `to`: a user id, or a list of them that is not empty.
cdef int take_targets(Fields* fields) noexcept nogil:
    cdef Container walk
    cdef Slice key, value
    if fields.values[FIELD_TO].data == NULL:
        return fail_field(fields, ERROR_BAD_REQUEST, FIELD_TO)
    if open_container(&walk, &fields.strings, fields.encoding, fields.values[FIELD_TO], False, 2):
        while next_member(&walk, &key, &value) > 0:
            if add_target(fields, value) < 0:
                return -1
        if fields.out.target_count == 0:
            return fail_field(fields, ERROR_BAD_REQUEST, FIELD_TO)
    elif add_target(fields, fields.values[FIELD_TO]) < 0:
        return -1
    fields.out.targets = fields.scratch.targets
    return 0


cdef int take_credentials(Fields* fields) noexcept nogil:
    cdef Request* out = fields.out
    if take_string(fields, FIELD_TOKEN, 0, UINT64_MAX, &out.token) < 0:
        return -1
    if out.type == REQUEST_AUTHENTICATE and take_string(fields, FIELD_API_KEY, 0, UINT64_MAX, &out.api_key) < 0:
        return -1
    if out.token.data == NULL and out.api_key.data == NULL:
        return fail(out, ERROR_BAD_REQUEST, b"token", NO_CREDENTIALS[out.type == REQUEST_AUTHENTICATE])
    return 0


cdef int take_idempotency_key(Fields* fields) noexcept nogil:
    return take_string(fields, FIELD_IDEMPOTENCY_KEY, 1, MAX_IDEMPOTENCY_KEY_SIZE, &fields.out.idempotency_key)


# Reads the fields that the request's type has.
cdef int take_fields(Fields* fields) noexcept nogil:
    cdef Request* out = fields.out
    cdef int type = out.type
    if type == REQUEST_PING:
        return 0
    if type == REQUEST_AUTHENTICATE or type == REQUEST_REFRESH:
        return take_credentials(fields)
    if type == REQUEST_DIRECT_MESSAGE:
        if take_targets(fields) < 0 or take_payload(fields) < 0:
            return -1
        return take_idempotency_key(fields)
    if take_topic(fields) < 0:
        return -1
    if type == REQUEST_BROADCAST:
        if take_payload(fields) < 0 or take_bool(fields, FIELD_EXCLUDE_SELF, &out.exclude_self) < 0:
            return -1
        return take_idempotency_key(fields)
    if type == REQUEST_SUBSCRIBE:
        if take_position(fields, FIELD_RECOVER) < 0 or take_count(fields, FIELD_HISTORY, &out.history) < 0:
            return -1
        return take_bool(fields, FIELD_PRESENCE, &out.presence)
    if type == REQUEST_HISTORY:
        if take_position(fields, FIELD_AFTER) < 0 or take_count(fields, FIELD_LIMIT, &out.limit) < 0:
            return -1
        return take_bool(fields, FIELD_REVERSE, &out.reverse)
    return 0


cdef int take_id(Fields* fields) noexcept nogil:
    cdef Request* out = fields.out
    cdef Slice value = fields.values[FIELD_ID]
    cdef MsgpackToken token
    if value.data == NULL:
        return 0
    if read_value(&fields.strings, fields.encoding, value, &token) < 0:
        return fail_scan(out, fields.encoding, MEMBERS_NO_MEMORY)
    if token.kind == MSGPACK_UNSIGNED and token.unsigned_value <= <uint64_t> MAX_SAFE_INTEGER:
        out.id_kind = ID_INTEGER
    elif token.kind == MSGPACK_STRING and token.content.size <= MAX_ID_SIZE:
        out.id_kind = ID_STRING
    else:
        return fail_field(fields, ERROR_BAD_REQUEST, FIELD_ID)
    out.id = value
    return 0


cdef int take_type(Fields* fields) noexcept nogil:
    cdef MsgpackToken token
    cdef int status = take(fields, FIELD_TYPE, MSGPACK_STRING, &token)
    if status < 0:
        return -1
    if status > 0:
        fields.out.type = type_of(token.content)
        if fields.out.type != REQUEST_NONE:
            return 0
    return fail_field(fields, ERROR_BAD_REQUEST, FIELD_TYPE)


cdef int parse_message(Fields* fields, Slice data) noexcept nogil:
    cdef Request* out = fields.out
    cdef Request fault
    if find_fields(fields, data) < 0:
        # The id and the type may have come before the fault; only that is the error.
        fault = out[0]
        take_id(fields)
        take_type(fields)
        return fail(out, fault.error, fault.error_field, fault.error_message)
    if take_id(fields) < 0:
        fault = out[0]
        take_type(fields)
        return fail(out, fault.error, fault.error_field, fault.error_message)
    if take_type(fields) < 0:
        return -1
    return take_fields(fields)


cdef int envelope_parse(EnvelopeScratch* scratch, int encoding, const uint8_t* data, size_t size, int forced_type,
                        Request* out) noexcept nogil:
    cdef Fields fields
    memset(out, 0, sizeof(Request))
    memset(fields.values, 0, sizeof(fields.values))
    out.encoding = encoding
    out.history = -1
    out.limit = -1
    out.error_field = b""
    out.error_message = b""
    clear_scratch(scratch)
    fields.scratch = scratch
    fields.strings.text = &scratch.text
    fields.strings.room = size
    fields.encoding = encoding
    fields.out = out
    if forced_type == REQUEST_NONE:
        return parse_message(&fields, slice_of(data, size))
    out.type = forced_type
    if encoding == JSON_TEXT and not utf8_valid(data, size):
        return fail(out, ERROR_BAD_REQUEST, b"", b"JSON is not UTF-8")
    if find_fields(&fields, slice_of(data, size)) < 0:
        return -1
    return take_fields(&fields)


cdef bytes bytes_of(Slice value):
    return (<const char*> value.data)[:value.size]


cdef void add_text(dict out, str name, Slice text):
    if text.data != NULL:
        out[name] = bytes_of(text).decode()


cdef dict request_dict(const Request* request):
    cdef dict out = {"type": request_name(request.type).decode("ascii")}
    if request.id_kind != ID_NONE:
        out["id"] = bytes_of(request.id)
    if request.error != ERROR_NONE:
        out["error"] = error_name(request.error).decode("ascii")
        out["error_field"] = request.error_field.decode("ascii")
        out["error_message"] = request.error_message.decode("ascii")
        return out
    add_text(out, "topic", request.topic)
    add_text(out, "idempotency_key", request.idempotency_key)
    add_text(out, "token", request.token)
    add_text(out, "api_key", request.api_key)
    if request.has_payload:
        out["payload"] = bytes_of(request.payload)
    if request.has_position:
        out["position"] = (bytes_of(request.epoch).decode(), request.offset)
    if request.history >= 0:
        out["history"] = request.history
    if request.limit >= 0:
        out["limit"] = request.limit
    if request.target_count > 0:
        out["to"] = [bytes_of(request.targets[i]).decode() for i in range(request.target_count)]
    for name, flag in (("exclude_self", request.exclude_self), ("presence", request.presence),
                       ("reverse", request.reverse), ("topic_is_all", request.topic_is_all)):
        if flag:
            out[name] = True
    return out


def parse(bytes data not None, int encoding, int forced_type=0):
    """Read one request, return its fields by name: those that are absent, false or empty are left out.

    `encoding` is 0 for JSON, 1 for MessagePack; `forced_type` a RequestType for a body without `type`. Text is `str`,
    `id` and `payload` are the encoded bytes. A request that breaks a rule has `error`, `error_field` and
    `error_message` beside its `type` and `id`.
    """
    cdef EnvelopeScratch scratch
    cdef Request request
    envelope_scratch_init(&scratch)
    try:
        envelope_parse(&scratch, encoding, <const uint8_t*> data, len(data), forced_type, &request)
        return request_dict(&request)
    finally:
        envelope_scratch_free(&scratch)
