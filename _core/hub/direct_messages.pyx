"""Direct messages; `direct_messages.pxd` is the contract."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t

from realtime_communication._core.base.memory cimport Buffer, Slice, buffer_free, buffer_init, buffer_reserve, slice_of
from realtime_communication._core.hub.backlog cimport mailbox_is_full
from realtime_communication._core.hub.core cimport Core, Position, inbox_name
from realtime_communication._core.hub.idempotency cimport idempotency_key, once, remember
from realtime_communication._core.hub.outbox cimport outbox_reply
from realtime_communication._core.hub.outcome cimport (
    BACKPRESSURE_RETRY_MS,
    DRAINING_RETRY_MS,
    NO_RETRY,
    OUTCOME_DONE,
    OUTCOME_PARKED,
    OUTCOME_WAIT,
    ending,
    no_memory,
    start,
)
from realtime_communication._core.hub.peers cimport AUTHORITY_ARRIVING, AUTHORITY_HERE, peers_authority
from realtime_communication._core.hub.permissions cimport may_send_to
from realtime_communication._core.hub.publications cimport consumers_full, not_published, replace_payload
from realtime_communication._core.hub.scatter cimport send_spread
from realtime_communication._core.hub.session cimport (
    PERMISSION_ADMIN,
    PERMISSION_WRITE,
    Patterns,
    Session,
    publish_patterns,
)
from realtime_communication._core.hub.settings cimport OVERFLOW_BACKPRESSURE, OVERFLOW_BLOCK
from realtime_communication._core.hub.topic_rules cimport ACT_PUBLISH, refused_by_rule
from realtime_communication._core.hub.topics cimport (
    EPOCH_SIZE,
    TOPIC_INBOX,
    Topic,
    topic_find,
    topic_name,
    topic_release,
)
from realtime_communication._core.hub.transforms cimport transform_all
from realtime_communication._core.hub.users cimport User, user_find, user_id
from realtime_communication._core.hub.variants cimport variant_encoding
from realtime_communication._core.wire.envelope cimport (
    ERROR_BACKPRESSURE,
    ERROR_FORBIDDEN,
    ERROR_TOO_MANY_TARGETS,
    ERROR_UNAVAILABLE,
    Request,
)
from realtime_communication._core.wire.outbound cimport write_delivered


cdef enum:
    FEW_TARGETS = 4              # whose lists need no memory of their own


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


cdef int check_targets(Core core, uint8_t permissions, uint64_t roles, const Patterns* patterns, const Request* request,
                       const char** message) noexcept:
    """0, or the ErrorCode that a DirectMessage is refused with, and why."""
    cdef uint8_t place[256]
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
        if refused_by_rule(core.rules, ACT_PUBLISH, permissions, roles, inbox_name(request.targets[i], place)) != NULL:
            message[0] = b"to: an inbox that only certain roles may publish on"
            return ERROR_FORBIDDEN
    if core.draining:
        message[0] = ending()
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
    cdef int code = check_targets(core, session.permissions, session.roles, publish_patterns(session), request,
                                  &message)
    cdef Slice few[2 * FEW_TARGETS]
    cdef Buffer lists            # more than these
    cdef Slice* delivered = few
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
    if request.target_count > FEW_TARGETS:
        if buffer_reserve(&lists, 2 * request.target_count * sizeof(Slice)) < 0:
            no_memory(core, session, request)
            return OUTCOME_DONE
        delivered = <Slice*> lists.data
    offline = delivered + request.target_count
    code = send_once(core, sender, request, delivered, &delivered_count, offline, &offline_count, &wait)
    if code < 0:
        not_published(core, session, request, code)
    elif request.id_kind:
        if write_delivered(start(core), variant_encoding(session.variant), request, delivered, delivered_count, offline,
                           offline_count) == 0:
            outbox_reply(&core.outbox, session, False)
        else:
            no_memory(core, session, request)
    buffer_free(&lists)
    return OUTCOME_WAIT if wait else OUTCOME_DONE


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
