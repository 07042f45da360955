"""Topics; `topics.pxd` is the contract."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset

from realtime_communication._core.base.memory cimport Slice, pool_free, pool_init
from realtime_communication._core.base.table cimport (
    TableCursor,
    entry_key,
    table_add,
    table_find,
    table_free,
    table_init,
    table_remove,
    table_start,
)
from realtime_communication._core.hub.message cimport MESSAGE_ITEM, Message, message_drop
from realtime_communication._core.hub.session cimport Session

cdef enum:
    RING_START = 8               # entries of a ring's first allocation


cdef void store_init(TopicStore* store, size_t message_pool, uint64_t epoch) noexcept nogil:
    memset(store, 0, sizeof(TopicStore))
    table_init(&store.topics)
    table_init(&store.subscriptions)
    pool_init(&store.messages, MESSAGE_ITEM, message_pool)
    store.epoch = epoch


cdef void store_free(TopicStore* store) noexcept nogil:
    cdef TableCursor cursor
    cdef Topic* topic
    cache_limit(store, 0, 0)
    table_start(&cursor)
    topic = next_topic(store, &cursor)
    while topic != NULL:
        topic.interest = 0
        topic.asking = 0
        topic.synced = False
        topic.watching = 0
        topic.full_at = 0
        topic.full_listed = False
        topic.members = 0        # whoever has them frees them
        topic_release(store, topic)
        topic = next_topic(store, &cursor)
    table_free(&store.topics)
    table_free(&store.subscriptions)
    pool_free(&store.messages)


cdef Topic* topic_find(const TopicStore* store, Slice name) noexcept nogil:
    return <Topic*> table_find(&store.topics, name.data, name.size)


cdef void change_epoch(TopicStore* store) noexcept nogil:
    """To a value that was not there before: an odd step through all 64-bit numbers; from a small start, a count."""
    if store.epoch < <uint64_t> 1 << 32:
        store.epoch += 1
    else:
        store.epoch += <uint64_t> 0x9E3779B97F4A7C15


cdef Topic* topic_open(TopicStore* store, Slice name, int kind) noexcept nogil:
    cdef Topic* topic = topic_find(store, name)
    cdef uint8_t* key
    if topic != NULL:
        return topic
    topic = <Topic*> malloc(sizeof(Topic) + name.size)
    if topic == NULL:
        return NULL
    memset(topic, 0, sizeof(Topic))
    key = <uint8_t*> topic + sizeof(Topic)
    memcpy(key, name.data, name.size)
    topic.kind = <uint8_t> kind
    topic.epoch = store.epoch
    if table_add(&store.topics, &topic.entry, key, name.size) < 0:
        free(topic)
        return NULL
    return topic


cdef bint topic_release(TopicStore* store, Topic* topic) noexcept nogil:
    cdef uint32_t i
    if topic.subscribers or topic.cached or topic.pending or topic.members or topic.listed or topic.interest or (
            topic.asking or topic.synced or topic.watching or topic.full_at or topic.full_listed):
        return False
    if topic.offset:
        change_epoch(store)
    table_remove(&store.topics, &topic.entry)
    for i in range(topic.group_count):
        free(topic.groups[i].items)
    free(topic.groups)
    free(topic.ring)
    free(topic.watchers)
    free(topic)
    return True


cdef const char* HEX_DIGITS = b"0123456789abcdef"


cdef void epoch_text(uint64_t epoch, uint8_t* out) noexcept nogil:
    cdef int i
    for i in range(EPOCH_SIZE):
        out[i] = <uint8_t> HEX_DIGITS[(epoch >> (60 - 4 * i)) & 15]


cdef void topic_epoch(const Topic* topic, uint8_t* out) noexcept nogil:
    epoch_text(topic.epoch, out)


cdef bint is_larger(const Topic* one, const Topic* other) noexcept nogil:
    cdef size_t size = min(one.entry.key_size, other.entry.key_size)
    cdef int order
    if one.subscribers != other.subscribers:
        return one.subscribers > other.subscribers
    order = memcmp(entry_key(&one.entry), entry_key(&other.entry), size)
    return order < 0 if order else one.entry.key_size < other.entry.key_size


cdef void sink(Topic** heap, uint32_t count, uint32_t at) noexcept nogil:
    """Restores a heap with its smallest topic at 0, after the one `at` has changed."""
    cdef uint32_t child
    cdef Topic* moved = heap[at]
    while 2 * at + 1 < count:
        child = 2 * at + 1
        if child + 1 < count and is_larger(heap[child], heap[child + 1]):
            child += 1
        if not is_larger(moved, heap[child]):
            break
        heap[at] = heap[child]
        at = child
    heap[at] = moved


cdef uint32_t store_largest(const TopicStore* store, Topic** out, uint32_t most) noexcept nogil:
    cdef TableCursor cursor
    cdef Topic* topic
    cdef uint32_t count = 0, i
    table_start(&cursor)
    while most:
        topic = next_topic(store, &cursor)
        if topic == NULL:
            break
        if topic.kind != TOPIC_PLAIN:
            continue
        if count < most:
            out[count] = topic
            count += 1
            if count == most:
                for i in range(count // 2):
                    sink(out, count, count // 2 - 1 - i)
        elif is_larger(topic, out[0]):
            out[0] = topic
            sink(out, count, 0)
    if count < most:
        for i in range(count // 2):
            sink(out, count, count // 2 - 1 - i)
    # The smallest goes behind the others until all are in order.
    for i in range(count):
        topic = out[0]
        out[0] = out[count - 1 - i]
        out[count - 1 - i] = topic
        sink(out, count - 1 - i, 0)
    return count


cdef Group* group_of(Topic* topic, uint8_t variant) noexcept nogil:
    """The topic's group of that variant, made when it is not there; NULL without memory."""
    cdef uint32_t i
    cdef Group* groups
    for i in range(topic.group_count):
        if topic.groups[i].variant == variant:
            return &topic.groups[i]
    groups = <Group*> realloc(topic.groups, (topic.group_count + 1) * sizeof(Group))
    if groups == NULL:
        return NULL
    topic.groups = groups
    memset(&groups[topic.group_count], 0, sizeof(Group))
    groups[topic.group_count].variant = variant
    topic.group_count += 1
    return &groups[topic.group_count - 1]


