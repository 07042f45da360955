"""What the server sends, in JSON and MessagePack; `outbound.pxd` is the contract."""

from libc.math cimport floor
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, strlen

from realtime_communication._core.base.memory cimport (
    Buffer, Slice, buffer_append, buffer_byte, buffer_free, buffer_init, buffer_reserve, decimal_size, slice_of,
    write_decimal,
)
from realtime_communication._core.wire.envelope cimport ID_NONE, JSON_TEXT, Request, error_name
from realtime_communication._core.wire.json_scan cimport write_json_string
from realtime_communication._core.wire.msgpack_scan cimport (
    msgpack_unsigned_size, put_msgpack_unsigned, write_msgpack_array, write_msgpack_bool, write_msgpack_double,
    write_msgpack_map, write_msgpack_nil, write_msgpack_string, write_msgpack_unsigned,
)
from realtime_communication._core.wire.transcode cimport transcode, write_json_double

cdef enum:
    LARGEST_INTERVAL = 1 << 30   # seconds; beyond it an interval is no integer any more

cdef const char* BOOLS[2]
BOOLS[:] = [b"false", b"true"]

cdef const char* KEY_STARTS[2]
KEY_STARTS[:] = [b',"', b'{"']


# --- an envelope is opened with the number of its keys, gets its fields in order, and is closed

cdef struct Writer:
    Buffer* out
    int encoding
    size_t start                 # size of `out` before the envelope
    bint failed                  # without memory: what follows is lost, `close` takes the rest back


cdef inline void put(Writer* writer, const char* text, size_t size) noexcept nogil:
    if buffer_append(writer.out, text, size) < 0:
        writer.failed = True


cdef void put_string(Writer* writer, Slice text) noexcept nogil:
    if write_string(writer.out, writer.encoding, text) < 0:
        writer.failed = True


cdef void put_unsigned(Writer* writer, uint64_t value) noexcept nogil:
    cdef Buffer* out = writer.out
    if writer.encoding != JSON_TEXT:
        if write_msgpack_unsigned(out, value) < 0:
            writer.failed = True
    elif buffer_reserve(out, 20) < 0:
        writer.failed = True
    else:
        out.size = write_decimal(out.data + out.size, value) - out.data


cdef void put_bool(Writer* writer, bint value) noexcept nogil:
    if writer.encoding == JSON_TEXT:
        put(writer, BOOLS[value], 5 - value)
    elif write_msgpack_bool(writer.out, value) < 0:
        writer.failed = True


# Seconds since the epoch, -1 for null.
cdef void put_time(Writer* writer, int64_t value) noexcept nogil:
    if value >= 0:
        put_unsigned(writer, <uint64_t> value)
    elif writer.encoding == JSON_TEXT:
        put(writer, b"null", 4)
    elif write_msgpack_nil(writer.out) < 0:
        writer.failed = True


cdef void put_interval(Writer* writer, double seconds) noexcept nogil:
    cdef int status
    if 0 <= seconds <= LARGEST_INTERVAL and floor(seconds) == seconds:
        put_unsigned(writer, <uint64_t> seconds)
        return
    if writer.encoding == JSON_TEXT:
        status = write_json_double(writer.out, seconds)
    else:
        status = write_msgpack_double(writer.out, seconds)
    if status < 0:
        writer.failed = True


# The key of the next field; `first` in its map.
cdef void put_key(Writer* writer, bint first, const char* name) noexcept nogil:
    cdef size_t size = strlen(name)
    cdef uint8_t* at
    if writer.encoding != JSON_TEXT:
        if write_msgpack_string(writer.out, slice_of(name, size)) < 0:
            writer.failed = True
        return
    if buffer_reserve(writer.out, size + 4) < 0:
        writer.failed = True
        return
    at = writer.out.data + writer.out.size
    memcpy(at, KEY_STARTS[first], 2)
    memcpy(at + 2, name, size)
    memcpy(at + 2 + size, b'":', 2)
    writer.out.size += size + 4


