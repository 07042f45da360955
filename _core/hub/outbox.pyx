"""The outbound order; `outbox.pxd` is the contract."""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t, uint8_t
from libc.string cimport memcpy, memset

from realtime_communication._core.base.counters cimport Counters
from realtime_communication._core.base.memory cimport (
    Arena,
    Buffer,
    Slice,
    arena_drop,
    arena_pool_init,
    arena_pool_trim,
    arena_take,
    buffer_free,
    buffer_init,
    slice_of,
)
from realtime_communication._core.hub.backlog cimport (
    backlog_add,
    backlog_begin_epoch,
    backlog_encoded_most,
    backlog_refill,
    is_left_out,
)
from realtime_communication._core.hub.driver cimport Driver
from realtime_communication._core.hub.mailbox cimport (
    Mailbox,
    mailbox_enqueue,
    mailbox_hold_spans,
    mailbox_push,
    mailbox_push_priority,
)
from realtime_communication._core.hub.message cimport Message, message_drop, message_new
from realtime_communication._core.hub.session cimport FLAG_BLOCKED, FLAG_DIRTY, FLAG_STARVED, FLAG_TARDY, Session
from realtime_communication._core.hub.settings cimport Settings
from realtime_communication._core.hub.topics cimport (
    EPOCH_SIZE,
    TOPIC_INBOX,
    Group,
    Recipient,
    Subscription,
    Topic,
    TopicStore,
    topic_epoch,
    topic_name,
    topic_release,
)
from realtime_communication._core.hub.variants cimport (
    VARIANTS,
    message_envelope,
    trim,
    variant_encoding,
    variant_frame,
    variant_is_plain,
)
from realtime_communication._core.wire.envelope cimport JSON_TEXT
from realtime_communication._core.wire.frames cimport OP_BINARY, OP_TEXT, frame_header_size, write_frame_header
from realtime_communication._core.wire.outbound cimport write_lagged

cdef enum:
    RUN_MESSAGES = 64            # messages of one run; a longer one gains nothing
    LARGE_RUN = 131072           # bytes that are written at once, so that a full socket leaves little to copy


cdef void outbox_init(Outbox* outbox, Settings* settings, Counters* counters, TopicStore* store,
                      size_t kept_arenas) noexcept nogil:
    memset(outbox, 0, sizeof(Outbox))
    arena_pool_init(&outbox.arenas, kept_arenas)
    outbox.settings = settings
    outbox.counters = counters
    outbox.store = store


cdef void outbox_free(Outbox* outbox) noexcept nogil:
    cdef int i
    for i in range(VARIANTS):
        if outbox.current[i] != NULL:
            arena_drop(outbox.current[i])
            outbox.current[i] = NULL
    arena_pool_trim(&outbox.arenas, 0)
    buffer_free(&outbox.text)
    buffer_free(&outbox.envelopes[0])
    buffer_free(&outbox.envelopes[1])
    buffer_free(&outbox.piece)


cdef void outbox_touch(Outbox* outbox, Session* session) noexcept nogil:
    if not session.flags & FLAG_DIRTY:
        session.flags |= FLAG_DIRTY
        session.next_dirty = outbox.dirty
        outbox.dirty = session


# --- replies

cdef int outbox_reply(Outbox* outbox, Session* session, bint in_order) noexcept:
    cdef Buffer* text = &outbox.text
    cdef Mailbox* box = &session.mailbox
    cdef int result
    cdef uint8_t encoding = variant_encoding(session.variant)
    outbox_touch(outbox, session)
    if not outbox.settings.priority_lane:
        in_order = True
    if in_order and (box.span_count or session.flags & FLAG_BLOCKED):
        result = reply_behind_data(outbox, session)
    elif variant_is_plain(session.variant) or text.size < outbox.settings.compression_threshold:
        result = mailbox_push_priority(
            box, OP_TEXT if encoding == JSON_TEXT else OP_BINARY, False, text.data, text.size)
    else:
        result = variant_frame(session.variant, text.data, text.size, outbox.settings.compression_threshold,
                               &box.priority)
        box.priority_messages += result == 0
    trim(text)
    if result < 0:
        session.flags |= FLAG_STARVED
    return result


