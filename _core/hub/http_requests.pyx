"""Requests of no session; `http_requests.pxd` is the contract."""

from libc.stdint cimport uint8_t
from libc.string cimport memset

from realtime_communication._core.base.memory cimport Buffer, Slice, slice_of
from realtime_communication._core.hub.core cimport Core
from realtime_communication._core.hub.outbox cimport outbox_reply
from realtime_communication._core.hub.outcome cimport start
from realtime_communication._core.hub.peers cimport AUTHORITY_ARRIVING, AUTHORITY_HERE
from realtime_communication._core.hub.permissions cimport is_reserved
from realtime_communication._core.hub.relay cimport ask_given
from realtime_communication._core.hub.session cimport (
    PERMISSION_ADMIN,
    SESSION_OPEN,
    Session,
)
from realtime_communication._core.hub.subscriptions cimport enter_topic, subscribe, unsubscribe
from realtime_communication._core.hub.topics cimport (
    EPOCH_SIZE,
    TOPIC_PLAIN,
    Topic,
    subscription_find,
    topic_epoch,
    topic_find,
    topic_release,
)
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
    write_subscribed_head,
    write_unsubscribed,
)
from realtime_communication._core.hub.outcome import RequestError


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


cdef bytes checked_topic(str topic):
    return checked_name(topic, False)


cdef bint subscribe_session(Core core, Session* session, bytes topic) noexcept:
    cdef Request request
    describe(&request, REQUEST_SUBSCRIBE, topic)
    # What an administrator wants needs no permission of the session's own.
    return is_subscribed(core, session, request.topic) or give(core, session, &request)


cdef bint unsubscribe_session(Core core, Session* session, bytes topic) noexcept:
    cdef Request request
    describe(&request, REQUEST_UNSUBSCRIBE, topic)
    if not is_subscribed(core, session, request.topic):
        return False
    unsubscribe(core, session, &request)
    if write_unsubscribed(start(core), variant_encoding(session.variant), &request, request.topic) == 0:
        outbox_reply(&core.outbox, session, True)
    return True


cdef bint give(Core core, Session* session, const Request* request) noexcept:
    """Subscribes the session, now or when the topic's home has answered; False when that cannot be."""
    cdef Topic* topic = core.open_topic(request.topic, TOPIC_PLAIN)
    cdef uint8_t permissions = session.permissions
    cdef bint given
    if topic == NULL:
        return False
    if topic.authority != AUTHORITY_HERE:
        given = topic.authority != AUTHORITY_ARRIVING and ask_given(core, session, topic) == 0
        topic_release(&core.store, topic)
        return given
    # Not held any longer: `subscribe` opens it for itself, and frees it when the session cannot be subscribed.
    topic_release(&core.store, topic)
    session.permissions = permissions | PERMISSION_ADMIN
    subscribe(core, session, request)
    session.permissions = permissions
    return tell_subscribed(core, session, request)


cdef void given_answered(Core core, Session* session, Slice name) noexcept:
    cdef Request request
    cdef Topic* topic
    describe(&request, REQUEST_SUBSCRIBE, (<const char*> name.data)[:name.size])
    request.topic = name
    topic = topic_find(&core.store, name)
    if topic != NULL and session.state == SESSION_OPEN and not is_subscribed(core, session, name) and enter_topic(
            core, session, &request, topic):
        tell_subscribed(core, session, &request)


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
