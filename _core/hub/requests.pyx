"""Requests; `requests.pxd` is the contract."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free

from realtime_communication._core.base.memory cimport (
    Buffer,
    Slice,
    buffer_free,
    buffer_init,
    buffer_reserve,
    slice_of,
)
from realtime_communication._core.hub.core cimport Core, Position, Refusal
from realtime_communication._core.hub.message cimport Message, message_payload, message_sender
from realtime_communication._core.hub.outbox cimport outbox_flush_topic, outbox_is_full, outbox_reply
from realtime_communication._core.hub.session cimport (
    PERMISSION_ADMIN,
    PERMISSION_READ,
    PERMISSION_SUBSCRIBE,
    PERMISSION_WRITE,
    SESSION_ANONYMOUS,
    Patterns,
    Session,
    patterns_match,
    patterns_new,
    session_id,
)
from realtime_communication._core.hub.settings cimport (
    IDEMPOTENCY_KEYS,
    MAX_SUBSCRIPTIONS,
    OVERFLOW_BACKPRESSURE,
    OVERFLOW_BLOCK,
    REPLY_BYTES,
)
from realtime_communication._core.hub.token_bucket cimport bucket_init
from realtime_communication._core.hub.topics cimport (
    EPOCH_SIZE,
    TOPIC_ALL,
    TOPIC_INBOX,
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
from realtime_communication._core.hub.users cimport User, user_find, user_id, user_open
from realtime_communication._core.hub.variants cimport variant_encoding
from realtime_communication._core.wire.envelope cimport (
    ERROR_BACKPRESSURE,
    ERROR_BAD_REQUEST,
    ERROR_FORBIDDEN,
    ERROR_RATE_LIMITED,
    ERROR_TOO_MANY_TARGETS,
    ERROR_UNAUTHORIZED,
    ERROR_UNAVAILABLE,
    JSON_TEXT,
    REQUEST_AUTHENTICATE,
    REQUEST_BROADCAST,
    REQUEST_DIRECT_MESSAGE,
    REQUEST_HISTORY,
    REQUEST_PING,
    REQUEST_PRESENCE,
    REQUEST_REFRESH,
    REQUEST_SUBSCRIBE,
    REQUEST_UNSUBSCRIBE,
    EnvelopeScratch,
    Request,
    envelope_parse,
    envelope_scratch_free,
    envelope_scratch_init,
    error_code_of,
    error_name,
)
from realtime_communication._core.wire.outbound cimport (
    write_ack,
    write_connected,
    write_delivered,
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
    BACKPRESSURE_RETRY_MS = 1000 # told to a publisher whose consumer is full
    NO_RETRY = -1


class RequestError(Exception):
    """A request over HTTP that is refused: `code` as in the protocol's list, a `message` for people, and
    `retry_after_ms` (milliseconds) when trying again later makes sense."""

    def __init__(self, str code, str message, retry_after_ms=None):
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after_ms = retry_after_ms


# --- permissions

cdef inline bint may(const Session* session, int permission) noexcept nogil:
    return session.permissions & (permission | PERMISSION_ADMIN) != 0


cdef inline bint is_reserved(Slice topic) noexcept nogil:
    return topic.data[0] == b"@" or topic.data[0] == b"$"


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


cdef const char* forbidden_to_publish(uint8_t permissions, const Patterns* patterns, Slice topic,
                                      bint to_all) noexcept nogil:
    if not permissions & (PERMISSION_WRITE | PERMISSION_ADMIN):
        return b"the token lacks the permission write"
    if to_all:
        if not permissions & PERMISSION_ADMIN:
            return b"topic: only the role admin may publish to every connection"
        return NULL
    if is_reserved(topic):
        return b"topic: names that begin with @ or $ cannot be published on"
    if not permissions & PERMISSION_ADMIN and not patterns_match(patterns, topic):
        return b"topic: outside the topics that the token may publish on"
    return NULL


cdef bint may_send_to(uint8_t permissions, const Patterns* patterns, Slice user) noexcept nogil:
    """A message to `alice` is a publication on `@alice`, so the token's patterns have to allow that name."""
    cdef uint8_t name[256]
    cdef size_t i
    if permissions & PERMISSION_ADMIN or patterns == NULL:
        return True
    name[0] = b"@"
    for i in range(user.size):
        name[i + 1] = user.data[i]
    return patterns_match(patterns, slice_of(name, user.size + 1))


