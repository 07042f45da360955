"""Requests; `requests.pxd` is the contract."""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t, uint8_t

from realtime_communication._core.base.memory cimport Buffer, Slice, slice_of
from realtime_communication._core.hub.backlog cimport backlog_restart
from realtime_communication._core.hub.core cimport Core
from realtime_communication._core.hub.message cimport Message, message_payload, message_sender
from realtime_communication._core.hub.outbox cimport outbox_flush_topic, outbox_reply
from realtime_communication._core.hub.pending cimport Pending, pending_bind
from realtime_communication._core.hub.publications cimport (
    NO_RETRY,
    OUTCOME_DONE,
    OUTCOME_PENDING,
    OUTCOME_UNAUTHORIZED,
    broadcast,
    direct_message,
    is_reserved,
    no_memory,
    start,
)
from realtime_communication._core.hub.session cimport (
    PERMISSION_ADMIN,
    PERMISSION_READ,
    PERMISSION_SUBSCRIBE,
    SESSION_ANONYMOUS,
    Session,
    patterns_match,
    session_id,
    session_info,
)
from realtime_communication._core.hub.settings cimport MAX_SUBSCRIPTIONS, REPLY_BYTES
from realtime_communication._core.hub.topics cimport (
    EPOCH_SIZE,
    TOPIC_PLAIN,
    Subscription,
    Topic,
    subscription_find,
    subscription_watch,
    topic_epoch,
    topic_epoch_is,
    topic_find,
    topic_first,
    topic_message,
    topic_name,
    topic_open,
    topic_release,
)
from realtime_communication._core.hub.users cimport User, user_id
from realtime_communication._core.hub.variants cimport variant_encoding
from realtime_communication._core.wire.envelope cimport (
    ERROR_BAD_REQUEST,
    ERROR_FORBIDDEN,
    ERROR_UNAUTHORIZED,
    ERROR_UNAVAILABLE,
    REQUEST_AUTHENTICATE,
    REQUEST_BROADCAST,
    REQUEST_DIRECT_MESSAGE,
    REQUEST_HISTORY,
    REQUEST_PING,
    REQUEST_PRESENCE,
    REQUEST_REFRESH,
    REQUEST_SUBSCRIBE,
    REQUEST_UNSUBSCRIBE,
    Request,
    error_code_of,
)
from realtime_communication._core.wire.outbound cimport (
    write_connected,
    write_history_page_head,
    write_list_tail,
    write_pong,
    write_presence_member,
    write_presence_state_head,
    write_refreshed,
    write_stored_message,
    write_subscribed_head,
    write_unsubscribed,
)

cdef enum:
    DEFAULT_LIMIT = 100          # messages of a HistoryPage when the request names no limit


# --- permissions

cdef inline bint may(const Session* session, int permission) noexcept nogil:
    return session.permissions & (permission | PERMISSION_ADMIN) != 0


cdef bint is_own_inbox(const Session* session, Slice topic) noexcept nogil:
    cdef Slice name = user_id(<User*> session.user)
    cdef size_t i
    if topic.size != name.size + 1 or topic.data[0] != b"@":
        return False
    for i in range(name.size):
        if topic.data[i + 1] != name.data[i]:
            return False
    return True


cdef const char* forbidden_to_subscribe(const Session* session, Slice topic) noexcept nogil:
    if not may(session, PERMISSION_SUBSCRIBE):
        return b"the token lacks the permission subscribe"
    if is_reserved(topic):
        return b"topic: names that begin with @ or $ cannot be subscribed to"
    if not session.permissions & PERMISSION_ADMIN and not patterns_match(session.subscribe_patterns, topic):
        return b"topic: outside the topics that the token may subscribe to"
    return NULL


cdef const char* forbidden_to_read(const Session* session, Slice topic) noexcept nogil:
    if not may(session, PERMISSION_READ):
        return b"the token lacks the permission read"
    if is_own_inbox(session, topic):
        return NULL
    if is_reserved(topic):
        return b"topic: names that begin with @ or $ cannot be read"
    if not session.permissions & PERMISSION_ADMIN and not patterns_match(session.subscribe_patterns, topic):
        return b"topic: outside the topics that the token may subscribe to"
    return NULL


# --- the way in

