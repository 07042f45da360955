# The envelopes of `rtc.v1` that the server sends, in JSON and MessagePack, without WebSocket frame headers.
#
# Rules: keys in exactly the order of the protocol, no space between them, and "id" right behind "type" when the
# request had one. Every writer appends one envelope (or the named piece of one) to `out` and returns 0, or -1 without
# memory, with `out` as it was. Text is UTF-8. A `request` may be NULL or without id; its id is written back as it
# came, so its encoding must be the one that is written.
#
# MessagePack announces how many items an array has, so a head takes the count of what follows it.

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from realtime_communication._core.base.memory cimport Buffer, Slice
from realtime_communication._core.wire.envelope cimport Request


# --- replies

# Times are seconds since the epoch, -1 for null. A heartbeat interval without fraction is written as an integer.
cdef int write_connected(Buffer* out, int encoding, const Request* request, Slice session_id, Slice user_id,
                         Slice node_id, double heartbeat_interval_secs, int64_t expires_at,
                         int64_t refresh_at) noexcept nogil
# head, `count` times write_stored_message, write_list_tail
cdef int write_subscribed_head(Buffer* out, int encoding, const Request* request, Slice topic, Slice epoch,
                               uint64_t offset, bint recovered, uint32_t count) noexcept nogil
cdef int write_history_page_head(Buffer* out, int encoding, const Request* request, Slice topic, Slice epoch,
                                 uint64_t offset, uint32_t count) noexcept nogil
# One of `messages`; the payload is transcoded when its encoding is the other one. `first`: nothing stands before it.
cdef int write_stored_message(Buffer* out, int encoding, bint first, uint64_t offset, uint64_t ts, Slice sender,
                              Slice payload, int payload_encoding) noexcept nogil
# head, `count` times write_presence_member, write_list_tail. `count` is also the field of that name.
cdef int write_presence_state_head(Buffer* out, int encoding, const Request* request, Slice topic,
                                   uint32_t count) noexcept nogil
# `joined_at` is milliseconds since the epoch, like `ts`. `info` is a valid JSON object, or empty: no such key.
cdef int write_presence_member(Buffer* out, int encoding, bint first, Slice user_id, Slice session_id,
                               uint64_t joined_at, Slice info) noexcept nogil
cdef int write_list_tail(Buffer* out, int encoding) noexcept nogil
cdef int write_unsubscribed(Buffer* out, int encoding, const Request* request, Slice topic) noexcept nogil
# The Ack of a Broadcast.
cdef int write_ack(Buffer* out, int encoding, const Request* request, Slice topic, Slice epoch,
                   uint64_t offset) noexcept nogil
# The Ack of a DirectMessage.
cdef int write_delivered(Buffer* out, int encoding, const Request* request, const Slice* delivered,
                         uint32_t delivered_count, const Slice* offline, uint32_t offline_count) noexcept nogil
cdef int write_refreshed(Buffer* out, int encoding, const Request* request, int64_t expires_at,
                         int64_t refresh_at) noexcept nogil
cdef int write_pong(Buffer* out, int encoding, const Request* request, uint64_t ts) noexcept nogil
# `code` is an ErrorCode; `retry_after_ms` -1 and `scope` NULL leave their key out.
cdef int write_error(Buffer* out, int encoding, const Request* request, int code, Slice message,
                     int64_t retry_after_ms, const char* scope) noexcept nogil

# --- Message and DirectMessage: prefix + rest
#
# The prefix is the same for every message of a topic and may be kept. Prefix and `message_rest_size` give the size of
# the whole; then the rest is written without further checks right behind the prefix:
#   write_message_prefix(&prefix, encoding, topic)
#   size = prefix.size + message_rest_size(encoding, offset, ts, sender, payload)
#   ... copy the prefix to `at` ...
#   end = write_message_rest(at + prefix.size, encoding, offset, ts, sender, payload)
# `sender` is one encoded string (`write_string`, kept per user), `payload` one value in this encoding.

cdef int write_message_prefix(Buffer* out, int encoding, Slice topic) noexcept nogil
cdef int write_direct_message_prefix(Buffer* out, int encoding) noexcept nogil
cdef size_t message_rest_size(int encoding, uint64_t offset, uint64_t ts, Slice sender, Slice payload) noexcept nogil
# Returns the first byte behind what was written: `out` + message_rest_size(…).
cdef uint8_t* write_message_rest(uint8_t* out, int encoding, uint64_t offset, uint64_t ts, Slice sender,
                                 Slice payload) noexcept nogil
cdef int write_string(Buffer* out, int encoding, Slice text) noexcept nogil

# --- the others that come unasked

# A Join, or with `leave` a Leave. `info` as above.
cdef int write_join(Buffer* out, int encoding, bint leave, Slice topic, Slice user_id, Slice session_id,
                    Slice info) noexcept nogil
cdef int write_lagged(Buffer* out, int encoding, Slice topic, uint64_t missed, Slice epoch, uint64_t offset,
                      bint recovered) noexcept nogil
cdef int write_token_expiring(Buffer* out, int encoding, int64_t expires_at) noexcept nogil
cdef int write_closing(Buffer* out, int encoding, uint32_t code, Slice reason, bint reconnect,
                       uint64_t after_ms) noexcept nogil
