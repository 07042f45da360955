"""Publications; `publications.pxd` is the contract."""

from cpython.ref cimport Py_INCREF
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint32_t, uint8_t
from libc.stdlib cimport free

from realtime_communication._core.base.memory cimport (
    Buffer,
    Slice,
    buffer_append,
    buffer_free,
    buffer_init,
    buffer_reserve,
    slice_of,
)
from realtime_communication._core.hub.backlog cimport mailbox_is_full
from realtime_communication._core.hub.core cimport Core, Position, Refusal, inbox_name
from realtime_communication._core.hub.outbox cimport outbox_flush_topic, outbox_reply
from realtime_communication._core.hub.peers cimport (
    AUTHORITY_ARRIVING,
    AUTHORITY_HERE,
    WAIT_TARGET,
    Group,
    Waiting,
    group_new,
    peers_authority,
    waiting_add,
    waiting_remove,
)
from realtime_communication._core.hub.relay cimport Later, relay_body, relay_broadcast, relay_publish
from realtime_communication._core.hub.session cimport (
    PERMISSION_ADMIN,
    PERMISSION_WRITE,
    Patterns,
    Session,
    patterns_match,
    patterns_new,
)
from realtime_communication._core.hub.settings cimport IDEMPOTENCY_KEYS, OVERFLOW_BACKPRESSURE, OVERFLOW_BLOCK
from realtime_communication._core.hub.throttle cimport throttle_holds
from realtime_communication._core.hub.token_bucket cimport bucket_init
from realtime_communication._core.hub.topics cimport (
    EPOCH_SIZE,
    TOPIC_ALL,
    TOPIC_INBOX,
    TOPIC_PLAIN,
    Topic,
    topic_find,
    topic_name,
    topic_release,
)
from realtime_communication._core.hub.transforms cimport (
    publish_transformed,
    refusal_by_transform,
    transform,
    transform_all,
)
from realtime_communication._core.hub.users cimport User, user_find, user_id, user_open
from realtime_communication._core.hub.variants cimport variant_encoding
from realtime_communication._core.wire.envelope cimport (
    ERROR_BACKPRESSURE,
    ERROR_FORBIDDEN,
    ERROR_TOO_MANY_TARGETS,
    ERROR_UNAVAILABLE,
    JSON_TEXT,
    REQUEST_BROADCAST,
    REQUEST_DIRECT_MESSAGE,
    EnvelopeScratch,
    Request,
    envelope_parse,
    envelope_scratch_free,
    envelope_scratch_init,
    error_name,
)
from realtime_communication._core.wire.outbound cimport write_ack, write_delivered

cdef enum:
    FORGOTTEN_MOST = 5000        # idempotency keys forgotten at a time
    BACKPRESSURE_RETRY_MS = 1000  # told to a publisher whose consumer is full
    MOVING_RETRY_MS = 200        # told to a publisher over HTTP whose topic arrives here
    DRAINING_RETRY_MS = 1000     # told to a publisher when the server ends; its successor will be there

# Nothing is accepted that might not be delivered any more, and nobody keeps the server from its end by publishing on.
cdef const char* ENDING = b"the server is shutting down; publish when you are connected again"
cdef const char* MOVING = b"its home on this server is changing; try again"


class RequestError(Exception):
    """A request over HTTP that is refused: `code` as in the protocol's list, a `message` for people, and
    `retry_after_ms` (milliseconds) when trying again later makes sense."""

    def __init__(self, str code, str message, retry_after_ms=None):
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after_ms = retry_after_ms


cdef void no_memory(Core core, Session* session, const Request* request) noexcept:
    core.error(session, request, ERROR_UNAVAILABLE, b"out of memory; try again later", BACKPRESSURE_RETRY_MS, NULL)


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
    cdef uint8_t place[256]
    return permissions & PERMISSION_ADMIN or patterns == NULL or patterns_match(patterns, inbox_name(user, place))


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
    core.answered.pop(key, None)  # the newest go last
    while len(core.answered) >= IDEMPOTENCY_KEYS:
        core.answered.pop(next(iter(core.answered)))
    core.answered[key] = (
        core.now_ms + core.settings.cache_ttl_ms, (<const char*> position.epoch)[:EPOCH_SIZE], position.offset)