# Opens a map within an envelope.
cdef void open_map(Writer* writer, Buffer* out, int encoding, uint32_t keys) noexcept nogil:
    writer.out = out
    writer.encoding = encoding
    writer.start = out.size
    writer.failed = False
    if encoding != JSON_TEXT and write_msgpack_map(out, keys) < 0:
        writer.failed = True


# Opens an envelope with `keys` keys besides `type` and `id`.
cdef void open_envelope(Writer* writer, Buffer* out, int encoding, const char* type, const Request* request,
                        uint32_t keys) noexcept nogil:
    cdef bint has_id = request != NULL and request.id_kind != ID_NONE
    cdef size_t size = strlen(type)
    open_map(writer, out, encoding, keys + 1 + has_id)
    put_key(writer, True, b"type")
    if encoding == JSON_TEXT:                  # a name of the protocol, nothing in it to escape
        put(writer, b'"', 1)
        put(writer, type, size)
        put(writer, b'"', 1)
    else:
        put_string(writer, slice_of(type, size))
    if has_id:
        put_key(writer, False, b"id")
        put(writer, <const char*> request.id.data, request.id.size)


cdef inline int checked(Writer* writer) noexcept nogil:
    if not writer.failed:
        return 0
    writer.out.size = writer.start
    return -1


cdef int close_map(Writer* writer) noexcept nogil:
    if writer.encoding == JSON_TEXT:
        put(writer, b"}", 1)
    return checked(writer)


cdef void field_info(Writer* writer, Slice info) noexcept nogil:
    if info.size == 0:
        return
    put_key(writer, False, b"info")
    if transcode(info, JSON_TEXT, writer.encoding, writer.out) < 0:
        writer.failed = True


cdef void field_string(Writer* writer, const char* name, Slice text) noexcept nogil:
    put_key(writer, False, name)
    put_string(writer, text)


cdef void field_unsigned(Writer* writer, const char* name, uint64_t value) noexcept nogil:
    put_key(writer, False, name)
    put_unsigned(writer, value)


cdef void field_time(Writer* writer, const char* name, int64_t value) noexcept nogil:
    put_key(writer, False, name)
    put_time(writer, value)


cdef void field_bool(Writer* writer, const char* name, bint value) noexcept nogil:
    put_key(writer, False, name)
    put_bool(writer, value)


# Opens a list as the value of the next field.
cdef void field_list(Writer* writer, const char* name, uint32_t count) noexcept nogil:
    put_key(writer, False, name)
    if writer.encoding == JSON_TEXT:
        put(writer, b"[", 1)
    elif write_msgpack_array(writer.out, count) < 0:
        writer.failed = True


cdef void field_strings(Writer* writer, const char* name, const Slice* items, uint32_t count) noexcept nogil:
    cdef uint32_t i
    field_list(writer, name, count)
    for i in range(count):
        if i > 0 and writer.encoding == JSON_TEXT:
            put(writer, b",", 1)
        put_string(writer, items[i])
    if writer.encoding == JSON_TEXT:
        put(writer, b"]", 1)


# Opens a map as an item of a list.
cdef void open_item(Writer* writer, Buffer* out, int encoding, bint first, uint32_t keys) noexcept nogil:
    cdef size_t start = out.size
    cdef bint failed = encoding == JSON_TEXT and not first and buffer_byte(out, 44) < 0
    open_map(writer, out, encoding, keys)
    writer.start = start
    writer.failed = writer.failed or failed


# --- replies

cdef int write_connected(Buffer* out, int encoding, const Request* request, Slice session_id, Slice user_id,
                         Slice node_id, double heartbeat_interval_secs, int64_t expires_at,
                         int64_t refresh_at) noexcept nogil:
    cdef Writer writer
    open_envelope(&writer, out, encoding, b"Connected", request, 7)
    field_string(&writer, b"session_id", session_id)
    field_string(&writer, b"user_id", user_id)
    field_string(&writer, b"node_id", node_id)
    field_string(&writer, b"protocol", slice_of(<const char*> b"rtc.v1", 6))
    put_key(&writer, False, b"heartbeat_interval_secs")
    put_interval(&writer, heartbeat_interval_secs)
    field_time(&writer, b"expires_at", expires_at)
    field_time(&writer, b"refresh_at", refresh_at)
    return close_map(&writer)


