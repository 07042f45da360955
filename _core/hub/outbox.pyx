"""The outbound order; `outbox.pxd` is the contract."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
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
    buffer_append,
    buffer_free,
    buffer_init,
    buffer_reserve,
    slice_of,
)
from realtime_communication._core.hub.driver cimport Driver
from realtime_communication._core.hub.mailbox cimport (
    Mailbox,
    Queued,
    mailbox_dequeue,
    mailbox_enqueue,
    mailbox_free,
    mailbox_has_bytes,
    mailbox_hold_spans,
    mailbox_messages,
    mailbox_push,
    mailbox_push_priority,
    mailbox_queued,
)
from realtime_communication._core.hub.message cimport (
    Form,
    Message,
    message_drop,
    message_new,
    message_payload,
    message_sender,
)
from realtime_communication._core.hub.session cimport (
    FLAG_BLOCKED,
    FLAG_DIRTY,
    FLAG_FULL,
    FLAG_TARDY,
    Session,
)
from realtime_communication._core.hub.settings cimport (
    OVERFLOW_BACKPRESSURE,
    OVERFLOW_BLOCK,
    OVERFLOW_DROP_NEWEST,
    OVERFLOW_DROP_OLDEST,
    QUEUE_BYTES,
    Settings,
)
from realtime_communication._core.hub.topics cimport (
    EPOCH_SIZE,
    TOPIC_INBOX,
    Group,
    Recipient,
    Subscription,
    Topic,
    TopicStore,
    topic_epoch,
    topic_first,
    topic_message,
    topic_name,
    topic_release,
)
from realtime_communication._core.hub.variants cimport (
    VARIANTS,
    variant_encoding,
    variant_frame,
    variant_is_plain,
)
from realtime_communication._core.wire.envelope cimport JSON_TEXT, MSGPACK
from realtime_communication._core.wire.frames cimport OP_BINARY, OP_TEXT, frame_header_size, write_frame_header
from realtime_communication._core.wire.outbound cimport (
    message_rest_size,
    write_direct_message_prefix,
    write_lagged,
    write_message_prefix,
    write_message_rest,
    write_string,
)
from realtime_communication._core.wire.transcode cimport transcode

cdef enum:
    RUN_MESSAGES = 64            # messages of one run; a longer one gains nothing
    REFILL_BYTES = 65536         # encoded at a time for a slow consumer
    SCRATCH_KEPT = 262144        # bytes a scratch buffer keeps


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


cdef inline void clear(Buffer* buffer) noexcept nogil:
    buffer.size = 0
    if buffer.capacity > SCRATCH_KEPT:
        buffer_free(buffer)


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
        result = mailbox_push_priority(box, OP_TEXT if encoding == JSON_TEXT else OP_BINARY, False, text.data, text.size)
    else:
        result = variant_frame(session.variant, text.data, text.size, outbox.settings.compression_threshold,
                               &box.priority)
        box.priority_messages += 1
    clear(text)
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
        return -1
    if session.flags & FLAG_BLOCKED:
        raw = message_new(&outbox.store.messages, nobody, slice_of(frame.data, frame.size), JSON_TEXT)
        result = -1
        if raw != NULL:
            raw.raw = True
            result = mailbox_enqueue(&session.mailbox, raw, NULL)
            message_drop(&outbox.store.messages, raw)
    else:
        result = push_bytes(outbox, session, frame.data, frame.size)
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

cdef int make_envelope(Outbox* outbox, Buffer* out, int encoding, const Topic* topic,
                       const Message* message) noexcept nogil:
    """Appends the Message or DirectMessage envelope of a publication."""
    cdef Slice payload = message_payload(message)
    cdef Slice sender
    cdef size_t sender_size, rest
    cdef Buffer* piece = &outbox.piece
    piece.size = 0
    if write_string(piece, encoding, message_sender(message)) < 0:
        return -1
    sender_size = piece.size
    if message.encoding != encoding:
        if transcode(payload, message.encoding, encoding, piece) < 0:
            return -1
        payload = slice_of(piece.data + sender_size, piece.size - sender_size)
    sender = slice_of(piece.data, sender_size)
    if topic.kind == TOPIC_INBOX:
        if write_direct_message_prefix(out, encoding) < 0:
            return -1
    elif write_message_prefix(out, encoding, topic_name(topic)) < 0:
        return -1
    rest = message_rest_size(encoding, message.offset, message.ts, sender, payload)
    if buffer_reserve(out, rest) < 0:
        return -1
    write_message_rest(out.data + out.size, encoding, message.offset, message.ts, sender, payload)
    out.size += rest
    clear(piece)
    return 0


cdef bint left_out(const Outbox* outbox, uint8_t variant, const Message* message) noexcept nogil:
    return not outbox.settings.transcoding and variant_encoding(variant) != message.encoding


cdef int outbox_publish(Outbox* outbox, Topic* topic, Message* message) noexcept:
    cdef uint32_t i
    cdef Group* group
    cdef int encoding
    cdef Buffer* envelope
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
        if left_out(outbox, group.variant, message):
            outbox.counters.untranscoded += group.count
            continue
        envelope = &outbox.envelopes[encoding]
        if envelope.size == 0 and make_envelope(outbox, envelope, encoding, topic, message) < 0:
            return -1
        if topic.pending and not run_continues(outbox, group, envelope.size):
            outbox_flush_topic(outbox, topic)
    if topic.pending and (message.excluded or topic.pending_first.excluded):
        outbox_flush_topic(outbox, topic)
    extend_runs(outbox, topic, message)
    append_pending(outbox, topic, message)
    clear(&outbox.envelopes[0])
    clear(&outbox.envelopes[1])
    if topic.pending >= RUN_MESSAGES or topic.pending >= outbox.settings.mailbox_capacity:
        outbox_flush_topic(outbox, topic)
    return 0


cdef bint run_continues(const Outbox* outbox, const Group* group, size_t envelope) noexcept nogil:
    """Whether a frame of that envelope would lie right behind the group's run."""
    cdef Arena* arena = outbox.current[group.variant]
    if group.arena == NULL:
        return False
    return group.arena == arena and group.end == arena.used and (
        arena.capacity - arena.used >= frame_header_size(envelope) + envelope)