cdef int handle_request(Core core, Session* session, const Request* request) noexcept:
    cdef int type = request.type
    if session.state == SESSION_ANONYMOUS and type != REQUEST_AUTHENTICATE:
        core.error(session, request, ERROR_UNAUTHORIZED, b"type: the first message must be Authenticate",
                   NO_RETRY, NULL)
        return OUTCOME_UNAUTHORIZED
    if session.state == SESSION_ANONYMOUS or type == REQUEST_REFRESH:
        return check_credential(core, session, request)
    if type == REQUEST_BROADCAST:
        return broadcast(core, session, request)
    if type == REQUEST_DIRECT_MESSAGE:
        return direct_message(core, session, request)
    if type == REQUEST_PING:
        if write_pong(start(core), variant_encoding(session.variant), request, core.wall_ms) == 0:
            reply(core, session, request, False)
    elif type == REQUEST_SUBSCRIBE:
        subscribe(core, session, request)
    elif type == REQUEST_UNSUBSCRIBE:
        unsubscribe(core, session, request)
    elif type == REQUEST_PRESENCE:
        presence(core, session, request)
    elif type == REQUEST_HISTORY:
        history(core, session, request)
    else:
        core.error(session, request, ERROR_BAD_REQUEST, b"type: already authenticated; Refresh takes a new token",
                   NO_RETRY, NULL)
    return OUTCOME_DONE


cdef void reply(Core core, Session* session, const Request* request, bint in_order) noexcept:
    """Send what was written, if the request asked for a reply by an id."""
    if request.id_kind:
        outbox_reply(&core.outbox, session, in_order)


# --- authentication

cdef object verify(Core core, Session* session, const Request* request):
    """The identity of the request's credential, or (code, message), or a Pending that is not settled."""
    cdef str token = None
    cdef str api_key = None
    try:
        if request.token.data != NULL:
            token = (<const char*> request.token.data)[:request.token.size].decode()
        if request.api_key.data != NULL:
            api_key = (<const char*> request.api_key.data)[:request.api_key.size].decode()
        answer = core.authenticate(token, api_key, core.peer_of(session))
        if isinstance(answer, Pending) and (<Pending> answer).settled:
            return (<Pending> answer).answer
        return answer
    except Exception:
        return ("internal", "the credential could not be checked")


cdef void send_failure(Core core, Session* session, const Request* request, object failure) noexcept:
    cdef bytes code = str(failure[0]).encode()
    cdef bytes message = str(failure[1]).encode()
    cdef int number = error_code_of(slice_of(<const uint8_t*> code, len(code)))
    core.error(session, request, number if number else ERROR_UNAUTHORIZED, message, NO_RETRY, NULL)


cdef int check_credential(Core core, Session* session, const Request* request) noexcept:
    answer = verify(core, session, request)
    if isinstance(answer, Pending):
        try:
            pending_bind(answer, core, session, request, None)
            return OUTCOME_PENDING
        except Exception:
            answer = ("internal", "the credential could not be checked")
    return take_credential(core, session, request, answer)


cdef int take_credential(Core core, Session* session, const Request* request, object answer) noexcept:
    if isinstance(answer, tuple):
        if len(answer) != 2:
            answer = ("internal", "the credential could not be checked")
        core.counters.auth_failures += 1
        send_failure(core, session, request, answer)
        return OUTCOME_UNAUTHORIZED if session.state == SESSION_ANONYMOUS else OUTCOME_DONE
    if session.state == SESSION_ANONYMOUS:
        return authenticate(core, session, request, answer)
    refresh(core, session, request, answer)
    return OUTCOME_DONE


cdef int authenticate(Core core, Session* session, const Request* request, object identity) noexcept:
    try:
        core.attach(session, identity)
    except Exception:
        core.error(session, request, ERROR_UNAVAILABLE, b"the session could not be opened", NO_RETRY, NULL)
        return OUTCOME_UNAUTHORIZED
    core.renew(session)
    welcome(core, session, request)
    return OUTCOME_DONE


cdef void welcome(Core core, Session* session, const Request* request) noexcept:
    cdef uint8_t digits[32]
    cdef Slice node = slice_of(<const uint8_t*> core.node_id, len(core.node_id))
    session_id(session, digits)
    if write_connected(start(core), variant_encoding(session.variant), request, slice_of(digits, 32),
                       user_id(<User*> session.user), node, core.settings.heartbeat_ms / 1000.0, session.expires_at,
                       session.refresh_at) == 0:
        outbox_reply(&core.outbox, session, False)


cdef void refresh(Core core, Session* session, const Request* request, object identity) noexcept:
    cdef bytes name
    cdef Slice user = user_id(<User*> session.user)
    try:
        name = (<str> identity.user_id).encode()
        if name != (<const char*> user.data)[:user.size]:
            core.error(session, request, ERROR_UNAUTHORIZED, b"token: belongs to another user", NO_RETRY, NULL)
            return
        core.grant(session, identity)
    except Exception:
        core.error(session, request, ERROR_UNAVAILABLE, b"the token could not be taken over", NO_RETRY, NULL)
        return
    core.renew(session)
    if write_refreshed(start(core), variant_encoding(session.variant), request, session.expires_at,
                       session.refresh_at) == 0:
        reply(core, session, request, False)