cdef void forget_answers(Core core) noexcept:
    """Drop the oldest keys that are no longer good, some at a time."""
    for _ in range(FORGOTTEN_MOST):
        key = next(iter(core.answered), None)
        if key is None or core.answered[key][0] >= core.now_ms:
            return
        del core.answered[key]


cdef bint once(Core core, Slice sender, Slice topic, Slice key, Position* position) except -1:
    """True with the earlier answer in `position` when a request with this key was answered before."""
    return once_before(core, idempotency_key(sender, topic, key), position)


cdef bint once_before(Core core, bytes key, Position* position) except -1:
    cdef bytes epoch
    cdef size_t i
    found = answered(core, key)
    if found is None:
        return False
    epoch = found[1]
    for i in range(EPOCH_SIZE):
        position.epoch[i] = (<const uint8_t*> <const char*> epoch)[i]
    position.offset = found[2]
    return True


cdef void not_published(Core core, Session* session, const Request* request, int outcome) noexcept:
    cdef int code = 0
    cdef const char* message = refusal_by_transform(outcome, &code)
    if message == NULL:
        no_memory(core, session, request)
    else:
        core.error(session, request, code, message, NO_RETRY, NULL)


cdef object not_published_over_http(int outcome):
    cdef int code = 0
    cdef const char* message = refusal_by_transform(outcome, &code)
    if message == NULL:
        return RequestError("unavailable", "out of memory; try again later", BACKPRESSURE_RETRY_MS)
    return RequestError(error_name(code).decode(), message.decode())


cdef inline int publish_payload(Core core, Slice topic, int kind, Slice sender, const Request* request,
                                Session* excluded, Position* position) noexcept:
    if core.transforms is not None:
        return publish_transformed(core, topic, kind, sender, request, excluded, position)
    return core.publish(topic, kind, sender, request.payload, request.encoding, excluded, position)


cdef int publish_once(Core core, Slice sender, const Request* request, Session* session, Position* position) noexcept:
    """Publishes a Broadcast, or finds the answer it got before. 0, or as `publish_transformed`."""
    cdef Session* excluded = session if request.exclude_self else NULL
    cdef int kind = TOPIC_PLAIN
    cdef int outcome
    if request.topic_is_all:
        if core.everyone() == NULL:
            return -1
        kind = TOPIC_ALL
    if request.idempotency_key.data == NULL:
        return publish_payload(core, request.topic, kind, sender, request, excluded, position)
    try:
        key = idempotency_key(sender, request.topic, request.idempotency_key)
        if once_before(core, key, position):
            return 0
        core.keyed = key
        outcome = publish_payload(core, request.topic, kind, sender, request, excluded, position)
        core.keyed = None
        if outcome < 0:
            return outcome
        remember(core, key, position)
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
    return throttle_holds(topic)


cdef int broadcast(Core core, Session* session, const Request* request) noexcept:
    cdef const char* refused = forbidden_to_publish(
        session.permissions, session.publish_patterns, request.topic, request.topic_is_all)
    cdef Position position
    cdef int outcome, authority
    if refused != NULL:
        core.error(session, request, ERROR_FORBIDDEN, refused, NO_RETRY, NULL)
        return OUTCOME_DONE
    if core.draining:
        core.error(session, request, ERROR_UNAVAILABLE, ENDING, DRAINING_RETRY_MS, NULL)
        return OUTCOME_DONE
    if consumers_full(core, request.topic):
        return OUTCOME_PARKED
    authority = peers_authority(&core.peers, request.topic)
    if authority == AUTHORITY_ARRIVING:
        return OUTCOME_PARKED
    if authority != AUTHORITY_HERE:
        outcome = broadcast_elsewhere(core, session, request, authority)
        if outcome < 0:
            not_published(core, session, request, outcome)
        return OUTCOME_DONE
    outcome = publish_once(core, user_id(<User*> session.user), request, session, &position)
    if outcome < 0:
        not_published(core, session, request, outcome)
        return OUTCOME_DONE
    if request.id_kind:
        if write_ack(start(core), variant_encoding(session.variant), request, request.topic,
                     slice_of(position.epoch, EPOCH_SIZE), position.offset) == 0:
            outbox_reply(&core.outbox, session, False)
    return OUTCOME_WAIT if consumers_full(core, request.topic) else OUTCOME_DONE