cdef void extend_runs(Outbox* outbox, Topic* topic, Message* message) noexcept:
    cdef uint32_t i
    cdef Group* group
    cdef Buffer* envelope
    cdef Arena* arena
    for i in range(topic.group_count):
        group = &topic.groups[i]
        if group.count == 0 or left_out(outbox, group.variant, message):
            continue
        envelope = &outbox.envelopes[variant_encoding(group.variant)]
        arena = room(outbox, group.variant, frame_header_size(envelope.size) + envelope.size)
        if arena == NULL:
            continue
        if group.arena == NULL:
            group.arena = arena
            arena.references += 1
            group.start = arena.used
        if write_variant(outbox, group.variant, envelope, arena) < 0 and group.start == arena.used:
            arena_drop(arena)
            group.arena = NULL
            continue
        group.end = arena.used


cdef int write_variant(Outbox* outbox, uint8_t variant, const Buffer* envelope, Arena* arena) noexcept:
    """Writes the frame behind the arena's bytes; the plain frame fits, and a compressed one is never larger."""
    cdef uint8_t* at
    cdef Buffer* frame
    if variant_is_plain(variant) or envelope.size < outbox.settings.compression_threshold:
        at = write_frame_header(
            arena.data + arena.used, OP_TEXT if variant_encoding(variant) == JSON_TEXT else OP_BINARY, False,
            envelope.size)
        memcpy(at, envelope.data, envelope.size)
        arena.used = <uint32_t> (at - arena.data + envelope.size)
        return 0
    frame = &outbox.piece
    frame.size = 0
    if variant_frame(variant, envelope.data, envelope.size, outbox.settings.compression_threshold, frame) < 0:
        return -1
    memcpy(arena.data + arena.used, frame.data, frame.size)
    arena.used += <uint32_t> frame.size
    clear(frame)
    return 0


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
        queue(outbox, to.subscription, message)
        message = message.next_pending


cdef int push_span(Outbox* outbox, Session* session, Arena* arena, uint32_t start, uint32_t end,
                   uint32_t messages) noexcept:
    """A span into the data lane of a session that is not blocked. 0; -1 when that blocked it instead.

    Writes at once when enough is waiting, so that no mailbox goes over its bound between two turns.
    """
    cdef Mailbox* box = &session.mailbox
    cdef int result
    if box.span_messages and box.span_messages + messages > outbox.settings.mailbox_capacity:
        write_now(outbox, session)
        if session.flags & FLAG_BLOCKED:
            return -1
    result = mailbox_push(box, arena, start, end, messages)
    if result > 0:
        write_now(outbox, session)
        if session.flags & FLAG_BLOCKED:
            return -1
        result = mailbox_push(box, arena, start, end, messages)
    if result < 0:
        return -1
    if box.span_messages >= outbox.settings.flush_messages:
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


# --- slow consumers

cdef bint outbox_is_full(const Outbox* outbox, const Session* session) noexcept nogil:
    return mailbox_messages(&session.mailbox) >= outbox.settings.mailbox_capacity or (
        session.mailbox.queue_bytes > QUEUE_BYTES)


