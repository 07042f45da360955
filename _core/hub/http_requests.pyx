"""Requests of no session; `http_requests.pxd` is the contract."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from realtime_communication._core.base.memory cimport Buffer, Slice, buffer_free, buffer_init, slice_of
from realtime_communication._core.hub.core cimport Core
from realtime_communication._core.hub.message cimport Message, message_payload, message_sender
from realtime_communication._core.hub.outbox cimport outbox_flush_topic, outbox_reply
from realtime_communication._core.hub.peers cimport AUTHORITY_ARRIVING, AUTHORITY_HERE
from realtime_communication._core.hub.publications cimport is_reserved, start
from realtime_communication._core.hub.relay cimport ask_given, epoch_number
from realtime_communication._core.hub.requests cimport page_range, subscribe, unsubscribe
from realtime_communication._core.hub.session cimport (
    PERMISSION_ADMIN,
    SESSION_OPEN,
    Session,
    session_id,
    session_info,
)
from realtime_communication._core.hub.settings cimport REPLY_BYTES
from realtime_communication._core.hub.topics cimport (
    EPOCH_SIZE,
    TOPIC_INBOX,
    TOPIC_PLAIN,
    Subscription,
    Topic,
    subscription_find,
    topic_epoch,
    topic_find,
    topic_message,
    topic_release,
)
from realtime_communication._core.hub.users cimport User, user_find, user_id as name_of_user
from realtime_communication._core.hub.variants cimport variant_encoding
from realtime_communication._core.wire.envelope cimport (
    JSON_TEXT,
    REQUEST_SUBSCRIBE,
    REQUEST_UNSUBSCRIBE,
    Request,
    topic_valid,
)
from realtime_communication._core.wire.outbound cimport (
    write_list_tail,
    write_presence_member,
    write_stored_message,
    write_subscribed_head,
    write_unsubscribed,
)
from realtime_communication._core.hub.publications import RequestError

cdef enum:
    DIGITS = 32                  # of a session's id


cdef bytes checked_name(str topic, bint reserved_too):
    """The name of a topic, with `reserved_too` also of an inbox. Raises RequestError."""
    cdef bytes name
    cdef Slice slice
    try:
        name = topic.encode()
    except UnicodeEncodeError:
        name = b""
    slice = slice_of(<const uint8_t*> name, len(name))
    if not topic_valid(slice):
        raise RequestError("topic_invalid", "topic: must have 1 to 255 bytes, without control characters and *")
    if not reserved_too and is_reserved(slice):
        raise RequestError("forbidden", "topic: names that begin with @ or $ are the server's own")
    return name


cdef void describe(Request* request, int type, bytes topic) noexcept:
    memset(request, 0, sizeof(Request))
    request.type = type
    request.encoding = JSON_TEXT
    request.history = -1
    request.limit = -1
    request.topic = slice_of(<const uint8_t*> topic, len(topic))


cdef User* live_user(Core core, bytes name) noexcept:
    return user_find(&core.users, slice_of(<const uint8_t*> name, len(name)))


cdef int subscribe_user(Core core, str user_id, str topic) except -1:
    cdef bytes name = checked_name(topic, False)
    cdef User* user = live_user(core, user_id.encode())
    cdef Session* session = user.sessions if user != NULL else NULL
    cdef Session* following
    cdef Request request
    cdef int count = 0
    describe(&request, REQUEST_SUBSCRIBE, name)
    while session != NULL:
        following = session.next_of_user
        if session.state == SESSION_OPEN and is_subscribed(core, session, request.topic):
            count += 1
        elif session.state == SESSION_OPEN:
            # What an administrator wants needs no permission of the session's own.
            count += give(core, session, &request)
        session = following
    return count


cdef bint give(Core core, Session* session, const Request* request) noexcept:
    """Subscribes the session, now or when the topic's home has answered; False when that cannot be."""
    cdef Topic* topic = core.open_topic(request.topic, TOPIC_PLAIN)
    cdef uint8_t permissions = session.permissions
    cdef bint given
    if topic == NULL:
        return False
    if topic.authority != AUTHORITY_HERE and not topic.synced:
        given = topic.authority != AUTHORITY_ARRIVING and ask_given(core, session, topic) == 0
        topic_release(&core.store, topic)
        return given
    session.permissions = permissions | PERMISSION_ADMIN
    subscribe(core, session, request)
    session.permissions = permissions
    topic_release(&core.store, topic)
    return tell_subscribed(core, session, request)


cdef void given_answered(Core core, Session* session, Slice name) noexcept:
    cdef Request request
    describe(&request, REQUEST_SUBSCRIBE, (<const char*> name.data)[:name.size])
    request.topic = name
    if session.state == SESSION_OPEN and not is_subscribed(core, session, name):
        give(core, session, &request)