cdef bytes transformed_payload(Core core, Slice topic, const Request* request, int* outcome):
    """What a transform makes of the payload, None when it stays as it is; `outcome` is negative when it is refused."""
    outcome[0] = 0
    if core.transforms is None:
        return None
    return transform(core.transforms, topic, request.payload, request.encoding, core.settings.frames.max_message,
                     &core.counters, outcome)


cdef void replace_payload(Request* request, bytes payload) noexcept:
    if payload is not None:
        request.payload = slice_of(<const uint8_t*> payload, len(payload))
        request.encoding = JSON_TEXT


cdef int broadcast_elsewhere(Core core, Session* session, const Request* request, int authority) noexcept:
    """As `publish_once` for a topic that is at home elsewhere; its Ack comes later."""
    cdef Request sent = request[0]
    cdef bytes changed
    cdef bytes key = b""
    cdef int outcome = 0
    try:
        changed = transformed_payload(core, request.topic, request, &outcome)
        if outcome < 0:
            return outcome
        if request.idempotency_key.data != NULL:
            key = idempotency_key(user_id(<User*> session.user), request.topic, request.idempotency_key)
    except MemoryError:
        return -1
    replace_payload(&sent, changed)
    return relay_broadcast(core, session, &sent, authority, key)


cdef bint target_full(Core core, Slice name) noexcept nogil:
    """Overflow `backpressure`: whether a session of the user takes no more."""
    cdef User* user = user_find(&core.users, name)
    cdef Topic* inbox
    cdef Session* session
    if core.peers.spread:
        inbox = find_inbox(core, name)
        if inbox != NULL and inbox.full_at:
            return True          # on another worker
    if user == NULL:
        return False
    session = user.sessions
    while session != NULL:
        if mailbox_is_full(&core.outbox, session):
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
    if core.draining:
        message[0] = ENDING
        return ERROR_UNAVAILABLE
    if core.settings.overflow == OVERFLOW_BACKPRESSURE:
        for i in range(request.target_count):
            if target_full(core, request.targets[i]):
                message[0] = b"to: a recipient does not keep up; try again later"
                return ERROR_BACKPRESSURE
    return 0


cdef int64_t retry_after(int code) noexcept nogil:
    """Milliseconds after which a DirectMessage refused with `code` may be tried again, or NO_RETRY."""
    if code == ERROR_BACKPRESSURE:
        return BACKPRESSURE_RETRY_MS
    return DRAINING_RETRY_MS if code == ERROR_UNAVAILABLE else NO_RETRY


cdef int publish_to(Core core, Topic* inbox, Slice sender, const Request* request, Slice target,
                    dict changed) noexcept:
    cdef Position position
    cdef Request sent = request[0]
    cdef int outcome
    try:
        if changed is not None:
            replace_payload(&sent, changed.get((<const char*> target.data)[:target.size]))
        if core.keeps_upstream and request.idempotency_key.data != NULL:
            core.keyed = idempotency_key(sender, topic_name(inbox), request.idempotency_key)
    except MemoryError:
        return -1
    outcome = core.publish(topic_name(inbox), TOPIC_INBOX, sender, sent.payload, sent.encoding, NULL, &position)
    core.keyed = None
    return outcome


cdef int send_once(Core core, Slice sender, const Request* request, Slice* delivered, uint32_t* delivered_count,
                   Slice* offline, uint32_t* offline_count, bint* wait) noexcept:
    """Sends a DirectMessage to all its targets, unless that was done before under its idempotency key. 0; -1 without
    memory, or a negative outcome of a transform, with nothing published."""
    cdef dict changed = None
    cdef bint silent = sent_before(core, sender, request)
    cdef int outcome
    if core.transforms is not None and not silent:
        try:
            changed = {}
            outcome = -transform_all(core, request, changed)
        except MemoryError:
            outcome = -1
        if outcome < 0:
            forget_sent(core, sender, request)
            delivered_count[0] = 0
            offline_count[0] = 0
            return outcome
    outcome = send_all(core, sender, request, silent, changed, delivered, delivered_count, offline, offline_count, wait)
    release_targets(core, request)
    return outcome


