"""Publications; `publications.pxd` is the contract."""

from libc.stdint cimport uint8_t

from realtime_communication._core.base.memory cimport Slice, slice_of
from realtime_communication._core.hub.authorization cimport AUTHORIZED, authorize
from realtime_communication._core.hub.core cimport Core, Position
from realtime_communication._core.hub.idempotency cimport idempotency_key, once_before, remember
from realtime_communication._core.hub.outbox cimport outbox_flush_topic, outbox_reply
from realtime_communication._core.hub.outcome cimport (
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
from realtime_communication._core.hub.permissions cimport forbidden_to_publish
from realtime_communication._core.hub.relay cimport relay_broadcast
from realtime_communication._core.hub.session cimport Session, publish_patterns
from realtime_communication._core.hub.settings cimport OVERFLOW_BLOCK
from realtime_communication._core.hub.throttle cimport throttle_holds
from realtime_communication._core.hub.topic_rules cimport ACT_PUBLISH, refused_by_rule
from realtime_communication._core.hub.topics cimport (
    EPOCH_SIZE,
    TOPIC_ALL,
    TOPIC_INBOX,
    TOPIC_PLAIN,
    Topic,
    topic_find,
    topic_name,
)
from realtime_communication._core.hub.transforms cimport publish_transformed, refusal_by_transform, transform
from realtime_communication._core.hub.users cimport User, user_find, user_id
from realtime_communication._core.hub.variants cimport variant_encoding
from realtime_communication._core.wire.envelope cimport ERROR_FORBIDDEN, ERROR_UNAVAILABLE, JSON_TEXT, Request
from realtime_communication._core.wire.outbound cimport write_ack


cdef void not_published(Core core, Session* session, const Request* request, int outcome) noexcept:
    cdef int code = 0
    cdef const char* message = refusal_by_transform(outcome, &code)
    if message == NULL:
        no_memory(core, session, request)
    else:
        core.error(session, request, code, message, NO_RETRY, NULL)


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
        session.permissions, publish_patterns(session), request.topic, request.topic_is_all)
    cdef Position position
    cdef int outcome, authority
    if refused == NULL and not request.topic_is_all:
        refused = refused_by_rule(core.rules, ACT_PUBLISH, session.permissions, session.roles, request.topic)
    if refused != NULL:
        core.error(session, request, ERROR_FORBIDDEN, refused, NO_RETRY, NULL)
        return OUTCOME_DONE
    if core.draining:
        core.error(session, request, ERROR_UNAVAILABLE, ending(), DRAINING_RETRY_MS, NULL)
        return OUTCOME_DONE
    if core.verdicts is not None and not request.topic_is_all:
        outcome = authorize(core, session, request, ACT_PUBLISH)
        if outcome != AUTHORIZED:
            return outcome
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