cdef Subscription* subscription_find(const TopicStore* store, Session* session, Topic* topic) noexcept nogil:
    cdef void* key[2]
    key[0] = session
    key[1] = topic
    return <Subscription*> table_find(&store.subscriptions, <const uint8_t*> key, sizeof(key))


cdef Subscription* subscription_add(TopicStore* store, Session* session, Topic* topic,
                                    uint64_t joined_at) noexcept nogil:
    cdef Group* group = group_of(topic, session.variant)
    cdef Subscription* made
    cdef Recipient* items
    cdef uint32_t capacity
    if group == NULL:
        return NULL
    if group.count == group.capacity:
        capacity = 1 if group.capacity == 0 else group.capacity * 2
        items = <Recipient*> realloc(group.items, capacity * sizeof(Recipient))
        if items == NULL:
            return NULL
        group.items = items
        group.capacity = capacity
    made = <Subscription*> calloc(1, sizeof(Subscription))
    if made == NULL:
        return NULL
    made.session = session
    made.topic = topic
    made.joined_at = joined_at
    if table_add(&store.subscriptions, &made.entry, <const uint8_t*> &made.session, 2 * sizeof(void*)) < 0:
        free(made)
        return NULL
    made.position = group.count
    group.items[group.count].session = session
    group.items[group.count].subscription = made
    group.count += 1
    made.next_of_session = <Subscription*> session.subscriptions
    if made.next_of_session != NULL:
        made.next_of_session.previous_of_session = made
    session.subscriptions = made
    topic.subscribers += 1
    if topic.kind == TOPIC_PLAIN:
        session.subscription_count += 1
        store.subscription_count += 1
    return made


cdef void subscription_remove(TopicStore* store, Subscription* subscription) noexcept nogil:
    cdef Session* session = subscription.session
    cdef Topic* topic = subscription.topic
    cdef Group* group = group_of(topic, session.variant)
    subscription_watch(subscription, False)
    table_remove(&store.subscriptions, &subscription.entry)
    group.count -= 1
    group.items[subscription.position] = group.items[group.count]
    group.items[subscription.position].subscription.position = subscription.position
    if group.count < group.capacity // 4 and group.capacity > RING_START:
        shrink_group(group)
    if subscription.previous_of_session != NULL:
        subscription.previous_of_session.next_of_session = subscription.next_of_session
    else:
        session.subscriptions = subscription.next_of_session
    if subscription.next_of_session != NULL:
        subscription.next_of_session.previous_of_session = subscription.previous_of_session
    topic.subscribers -= 1
    if topic.kind == TOPIC_PLAIN:
        session.subscription_count -= 1
        store.subscription_count -= 1
    free(subscription)