cdef int write_subscribed_head(Buffer* out, int encoding, const Request* request, Slice topic, Slice epoch,
                               uint64_t offset, bint recovered, uint32_t count) noexcept nogil:
    cdef Writer writer
    open_envelope(&writer, out, encoding, b"Subscribed", request, 5)
    field_string(&writer, b"topic", topic)
    field_string(&writer, b"epoch", epoch)
    field_unsigned(&writer, b"offset", offset)
    field_bool(&writer, b"recovered", recovered)
    field_list(&writer, b"messages", count)
    return checked(&writer)


cdef int write_history_page_head(Buffer* out, int encoding, const Request* request, Slice topic, Slice epoch,
                                 uint64_t offset, uint32_t count) noexcept nogil:
    cdef Writer writer
    open_envelope(&writer, out, encoding, b"HistoryPage", request, 4)
    field_string(&writer, b"topic", topic)
    field_string(&writer, b"epoch", epoch)
    field_unsigned(&writer, b"offset", offset)
    field_list(&writer, b"messages", count)
    return checked(&writer)


cdef int write_stored_message(Buffer* out, int encoding, bint first, uint64_t offset, uint64_t ts, Slice sender,
                              Slice payload, int payload_encoding) noexcept nogil:
    cdef Writer writer
    open_item(&writer, out, encoding, first, 4)
    put_key(&writer, True, b"offset")
    put_unsigned(&writer, offset)
    field_unsigned(&writer, b"ts", ts)
    field_string(&writer, b"from", sender)
    put_key(&writer, False, b"payload")
    if transcode(payload, payload_encoding, encoding, out) < 0:
        writer.failed = True
    return close_map(&writer)


cdef int write_presence_state_head(Buffer* out, int encoding, const Request* request, Slice topic,
                                   uint32_t count) noexcept nogil:
    cdef Writer writer
    open_envelope(&writer, out, encoding, b"PresenceState", request, 3)
    field_string(&writer, b"topic", topic)
    field_unsigned(&writer, b"count", count)
    field_list(&writer, b"members", count)
    return checked(&writer)


cdef int write_presence_member(Buffer* out, int encoding, bint first, Slice user_id, Slice session_id,
                               uint64_t joined_at, Slice info) noexcept nogil:
    cdef Writer writer
    open_item(&writer, out, encoding, first, 3 + (info.size > 0))
    put_key(&writer, True, b"user_id")
    put_string(&writer, user_id)
    field_string(&writer, b"session_id", session_id)
    field_unsigned(&writer, b"joined_at", joined_at)
    field_info(&writer, info)
    return close_map(&writer)


cdef int write_list_tail(Buffer* out, int encoding) noexcept nogil:
    return buffer_append(out, b"]}", 2) if encoding == JSON_TEXT else 0


cdef int write_unsubscribed(Buffer* out, int encoding, const Request* request, Slice topic) noexcept nogil:
    cdef Writer writer
    open_envelope(&writer, out, encoding, b"Unsubscribed", request, 1)
    field_string(&writer, b"topic", topic)
    return close_map(&writer)


cdef int write_ack(Buffer* out, int encoding, const Request* request, Slice topic, Slice epoch,
                   uint64_t offset) noexcept nogil:
    cdef Writer writer
    open_envelope(&writer, out, encoding, b"Ack", request, 3)
    field_string(&writer, b"topic", topic)
    field_string(&writer, b"epoch", epoch)
    field_unsigned(&writer, b"offset", offset)
    return close_map(&writer)