cdef int reply_behind_data(Outbox* outbox, Session* session) noexcept:
    """Puts the envelope in `text` behind the data that waits: as a span, or in the queue of a blocked session."""
    cdef Buffer frame
    cdef Message* raw
    cdef Slice nobody = slice_of(NULL, 0)
    cdef int result
    buffer_init(&frame)
    if variant_frame(session.variant, outbox.text.data, outbox.text.size, outbox.settings.compression_threshold,
                     &frame) < 0:
        buffer_free(&frame)
        return -1
    result = -1
    if not session.flags & FLAG_BLOCKED:
        result = push_bytes(outbox, session, frame.data, frame.size)
    if result < 0 and session.flags & FLAG_BLOCKED:
        raw = message_new(&outbox.store.messages, nobody, slice_of(frame.data, frame.size), JSON_TEXT)
        if raw != NULL:
            raw.raw = True
            result = mailbox_enqueue(&session.mailbox, raw, NULL)
            message_drop(&outbox.store.messages, raw)
    buffer_free(&frame)
    return result


cdef int push_bytes(Outbox* outbox, Session* session, const uint8_t* data, size_t size) noexcept:
    """One frame into a session's data lane by way of its variant's arena."""
    cdef Arena* arena = room(outbox, session.variant, size)
    cdef uint32_t start
    if arena == NULL:
        return -1
    start = arena.used
    memcpy(arena.data + start, data, size)
    arena.used += <uint32_t> size
    return push_span(outbox, session, arena, start, arena.used, 1)


cdef Arena* room(Outbox* outbox, uint8_t variant, size_t size) noexcept nogil:
    """The variant's arena with room for `size` bytes behind `used`; NULL without memory."""
    cdef Arena* arena = outbox.current[variant]
    if arena != NULL and arena.capacity - arena.used >= size:
        return arena
    if arena != NULL and arena.references == 1 and arena.capacity >= size:
        arena.used = 0           # nobody reads it any more
        return arena
    arena = arena_take(&outbox.arenas, size)
    if arena == NULL:
        return NULL
    if outbox.current[variant] != NULL:
        arena_drop(outbox.current[variant])
    outbox.current[variant] = arena
    return arena


# --- publications

cdef int outbox_publish(Outbox* outbox, Topic* topic, Message* message) noexcept:
    cdef uint32_t i
    cdef Group* group
    cdef int encoding
    cdef Buffer* envelope
    cdef bint whole
    outbox.counters.publications += 1
    if topic.subscribers == 0:
        return 0
    outbox.envelopes[0].size = 0
    outbox.envelopes[1].size = 0
    for i in range(topic.group_count):
        group = &topic.groups[i]
        if group.count == 0:
            continue
        encoding = variant_encoding(group.variant)
        if is_left_out(outbox, group.variant, message):
            outbox.counters.untranscoded += group.count
            continue
        envelope = &outbox.envelopes[encoding]
        if envelope.size == 0 and message_envelope(
                envelope, &outbox.piece, encoding, topic.kind == TOPIC_INBOX, topic_name(topic), message) < 0:
            envelope.size = 0    # `extend_runs` sees to those who would have got it
        if topic.pending and (envelope.size == 0 or not run_continues(outbox, group, envelope.size)):
            outbox_flush_topic(outbox, topic)
    if topic.pending and (message.excluded or topic.pending_first.excluded):
        outbox_flush_topic(outbox, topic)
    whole = extend_runs(outbox, topic, message)
    append_pending(outbox, topic, message)
    trim(&outbox.envelopes[0])
    trim(&outbox.envelopes[1])
    if not whole or topic.pending >= min(
            <uint32_t> RUN_MESSAGES, outbox.settings.flush_messages, backlog_encoded_most(outbox.settings)):
        outbox_flush_topic(outbox, topic)
    return 0


cdef bint run_continues(const Outbox* outbox, const Group* group, size_t envelope) noexcept nogil:
    """Whether a frame of that envelope would lie right behind the group's run."""
    cdef Arena* arena = outbox.current[group.variant]
    if group.arena == NULL:
        return False
    return group.arena == arena and group.end == arena.used and (
        arena.capacity - arena.used >= frame_header_size(envelope) + envelope)


