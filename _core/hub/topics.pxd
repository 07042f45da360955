# Topics: offsets, the message cache, and who is subscribed.
#
# Rules: containers only. Nothing here encodes, delivers or reads a clock. A topic lives while somebody is subscribed, a
# message of it is cached or pending, a member of it is remembered, another worker is fed or asked about it, or
# consumers of it are full on another worker; then `topic_release` frees it. If it had messages, topics made after that
# have another epoch, so that no epoch ever means two histories; a topic that never had one may come and go without its
# subscribers losing their place. Subscribing, unsubscribing and finding are O(1).
#
# The cache is one queue over all topics, oldest first: a message has a place in it and in its topic's ring, which is
# indexed by offset. Since the oldest of all is also the oldest of its topic, forgetting is O(1) as well.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from realtime_communication._core.base.memory cimport Arena, Pool, Slice
from realtime_communication._core.base.table cimport Table, TableCursor, TableEntry, entry_key, table_next
from realtime_communication._core.hub.message cimport Message
from realtime_communication._core.hub.session cimport Session


cdef enum TopicKind:
    TOPIC_PLAIN = 0
    TOPIC_INBOX = 1              # `@user`: filled by DirectMessage
    TOPIC_ALL = 2                # `*`: every connection


cdef enum WatchState:            # of those who want joins and leaves, and have their topic's truth elsewhere
    WATCH_NONE = 0               # there are none
    WATCH_FRESH = 1              # who was there before them is still to come, and is not told
    WATCH_ON = 2


cdef struct Subscription:
    TableEntry entry             # keyed by the two pointers below
    Session* session
    Topic* topic
    Subscription* next_of_session
    Subscription* previous_of_session
    uint64_t joined_at           # milliseconds since the epoch
    uint32_t position            # in its group
    uint32_t watching            # position among the watchers + 1, 0 when it wants no joins and leaves
    bint lagging                 # skipped from `gap_from` on, to be caught up from the cache
    uint32_t dropped             # messages dropped and not told yet
    uint64_t gap_from            # first offset skipped, while lagging
    uint64_t dropped_last        # highest offset dropped


cdef struct Recipient:
    Session* session
    Subscription* subscription


cdef struct Group:               # the subscribers of a topic that get the same bytes
    Recipient* items
    uint32_t count
    uint32_t capacity
    Arena* arena                 # the run: frames encoded and not fanned out yet; NULL when there is none
    uint32_t start
    uint32_t end
    uint8_t variant


cdef struct Topic:
    TableEntry entry             # keyed by the name, which follows the struct
    uint64_t offset              # of the newest message, 0 before the first
    uint64_t epoch
    Group* groups
    uint8_t group_count
    uint8_t kind                 # TopicKind
    bint listed                  # in the list of topics with pending messages
    uint8_t authority            # who gives the offsets, see peers.pxd; 0 this worker
    bint foreign                 # its epoch was given by another authority than this worker
    bint synced                  # a mirror that stands where its authority does, and is fed by it
    uint64_t interest            # a bit for each other worker that mirrors this topic
    uint32_t asking              # requests about it that wait for its authority
    uint32_t subscribers
    Message** ring               # cached messages; the newest has offset `offset`
    uint32_t ring_capacity       # a power of two, 0 while nothing was cached
    uint32_t ring_head           # index of the oldest
    uint32_t cached
    uint32_t hidden              # of the oldest of them, which its rule shows to nobody; good until it changes
    uint32_t watcher_count
    uint32_t watcher_capacity
    Subscription** watchers      # subscriptions that want joins and leaves
    Message* pending_first       # messages not fanned out yet; the list holds references
    Message* pending_last
    uint32_t pending
    uint32_t full                # subscribers whose mailbox is full (overflow `block` and `backpressure`)
    bint full_told               # other workers know that some are, see throttle.pxd
    bint full_listed             # in the list of topics of which that may have changed
    uint64_t full_at             # at the topic's home: workers where some are; elsewhere: its home, which says so
    Topic* next_full
    uint32_t members             # entries of this topic in the tables of presence
    void* first_member           # first Member*, see users.pxd
    void* attendees              # first Attendee*, see attendees.pxd
    uint64_t watching            # a bit for each other worker that has watchers
    uint64_t roster              # token of the question who is present upstream, 0 for none
    uint8_t watch_state          # WatchState
    bint arrived                 # its home before said who mirrors it; they have not been asked yet, see homes.pxd
    uint64_t stamp               # mark of the last request that named this topic
    Topic* next_listed


