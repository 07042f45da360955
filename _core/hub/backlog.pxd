# What waits for consumers that do not keep up: the queue of a blocked session under the overflow strategy, gaps that
# are told, catching up from the cache.
#
# Rules: a message is queued as a reference and encoded only when the socket takes bytes again. A subscriber never
# misses a message without a Lagged in its place: `dropped` counts what was dropped and is told before the next message
# of the topic; `lagging` skips everything from `gap_from` on until the queue is empty and the cache fills the gap,
# completely or not at all.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from realtime_communication._core.base.counters cimport Counters
from realtime_communication._core.base.memory cimport Arena, ArenaPool, Buffer
from realtime_communication._core.hub.message cimport Message
from realtime_communication._core.hub.session cimport Session
from realtime_communication._core.hub.settings cimport OVERFLOW_DROP_OLDEST, Settings
from realtime_communication._core.hub.topics cimport Subscription, Topic, TopicStore
from realtime_communication._core.hub.variants cimport VARIANTS, variant_encoding


cdef struct Outbox:              # what both halves of the outbound order share, this one and outbox.pyx
    ArenaPool arenas
    Arena* current[VARIANTS]     # the arena each variant is written to; holds a reference
    Buffer text                  # the envelope being made; what `outbox_reply` sends
    Buffer envelopes[2]          # of one publication, by encoding
    Buffer piece                 # an encoded sender, a transcoded payload
    Topic* listed_first          # topics with pending messages
    Topic* listed_last
    Session* dirty               # sessions to write at the end of the turn
    bint relieved                # a full mailbox has room again: waiting publishers may go on
    Topic* full_first            # topics whose first consumer is full, or whose last one no more; throttle.pxd
    uint64_t now_ms              # monotonic time of this turn
    Settings* settings
    Counters* counters
    TopicStore* store


# Whether the message is kept from that variant because transcoding is off.
cdef inline bint is_left_out(const Outbox* outbox, uint8_t variant, const Message* message) noexcept nogil:
    return not outbox.settings.transcoding and variant_encoding(variant) != message.encoding


# Data messages that may be finished frames when a socket fills up. What is encoded cannot be dropped, so `drop_oldest`
# leaves half of a mailbox to the newest messages.
cdef inline uint32_t backlog_encoded_most(const Settings* settings) noexcept nogil:
    if settings.overflow == OVERFLOW_DROP_OLDEST:
        return (settings.mailbox_capacity + 1) // 2
    return settings.mailbox_capacity


# Whether the mailbox takes no more data messages.
cdef bint mailbox_is_full(const Outbox* outbox, const Session* session) noexcept nogil
# One message for a blocked session, under the overflow strategy.
cdef void backlog_add(Outbox* outbox, Subscription* subscription, Message* message) noexcept
# Encodes more from the queue, tells gaps, catches up from the cache; topics that lag have no pending messages. False
# when nothing is left, and the session is no longer blocked.
cdef bint backlog_refill(Outbox* outbox, Session* session) noexcept
# Drops everything that waits for the session.
cdef void backlog_discard(Outbox* outbox, Session* session) noexcept
# So many more of the topic's subscribers are full.
cdef void backlog_count_full(Outbox* outbox, Topic* topic, int more) noexcept nogil
# Whether the topic has full consumers may have changed.
cdef void backlog_note_full(Outbox* outbox, Topic* topic) noexcept nogil
# A subscription ends: forgets what waits for it in the queue.
cdef void backlog_forget(Outbox* outbox, Subscription* subscription) noexcept
# The topic is in another epoch, and its subscribers are told behind what waits for them; nothing of its own is left to
# tell of a gap before that. With `drop_oldest` the gap comes before what is queued, and more may follow: neither could
# be told in numbers of the new epoch, so what is queued of the old one is dropped.
cdef void backlog_begin_epoch(Outbox* outbox, Subscription* subscription) noexcept
# A client subscribes again, and is answered behind what waits for it. Where that has a gap, or may get one before the
# reply leaves, it is dropped, since the reply speaks of the newest offset; and told, unless `silent` because the client
# named the position it goes on from.
cdef void backlog_restart(Outbox* outbox, Subscription* subscription, bint silent) noexcept