cdef int write_delivered(Buffer* out, int encoding, const Request* request, const Slice* delivered,
                         uint32_t delivered_count, const Slice* offline, uint32_t offline_count) noexcept nogil:
    cdef Writer writer
    open_envelope(&writer, out, encoding, b"Ack", request, 2)
    field_strings(&writer, b"delivered", delivered, delivered_count)
    field_strings(&writer, b"offline", offline, offline_count)
    return close_map(&writer)


cdef int write_refreshed(Buffer* out, int encoding, const Request* request, int64_t expires_at,
                         int64_t refresh_at) noexcept nogil:
    cdef Writer writer
    open_envelope(&writer, out, encoding, b"Refreshed", request, 2)
    field_time(&writer, b"expires_at", expires_at)
    field_time(&writer, b"refresh_at", refresh_at)
    return close_map(&writer)


cdef int write_pong(Buffer* out, int encoding, const Request* request, uint64_t ts) noexcept nogil:
    cdef Writer writer
    open_envelope(&writer, out, encoding, b"Pong", request, 1)
    field_unsigned(&writer, b"ts", ts)
    return close_map(&writer)


cdef int write_error(Buffer* out, int encoding, const Request* request, int code, Slice message,
                     int64_t retry_after_ms, const char* scope) noexcept nogil:
    cdef Writer writer
    cdef const char* name = error_name(code)
    open_envelope(&writer, out, encoding, b"Error", request, 2 + (retry_after_ms >= 0) + (scope != NULL))
    field_string(&writer, b"code", slice_of(name, strlen(name)))
    field_string(&writer, b"message", message)
    if retry_after_ms >= 0:
        field_unsigned(&writer, b"retry_after_ms", <uint64_t> retry_after_ms)
    if scope != NULL:
        field_string(&writer, b"scope", slice_of(scope, strlen(scope)))
    return close_map(&writer)


# --- Message and DirectMessage

cdef int write_message_prefix(Buffer* out, int encoding, Slice topic) noexcept nogil:
    cdef Writer writer
    open_envelope(&writer, out, encoding, b"Message", NULL, 5)
    field_string(&writer, b"topic", topic)
    put_key(&writer, False, b"offset")
    return checked(&writer)


cdef int write_direct_message_prefix(Buffer* out, int encoding) noexcept nogil:
    cdef Writer writer
    open_envelope(&writer, out, encoding, b"DirectMessage", NULL, 4)
    put_key(&writer, False, b"offset")
    return checked(&writer)


cdef inline uint8_t* copy(uint8_t* out, const void* data, size_t size) noexcept nogil:
    memcpy(out, data, size)
    return out + size


cdef size_t message_rest_size(int encoding, uint64_t offset, uint64_t ts, Slice sender, Slice payload) noexcept nogil:
    if encoding == JSON_TEXT:            # ,"ts": ,"from": ,"payload": }
        return decimal_size(offset) + decimal_size(ts) + sender.size + payload.size + 6 + 8 + 11 + 1
    return msgpack_unsigned_size(offset) + msgpack_unsigned_size(ts) + sender.size + payload.size + 3 + 5 + 8


cdef uint8_t* write_message_rest(uint8_t* out, int encoding, uint64_t offset, uint64_t ts, Slice sender,
                                 Slice payload) noexcept nogil:
    if encoding == JSON_TEXT:
        out = copy(write_decimal(out, offset), b',"ts":', 6)
        out = copy(write_decimal(out, ts), b',"from":', 8)
        out = copy(copy(out, sender.data, sender.size), b',"payload":', 11)
        out = copy(out, payload.data, payload.size)
        return copy(out, b"}", 1)
    out = copy(put_msgpack_unsigned(out, offset), b"\xa2ts", 3)
    out = copy(put_msgpack_unsigned(out, ts), b"\xa4from", 5)
    out = copy(copy(out, sender.data, sender.size), b"\xa7payload", 8)
    return copy(out, payload.data, payload.size)


cdef int write_string(Buffer* out, int encoding, Slice text) noexcept nogil:
    if encoding == JSON_TEXT:
        return write_json_string(out, text)
    return write_msgpack_string(out, text)