cdef bint extend_runs(Outbox* outbox, Topic* topic, Message* message) noexcept:
    """The message's frames behind the runs. False when there was no memory for some: the run has to end with it."""
    cdef bint whole = True
    cdef uint32_t i
    cdef Group* group
    cdef Buffer* envelope
    cdef Arena* arena
    for i in range(topic.group_count):
        group = &topic.groups[i]
        if group.count == 0 or is_left_out(outbox, group.variant, message):
            continue
        envelope = &outbox.envelopes[variant_encoding(group.variant)]
        arena = NULL
        if envelope.size:
            arena = room(outbox, group.variant, frame_header_size(envelope.size) + envelope.size)
        if arena == NULL:
            # No run is there either: one that lasts has room, and one without has been flushed.
            let_wait(outbox, group, message)
            whole = False
            continue
        if group.arena == NULL:
            group.arena = arena
            arena.references += 1
            group.start = arena.used
        write_variant(outbox, group.variant, envelope, arena)
        group.end = arena.used
    return whole


cdef void let_wait(Outbox* outbox, const Group* group, Message* message) noexcept:
    """Without memory for the frame the message waits as one of slow consumers, who are told when it gets lost."""
    cdef Session* session
    cdef uint32_t i
    for i in range(group.count):
        session = group.items[i].session
        if session.serial != message.excluded:
            session.flags |= FLAG_BLOCKED
            outbox_touch(outbox, session)
            backlog_add(outbox, group.items[i].subscription, message)


cdef void write_variant(Outbox* outbox, uint8_t variant, const Buffer* envelope, Arena* arena) noexcept:
    """Writes the frame behind the arena's bytes; the plain frame fits, and a compressed one is never larger. Without
    memory to compress in it is plain."""
    cdef uint8_t* at
    cdef Buffer* frame = &outbox.piece
    frame.size = 0
    if variant_is_plain(variant) or envelope.size < outbox.settings.compression_threshold or variant_frame(
            variant, envelope.data, envelope.size, outbox.settings.compression_threshold, frame) < 0:
        at = write_frame_header(
            arena.data + arena.used, OP_TEXT if variant_encoding(variant) == JSON_TEXT else OP_BINARY, False,
            envelope.size)
        memcpy(at, envelope.data, envelope.size)
        arena.used = <uint32_t> (at - arena.data + envelope.size)
        return
    memcpy(arena.data + arena.used, frame.data, frame.size)
    arena.used += <uint32_t> frame.size
    trim(frame)


cdef void append_pending(Outbox* outbox, Topic* topic, Message* message) noexcept nogil:
    message.references += 1
    message.next_pending = NULL
    if topic.pending_last != NULL:
        topic.pending_last.next_pending = message
    else:
        topic.pending_first = message
    topic.pending_last = message
    topic.pending += 1
    if not topic.listed:
        topic.listed = True
        topic.next_listed = NULL
        if outbox.listed_last != NULL:
            outbox.listed_last.next_listed = topic
        else:
            outbox.listed_first = topic
        outbox.listed_last = topic


cdef void outbox_flush_topics(Outbox* outbox) noexcept:
    cdef Topic* topic
    while outbox.listed_first != NULL:
        topic = outbox.listed_first
        outbox_flush_topic(outbox, topic)
        outbox.listed_first = topic.next_listed
        if outbox.listed_first == NULL:
            outbox.listed_last = NULL
        topic.listed = False
        topic_release(outbox.store, topic)


cdef void outbox_flush_topic(Outbox* outbox, Topic* topic) noexcept:
    cdef Message* first = topic.pending_first
    cdef Message* message
    cdef uint32_t messages = topic.pending, i, j
    cdef Group* group
    if messages == 0:
        return
    topic.pending_first = NULL
    topic.pending_last = NULL
    topic.pending = 0
    for i in range(topic.group_count):
        group = &topic.groups[i]
        if group.arena == NULL:
            continue
        for j in range(group.count):
            deliver(outbox, group.items[j], group, first, messages)
        outbox.counters.deliveries += <uint64_t> messages * group.count
        arena_drop(group.arena)
        group.arena = NULL
    while first != NULL:
        message = first
        first = message.next_pending
        message.next_pending = NULL
        message_drop(&outbox.store.messages, message)


