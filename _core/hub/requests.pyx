"""Requests; `requests.pxd` is the contract."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t

from realtime_communication._core.base.memory cimport (
    Buffer,
    Slice,
    buffer_append,
    buffer_free,
    buffer_init,
    slice_of,
)
from realtime_communication._core.hub.backlog cimport backlog_restart
from realtime_communication._core.hub.core cimport Core
from realtime_communication._core.hub.direct_messages cimport direct_message
from realtime_communication._core.hub.message cimport Message, message_payload, message_sender
from realtime_communication._core.hub.outbox cimport outbox_flush_topic, outbox_reply
from realtime_communication._core.hub.outcome cimport (
    NO_RETRY,
    OUTCOME_ASKED,
    OUTCOME_DONE,
    OUTCOME_PARKED,
    OUTCOME_PENDING,
    OUTCOME_UNAUTHORIZED,
    no_memory,
    start,
)
from realtime_communication._core.hub.peers cimport (
    AUTHORITY_ARRIVING,
    AUTHORITY_HERE,
    AUTHORITY_WORKER,
    Body,
    Frame,
    Waiting,
    body_read,
    take_number,
    take_slice,
)
from realtime_communication._core.hub.pending cimport Pending, pending_bind
from realtime_communication._core.hub.permissions cimport is_reserved
from realtime_communication._core.hub.publications cimport broadcast
from realtime_communication._core.hub.relay cimport ask_history, ask_subscribe, epoch_number
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
    epoch_text,
    topic_epoch,
    topic_find,
    topic_first,
    topic_message,
    topic_name,
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
        return subscribe(core, session, request)
    elif type == REQUEST_UNSUBSCRIBE:
        unsubscribe(core, session, request)
    elif type == REQUEST_PRESENCE:
        return presence(core, session, request)
    elif type == REQUEST_HISTORY:
        return history(core, session, request)
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
    if core.peers.spread:
        core.described(session)
    if write_refreshed(start(core), variant_encoding(session.variant), request, session.expires_at,
                       session.refresh_at) == 0:
        reply(core, session, request, False)


# --- topics

cdef int subscribe(Core core, Session* session, const Request* request) noexcept:
    cdef const char* refused = forbidden_to_subscribe(session, request.topic)
    cdef Topic* topic
    cdef int outcome = OUTCOME_DONE
    if refused != NULL:
        core.error(session, request, ERROR_FORBIDDEN, refused, NO_RETRY, NULL)
        return OUTCOME_DONE
    topic = core.open_topic(request.topic, TOPIC_PLAIN)
    if topic == NULL:
        no_memory(core, session, request)
        return OUTCOME_DONE
    if topic.authority == AUTHORITY_ARRIVING:
        outcome = OUTCOME_PARKED
    elif topic.authority >= AUTHORITY_WORKER or topic.authority != AUTHORITY_HERE and not is_covered(
            topic, request.has_position, epoch_number(request.epoch), request.offset, request.history):
        outcome = ask(core, session, request, topic)
        if outcome < 0:
            no_memory(core, session, request)
            outcome = OUTCOME_DONE
    elif enter_topic(core, session, request, topic) and request.id_kind:
        send_subscribed(core, session, request, topic)
    topic_release(&core.store, topic)
    return outcome


cdef int ask(Core core, Session* session, const Request* request, Topic* topic) noexcept:
    """Another worker may have acknowledged messages that are not here yet, so it is asked in any case; where the mirror
    has the others, only how far the topic is. An Outcome."""
    cdef Request briefly = request[0]
    cdef uint8_t epoch[EPOCH_SIZE]
    cdef int outcome
    if not is_covered(topic, request.has_position, epoch_number(request.epoch), request.offset, request.history):
        return ask_subscribe(core, session, request, topic)
    topic_epoch(topic, epoch)
    briefly.has_position = True
    briefly.epoch = slice_of(epoch, EPOCH_SIZE)
    briefly.offset = topic.offset
    briefly.history = 0
    outcome = ask_subscribe(core, session, &briefly, topic)
    if outcome == OUTCOME_ASKED:
        (<Waiting*> session.asks).asked = 1
    return outcome


cdef bint is_covered(const Topic* topic, bint has_position, uint64_t epoch, uint64_t offset,
                     int64_t history) noexcept nogil:
    """Whether a mirror answers a Subscribe as its authority would."""
    cdef uint64_t first = topic_first(topic)
    if not topic.synced:
        return False
    if has_position and epoch == topic.epoch and offset < topic.offset:
        return offset + 1 >= first
    return history <= 0 or first == 1 or history <= <int64_t> topic.cached


cdef bint enter_topic(Core core, Session* session, const Request* request, Topic* topic) noexcept:
    """Subscribe the session, if it is not; False when it was told that this cannot be."""
    cdef Subscription* subscription = subscription_find(&core.store, session, topic)
    if subscription == NULL:
        if session.subscription_count >= MAX_SUBSCRIPTIONS:
            core.error(session, request, ERROR_FORBIDDEN, b"topic: a connection may have at most 4096 subscriptions",
                       NO_RETRY, NULL)
            return False
        subscription = core.join(session, topic)
        if subscription == NULL:
            no_memory(core, session, request)
            return False
    outbox_flush_topic(&core.outbox, topic)
    backlog_restart(&core.outbox, subscription, request.has_position)
    subscription_watch(subscription, request.presence)
    if core.peers.spread or topic.watch_state:
        core.watched(topic)
    return True


cdef uint64_t subscribed_from(const Topic* topic, bint has_position, uint64_t epoch, uint64_t offset, int64_t history,
                              bint* recovered) noexcept nogil:
    cdef uint64_t first = topic.offset + 1
    recovered[0] = False
    if has_position and epoch == topic.epoch and offset <= topic.offset:
        if offset + 1 >= topic_first(topic) and fits(topic, offset + 1, topic.offset):
            recovered[0] = True
            return offset + 1
    if history > 0:
        first = topic_first(topic)
        if topic.offset + 1 - first > <uint64_t> history:
            first = topic.offset + 1 - <uint64_t> history
        while not fits(topic, first, topic.offset):
            first += (topic.offset + 2 - first) // 2
    return first


cdef void send_subscribed(Core core, Session* session, const Request* request, const Topic* topic) noexcept:
    """What was missed, complete or not at all; otherwise the newest messages, if some were asked for."""
    cdef bint recovered = False
    cdef uint64_t first = subscribed_from(topic, request.has_position, epoch_number(request.epoch), request.offset,
                                          request.history, &recovered)
    cdef uint8_t epoch[EPOCH_SIZE]
    cdef int encoding = variant_encoding(session.variant)
    topic_epoch(topic, epoch)
    if write_subscribed_head(start(core), encoding, request, topic_name(topic), slice_of(epoch, EPOCH_SIZE),
                             topic.offset, recovered, readable(core, session, topic, first, topic.offset)) < 0:
        no_memory(core, session, request)
        return
    # Behind what waits: messages from before an Unsubscribe, and its reply, come first.
    send_stored(core, session, request, topic, first, topic.offset, False, True)


cdef void subscribe_answered(Core core, Session* session, const Request* request, Topic* topic, bint recovered,
                             Frame* bodies, uint64_t first) noexcept:
    cdef uint8_t epoch[EPOCH_SIZE]
    if not enter_topic(core, session, request, topic) or not request.id_kind:
        return
    if bodies == NULL:
        send_subscribed(core, session, request, topic)
        return
    topic_epoch(topic, epoch)
    if write_subscribed_head(
            start(core), variant_encoding(session.variant), request, topic_name(topic), slice_of(epoch, EPOCH_SIZE),
            topic.offset, recovered, readable_bodies(core, session, bodies)) < 0:
        no_memory(core, session, request)
        return
    send_bodies(core, session, request, bodies, first, False, True)


cdef bint next_body(Frame* bodies, Body* out) noexcept nogil:
    cdef bint ok = True
    cdef Slice bytes = take_slice(bodies, <size_t> take_number(bodies, 4, &ok), &ok)
    return ok and body_read(bytes, out)


cdef uint32_t readable_bodies(Core core, const Session* session, const Frame* bodies) noexcept nogil:
    """How many of the bodies the session can be given."""
    cdef Frame rest = bodies[0]
    cdef Body body
    cdef uint32_t count = 0
    while next_body(&rest, &body):
        count += core.settings.transcoding or body.encoding == variant_encoding(session.variant)
    return count


cdef void send_bodies(Core core, Session* session, const Request* request, Frame* bodies, uint64_t first, bint reverse,
                      bint in_order) noexcept:
    """Writes messages that came from elsewhere behind a head, ends the list and sends it."""
    cdef Buffer* out = &core.outbox.text
    cdef int encoding = variant_encoding(session.variant)
    cdef Body body
    cdef Body* read
    cdef Buffer kept
    cdef uint64_t count = 0, i, at
    cdef bint empty = True
    buffer_init(&kept)
    while next_body(bodies, &body):
        if buffer_append(&kept, &body, sizeof(Body)) < 0:
            buffer_free(&kept)
            no_memory(core, session, request)
            return
        count += 1
    read = <Body*> kept.data
    for i in range(count):
        at = count - 1 - i if reverse else i
        if not core.settings.transcoding and read[at].encoding != encoding:
            continue
        if write_stored_message(out, encoding, empty, first + at, read[at].ts, read[at].sender, read[at].payload,
                                read[at].encoding) < 0:
            buffer_free(&kept)
            no_memory(core, session, request)
            return
        empty = False
    buffer_free(&kept)
    if write_list_tail(out, encoding) == 0:
        outbox_reply(&core.outbox, session, in_order)


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


cdef int presence(Core core, Session* session, const Request* request) noexcept:
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
        return OUTCOME_DONE
    if not request.id_kind:
        return OUTCOME_DONE
    if core.peers.spread and not is_reserved(request.topic):
        return core.ask_presence(session, request)
    out = start(core)
    if write_presence_state_head(out, encoding, request, request.topic, topic.subscribers if topic != NULL else 0) < 0:
        no_memory(core, session, request)
        return OUTCOME_DONE
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
                    return OUTCOME_DONE
                empty = False
    if write_list_tail(out, encoding) == 0:
        outbox_reply(&core.outbox, session, False)
    return OUTCOME_DONE


cdef bint next_present(Frame* members, Present* out) noexcept nogil:
    cdef bint ok = True
    out.id_high = take_number(members, 8, &ok)
    out.id_low = take_number(members, 8, &ok)
    out.joined_at = take_number(members, 8, &ok)
    out.user = take_slice(members, <size_t> take_number(members, 1, &ok), &ok)
    out.info = take_slice(members, <size_t> take_number(members, 2, &ok), &ok)
    return ok


cdef void presence_answered(Core core, Session* session, const Request* request, Frame* members) noexcept:
    cdef Buffer* out = start(core)
    cdef int encoding = variant_encoding(session.variant)
    cdef Frame rest = members[0]
    cdef Present each
    cdef Session named
    cdef uint8_t digits[32]
    cdef uint32_t count = 0
    cdef size_t shown = 0
    cdef bint empty = True
    while next_present(&rest, &each):
        count += 1
    if write_presence_state_head(out, encoding, request, request.topic, count) < 0:
        no_memory(core, session, request)
        return
    while next_present(members, &each):
        named.id_high = each.id_high
        named.id_low = each.id_low
        session_id(&named, digits)
        shown += each.info.size
        if shown > REPLY_BYTES:
            each.info.size = 0
        if write_presence_member(out, encoding, empty, each.user, slice_of(digits, 32), each.joined_at,
                                 each.info) < 0:
            no_memory(core, session, request)
            return
        empty = False
    if write_list_tail(out, encoding) == 0:
        outbox_reply(&core.outbox, session, False)


cdef int history(Core core, Session* session, const Request* request) noexcept:
    cdef const char* refused = forbidden_to_read(session, request.topic)
    cdef int64_t limit = request.limit if request.limit >= 0 else DEFAULT_LIMIT
    cdef Topic* topic
    cdef int outcome = OUTCOME_DONE
    if refused != NULL:
        core.error(session, request, ERROR_FORBIDDEN, refused, NO_RETRY, NULL)
        return OUTCOME_DONE
    if not request.id_kind:
        return OUTCOME_DONE
    if request.topic.data[0] == b"@":
        # The own inbox is opened for real, so that it keeps its epoch while its user is here to use it.
        topic = core.inbox(user_id(<User*> session.user))
    else:
        topic = core.open_topic(request.topic, TOPIC_PLAIN)
    if topic == NULL:
        no_memory(core, session, request)
        return OUTCOME_DONE
    if topic.authority == AUTHORITY_ARRIVING:
        outcome = OUTCOME_PARKED
    elif topic.authority >= AUTHORITY_WORKER or topic.authority != AUTHORITY_HERE and not (
            topic.synced and topic_first(topic) == 1):
        outcome = ask_history(core, session, request, topic, limit)
        if outcome < 0:
            no_memory(core, session, request)
            outcome = OUTCOME_DONE
    else:
        send_page(core, session, request, topic, limit)
    topic_release(&core.store, topic)
    return outcome


cdef void page_range(const Topic* topic, bint has_position, uint64_t epoch, uint64_t offset, uint64_t limit,
                     bint reverse, uint64_t* first, uint64_t* last) noexcept nogil:
    first[0] = topic_first(topic)
    last[0] = topic.offset
    if has_position and epoch == topic.epoch:
        if reverse:
            last[0] = offset - 1 if 0 < offset <= last[0] else (0 if offset == 0 else last[0])
        elif offset >= first[0]:
            first[0] = offset + 1
    if first[0] > last[0]:
        first[0] = last[0] + 1
    if last[0] + 1 - first[0] > limit:
        if reverse:
            first[0] = last[0] + 1 - limit
        else:
            last[0] = first[0] + limit - 1
    while not fits(topic, first[0], last[0]):
        if reverse:
            first[0] += (last[0] + 2 - first[0]) // 2
        else:
            last[0] -= (last[0] + 2 - first[0]) // 2


cdef void send_page(Core core, Session* session, const Request* request, const Topic* topic, int64_t limit) noexcept:
    """The messages after a position (or, in reverse, before it) up to a limit; a position of another epoch counts as
    none, and the page's own epoch tells."""
    cdef uint64_t first = 0, last = 0
    cdef uint8_t epoch[EPOCH_SIZE]
    cdef int encoding = variant_encoding(session.variant)
    page_range(topic, request.has_position, epoch_number(request.epoch), request.offset, <uint64_t> limit,
               request.reverse, &first, &last)
    topic_epoch(topic, epoch)
    if write_history_page_head(start(core), encoding, request, topic_name(topic), slice_of(epoch, EPOCH_SIZE),
                               topic.offset, readable(core, session, topic, first, last)) < 0:
        no_memory(core, session, request)
        return
    send_stored(core, session, request, topic, first, last, request.reverse, False)


cdef void history_answered(Core core, Session* session, const Request* request, uint64_t epoch, uint64_t offset,
                           Frame* bodies, uint64_t first) noexcept:
    cdef uint8_t text[EPOCH_SIZE]
    epoch_text(epoch, text)
    if write_history_page_head(start(core), variant_encoding(session.variant), request, request.topic,
                               slice_of(text, EPOCH_SIZE), offset, readable_bodies(core, session, bodies)) < 0:
        no_memory(core, session, request)
        return
    send_bodies(core, session, request, bodies, first, request.reverse, False)