# --- the others that come unasked

cdef int write_join(Buffer* out, int encoding, bint leave, Slice topic, Slice user_id, Slice session_id,
                    Slice info) noexcept nogil:
    cdef Writer writer
    cdef const char* type = b"Join"
    if leave:
        type = b"Leave"
    open_envelope(&writer, out, encoding, type, NULL, 3 + (info.size > 0))
    field_string(&writer, b"topic", topic)
    field_string(&writer, b"user_id", user_id)
    field_string(&writer, b"session_id", session_id)
    field_info(&writer, info)
    return close_map(&writer)


cdef int write_lagged(Buffer* out, int encoding, Slice topic, uint64_t missed, Slice epoch, uint64_t offset,
                      bint recovered) noexcept nogil:
    cdef Writer writer
    open_envelope(&writer, out, encoding, b"Lagged", NULL, 5)
    field_string(&writer, b"topic", topic)
    field_unsigned(&writer, b"missed", missed)
    field_string(&writer, b"epoch", epoch)
    field_unsigned(&writer, b"offset", offset)
    field_bool(&writer, b"recovered", recovered)
    return close_map(&writer)


cdef int write_token_expiring(Buffer* out, int encoding, int64_t expires_at) noexcept nogil:
    cdef Writer writer
    open_envelope(&writer, out, encoding, b"TokenExpiring", NULL, 1)
    field_time(&writer, b"expires_at", expires_at)
    return close_map(&writer)


cdef int write_closing(Buffer* out, int encoding, uint32_t code, Slice reason, bint reconnect,
                       uint64_t after_ms) noexcept nogil:
    cdef Writer writer
    open_envelope(&writer, out, encoding, b"Closing", NULL, 4)
    field_unsigned(&writer, b"code", code)
    field_string(&writer, b"reason", reason)
    field_bool(&writer, b"reconnect", reconnect)
    field_unsigned(&writer, b"after_ms", after_ms)
    return close_map(&writer)


# --- for Python: each writer with a growing result

