# One publication: its offset, time, sender and payload, shared by the cache and by the mailboxes of slow consumers.
#
# A message is never changed after it was made. Whoever keeps a pointer holds a reference; the last one to let go frees
# it. `raw` messages are finished frames that travel in a mailbox's data lane and belong to no topic.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from realtime_communication._core.base.memory cimport Pool, Slice


cdef enum:
    MESSAGE_ITEM = 320           # bytes of a pooled message, struct, sender and payload together


cdef struct Form:                # a frame of the message, finished for one compressed variant
    Form* next
    uint32_t size                # bytes
    uint8_t variant
    uint8_t data[1]


cdef struct Message:
    uint32_t references
    uint32_t payload_size        # bytes
    uint64_t offset              # position in its topic, from 1
    uint64_t ts                  # milliseconds since the epoch
    uint64_t stored_ms           # monotonic milliseconds; the cache forgets by it
    uint64_t excluded            # serial of the session that is left out, 0 for none
    void* topic                  # Topic*, valid while the message is cached or pending
    Message* newer               # next in the cache's order of age
    Message* older               # the one before it there
    Message* next_pending        # next of its topic that is not fanned out yet
    Form* forms                  # compressed frames made for slow consumers, freed with the message
    uint8_t encoding             # of the payload: JSON_TEXT or MSGPACK
    uint8_t sender_size          # bytes
    bint raw                     # the payload is a finished WebSocket frame
    bint pooled
    uint8_t data[1]              # sender, then payload


# A message with one reference and copies of sender and payload, or NULL without memory.
cdef Message* message_new(Pool* pool, Slice sender, Slice payload, int encoding) noexcept nogil
cdef void message_free(Pool* pool, Message* message) noexcept nogil


cdef inline Slice message_sender(const Message* message) noexcept nogil:
    cdef Slice out
    out.data = &message.data[0]
    out.size = message.sender_size
    return out


cdef inline Slice message_payload(const Message* message) noexcept nogil:
    cdef Slice out
    out.data = &message.data[0] + message.sender_size
    out.size = message.payload_size
    return out


cdef inline void message_drop(Pool* pool, Message* message) noexcept nogil:
    message.references -= 1
    if message.references == 0:
        message_free(pool, message)