cdef void queue(Outbox* outbox, Subscription* subscription, Message* message) noexcept:
    """One message for a blocked session, under the overflow strategy."""
    cdef Session* session = subscription.session
    cdef int overflow = outbox.settings.overflow
    if subscription.lagging:
        outbox.counters.lagged += 1
        return
    if outbox_is_full(outbox, session):
        if overflow == OVERFLOW_BACKPRESSURE:
            subscription.lagging = True
            subscription.gap_from = message.offset
            session.flags |= FLAG_TARDY
            outbox.counters.lagged += 1
            return
        if overflow == OVERFLOW_DROP_NEWEST or (
                overflow == OVERFLOW_DROP_OLDEST and not drop_oldest(outbox, session)):
            note_drop(outbox, subscription, message.offset)
            return
    if mailbox_enqueue(&session.mailbox, message, subscription) < 0:
        note_drop(outbox, subscription, message.offset)
        return
    if overflow == OVERFLOW_BLOCK and not session.flags & FLAG_FULL and outbox_is_full(outbox, session):
        set_full(outbox, session, True)


cdef void note_drop(Outbox* outbox, Subscription* subscription, uint64_t offset) noexcept nogil:
    subscription.dropped += 1
    subscription.dropped_last = offset
    subscription.session.flags |= FLAG_TARDY
    outbox.counters.dropped += 1


cdef bint drop_oldest(Outbox* outbox, Session* session) noexcept nogil:
    """Drops the oldest message that belongs to a topic; replies in the queue stay. False when there is none."""
    cdef Mailbox* box = &session.mailbox
    cdef Queued entry
    cdef Queued replies[8]
    cdef uint32_t kept = 0, i
    cdef bint found = False
    while kept < 8 and mailbox_dequeue(box, &entry):
        if entry.subscription != NULL:
            note_drop(outbox, <Subscription*> entry.subscription, entry.message.offset)
            message_drop(&outbox.store.messages, entry.message)
            found = True
            break
        replies[kept] = entry
        kept += 1
    for i in range(kept):
        put_back(box, replies[kept - 1 - i])
    return found


cdef void put_back(Mailbox* box, Queued entry) noexcept nogil:
    """An entry that was just dequeued becomes the oldest again; there is room, unless the queue was emptied by it."""
    if box.queue_capacity == 0:
        mailbox_enqueue(box, entry.message, entry.subscription)
        entry.message.references -= 1
        return
    box.queue_head = (box.queue_head - 1) & (box.queue_capacity - 1)
    box.queue[box.queue_head] = entry
    box.queue_count += 1
    box.queue_bytes += entry.message.payload_size
    if entry.subscription == NULL:
        box.queue_replies += 1


cdef void set_full(Outbox* outbox, Session* session, bint full) noexcept nogil:
    cdef Subscription* subscription = <Subscription*> session.subscriptions
    if full:
        session.flags |= FLAG_FULL
    else:
        session.flags &= ~<uint32_t> FLAG_FULL
    session.since_ms = outbox.now_ms
    while subscription != NULL:
        if full:
            subscription.topic.full += 1
        else:
            subscription.topic.full -= 1
        subscription = subscription.next_of_session


cdef bint outbox_refill(Outbox* outbox, Session* session) noexcept:
    cdef Mailbox* box = &session.mailbox
    cdef Queued entry
    cdef size_t before = box.held.size
    while box.held.size - before < REFILL_BYTES and mailbox_dequeue(box, &entry):
        if append_queued(outbox, session, &entry) == 0:
            box.held_messages += 1
        message_drop(&outbox.store.messages, entry.message)
    if session.flags & FLAG_FULL and mailbox_messages(box) <= outbox.settings.mailbox_capacity // 2:
        set_full(outbox, session, False)
        outbox.relieved = True
    if box.held.size == before and session.flags & FLAG_TARDY:
        settle_gaps(outbox, session)
    if mailbox_has_bytes(box):
        return True
    session.flags &= ~<uint32_t> FLAG_BLOCKED
    return False


cdef int append_queued(Outbox* outbox, Session* session, const Queued* entry) noexcept:
    cdef Subscription* subscription = <Subscription*> entry.subscription
    cdef Slice frame
    if subscription == NULL:
        frame = message_payload(entry.message)
        return buffer_append(&session.mailbox.held, frame.data, frame.size)
    if subscription.dropped and entry.message.offset > subscription.dropped_last:
        tell_dropped(outbox, subscription)
    return append_message(outbox, session, subscription.topic, entry.message)