# --- topics

cdef void subscribe(Core core, Session* session, const Request* request) noexcept:
    cdef const char* refused = forbidden_to_subscribe(session, request.topic)
    cdef Topic* topic
    cdef Subscription* subscription
    if refused != NULL:
        core.error(session, request, ERROR_FORBIDDEN, refused, NO_RETRY, NULL)
        return
    topic = topic_open(&core.store, request.topic, TOPIC_PLAIN)
    if topic == NULL:
        no_memory(core, session, request)
        return
    subscription = subscription_find(&core.store, session, topic)
    if subscription == NULL:
        if session.subscription_count >= MAX_SUBSCRIPTIONS:
            topic_release(&core.store, topic)
            core.error(session, request, ERROR_FORBIDDEN, b"topic: a connection may have at most 4096 subscriptions",
                       NO_RETRY, NULL)
            return
        subscription = core.join(session, topic)
        if subscription == NULL:
            topic_release(&core.store, topic)
            no_memory(core, session, request)
            return
    outbox_flush_topic(&core.outbox, topic)
    backlog_restart(&core.outbox, subscription, request.has_position)
    subscription_watch(subscription, request.presence)
    if request.id_kind:
        send_subscribed(core, session, request, topic)


cdef void send_subscribed(Core core, Session* session, const Request* request, const Topic* topic) noexcept:
    """What was missed, complete or not at all; otherwise the newest messages, if some were asked for."""
    cdef uint64_t first = topic.offset + 1
    cdef bint recovered = False
    if request.has_position and topic_epoch_is(topic, request.epoch) and request.offset <= topic.offset:
        if request.offset + 1 >= topic_first(topic) and fits(topic, request.offset + 1, topic.offset):
            recovered = True
            first = request.offset + 1
    if not recovered and request.history > 0:
        first = topic_first(topic)
        if topic.offset + 1 - first > <uint64_t> request.history:
            first = topic.offset + 1 - <uint64_t> request.history
        while not fits(topic, first, topic.offset):
            first += (topic.offset + 2 - first) // 2
    cdef uint8_t epoch[EPOCH_SIZE]
    cdef int encoding = variant_encoding(session.variant)
    topic_epoch(topic, epoch)
    if write_subscribed_head(start(core), encoding, request, topic_name(topic), slice_of(epoch, EPOCH_SIZE),
                             topic.offset, recovered, readable(core, session, topic, first, topic.offset)) < 0:
        no_memory(core, session, request)
        return
    # Behind what waits: messages from before an Unsubscribe, and its reply, come first.
    send_stored(core, session, request, topic, first, topic.offset, False, True)


cdef bint is_readable(Core core, const Session* session, const Message* message) noexcept nogil:
    return core.settings.transcoding or message.encoding == variant_encoding(session.variant)


cdef uint32_t readable(
    Core core, const Session* session, const Topic* topic, uint64_t first, uint64_t last
) noexcept nogil:
    """How many of the cached messages first..last the session can be given."""
    cdef uint32_t count = 0
    if core.settings.transcoding:
        return <uint32_t> (last + 1 - first)
    while first <= last:
        count += is_readable(core, session, topic_message(topic, first))
        first += 1
    return count


cdef bint fits(const Topic* topic, uint64_t first, uint64_t last) noexcept nogil:
    """Whether the payloads of first..last together are within the bound of one reply."""
    cdef uint64_t bytes = 0
    while first <= last:
        bytes += topic_message(topic, first).payload_size
        if bytes > REPLY_BYTES:
            return False
        first += 1
    return True


cdef void send_stored(Core core, Session* session, const Request* request, const Topic* topic, uint64_t first,
                      uint64_t last, bint reverse, bint in_order) noexcept:
    """Writes the cached messages first..last behind a head, ends the list and sends it."""
    cdef Buffer* out = &core.outbox.text
    cdef int encoding = variant_encoding(session.variant)
    cdef uint64_t steps = last + 1 - first, i
    cdef Message* message
    cdef bint empty = True
    for i in range(steps):
        message = topic_message(topic, last - i if reverse else first + i)
        if not is_readable(core, session, message):
            continue
        if write_stored_message(out, encoding, empty, message.offset, message.ts, message_sender(message),
                                message_payload(message), message.encoding) < 0:
            no_memory(core, session, request)
            return
        empty = False
    if write_list_tail(out, encoding) == 0:
        outbox_reply(&core.outbox, session, in_order)