cdef uint64_t missed_by(Subscription* subscription, uint64_t last, uint64_t missed) noexcept nogil:
    """`missed` messages behind `last`, and the gap of the subscription that ends there: it is told with them."""
    if subscription.lagging:
        missed += last + 1 - subscription.gap_from
    if subscription.dropped and subscription.dropped_last == last:
        missed += subscription.dropped
        subscription.dropped = 0
    return missed


cdef void outbox_tell_reset(Outbox* outbox, Topic* topic, uint64_t missed) noexcept:
    cdef uint8_t epoch[EPOCH_SIZE]
    cdef uint32_t i, j
    cdef uint64_t skipped = 0
    cdef Recipient to
    topic_epoch(topic, epoch)
    for i in range(topic.group_count):
        for j in range(topic.groups[i].count):
            to = topic.groups[i].items[j]
            if missed:
                skipped = missed_by(to.subscription, topic.offset - missed, missed)
            else:
                backlog_begin_epoch(outbox, to.subscription)
            to.subscription.lagging = False
            outbox.text.size = 0
            if write_lagged(&outbox.text, variant_encoding(to.session.variant), topic_name(topic), skipped,
                            slice_of(epoch, EPOCH_SIZE), topic.offset, False) == 0:
                outbox_reply(outbox, to.session, True)


cdef inline void deliver(Outbox* outbox, Recipient to, const Group* group, Message* first,
                         uint32_t messages) noexcept:
    """Hands a run to one subscriber."""
    cdef Session* session = to.session
    cdef Message* message
    if first.excluded == session.serial:
        return
    if not session.flags & FLAG_BLOCKED:
        if push_span(outbox, session, group.arena, group.start, group.end, messages) == 0:
            return
    message = first
    while message != NULL:
        backlog_add(outbox, to.subscription, message)
        message = message.next_pending


cdef int push_span(Outbox* outbox, Session* session, Arena* arena, uint32_t start, uint32_t end,
                   uint32_t messages) noexcept:
    """A span into the data lane of a session that is not blocked. 0; -1 when that blocked it instead.

    Writes at once when enough is waiting, so that no mailbox goes over its bound between two turns.
    """
    cdef Mailbox* box = &session.mailbox
    cdef int result
    cdef uint32_t most = backlog_encoded_most(outbox.settings)
    if box.span_messages and box.span_messages + messages > most:
        write_now(outbox, session)
        if session.flags & FLAG_BLOCKED:
            return -1
    result = mailbox_push(box, arena, start, end, messages)
    if result > 0:
        write_now(outbox, session)
        if session.flags & FLAG_BLOCKED:
            return -1
        result = mailbox_push(box, arena, start, end, messages)
    if result != 0:
        # Without memory for the span the message waits as one of a slow consumer.
        session.flags |= FLAG_BLOCKED
        outbox_touch(outbox, session)
        return -1
    if box.span_messages >= min(outbox.settings.flush_messages, most) or end - start >= LARGE_RUN:
        write_now(outbox, session)
    outbox_touch(outbox, session)
    return 0


cdef void write_now(Outbox* outbox, Session* session) noexcept:
    """Writes in the middle of a turn. A driver that takes nothing leaves the session blocked.

    A peer found gone is left in the dirty list: the write at the end of the turn finds it again and ends it.
    """
    if (<Driver> session.driver).write(session) < 0 or session.mailbox.span_count:
        if mailbox_hold_spans(&session.mailbox) == 0:
            session.flags |= FLAG_BLOCKED
    outbox_touch(outbox, session)


cdef bint outbox_refill(Outbox* outbox, Session* session) noexcept:
    cdef Subscription* subscription
    if session.flags & FLAG_TARDY:
        # What is pending has an offset and is cached already: it must not come once from the cache and once with its
        # run.
        subscription = <Subscription*> session.subscriptions
        while subscription != NULL:
            if subscription.lagging:
                outbox_flush_topic(outbox, subscription.topic)
            subscription = subscription.next_of_session
    return backlog_refill(outbox, session)