cdef void shrink_group(Group* group) noexcept nogil:
    cdef Recipient* items = <Recipient*> realloc(group.items, (group.capacity // 2) * sizeof(Recipient))
    if items != NULL:
        group.items = items
        group.capacity //= 2


cdef int subscription_watch(Subscription* subscription, bint on) noexcept nogil:
    cdef Topic* topic = subscription.topic
    cdef Subscription** watchers
    cdef uint32_t capacity, position
    if on == (subscription.watching != 0):
        return 0
    if on:
        if topic.watcher_count == topic.watcher_capacity:
            capacity = 2 if topic.watcher_capacity == 0 else topic.watcher_capacity * 2
            watchers = <Subscription**> realloc(topic.watchers, capacity * sizeof(Subscription*))
            if watchers == NULL:
                return -1
            topic.watchers = watchers
            topic.watcher_capacity = capacity
        topic.watchers[topic.watcher_count] = subscription
        topic.watcher_count += 1
        subscription.watching = topic.watcher_count
        return 0
    position = subscription.watching - 1
    topic.watcher_count -= 1
    topic.watchers[position] = topic.watchers[topic.watcher_count]
    topic.watchers[position].watching = position + 1
    subscription.watching = 0
    return 0


cdef bint ring_grow(Topic* topic) noexcept nogil:
    cdef uint32_t capacity = RING_START if topic.ring_capacity == 0 else topic.ring_capacity * 2
    cdef uint32_t i
    cdef Message** ring = <Message**> malloc(capacity * sizeof(Message*))
    if ring == NULL:
        return False
    for i in range(topic.cached):
        ring[i] = topic.ring[(topic.ring_head + i) & (topic.ring_capacity - 1)]
    free(topic.ring)
    topic.ring = ring
    topic.ring_capacity = capacity
    topic.ring_head = 0
    return True


cdef void topic_append(TopicStore* store, Topic* topic, Message* message, size_t entries, size_t bytes) noexcept nogil:
    topic.offset += 1
    message.offset = topic.offset
    message.topic = topic
    if entries == 0:
        if topic.cached:
            # Caching has ended: a recovery with what came before would be incomplete.
            topic_reset(store, topic, topic.epoch, topic.offset)
        return
    if topic.cached == topic.ring_capacity and not ring_grow(topic):
        # A hole in the cache would make a recovery incomplete, so what came before is forgotten with it.
        while topic.cached:
            forget_oldest(store)
        return
    topic.ring[(topic.ring_head + topic.cached) & (topic.ring_capacity - 1)] = message
    topic.cached += 1
    message.references += 1
    if store.newest != NULL:
        store.newest.newer = message
        message.older = store.newest
    else:
        store.oldest = message
    store.newest = message
    store.cached += 1
    store.cached_bytes += message.payload_size
    cache_limit(store, entries, bytes)


cdef inline void forget_oldest(TopicStore* store) noexcept nogil:
    forget(store, store.oldest)


cdef void forget(TopicStore* store, Message* message) noexcept nogil:
    """Take the oldest message of all, or of its topic, out of the cache."""
    cdef Topic* topic = <Topic*> message.topic
    if message.older != NULL:
        message.older.newer = message.newer
    else:
        store.oldest = message.newer
    if message.newer != NULL:
        message.newer.older = message.older
    else:
        store.newest = message.older
    message.newer = NULL
    message.older = NULL
    store.cached -= 1
    store.cached_bytes -= message.payload_size
    if topic == NULL:
        message_drop(&store.messages, message)
        return
    topic.ring_head = (topic.ring_head + 1) & (topic.ring_capacity - 1)
    topic.cached -= 1
    message_drop(&store.messages, message)
    if topic.cached == 0:
        free(topic.ring)
        topic.ring = NULL
        topic.ring_capacity = 0
        topic.ring_head = 0
        topic_release(store, topic)


cdef void topic_trim(TopicStore* store, Topic* topic, uint32_t size, uint64_t before_ms) noexcept nogil:
    topic.members += 1           # the last message may be what keeps it
    while topic.cached and ((size and topic.cached > size) or topic.ring[topic.ring_head].stored_ms < before_ms):
        forget(store, topic.ring[topic.ring_head])
    topic.members -= 1


cdef uint32_t topic_excess(const Topic* topic, uint32_t size, uint64_t before_ms) noexcept nogil:
    cdef uint32_t low = topic.cached - size if size and topic.cached > size else 0
    cdef uint32_t high = topic.cached, middle
    while low < high:
        middle = low + (high - low) // 2
        if topic.ring[(topic.ring_head + middle) & (topic.ring_capacity - 1)].stored_ms < before_ms:
            low = middle + 1
        else:
            high = middle
    return low


cdef void topic_reset(TopicStore* store, Topic* topic, uint64_t epoch, uint64_t offset) noexcept nogil:
    cdef uint32_t i
    for i in range(topic.cached):
        # They keep their place in the order of age until it is their turn, so that this costs nobody else anything.
        topic.ring[(topic.ring_head + i) & (topic.ring_capacity - 1)].topic = NULL
    free(topic.ring)
    topic.ring = NULL
    topic.ring_capacity = 0
    topic.ring_head = 0
    topic.cached = 0
    topic.epoch = epoch
    topic.offset = offset


cdef uint64_t store_fresh_epoch(TopicStore* store) noexcept nogil:
    change_epoch(store)
    return store.epoch


cdef size_t cache_forget(TopicStore* store, uint64_t before_ms, size_t most) noexcept nogil:
    cdef size_t forgotten = 0
    while store.oldest != NULL and store.oldest.stored_ms < before_ms and forgotten < most:
        forget_oldest(store)
        forgotten += 1
    return forgotten


cdef void cache_limit(TopicStore* store, size_t entries, size_t bytes) noexcept nogil:
    while store.cached > entries or store.cached_bytes > bytes:
        forget_oldest(store)


cdef Message* topic_message(const Topic* topic, uint64_t offset) noexcept nogil:
    if offset > topic.offset or offset < topic_first(topic):
        return NULL
    return topic.ring[(topic.ring_head + <uint32_t> (offset - topic_first(topic))) & (topic.ring_capacity - 1)]