cdef void unsubscribe(Core core, Session* session, const Request* request) noexcept:
    cdef Topic* topic = topic_find(&core.store, request.topic)
    cdef Subscription* subscription
    if is_reserved(request.topic):
        core.error(session, request, ERROR_FORBIDDEN,
                   b"topic: names that begin with @ or $ cannot be unsubscribed from",
                   NO_RETRY, NULL)
        return
    if topic != NULL:
        subscription = subscription_find(&core.store, session, topic)
        if subscription != NULL:
            core.part(subscription, False)
    if write_unsubscribed(start(core), variant_encoding(session.variant), request, request.topic) == 0:
        reply(core, session, request, True)


cdef void presence(Core core, Session* session, const Request* request) noexcept:
    cdef const char* refused = forbidden_to_read(session, request.topic)
    cdef Topic* topic = topic_find(&core.store, request.topic)
    cdef int encoding = variant_encoding(session.variant)
    cdef Buffer* out
    cdef uint8_t digits[32]
    cdef uint32_t i, j
    cdef Subscription* subscription
    cdef Slice info
    cdef size_t shown = 0
    cdef bint empty = True
    if refused != NULL:
        core.error(session, request, ERROR_FORBIDDEN, refused, NO_RETRY, NULL)
        return
    if not request.id_kind:
        return
    out = start(core)
    if write_presence_state_head(out, encoding, request, request.topic, topic.subscribers if topic != NULL else 0) < 0:
        no_memory(core, session, request)
        return
    if topic != NULL:
        for i in range(topic.group_count):
            for j in range(topic.groups[i].count):
                subscription = topic.groups[i].items[j].subscription
                session_id(subscription.session, digits)
                info = session_info(subscription.session)
                shown += info.size
                if shown > REPLY_BYTES:
                    info.size = 0    # everybody is named, but not everybody described
                if write_presence_member(out, encoding, empty, user_id(<User*> subscription.session.user),
                                         slice_of(digits, 32), subscription.joined_at, info) < 0:
                    no_memory(core, session, request)
                    return
                empty = False
    if write_list_tail(out, encoding) == 0:
        outbox_reply(&core.outbox, session, False)


cdef void history(Core core, Session* session, const Request* request) noexcept:
    cdef const char* refused = forbidden_to_read(session, request.topic)
    cdef Topic* topic
    if refused != NULL:
        core.error(session, request, ERROR_FORBIDDEN, refused, NO_RETRY, NULL)
        return
    if not request.id_kind:
        return
    if request.topic.data[0] == b"@":
        # The own inbox is opened for real, so that it keeps its epoch while its user is here to use it.
        topic = core.inbox(user_id(<User*> session.user))
    else:
        topic = topic_open(&core.store, request.topic, TOPIC_PLAIN)
    if topic == NULL:
        no_memory(core, session, request)
        return
    send_page(core, session, request, topic)
    topic_release(&core.store, topic)


cdef void page_range(const Request* request, const Topic* topic, uint64_t* begin, uint64_t* end) noexcept nogil:
    cdef uint64_t first = topic_first(topic), last = topic.offset
    cdef uint64_t limit = <uint64_t> request.limit if request.limit >= 0 else DEFAULT_LIMIT
    if request.has_position and topic_epoch_is(topic, request.epoch):
        if request.reverse:
            last = request.offset - 1 if 0 < request.offset <= last else (0 if request.offset == 0 else last)
        elif request.offset >= first:
            first = request.offset + 1
    if first > last:
        first = last + 1
    if last + 1 - first > limit:
        if request.reverse:
            first = last + 1 - limit
        else:
            last = first + limit - 1
    while not fits(topic, first, last):
        if request.reverse:
            first += (last + 2 - first) // 2
        else:
            last -= (last + 2 - first) // 2
    begin[0] = first
    end[0] = last


cdef void send_page(Core core, Session* session, const Request* request, const Topic* topic) noexcept:
    cdef uint64_t first = 0, last = 0
    cdef uint8_t epoch[EPOCH_SIZE]
    cdef int encoding = variant_encoding(session.variant)
    page_range(request, topic, &first, &last)
    topic_epoch(topic, epoch)
    if write_history_page_head(start(core), encoding, request, topic_name(topic), slice_of(epoch, EPOCH_SIZE),
                               topic.offset, readable(core, session, topic, first, last)) < 0:
        no_memory(core, session, request)
        return
    send_stored(core, session, request, topic, first, last, request.reverse, False)