# --- the way in

cdef int handle_request(Core core, Session* session, const Request* request) noexcept:
    cdef int type = request.type
    if session.state == SESSION_ANONYMOUS:
        return authenticate(core, session, request)
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
    elif type == REQUEST_REFRESH:
        refresh(core, session, request)
    else:
        core.error(session, request, ERROR_BAD_REQUEST, b"type: already authenticated; Refresh takes a new token",
                   NO_RETRY, NULL)
    return OUTCOME_DONE


cdef inline Buffer* start(Core core) noexcept nogil:
    core.outbox.text.size = 0
    return &core.outbox.text


cdef void reply(Core core, Session* session, const Request* request, bint in_order) noexcept:
    """Send what was written, if the request asked for a reply by an id."""
    if request.id_kind:
        outbox_reply(&core.outbox, session, in_order)


cdef void no_memory(Core core, Session* session, const Request* request) noexcept:
    core.error(session, request, ERROR_UNAVAILABLE, b"out of memory; try again later", BACKPRESSURE_RETRY_MS, NULL)


# --- authentication

cdef object verify(Core core, Session* session, const Request* request):
    """The identity of the request's credential, or (code, message)."""
    cdef str token = None
    cdef str api_key = None
    try:
        if request.token.data != NULL:
            token = (<const char*> request.token.data)[:request.token.size].decode()
        if request.api_key.data != NULL:
            api_key = (<const char*> request.api_key.data)[:request.api_key.size].decode()
        return core.authenticate(token, api_key, core.peer_of(session))
    except Exception:
        return ("internal", "the credential could not be checked")


cdef void send_failure(Core core, Session* session, const Request* request, object failure) noexcept:
    cdef bytes code = str(failure[0]).encode()
    cdef bytes message = str(failure[1]).encode()
    cdef int number = error_code_of(slice_of(<const uint8_t*> code, len(code)))
    core.error(session, request, number if number else ERROR_UNAUTHORIZED, message, NO_RETRY, NULL)


cdef int authenticate(Core core, Session* session, const Request* request) noexcept:
    if request.type != REQUEST_AUTHENTICATE:
        core.error(session, request, ERROR_UNAUTHORIZED, b"type: the first message must be Authenticate", NO_RETRY, NULL)
        return OUTCOME_UNAUTHORIZED
    identity = verify(core, session, request)
    if isinstance(identity, tuple):
        send_failure(core, session, request, identity)
        return OUTCOME_UNAUTHORIZED
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


cdef void refresh(Core core, Session* session, const Request* request) noexcept:
    cdef bytes name
    cdef Slice user = user_id(<User*> session.user)
    identity = verify(core, session, request)
    if isinstance(identity, tuple):
        send_failure(core, session, request, identity)
        return
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
    subscription_watch(subscription, request.presence)
    if request.id_kind:
        send_subscribed(core, session, request, topic)


cdef void send_subscribed(Core core, Session* session, const Request* request, const Topic* topic) noexcept:
    """What was missed, complete or not at all; otherwise the newest messages, if some were asked for."""
    cdef uint64_t first = topic.offset + 1
    cdef bint recovered = False
    if request.has_position and topic_epoch_is(topic, request.epoch) and request.offset <= topic.offset:
        if request.offset + 1 >= topic_first(topic) and fits(core, session, topic, request.offset + 1, topic.offset):
            recovered = True
            first = request.offset + 1
    if not recovered and request.history > 0:
        first = topic_first(topic)
        if topic.offset + 1 - first > <uint64_t> request.history:
            first = topic.offset + 1 - <uint64_t> request.history
        while not fits(core, session, topic, first, topic.offset):
            first += (topic.offset + 2 - first) // 2
    cdef uint8_t epoch[EPOCH_SIZE]
    cdef int encoding = variant_encoding(session.variant)
    topic_epoch(topic, epoch)
    if write_subscribed_head(start(core), encoding, request, topic_name(topic), slice_of(epoch, EPOCH_SIZE),
                             topic.offset, recovered, readable(core, session, topic, first, topic.offset)) < 0:
        no_memory(core, session, request)
        return
    send_stored(core, session, request, topic, first, topic.offset, False)


