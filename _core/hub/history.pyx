"""History; `history.pxd` is the contract."""

from libc.stdint cimport int64_t, uint64_t, uint8_t

from realtime_communication._core.base.memory cimport slice_of
from realtime_communication._core.hub.authorization cimport AUTHORIZED, authorize
from realtime_communication._core.hub.core cimport Core
from realtime_communication._core.hub.outcome cimport NO_RETRY, OUTCOME_DONE, OUTCOME_PARKED, no_memory, start
from realtime_communication._core.hub.peers cimport AUTHORITY_ARRIVING, AUTHORITY_HERE, AUTHORITY_WORKER, Frame
from realtime_communication._core.hub.permissions cimport forbidden_to_read
from realtime_communication._core.hub.relay cimport ask_history, epoch_number
from realtime_communication._core.hub.session cimport Session
from realtime_communication._core.hub.stored_messages cimport fits, readable, readable_bodies, send_bodies, send_stored
from realtime_communication._core.hub.topic_rules cimport ACT_HISTORY, ACT_SUBSCRIBE, refused_by_rule
from realtime_communication._core.hub.topics cimport (
    EPOCH_SIZE,
    TOPIC_PLAIN,
    Topic,
    epoch_text,
    topic_epoch,
    topic_first,
    topic_name,
    topic_release,
    topic_shown,
)
from realtime_communication._core.hub.users cimport User, user_id
from realtime_communication._core.hub.variants cimport variant_encoding
from realtime_communication._core.wire.envelope cimport ERROR_FORBIDDEN, Request
from realtime_communication._core.wire.outbound cimport write_history_page_head


cdef enum:
    DEFAULT_LIMIT = 100          # messages of a HistoryPage when the request names no limit


cdef int history(Core core, Session* session, const Request* request) noexcept:
    cdef const char* refused = forbidden_to_read(session, request.topic)
    cdef int64_t limit = request.limit if request.limit >= 0 else DEFAULT_LIMIT
    cdef Topic* topic
    cdef int outcome = OUTCOME_DONE
    if refused == NULL:
        refused = refused_by_rule(core.rules, ACT_HISTORY, session.permissions, session.roles, request.topic)
    if refused != NULL:
        core.error(session, request, ERROR_FORBIDDEN, refused, NO_RETRY, NULL)
        return OUTCOME_DONE
    if not request.id_kind:
        return OUTCOME_DONE
    if core.verdicts is not None:
        outcome = authorize(core, session, request, ACT_SUBSCRIBE)
        if outcome != AUTHORIZED:
            return outcome
        outcome = OUTCOME_DONE
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
    first[0] = topic_shown(topic)
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
