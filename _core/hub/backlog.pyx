"""Slow consumers; `backlog.pxd` is the contract."""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t, uint8_t
from libc.stdlib cimport malloc
from libc.string cimport memcpy

from realtime_communication._core.base.memory cimport Buffer, Slice, buffer_append, buffer_free, buffer_init, slice_of
from realtime_communication._core.hub.mailbox cimport (
    Mailbox,
    Queued,
    mailbox_dequeue,
    mailbox_enqueue,
    mailbox_has_bytes,
    mailbox_messages,
    mailbox_queued,
)
from realtime_communication._core.hub.message cimport Form, Message, message_drop, message_new, message_payload
from realtime_communication._core.hub.session cimport FLAG_BLOCKED, FLAG_FULL, FLAG_STARVED, FLAG_TARDY, Session
from realtime_communication._core.hub.settings cimport (
    OVERFLOW_BACKPRESSURE,
    OVERFLOW_BLOCK,
    OVERFLOW_DROP_NEWEST,
    OVERFLOW_DROP_OLDEST,
    QUEUE_BYTES,
)
from realtime_communication._core.hub.topics cimport (
    EPOCH_SIZE,
    TOPIC_INBOX,
    Subscription,
    Topic,
    topic_epoch,
    topic_first,
    topic_message,
    topic_name,
)
from realtime_communication._core.hub.variants cimport (
    message_envelope,
    trim,
    variant_encoding,
    variant_frame,
    variant_is_plain,
)
from realtime_communication._core.wire.outbound cimport write_lagged

cdef enum:
    REFILL_BYTES = 65536         # encoded at a time for a slow consumer


cdef bint mailbox_is_full(const Outbox* outbox, const Session* session) noexcept nogil:
    return mailbox_messages(&session.mailbox) >= outbox.settings.mailbox_capacity or (
        session.mailbox.queue_bytes > QUEUE_BYTES)


cdef void backlog_add(Outbox* outbox, Subscription* subscription, Message* message) noexcept:
    """One message for a blocked session, under the overflow strategy."""
    cdef Session* session = subscription.session
    cdef int overflow = outbox.settings.overflow
    if subscription.lagging:
        outbox.counters.lagged += 1
        return
    if mailbox_is_full(outbox, session):
        if overflow == OVERFLOW_BACKPRESSURE:
            subscription.lagging = True
            subscription.gap_from = message.offset
            session.flags |= FLAG_TARDY
            outbox.counters.lagged += 1
            return
        if overflow == OVERFLOW_DROP_NEWEST:
            note_drop(outbox, subscription, message.offset)
            return
        # Small messages may have to go for one large one. The newest is kept in any case: one above the bound at most.
        while overflow == OVERFLOW_DROP_OLDEST and mailbox_is_full(outbox, session) and drop_oldest(outbox, session):
            pass
    if subscription.dropped and overflow != OVERFLOW_DROP_OLDEST:
        queue_lagged(outbox, subscription)
        if subscription.dropped:
            note_drop(outbox, subscription, message.offset)
            return
    if mailbox_enqueue(&session.mailbox, message, subscription) < 0:
        note_drop(outbox, subscription, message.offset)
        return
    if overflow in (OVERFLOW_BLOCK, OVERFLOW_BACKPRESSURE) and not session.flags & FLAG_FULL and (
            mailbox_is_full(outbox, session)):
        set_full(outbox, session, True)


cdef void note_drop(Outbox* outbox, Subscription* subscription, uint64_t offset) noexcept nogil:
    subscription.dropped += 1
    subscription.dropped_last = offset
    subscription.session.flags |= FLAG_TARDY
    outbox.counters.dropped += 1


cdef bint drop_oldest(Outbox* outbox, Session* session) noexcept nogil:
    """Drops the oldest message that belongs to a topic; replies in the queue stay. False when there is none."""
    cdef Mailbox* box = &session.mailbox
    cdef Queued victim
    cdef Queued reply
    cdef uint32_t at = 0
    while at < box.queue_count and mailbox_queued(box, at).subscription == NULL:
        at += 1
    if at == box.queue_count:
        return False
    victim = mailbox_queued(box, at)[0]
    while at:
        # The replies in front of it move up; its place becomes that of the oldest entry.
        reply = mailbox_queued(box, at - 1)[0]
        mailbox_queued(box, at)[0] = reply
        at -= 1
    mailbox_queued(box, 0)[0] = victim
    mailbox_dequeue(box, &victim)
    note_drop(outbox, <Subscription*> victim.subscription, victim.message.offset)
    message_drop(&outbox.store.messages, victim.message)
    return True