cdef int send_all(Core core, Slice sender, const Request* request, bint silent, dict changed, Slice* delivered,
                  uint32_t* delivered_count, Slice* offline, uint32_t* offline_count, bint* wait) noexcept:
    """Publishes on the inbox of each target, repeated ones once, and sorts them by whether they are here.

    `silent`: a repeated request, nothing is published. -1 without memory; some may have got it then.
    """
    cdef uint32_t i
    cdef Slice target
    cdef User* user
    cdef Topic* topic
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
        if topic.interest or user != NULL and user.session_count:
            delivered[delivered_count[0]] = target
            delivered_count[0] += 1
        else:
            offline[offline_count[0]] = target
            offline_count[0] += 1
        if not silent and publish_to(core, topic, sender, request, target, changed) < 0:
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
    cdef uint8_t place[256]
    return topic_find(&core.store, inbox_name(user, place))


cdef bint inboxes_full(Core core, const Request* request) noexcept:
    """Overflow `block`: whether a session of one of the targets has no room."""
    cdef uint32_t i
    cdef Topic* topic
    if core.settings.overflow != OVERFLOW_BLOCK:
        return False
    for i in range(request.target_count):
        topic = find_inbox(core, request.targets[i])
        if topic != NULL and consumers_full(core, topic_name(topic)):
            return True
    return False


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


cdef void forget_sent(Core core, Slice sender, const Request* request) noexcept:
    """It was not sent after all, and may be tried again."""
    if request.idempotency_key.data != NULL:
        core.answered.pop(idempotency_key(sender, slice_of(b"@", 1), request.idempotency_key), None)


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
        core.error(session, request, code, message, retry_after(code), NULL)
        return OUTCOME_DONE
    if inboxes_full(core, request):
        return OUTCOME_PARKED
    if core.peers.holding and any_arriving(core, request):
        return OUTCOME_PARKED
    if core.peers.spread and any_elsewhere(core, request):
        code = send_spread(core, session, sender, request, None)
        if code < 0:
            not_published(core, session, request, code)
        return OUTCOME_DONE
    buffer_init(&lists)
    if buffer_reserve(&lists, 2 * request.target_count * sizeof(Slice)) < 0:
        no_memory(core, session, request)
        return OUTCOME_DONE
    delivered = <Slice*> lists.data
    offline = delivered + request.target_count
    code = send_once(core, sender, request, delivered, &delivered_count, offline, &offline_count, &wait)
    if code < 0:
        not_published(core, session, request, code)
    elif request.id_kind and write_delivered(start(core), variant_encoding(session.variant), request, delivered,
                                             delivered_count, offline, offline_count) == 0:
        outbox_reply(&core.outbox, session, False)
    buffer_free(&lists)
    return OUTCOME_WAIT if wait else OUTCOME_DONE


# --- inboxes that are at home elsewhere

cdef bint any_elsewhere(Core core, const Request* request) noexcept nogil:
    cdef uint8_t place[256]
    cdef uint32_t i
    for i in range(request.target_count):
        if peers_authority(&core.peers, inbox_name(request.targets[i], place)) != AUTHORITY_HERE:
            return True
    return False


cdef bint any_arriving(Core core, const Request* request) noexcept nogil:
    cdef uint8_t place[256]
    cdef uint32_t i
    for i in range(request.target_count):
        if peers_authority(&core.peers, inbox_name(request.targets[i], place)) == AUTHORITY_ARRIVING:
            return True
    return False


cdef int publish_inbox(Core core, Slice user, Slice sender, Slice payload, int encoding, bytes key, Position* position,
                       bint* reached) noexcept:
    cdef Topic* topic = core.inbox(user)
    cdef User* owner
    if topic == NULL:
        return -1
    owner = user_find(&core.users, user)
    reached[0] = topic.interest != 0 or (owner != NULL and owner.session_count != 0)
    return publish_keyed(core, topic_name(topic), TOPIC_INBOX, sender, payload, encoding, key, position)


