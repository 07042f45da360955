"""Subscribe and Unsubscribe; `subscriptions.pxd` is the contract."""

from libc.stdint cimport int64_t, uint64_t, uint8_t

from realtime_communication._core.base.memory cimport slice_of
from realtime_communication._core.hub.authorization cimport AUTHORIZED, authorize
from realtime_communication._core.hub.backlog cimport backlog_restart
from realtime_communication._core.hub.core cimport Core
from realtime_communication._core.hub.outbox cimport outbox_flush_topic
from realtime_communication._core.hub.outcome cimport (
    NO_RETRY,
    OUTCOME_ASKED,
    OUTCOME_DONE,
    OUTCOME_PARKED,
    no_memory,
    reply,
    start,
)
from realtime_communication._core.hub.peers cimport AUTHORITY_ARRIVING, AUTHORITY_HERE, AUTHORITY_WORKER, Frame, Waiting
from realtime_communication._core.hub.permissions cimport forbidden_to_subscribe, is_reserved
from realtime_communication._core.hub.relay cimport ask_subscribe, epoch_number
from realtime_communication._core.hub.session cimport Session
from realtime_communication._core.hub.settings cimport MAX_SUBSCRIPTIONS
from realtime_communication._core.hub.stored_messages cimport fits, readable, readable_bodies, send_bodies, send_stored
from realtime_communication._core.hub.topic_rules cimport ACT_PRESENCE, ACT_SUBSCRIBE, TopicRule, refused_by, rule_of
from realtime_communication._core.hub.topics cimport (
    EPOCH_SIZE,
    TOPIC_PLAIN,
    Subscription,
    Topic,
    subscription_find,
    subscription_watch,
    topic_epoch,
    topic_find,
    topic_first,
    topic_name,
    topic_release,
    topic_shown,
)
from realtime_communication._core.hub.variants cimport variant_encoding
from realtime_communication._core.wire.envelope cimport ERROR_FORBIDDEN, Request
from realtime_communication._core.wire.outbound cimport write_subscribed_head, write_unsubscribed


cdef int subscribe(Core core, Session* session, const Request* request) noexcept:
    cdef const char* refused = forbidden_to_subscribe(session, request.topic)
    cdef const TopicRule* rule = rule_of(core.rules, request.topic)
    cdef Request plain
    cdef Topic* topic
    cdef int outcome = OUTCOME_DONE
    if refused == NULL and rule != NULL:
        refused = refused_by(rule, ACT_PRESENCE if request.presence else ACT_SUBSCRIBE, session.permissions,
                             session.roles, request.topic)
    if refused != NULL:
        core.error(session, request, ERROR_FORBIDDEN, refused, NO_RETRY, NULL)
        return OUTCOME_DONE
    if core.verdicts is not None:
        outcome = authorize(core, session, request, ACT_SUBSCRIBE)
        if outcome != AUTHORIZED:
            return outcome
        outcome = OUTCOME_DONE
    if rule != NULL and not rule.history:
        plain = request[0]       # what it has missed is nowhere
        plain.has_position = False
        plain.history = -1
        request = &plain
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
        first = topic_shown(topic)
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