cdef void set_full(Outbox* outbox, Session* session, bint full) noexcept nogil:
    cdef Subscription* subscription = <Subscription*> session.subscriptions
    if full:
        session.flags |= FLAG_FULL
    else:
        session.flags &= ~<uint32_t> FLAG_FULL
    session.since_ms = outbox.now_ms
    while subscription != NULL:
        backlog_count_full(outbox, subscription.topic, 1 if full else -1)
        subscription = subscription.next_of_session


cdef void backlog_count_full(Outbox* outbox, Topic* topic, int more) noexcept nogil:
    cdef bint before = topic.full != 0
    topic.full = <uint32_t> (<int> topic.full + more)
    if before != (topic.full != 0):
        backlog_note_full(outbox, topic)


cdef void backlog_note_full(Outbox* outbox, Topic* topic) noexcept nogil:
    if not topic.full_listed:
        topic.full_listed = True
        topic.next_full = outbox.full_first
        outbox.full_first = topic


cdef bint backlog_refill(Outbox* outbox, Session* session) noexcept:
    cdef Mailbox* box = &session.mailbox
    cdef Queued entry
    cdef size_t before = box.held.size
    cdef uint32_t most = backlog_encoded_most(outbox.settings)
    while box.held.size - before < REFILL_BYTES and box.held_messages < most and not session.flags & FLAG_STARVED and (
            mailbox_dequeue(box, &entry)):
        if append_queued(outbox, session, &entry) == 0:
            box.held_messages += 1
        elif entry.subscription == NULL or box.queue_count:
            session.flags |= FLAG_STARVED    # a reply, or a message that others follow already, cannot be skipped
        else:
            note_drop(outbox, <Subscription*> entry.subscription, entry.message.offset)
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
    if subscription.dropped and outbox.settings.overflow == OVERFLOW_DROP_OLDEST and (
            entry.message.offset > subscription.dropped_last):
        tell_dropped(outbox, subscription)
        if session.flags & FLAG_STARVED:
            return -1
    return append_message(outbox, session, subscription.topic, entry.message)


cdef int append_message(Outbox* outbox, Session* session, Topic* topic, Message* message) noexcept:
    """The message's frame behind what is held; compressed frames are made once per message and variant."""
    cdef Buffer* held = &session.mailbox.held
    cdef Form* form = message.forms
    cdef size_t before = held.size
    if is_left_out(outbox, session.variant, message):
        outbox.counters.untranscoded += 1
        return 0
    while form != NULL:
        if form.variant == session.variant:
            return buffer_append(held, &form.data[0], form.size)
        form = form.next
    outbox.text.size = 0
    if message_envelope(&outbox.text, &outbox.piece, variant_encoding(session.variant), topic.kind == TOPIC_INBOX,
                        topic_name(topic), message) < 0:
        return -1
    if variant_frame(session.variant, outbox.text.data, outbox.text.size, outbox.settings.compression_threshold,
                     held) < 0:
        return -1
    if not variant_is_plain(session.variant) and outbox.text.size >= outbox.settings.compression_threshold:
        keep_form(message, session.variant, held.data + before, held.size - before)
    trim(&outbox.text)
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


cdef int append_lagged(Outbox* outbox, Buffer* out, Session* session, const Topic* topic, uint64_t missed,
                       uint64_t offset, bint recovered) noexcept:
    """Appends the frame of a Lagged; 0, or -1 without memory."""
    cdef uint8_t epoch[EPOCH_SIZE]
    cdef int result
    topic_epoch(topic, epoch)
    outbox.text.size = 0
    if write_lagged(&outbox.text, variant_encoding(session.variant), topic_name(topic), missed,
                    slice_of(epoch, EPOCH_SIZE), offset, recovered) < 0:
        return -1
    result = variant_frame(session.variant, outbox.text.data, outbox.text.size,
                           outbox.settings.compression_threshold, out)
    trim(&outbox.text)
    return result