cdef bint is_subscribed(Core core, Session* session, Slice name) noexcept:
    cdef Topic* topic = topic_find(&core.store, name)
    return topic != NULL and subscription_find(&core.store, session, topic) != NULL


cdef bint tell_subscribed(Core core, Session* session, const Request* request) noexcept:
    """Whether the session is subscribed now; then it is told."""
    cdef Topic* topic = topic_find(&core.store, request.topic)
    cdef uint8_t epoch[EPOCH_SIZE]
    cdef int encoding = variant_encoding(session.variant)
    cdef Buffer* out
    if not is_subscribed(core, session, request.topic):
        return False
    topic_epoch(topic, epoch)
    out = start(core)
    if write_subscribed_head(
            out, encoding, request, request.topic, slice_of(epoch, EPOCH_SIZE), topic.offset, False, 0) == 0 \
            and write_list_tail(out, encoding) == 0:
        outbox_reply(&core.outbox, session, True)
    return True


cdef int unsubscribe_user(Core core, str user_id, str topic) except -1:
    cdef bytes name = checked_name(topic, False)
    cdef User* user = live_user(core, user_id.encode())
    cdef Session* session = user.sessions if user != NULL else NULL
    cdef Session* following
    cdef Request request
    cdef int count = 0
    describe(&request, REQUEST_UNSUBSCRIBE, name)
    while session != NULL:
        following = session.next_of_user
        if session.state == SESSION_OPEN and is_subscribed(core, session, request.topic):
            unsubscribe(core, session, &request)
            if write_unsubscribed(start(core), variant_encoding(session.variant), &request, request.topic) == 0:
                outbox_reply(&core.outbox, session, True)
            count += 1
        session = following
    return count


cdef bytes members_of(Core core, str topic):
    cdef bytes name = checked_name(topic, True)
    cdef Topic* found = topic_find(&core.store, slice_of(<const uint8_t*> name, len(name)))
    cdef Subscription* subscription
    cdef Buffer out
    cdef uint8_t digits[DIGITS]
    cdef Slice info
    cdef size_t shown = 0
    cdef uint32_t i, j
    if found == NULL:
        return b"[]"
    buffer_init(&out)
    try:
        for i in range(found.group_count):
            for j in range(found.groups[i].count):
                subscription = found.groups[i].items[j].subscription
                session_id(subscription.session, digits)
                info = session_info(subscription.session)
                shown += info.size
                if shown > REPLY_BYTES:
                    info.size = 0    # everybody is named, but not everybody described
                if write_presence_member(&out, JSON_TEXT, out.size == 0,
                                         name_of_user(<User*> subscription.session.user), slice_of(digits, DIGITS),
                                         subscription.joined_at, info) < 0:
                    raise MemoryError
        return array_of(&out)
    finally:
        buffer_free(&out)


cdef bytes array_of(const Buffer* items):
    return b"[%b]" % (<const char*> items.data)[:items.size] if items.size else b"[]"


cdef tuple page_of(Core core, str topic, str epoch, unsigned long long offset, int limit, bint reverse, bint fresh):
    cdef bytes name = checked_name(topic, True)
    cdef bytes position = epoch.encode() if epoch is not None else b""
    cdef Topic* found
    cdef Message* message
    cdef Request request
    cdef Buffer out
    cdef uint8_t newest[EPOCH_SIZE]
    cdef uint64_t first = 0, last = 0, step
    describe(&request, 0, name)
    request.limit = limit
    request.reverse = reverse
    request.has_position = epoch is not None
    request.epoch = slice_of(<const uint8_t*> position, len(position))
    request.offset = offset
    found = topic_find(&core.store, request.topic)
    if found == NULL and not fresh:
        return None
    found = core.open_topic(request.topic, TOPIC_INBOX if is_reserved(request.topic) else TOPIC_PLAIN)
    if found == NULL:
        raise MemoryError
    outbox_flush_topic(&core.outbox, found)
    page_range(found, request.has_position, epoch_number(request.epoch), offset, <uint64_t> limit, reverse, &first,
               &last)
    topic_epoch(found, newest)
    buffer_init(&out)
    try:
        for step in range(last + 1 - first):
            message = topic_message(found, last - step if reverse else first + step)
            if not core.settings.transcoding and message.encoding != JSON_TEXT:
                continue
            if write_stored_message(&out, JSON_TEXT, out.size == 0, message.offset, message.ts,
                                    message_sender(message), message_payload(message), message.encoding) < 0:
                raise MemoryError
        return (<const char*> newest)[:EPOCH_SIZE].decode(), found.offset, array_of(&out)
    finally:
        buffer_free(&out)
        topic_release(&core.store, found)