cdef int publish_keyed(Core core, Slice topic, int kind, Slice sender, Slice payload, int encoding, bytes key,
                       Position* position) noexcept:
    cdef int outcome
    if kind == TOPIC_ALL and core.everyone() == NULL:
        return -1
    try:
        if key and once_before(core, key, position):
            return 0
        core.keyed = key
        outcome = core.publish(topic, kind, sender, payload, encoding, NULL, position)
        core.keyed = None
        if outcome == 0 and key:
            remember(core, key, position)
        return outcome
    except MemoryError:
        return -1


cdef int send_spread(Core core, Session* session, Slice sender, const Request* request, Later later) noexcept:
    """A DirectMessage of which some inboxes are elsewhere: the reply goes out with the last answer. 0, or negative."""
    cdef Group* group
    cdef uint32_t count = 0, i
    cdef Buffer unique
    cdef int outcome
    cdef set seen = set()
    buffer_init(&unique)
    try:
        for i in range(request.target_count):
            name = (<const char*> request.targets[i].data)[:request.targets[i].size]
            if name not in seen:
                seen.add(name)
                if buffer_append(&unique, &request.targets[i], sizeof(Slice)) < 0:
                    return -1
                count += 1
        group = group_new(<Slice*> unique.data, count)
        if group == NULL:
            return -1
        group.left = count + 1   # the one more keeps it until all are under way
        for i in range(count):
            outcome = send_one(core, session, sender, request, later, group, i)
            if outcome < 0:
                if i == 0:
                    free(group)
                    return outcome
                group.code = ERROR_UNAVAILABLE
                group.left -= count - i
                break
        group_answered(core, session, group, request, later)
        return 0
    except MemoryError:
        return -1
    finally:
        buffer_free(&unique)


cdef int send_one(Core core, Session* session, Slice sender, const Request* request, Later later, Group* group,
                  uint32_t i) except -2:
    cdef uint8_t place[256]
    cdef Slice user = group.targets[i]
    cdef Slice name = inbox_name(user, place)
    cdef int authority = peers_authority(&core.peers, name)
    cdef Request sent = request[0]
    cdef Position position
    cdef bint reached = False
    cdef Waiting* waiting
    cdef bytes key = b""
    cdef int outcome = 0
    cdef bytes changed = transformed_payload(core, name, request, &outcome)
    if outcome < 0:
        return outcome
    replace_payload(&sent, changed)
    if request.idempotency_key.data != NULL:
        key = idempotency_key(sender, name, request.idempotency_key)
    if authority == AUTHORITY_HERE:
        outcome = publish_inbox(core, user, sender, sent.payload, sent.encoding, key, &position, &reached)
        if outcome == 0:
            group.reached[i] = reached
            group.left -= 1
        return outcome
    waiting = waiting_add(&core.peers, WAIT_TARGET, authority, session, request.id_kind, request.encoding, request.id,
                          name, TOPIC_INBOX, core.now_ms)
    if waiting == NULL:
        return -1
    if relay_publish(core, authority, name, TOPIC_INBOX, sender, sent.payload, sent.encoding, 0, key,
                     waiting.token) < 0:
        waiting_remove(&core.peers, waiting)
        return -1
    waiting.group = group
    waiting.target = i
    if later is not None:
        Py_INCREF(later)
        waiting.later = <void*> later
    return 0


cdef void group_answered(Core core, Session* session, Group* group, const Request* request, Later later) noexcept:
    cdef Slice* delivered = NULL
    cdef Slice* offline = NULL
    cdef uint32_t delivered_count = 0, offline_count = 0, i
    cdef Buffer lists
    group.left -= 1
    if group.left:
        return
    buffer_init(&lists)
    if buffer_reserve(&lists, 2 * (group.count + 1) * sizeof(Slice)) < 0:
        group.code = ERROR_UNAVAILABLE
    else:
        delivered = <Slice*> lists.data
        offline = delivered + group.count
        for i in range(group.count):
            if group.reached[i]:
                delivered[delivered_count] = group.targets[i]
                delivered_count += 1
            else:
                offline[offline_count] = group.targets[i]
                offline_count += 1
    if group.code:
        if session != NULL:
            core.error(session, request, group.code, b"to: not everybody's inbox could be reached; try again later",
                       BACKPRESSURE_RETRY_MS, NULL)
        elif later is not None:
            later.settle(None, RequestError(error_name(group.code).decode(),
                                            "to: not everybody's inbox could be reached; try again later",
                                            BACKPRESSURE_RETRY_MS))
    elif session != NULL and request.id_kind:
        if write_delivered(start(core), variant_encoding(session.variant), request, delivered, delivered_count,
                           offline, offline_count) == 0:
            outbox_reply(&core.outbox, session, False)
    elif later is not None:
        later.settle({"delivered": names(delivered, delivered_count), "offline": names(offline, offline_count)}, None)
    buffer_free(&lists)
    free(group)


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
        if envelope_parse(
                &self.scratch, JSON_TEXT, <const uint8_t*> self.text, len(self.text), type, &self.request) < 0:
            core.counters.invalid += 1
            raise RequestError(error_name(self.request.error).decode(), self.request.error_message.decode())
        return 0

    cdef Slice name(self):
        return slice_of(<const uint8_t*> self.sender, len(self.sender))