cdef void tell_lagged(Outbox* outbox, Session* session, const Topic* topic, uint64_t missed, uint64_t offset,
                      bint recovered) noexcept:
    if append_lagged(outbox, &session.mailbox.held, session, topic, missed, offset, recovered) < 0:
        session.flags |= FLAG_STARVED


cdef void queue_lagged(Outbox* outbox, Subscription* subscription) noexcept:
    """Puts the Lagged of a gap behind the queue, where the gap is; without memory it is told later and covers more."""
    cdef Session* session = subscription.session
    cdef Buffer frame
    cdef Message* raw = NULL
    buffer_init(&frame)
    if append_lagged(outbox, &frame, session, subscription.topic, subscription.dropped, subscription.dropped_last,
                     False) == 0:
        raw = message_new(&outbox.store.messages, slice_of(NULL, 0), slice_of(frame.data, frame.size), 0)
    if raw != NULL:
        raw.raw = True
        if mailbox_enqueue(&session.mailbox, raw, NULL) == 0:
            subscription.dropped = 0
        message_drop(&outbox.store.messages, raw)
    buffer_free(&frame)


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
            if session.mailbox.held.size >= REFILL_BYTES or mailbox_is_full(outbox, session):
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
    cdef uint32_t room
    cdef Message* message
    if topic_first(topic) > offset:
        tell_lagged(outbox, session, topic, topic.offset + 1 - offset, topic.offset, False)
        subscription.lagging = False
        return True
    room = outbox.settings.mailbox_capacity - mailbox_messages(box)
    while last <= topic.offset and bytes < REFILL_BYTES and last - offset < room:
        bytes += topic_message(topic, last).payload_size + 64
        last += 1
    tell_lagged(outbox, session, topic, last - offset, last - 1, True)
    while offset < last:
        message = topic_message(topic, offset)
        if message.excluded != session.serial:
            if append_message(outbox, session, topic, message) < 0:
                session.flags |= FLAG_STARVED
                return True
            box.held_messages += 1
            outbox.counters.caught_up += 1
        offset += 1
    subscription.gap_from = last
    subscription.lagging = last <= topic.offset
    return not subscription.lagging


cdef void backlog_discard(Outbox* outbox, Session* session) noexcept:
    cdef Queued entry
    while mailbox_dequeue(&session.mailbox, &entry):
        message_drop(&outbox.store.messages, entry.message)
    if session.flags & FLAG_FULL:
        set_full(outbox, session, False)
        outbox.relieved = True


cdef uint32_t purge(Outbox* outbox, Subscription* subscription) noexcept:
    """Takes the subscription's messages out of the queue; how many there were."""
    cdef Session* session = subscription.session
    cdef Mailbox* box = &session.mailbox
    cdef uint32_t count = box.queue_count, kept = 0, i
    cdef Queued entry
    for i in range(count):  # no-cython-lint
        mailbox_dequeue(box, &entry)
        if entry.subscription != subscription:
            if mailbox_enqueue(box, entry.message, entry.subscription) < 0:
                session.flags |= FLAG_STARVED
            kept += 1
        message_drop(&outbox.store.messages, entry.message)
    return count - kept


cdef void backlog_forget(Outbox* outbox, Subscription* subscription) noexcept:
    if subscription.session.flags & FLAG_FULL:
        backlog_count_full(outbox, subscription.topic, -1)
        outbox.relieved = True
    purge(outbox, subscription)


cdef void backlog_begin_epoch(Outbox* outbox, Subscription* subscription) noexcept:
    subscription.dropped = 0
    if outbox.settings.overflow == OVERFLOW_DROP_OLDEST:
        outbox.counters.dropped += purge(outbox, subscription)


cdef void backlog_restart(Outbox* outbox, Subscription* subscription, bint silent) noexcept:
    cdef uint64_t missed
    if not silent and not subscription.lagging and not subscription.dropped and (
            outbox.settings.overflow != OVERFLOW_DROP_OLDEST):
        return                   # all that waits comes before the reply, without a gap
    missed = purge(outbox, subscription) + subscription.dropped
    if subscription.lagging:
        missed += subscription.topic.offset + 1 - subscription.gap_from
    subscription.lagging = False
    subscription.dropped = 0
    if missed and not silent:
        subscription.dropped = <uint32_t> missed
        subscription.dropped_last = subscription.topic.offset
        queue_lagged(outbox, subscription)