cdef bint is_readable(Core core, const Session* session, const Message* message) noexcept nogil:
    return core.settings.transcoding or message.encoding == variant_encoding(session.variant)


cdef uint32_t readable(Core core, const Session* session, const Topic* topic, uint64_t first, uint64_t last) noexcept nogil:
    """How many of the cached messages first..last the session can be given."""
    cdef uint32_t count = 0
    if core.settings.transcoding:
        return <uint32_t> (last + 1 - first)
    while first <= last:
        count += is_readable(core, session, topic_message(topic, first))
        first += 1
    return count


cdef bint fits(Core core, const Session* session, const Topic* topic, uint64_t first, uint64_t last) noexcept nogil:
    """Whether the payloads of first..last together are within the bound of one reply."""
    cdef uint64_t bytes = 0
    while first <= last:
        bytes += topic_message(topic, first).payload_size
        if bytes > REPLY_BYTES:
            return False
        first += 1
    return True


cdef void send_stored(Core core, Session* session, const Request* request, const Topic* topic, uint64_t first,
                      uint64_t last, bint reverse) noexcept:
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
        outbox_reply(&core.outbox, session, False)


cdef void unsubscribe(Core core, Session* session, const Request* request) noexcept:
    cdef Topic* topic = topic_find(&core.store, request.topic)
    cdef Subscription* subscription
    if is_reserved(request.topic):
        core.error(session, request, ERROR_FORBIDDEN, b"topic: names that begin with @ or $ cannot be unsubscribed from",
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
                if write_presence_member(out, encoding, empty, user_id(<User*> subscription.session.user),
                                         slice_of(digits, 32), subscription.joined_at) < 0:
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


cdef void send_page(Core core, Session* session, const Request* request, const Topic* topic) noexcept:
    """The messages after a position (or, in reverse, before it) up to a limit; a position of another epoch counts as
    none, and the page's own epoch tells."""
    cdef uint64_t first = topic_first(topic), last = topic.offset
    cdef uint64_t limit = <uint64_t> request.limit if request.limit >= 0 else DEFAULT_LIMIT
    cdef uint8_t epoch[EPOCH_SIZE]
    cdef int encoding = variant_encoding(session.variant)
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
    while not fits(core, session, topic, first, last):
        if request.reverse:
            first += (last + 2 - first) // 2
        else:
            last -= (last + 2 - first) // 2
    topic_epoch(topic, epoch)
    if write_history_page_head(start(core), encoding, request, topic_name(topic), slice_of(epoch, EPOCH_SIZE),
                               topic.offset, readable(core, session, topic, first, last)) < 0:
        no_memory(core, session, request)
        return
    send_stored(core, session, request, topic, first, last, request.reverse)


# --- publications

cdef bytes idempotency_key(Slice sender, Slice topic, Slice key):
    return b"%b\0%b\0%b" % (
        (<const char*> sender.data)[:sender.size],
        (<const char*> topic.data)[:topic.size],
        (<const char*> key.data)[:key.size],
    )


cdef object answered(Core core, bytes key):
    """The (epoch, offset) that a request with this key got before, or None."""
    found = core.answered.get(key)
    if found is None or found[0] < core.now_ms:
        return None
    core.counters.duplicates += 1
    return found


cdef void remember(Core core, bytes key, const Position* position):
    """Keep the answer as long as the cache keeps the message, for the newest IDEMPOTENCY_KEYS keys."""
    while len(core.answered) >= IDEMPOTENCY_KEYS:
        core.answered.pop(next(iter(core.answered)))
    core.answered[key] = (
        core.now_ms + core.settings.cache_ttl_ms, (<const char*> position.epoch)[:EPOCH_SIZE], position.offset)


cdef bint once(Core core, Slice sender, Slice topic, Slice key, Position* position) except -1:
    """True with the earlier answer in `position` when a request with this key was answered before."""
    cdef bytes epoch
    cdef size_t i
    found = answered(core, idempotency_key(sender, topic, key))
    if found is None:
        return False
    epoch = found[1]
    for i in range(EPOCH_SIZE):
        position.epoch[i] = (<const uint8_t*> <const char*> epoch)[i]
    position.offset = found[2]
    return True


cdef int publish_once(Core core, Slice sender, const Request* request, Session* session, Position* position) noexcept:
    """Publishes a Broadcast, or finds the answer it got before. 0; -1 without memory."""
    cdef Session* excluded = session if request.exclude_self else NULL
    cdef int kind = TOPIC_PLAIN
    if request.topic_is_all:
        if core.everyone() == NULL:
            return -1
        kind = TOPIC_ALL
    if request.idempotency_key.data == NULL:
        return core.publish(request.topic, kind, sender, request.payload, request.encoding, excluded, position)
    try:
        if once(core, sender, request.topic, request.idempotency_key, position):
            return 0
        if core.publish(request.topic, kind, sender, request.payload, request.encoding, excluded, position) < 0:
            return -1
        remember(core, idempotency_key(sender, request.topic, request.idempotency_key), position)
        return 0
    except MemoryError:
        return -1


cdef bint consumers_full(Core core, Slice name) noexcept:
    """Overflow `block`: whether a subscriber of the topic has no room; what is pending is handed out first."""
    cdef Topic* topic
    if core.settings.overflow != OVERFLOW_BLOCK:
        return False
    topic = topic_find(&core.store, name)
    if topic == NULL:
        return False
    outbox_flush_topic(&core.outbox, topic)
    return topic.full != 0


cdef int broadcast(Core core, Session* session, const Request* request) noexcept:
    cdef const char* refused = forbidden_to_publish(
        session.permissions, session.publish_patterns, request.topic, request.topic_is_all)
    cdef Position position
    if refused != NULL:
        core.error(session, request, ERROR_FORBIDDEN, refused, NO_RETRY, NULL)
        return OUTCOME_DONE
    if publish_once(core, user_id(<User*> session.user), request, session, &position) < 0:
        no_memory(core, session, request)
        return OUTCOME_DONE
    if request.id_kind:
        if write_ack(start(core), variant_encoding(session.variant), request, request.topic,
                     slice_of(position.epoch, EPOCH_SIZE), position.offset) == 0:
            outbox_reply(&core.outbox, session, False)
    return OUTCOME_WAIT if consumers_full(core, request.topic) else OUTCOME_DONE


cdef bint target_full(Core core, Slice name) noexcept nogil:
    """Overflow `backpressure`: whether a session of the user takes no more."""
    cdef User* user = user_find(&core.users, name)
    cdef Session* session
    if user == NULL:
        return False
    session = user.sessions
    while session != NULL:
        if outbox_is_full(&core.outbox, session):
            return True
        session = session.next_of_user
    return False


cdef int check_targets(Core core, uint8_t permissions, const Patterns* patterns, const Request* request,
                       const char** message) noexcept nogil:
    """0, or the ErrorCode that a DirectMessage is refused with, and why."""
    cdef uint32_t i
    if not permissions & (PERMISSION_WRITE | PERMISSION_ADMIN):
        message[0] = b"the token lacks the permission write"
        return ERROR_FORBIDDEN
    if request.target_count > core.settings.max_targets:
        message[0] = b"to: more ids than max_targets_per_message allows"
        return ERROR_TOO_MANY_TARGETS
    for i in range(request.target_count):
        if not may_send_to(permissions, patterns, request.targets[i]):
            message[0] = b"to: an inbox outside the topics that the token may publish on"
            return ERROR_FORBIDDEN
    if core.settings.overflow == OVERFLOW_BACKPRESSURE:
        for i in range(request.target_count):
            if target_full(core, request.targets[i]):
                message[0] = b"to: a recipient does not keep up; try again later"
                return ERROR_BACKPRESSURE
    return 0


cdef int send_all(Core core, Slice sender, const Request* request, bint silent, Slice* delivered,
                  uint32_t* delivered_count, Slice* offline, uint32_t* offline_count, bint* wait) noexcept:
    """Publishes on the inbox of each target, repeated ones once, and sorts them by whether they are here.

    `silent`: a repeated request, nothing is published. -1 without memory; some may have got it then.
    """
    cdef uint32_t i
    cdef Slice target
    cdef User* user
    cdef Topic* topic
    cdef Position position
    delivered_count[0] = 0
    offline_count[0] = 0
    core.stamp += 1
    for i in range(request.target_count):
        target = request.targets[i]
        topic = core.inbox(target)
        if topic == NULL:
            return -1
        if topic.stamp == core.stamp:
            continue
        topic.stamp = core.stamp
        topic.members += 1       # keeps the stamp until all targets are done
        user = user_find(&core.users, target)
        if user != NULL and user.session_count:
            delivered[delivered_count[0]] = target
            delivered_count[0] += 1
        else:
            offline[offline_count[0]] = target
            offline_count[0] += 1
        if not silent and core.publish(topic_name(topic), TOPIC_INBOX, sender, request.payload, request.encoding, NULL,
                                       &position) < 0:
            return -1
        if consumers_full(core, topic_name(topic)):
            wait[0] = True
    return 0


cdef void release_targets(Core core, const Request* request) noexcept:
    """Lets the inboxes go that `send_all` held."""
    cdef uint32_t i
    cdef Topic* topic
    for i in range(request.target_count):
        topic = find_inbox(core, request.targets[i])
        if topic != NULL and topic.stamp == core.stamp:
            topic.stamp = 0
            topic.members -= 1
            topic_release(&core.store, topic)


cdef Topic* find_inbox(Core core, Slice user) noexcept nogil:
    cdef uint8_t name[256]
    cdef size_t i
    name[0] = b"@"
    for i in range(user.size):
        name[i + 1] = user.data[i]
    return topic_find(&core.store, slice_of(name, user.size + 1))


cdef bint sent_before(Core core, Slice sender, const Request* request) noexcept:
    """Whether a DirectMessage with this idempotency key was sent; from now on, it was."""
    cdef Position position
    cdef Slice scope = slice_of(b"@", 1)
    position.offset = 0
    for i in range(EPOCH_SIZE):
        position.epoch[<size_t> i] = 0
    if request.idempotency_key.data == NULL:
        return False
    try:
        if once(core, sender, scope, request.idempotency_key, &position):
            return True
        remember(core, idempotency_key(sender, scope, request.idempotency_key), &position)
    except MemoryError:
        pass
    return False


cdef int direct_message(Core core, Session* session, const Request* request) noexcept:
    cdef const char* message = NULL
    cdef int code = check_targets(core, session.permissions, session.publish_patterns, request, &message)
    cdef Buffer lists
    cdef Slice* delivered
    cdef Slice* offline
    cdef uint32_t delivered_count, offline_count
    cdef bint wait = False
    cdef Slice sender = user_id(<User*> session.user)
    if code:
        if code == ERROR_BACKPRESSURE:
            core.counters.backpressure += 1
        core.error(session, request, code, message, BACKPRESSURE_RETRY_MS if code == ERROR_BACKPRESSURE else NO_RETRY, NULL)
        return OUTCOME_DONE
    buffer_init(&lists)
    if buffer_reserve(&lists, 2 * request.target_count * sizeof(Slice)) < 0:
        no_memory(core, session, request)
        return OUTCOME_DONE
    delivered = <Slice*> lists.data
    offline = delivered + request.target_count
    code = send_all(core, sender, request, sent_before(core, sender, request), delivered, &delivered_count, offline,
                    &offline_count, &wait)
    release_targets(core, request)
    if code < 0:
        no_memory(core, session, request)
    elif request.id_kind and write_delivered(start(core), variant_encoding(session.variant), request, delivered,
                                             delivered_count, offline, offline_count) == 0:
        outbox_reply(&core.outbox, session, False)
    buffer_free(&lists)
    return OUTCOME_WAIT if wait else OUTCOME_DONE


# --- publications over HTTP

cdef class Body:
    """One parsed body with what its slices point into, and the rights of its sender."""

    cdef EnvelopeScratch scratch
    cdef Request request
    cdef bytes text
    cdef bytes sender
    cdef uint8_t permissions
    cdef Patterns* patterns

    def __cinit__(self, bytes text not None, identity):
        envelope_scratch_init(&self.scratch)
        self.text = text
        self.sender = (<str> identity.user_id).encode()
        self.permissions = identity.permissions
        self.patterns = patterns_new(identity.publish_patterns)

    def __dealloc__(self):
        free(self.patterns)
        envelope_scratch_free(&self.scratch)

    cdef int parse(self, Core core, int type) except -1:
        """Read the body and take it from the sender's limits. Raises RequestError."""
        cdef User* user
        cdef Refusal refusal
        cdef Slice name = self.name()
        user = user_open(&core.users, name)
        if user == NULL:
            raise RequestError("unavailable", "out of memory; try again later", BACKPRESSURE_RETRY_MS)
        if user.bucket.refilled_ms == 0:
            bucket_init(&user.bucket, &core.settings.user_rate, core.now_ms)
        cdef bint admitted = core.admit_user(user, &refusal)
        core.forget_user(user)
        core.counters.requests += 1
        if not admitted:
            core.counters.rate_limited += 1
            raise RequestError("rate_limited", "more requests than the limit allows", refusal.retry_after_ms)
        if envelope_parse(&self.scratch, JSON_TEXT, <const uint8_t*> self.text, len(self.text), type, &self.request) < 0:
            core.counters.invalid += 1
            raise RequestError(error_name(self.request.error).decode(), self.request.error_message.decode())
        return 0

    cdef Slice name(self):
        return slice_of(<const uint8_t*> self.sender, len(self.sender))


cdef dict publish_body(Core core, bytes body, object identity):
    cdef Body parsed = Body(body, identity)
    cdef Position position
    parsed.parse(core, REQUEST_BROADCAST)
    cdef const char* refused = forbidden_to_publish(
        parsed.permissions, parsed.patterns, parsed.request.topic, parsed.request.topic_is_all)
    if refused != NULL:
        raise RequestError("forbidden", refused.decode())
    if consumers_full(core, parsed.request.topic):
        core.counters.backpressure += 1
        raise RequestError("backpressure", "topic: a consumer does not keep up; try again later", BACKPRESSURE_RETRY_MS)
    if publish_once(core, parsed.name(), &parsed.request, NULL, &position) < 0:
        raise RequestError("unavailable", "out of memory; try again later", BACKPRESSURE_RETRY_MS)
    return {"epoch": (<const char*> position.epoch)[:EPOCH_SIZE].decode(), "offset": position.offset}


cdef list names(const Slice* items, uint32_t count):
    return [(<const char*> items[i].data)[:items[i].size].decode() for i in range(count)]


cdef dict send_body(Core core, bytes body, object identity):
    cdef Body parsed = Body(body, identity)
    cdef const char* message = NULL
    cdef Buffer lists
    cdef uint32_t delivered_count = 0, offline_count = 0
    cdef bint wait = False
    parsed.parse(core, REQUEST_DIRECT_MESSAGE)
    cdef Request* request = &parsed.request
    cdef int code = check_targets(core, parsed.permissions, parsed.patterns, request, &message)
    if code:
        if code == ERROR_BACKPRESSURE:
            core.counters.backpressure += 1
        raise RequestError(error_name(code).decode(), message.decode(),
                           BACKPRESSURE_RETRY_MS if code == ERROR_BACKPRESSURE else None)
    buffer_init(&lists)
    try:
        if buffer_reserve(&lists, 2 * request.target_count * sizeof(Slice)) < 0:
            raise MemoryError
        code = send_all(core, parsed.name(), request, sent_before(core, parsed.name(), request), <Slice*> lists.data,
                        &delivered_count, <Slice*> lists.data + request.target_count, &offline_count, &wait)
        release_targets(core, request)
        if code < 0:
            raise MemoryError
        return {
            "delivered": names(<Slice*> lists.data, delivered_count),
            "offline": names(<Slice*> lists.data + request.target_count, offline_count),
        }
    except MemoryError:
        raise RequestError("unavailable", "out of memory; try again later", BACKPRESSURE_RETRY_MS) from None
    finally:
        buffer_free(&lists)