cdef object publish_body(Core core, bytes body, object identity):
    cdef Body parsed = Body(body, identity)
    cdef Position position
    parsed.parse(core, REQUEST_BROADCAST)
    cdef const char* refused = forbidden_to_publish(
        parsed.permissions, parsed.patterns, parsed.request.topic, parsed.request.topic_is_all)
    if refused != NULL:
        raise RequestError("forbidden", refused.decode())
    if core.draining:
        raise RequestError("unavailable", ENDING.decode(), DRAINING_RETRY_MS)
    if consumers_full(core, parsed.request.topic):
        core.counters.backpressure += 1
        raise RequestError("backpressure", "topic: a consumer does not keep up; try again later", BACKPRESSURE_RETRY_MS)
    cdef int authority = peers_authority(&core.peers, parsed.request.topic)
    cdef int outcome = 0
    cdef bytes changed
    cdef bytes key = b""
    cdef Later later
    if authority == AUTHORITY_ARRIVING:
        raise RequestError("unavailable", MOVING.decode(), MOVING_RETRY_MS)
    if authority != AUTHORITY_HERE:
        changed = transformed_payload(core, parsed.request.topic, &parsed.request, &outcome)
        if outcome < 0:
            raise not_published_over_http(outcome)
        replace_payload(&parsed.request, changed)
        if parsed.request.idempotency_key.data != NULL:
            key = idempotency_key(parsed.name(), parsed.request.topic, parsed.request.idempotency_key)
        later = relay_body(core, parsed.name(), &parsed.request, authority, key)
        if later is None:
            raise not_published_over_http(-1)
        return later
    outcome = publish_once(core, parsed.name(), &parsed.request, NULL, &position)
    if outcome < 0:
        raise not_published_over_http(outcome)
    return {"epoch": (<const char*> position.epoch)[:EPOCH_SIZE].decode(), "offset": position.offset}


cdef list names(const Slice* items, uint32_t count):
    return [(<const char*> items[i].data)[:items[i].size].decode() for i in range(count)]


cdef object send_body(Core core, bytes body, object identity):
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
                           None if retry_after(code) == NO_RETRY else retry_after(code))
    if inboxes_full(core, request):
        core.counters.backpressure += 1
        raise RequestError("backpressure", "to: a recipient does not keep up; try again later", BACKPRESSURE_RETRY_MS)
    cdef Later later
    if core.peers.holding and any_arriving(core, request):
        raise RequestError("unavailable", MOVING.decode(), MOVING_RETRY_MS)
    if core.peers.spread and any_elsewhere(core, request):
        later = Later()
        code = send_spread(core, NULL, parsed.name(), request, later)
        if code < 0:
            raise not_published_over_http(code)
        return later
    buffer_init(&lists)
    try:
        if buffer_reserve(&lists, 2 * request.target_count * sizeof(Slice)) < 0:
            raise MemoryError
        code = send_once(core, parsed.name(), request, <Slice*> lists.data, &delivered_count,
                         <Slice*> lists.data + request.target_count, &offline_count, &wait)
        if code < 0:
            raise not_published_over_http(code)
        return {
            "delivered": names(<Slice*> lists.data, delivered_count),
            "offline": names(<Slice*> lists.data + request.target_count, offline_count),
        }
    except MemoryError:
        raise not_published_over_http(-1) from None
    finally:
        buffer_free(&lists)
