"""Presence; `presence.pxd` is the contract."""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint8_t

from realtime_communication._core.base.memory cimport Buffer, Slice, slice_of
from realtime_communication._core.hub.authorization cimport AUTHORIZED, authorize
from realtime_communication._core.hub.core cimport Core
from realtime_communication._core.hub.outbox cimport outbox_reply
from realtime_communication._core.hub.outcome cimport NO_RETRY, OUTCOME_DONE, no_memory, start
from realtime_communication._core.hub.peers cimport Frame, take_number, take_slice
from realtime_communication._core.hub.permissions cimport forbidden_to_read, is_reserved
from realtime_communication._core.hub.session cimport Session, session_id, session_info
from realtime_communication._core.hub.settings cimport REPLY_BYTES
from realtime_communication._core.hub.topic_rules cimport ACT_PRESENCE, ACT_SUBSCRIBE, refused_by_rule
from realtime_communication._core.hub.topics cimport Subscription, Topic, topic_find
from realtime_communication._core.hub.users cimport User, user_id
from realtime_communication._core.hub.variants cimport variant_encoding
from realtime_communication._core.wire.envelope cimport ERROR_FORBIDDEN, Request
from realtime_communication._core.wire.outbound cimport (
    write_list_tail,
    write_presence_member,
    write_presence_state_head,
)


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
    cdef int outcome
    if refused == NULL:
        refused = refused_by_rule(core.rules, ACT_PRESENCE, session.permissions, session.roles, request.topic)
    if refused != NULL:
        core.error(session, request, ERROR_FORBIDDEN, refused, NO_RETRY, NULL)
        return OUTCOME_DONE
    if not request.id_kind:
        return OUTCOME_DONE
    if core.verdicts is not None:
        outcome = authorize(core, session, request, ACT_SUBSCRIBE)
        if outcome != AUTHORIZED:
            return outcome
    if core.peers.spread:
        return core.ask_presence(session, request)
    if topic == NULL and is_reserved(request.topic):
        topic = core.inbox(slice_of(request.topic.data + 1, request.topic.size - 1))  # nobody has written to it yet
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
    else:
        no_memory(core, session, request)
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
    else:
        no_memory(core, session, request)