cdef int append_message(Outbox* outbox, Session* session, Topic* topic, Message* message) noexcept:
    """The message's frame behind what is held; compressed frames are made once per message and variant."""
    cdef Buffer* held = &session.mailbox.held
    cdef Form* form = message.forms
    cdef size_t before = held.size
    if left_out(outbox, session.variant, message):
        outbox.counters.untranscoded += 1
        return 0
    while form != NULL:
        if form.variant == session.variant:
            return buffer_append(held, &form.data[0], form.size)
        form = form.next
    outbox.text.size = 0
    if make_envelope(outbox, &outbox.text, variant_encoding(session.variant), topic, message) < 0:
        return -1
    if variant_frame(session.variant, outbox.text.data, outbox.text.size, outbox.settings.compression_threshold,
                     held) < 0:
        return -1
    if not variant_is_plain(session.variant) and outbox.text.size >= outbox.settings.compression_threshold:
        keep_form(message, session.variant, held.data + before, held.size - before)
    clear(&outbox.text)
    return 0


cdef void keep_form(Message* message, uint8_t variant, const uint8_t* data, size_t size) noexcept nogil:
    cdef Form* form = <Form*> malloc(sizeof(Form) + size)
    if form == NULL:
        return
    form.next = message.forms
    form.size = <uint32_t> size
    form.variant = variant
    memcpy(&form.data[0], data, size)
    message.forms = form


cdef void tell_lagged(Outbox* outbox, Session* session, const Topic* topic, uint64_t missed, uint64_t offset,
                      bint recovered) noexcept:
    cdef uint8_t epoch[EPOCH_SIZE]
    topic_epoch(topic, epoch)
    outbox.text.size = 0
    if write_lagged(&outbox.text, variant_encoding(session.variant), topic_name(topic), missed,
                    slice_of(epoch, EPOCH_SIZE), offset, recovered) < 0:
        return
    variant_frame(session.variant, outbox.text.data, outbox.text.size, outbox.settings.compression_threshold,
                  &session.mailbox.held)
    clear(&outbox.text)


cdef void tell_dropped(Outbox* outbox, Subscription* subscription) noexcept:
    tell_lagged(outbox, subscription.session, subscription.topic, subscription.dropped, subscription.dropped_last,
                False)
    subscription.dropped = 0


cdef void settle_gaps(Outbox* outbox, Session* session) noexcept:
    """The queue is empty: every gap that has not been told is, and what lags is caught up from the cache.

    Catching up goes on in pieces that fit a refill; FLAG_TARDY stays until nothing is left to do.
    """
    cdef Subscription* subscription = <Subscription*> session.subscriptions
    cdef bint more = False
    while subscription != NULL:
        if subscription.dropped:
            tell_dropped(outbox, subscription)
        if subscription.lagging:
            if session.mailbox.held.size >= REFILL_BYTES:
                more = True
            elif not catch_up(outbox, subscription):
                more = True
        subscription = subscription.next_of_session
    if not more:
        session.flags &= ~<uint32_t> FLAG_TARDY


cdef bint catch_up(Outbox* outbox, Subscription* subscription) noexcept:
    """Lagged, and what was missed from the cache if all of it is there. True when nothing lags any more."""
    cdef Session* session = subscription.session
    cdef Topic* topic = subscription.topic
    cdef Mailbox* box = &session.mailbox
    cdef uint64_t offset = subscription.gap_from, last = offset
    cdef size_t bytes = 0
    cdef Message* message
    # What is pending has an offset and is cached already; it must not come a second time with its run.
    outbox_flush_topic(outbox, topic)
    if topic_first(topic) > offset:
        tell_lagged(outbox, session, topic, topic.offset + 1 - offset, topic.offset, False)
        subscription.lagging = False
        return True
    while last <= topic.offset and bytes < REFILL_BYTES:
        bytes += topic_message(topic, last).payload_size + 64
        last += 1
    tell_lagged(outbox, session, topic, last - offset, last - 1, True)
    while offset < last:
        message = topic_message(topic, offset)
        if message.excluded != session.serial and append_message(outbox, session, topic, message) == 0:
            box.held_messages += 1
            outbox.counters.caught_up += 1
        offset += 1
    subscription.gap_from = last
    subscription.lagging = last <= topic.offset
    return not subscription.lagging


# --- ends

cdef void outbox_discard(Outbox* outbox, Session* session) noexcept:
    cdef Queued entry
    while mailbox_dequeue(&session.mailbox, &entry):
        message_drop(&outbox.store.messages, entry.message)
    if session.flags & FLAG_FULL:
        set_full(outbox, session, False)
        outbox.relieved = True


cdef void outbox_forget(Outbox* outbox, Subscription* subscription) noexcept:
    cdef Mailbox* box = &subscription.session.mailbox
    cdef uint32_t count = box.queue_count, i
    cdef Queued entry
    if subscription.session.flags & FLAG_FULL:
        subscription.topic.full -= 1
    for i in range(count):
        mailbox_dequeue(box, &entry)
        if entry.subscription != subscription:
            mailbox_enqueue(box, entry.message, entry.subscription)
        message_drop(&outbox.store.messages, entry.message)