cdef struct TopicStore:
    Table topics
    Table subscriptions
    Pool messages
    Message* oldest              # the cache, by age
    Message* newest
    size_t cached
    size_t cached_bytes          # payload bytes
    size_t subscription_count    # of plain topics
    uint64_t epoch               # of topics made from now on; changed whenever a topic with history is freed


# `epoch`: random, or small for epochs that count.
cdef void store_init(TopicStore* store, size_t message_pool, uint64_t epoch) noexcept nogil
cdef void store_free(TopicStore* store) noexcept nogil

cdef inline Slice topic_name(const Topic* topic) noexcept nogil:
    cdef Slice out
    out.data = entry_key(&topic.entry)
    out.size = topic.entry.key_size
    return out

cdef enum:
    EPOCH_SIZE = 16              # bytes of an epoch's text

# The topics one by one, NULL behind the last one; `cursor` comes from `table_start`. The one that was returned last may
# be freed meanwhile.
cdef inline Topic* next_topic(const TopicStore* store, TableCursor* cursor) noexcept nogil:
    return <Topic*> table_next(&store.topics, cursor)

cdef Topic* topic_find(const TopicStore* store, Slice name) noexcept nogil
# The topic of that name, made when it is not there; NULL without memory.
cdef Topic* topic_open(TopicStore* store, Slice name, int kind) noexcept nogil
# Frees the topic when nothing needs it any more; says whether it did.
cdef bint topic_release(TopicStore* store, Topic* topic) noexcept nogil
# Writes EPOCH_SIZE hexadecimal digits.
cdef void topic_epoch(const Topic* topic, uint8_t* out) noexcept nogil
cdef void epoch_text(uint64_t epoch, uint8_t* out) noexcept nogil

# Fills `out` with the plain topics that have the most subscribers, most first, equal ones by name; how many, at most
# `most`. Takes O(topics * log most).
cdef uint32_t store_largest(const TopicStore* store, Topic** out, uint32_t most) noexcept nogil

cdef Subscription* subscription_find(const TopicStore* store, Session* session, Topic* topic) noexcept nogil
# A new subscription; the pair must not have one. NULL without memory.
cdef Subscription* subscription_add(TopicStore* store, Session* session, Topic* topic,
                                    uint64_t joined_at) noexcept nogil
# Takes it out of everything and frees it. The topic is not released.
cdef void subscription_remove(TopicStore* store, Subscription* subscription) noexcept nogil
# 0, or -1 without memory.
cdef int subscription_watch(Subscription* subscription, bint on) noexcept nogil

# Gives the message its topic's next offset and, when `entries` is not 0, a place in the cache, which then forgets its
# oldest messages down to `entries` and `bytes`. Without memory for the ring the message is just not cached.
cdef void topic_append(TopicStore* store, Topic* topic, Message* message, size_t entries, size_t bytes) noexcept nogil
# The topic goes on at another place of another history: what is cached belongs to it no more.
cdef void topic_reset(TopicStore* store, Topic* topic, uint64_t epoch, uint64_t offset) noexcept nogil
# An epoch that no topic of this store had before.
cdef uint64_t store_fresh_epoch(TopicStore* store) noexcept nogil
# Forgets the topic's oldest messages down to `size`, 0 for any number, and those stored before `before_ms`. The topic
# is not released. Takes O(forgotten).
cdef void topic_trim(TopicStore* store, Topic* topic, uint32_t size, uint64_t before_ms) noexcept nogil
# How many of the oldest cached messages `topic_trim` would forget. Takes O(log cached).
cdef uint32_t topic_excess(const Topic* topic, uint32_t size, uint64_t before_ms) noexcept nogil
# Forgets messages stored before `before_ms`, at most `most` of them; how many it forgot.
cdef size_t cache_forget(TopicStore* store, uint64_t before_ms, size_t most) noexcept nogil
cdef void cache_limit(TopicStore* store, size_t entries, size_t bytes) noexcept nogil
# Offset of the oldest cached message; topic.offset + 1 when nothing is cached.
cdef inline uint64_t topic_first(const Topic* topic) noexcept nogil:
    return topic.offset + 1 - topic.cached
# Offset of the oldest one that is shown; topic.offset + 1 when there is none.
cdef inline uint64_t topic_shown(const Topic* topic) noexcept nogil:
    return topic_first(topic) + min(topic.hidden, topic.cached)
# The cached message of that offset, NULL when it is not there.
cdef Message* topic_message(const Topic* topic, uint64_t offset) noexcept nogil