cdef class OutboundWriter:
    """The writers of one encoding, gathering what they append; for tests and for tools.

    Text is UTF-8 bytes. `request_id` of the constructor is the encoded id that replies carry. Every method raises
    MemoryError when there is no memory.
    """

    cdef Buffer out
    cdef int encoding
    cdef Request request
    cdef bytes request_id

    def __cinit__(self, int encoding, bytes request_id=None):
        buffer_init(&self.out)
        self.encoding = encoding
        self.request_id = request_id
        self.request.id_kind = ID_NONE
        if request_id is not None:
            self.request.id_kind = 1
            self.request.id = slice_of(<const uint8_t*> request_id, len(request_id))

    def __dealloc__(self):
        buffer_free(&self.out)

    def __bytes__(self):
        return (<const char*> self.out.data)[:self.out.size]

    cdef int done(self, int status) except -1:
        if status < 0:
            raise MemoryError
        return 0

    def connected(self, bytes session_id, bytes user_id, bytes node_id, double interval, int64_t expires_at,
                  int64_t refresh_at):
        self.done(write_connected(&self.out, self.encoding, &self.request, text_of(session_id), text_of(user_id),
                                  text_of(node_id), interval, expires_at, refresh_at))

    def subscribed_head(self, bytes topic, bytes epoch, uint64_t offset, bint recovered, uint32_t count):
        self.done(write_subscribed_head(&self.out, self.encoding, &self.request, text_of(topic), text_of(epoch),
                                        offset, recovered, count))

    def history_page_head(self, bytes topic, bytes epoch, uint64_t offset, uint32_t count):
        self.done(write_history_page_head(&self.out, self.encoding, &self.request, text_of(topic), text_of(epoch),
                                          offset, count))

    def stored_message(self, bint first, uint64_t offset, uint64_t ts, bytes sender, bytes payload,
                       int payload_encoding):
        self.done(write_stored_message(&self.out, self.encoding, first, offset, ts, text_of(sender),
                                       text_of(payload), payload_encoding))

    def presence_state_head(self, bytes topic, uint32_t count):
        self.done(write_presence_state_head(&self.out, self.encoding, &self.request, text_of(topic), count))

    def presence_member(self, bint first, bytes user_id, bytes session_id, uint64_t joined_at, bytes info=b""):
        self.done(write_presence_member(&self.out, self.encoding, first, text_of(user_id), text_of(session_id),
                                        joined_at, text_of(info)))

    def list_tail(self):
        self.done(write_list_tail(&self.out, self.encoding))

    def unsubscribed(self, bytes topic):
        self.done(write_unsubscribed(&self.out, self.encoding, &self.request, text_of(topic)))

    def ack(self, bytes topic, bytes epoch, uint64_t offset):
        self.done(write_ack(&self.out, self.encoding, &self.request, text_of(topic), text_of(epoch), offset))

    def delivered(self, list delivered, list offline):
        cdef Slice[16] present
        cdef Slice[16] absent
        if len(delivered) > 16 or len(offline) > 16:
            raise ValueError("at most 16 users each")
        for i in range(len(delivered)):
            present[i] = text_of(delivered[i])
        for i in range(len(offline)):
            absent[i] = text_of(offline[i])
        self.done(write_delivered(&self.out, self.encoding, &self.request, present, len(delivered), absent,
                                  len(offline)))

    def refreshed(self, int64_t expires_at, int64_t refresh_at):
        self.done(write_refreshed(&self.out, self.encoding, &self.request, expires_at, refresh_at))

    def pong(self, uint64_t ts):
        self.done(write_pong(&self.out, self.encoding, &self.request, ts))

    def error(self, int code, bytes message, int64_t retry_after_ms=-1, bytes scope=None):
        cdef const char* scope_text = NULL
        if scope is not None:
            scope_text = scope
        self.done(write_error(&self.out, self.encoding, &self.request, code, text_of(message), retry_after_ms,
                              scope_text))

    def message(self, bytes topic, uint64_t offset, uint64_t ts, bytes sender, bytes payload):
        """A Message, or without `topic` a DirectMessage."""
        cdef Buffer name
        cdef Slice sender_text
        cdef size_t rest
        cdef uint8_t* end
        if topic is None:
            self.done(write_direct_message_prefix(&self.out, self.encoding))
        else:
            self.done(write_message_prefix(&self.out, self.encoding, text_of(topic)))
        buffer_init(&name)
        try:
            self.done(write_string(&name, self.encoding, text_of(sender)))
            sender_text = slice_of(name.data, name.size)
            rest = message_rest_size(self.encoding, offset, ts, sender_text, text_of(payload))
            self.done(buffer_reserve(&self.out, rest))
            end = write_message_rest(self.out.data + self.out.size, self.encoding, offset, ts, sender_text,
                                     text_of(payload))
            if end != self.out.data + self.out.size + rest:
                raise AssertionError("message_rest_size is wrong")
            self.out.size += rest
        finally:
            buffer_free(&name)

    def join(self, bint leave, bytes topic, bytes user_id, bytes session_id, bytes info=b""):
        self.done(write_join(&self.out, self.encoding, leave, text_of(topic), text_of(user_id), text_of(session_id),
                             text_of(info)))

    def lagged(self, bytes topic, uint64_t missed, bytes epoch, uint64_t offset, bint recovered):
        self.done(write_lagged(&self.out, self.encoding, text_of(topic), missed, text_of(epoch), offset, recovered))

    def token_expiring(self, int64_t expires_at):
        self.done(write_token_expiring(&self.out, self.encoding, expires_at))

    def closing(self, uint32_t code, bytes reason, bint reconnect, uint64_t after_ms):
        self.done(write_closing(&self.out, self.encoding, code, text_of(reason), reconnect, after_ms))


cdef Slice text_of(bytes text):
    return slice_of(<const uint8_t*> text, len(text))
