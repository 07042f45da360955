"""Direct messages to several homes; `scatter.pxd` is the contract."""

from cpython.ref cimport Py_INCREF
from libc.stdint cimport uint32_t, uint8_t
from libc.stdlib cimport free

from realtime_communication._core.base.memory cimport (
    Buffer,
    Slice,
    buffer_append,
    buffer_free,
    buffer_init,
    buffer_reserve,
)
from realtime_communication._core.hub.core cimport Core, Position, inbox_name
from realtime_communication._core.hub.idempotency cimport idempotency_key
from realtime_communication._core.hub.outbox cimport outbox_reply
from realtime_communication._core.hub.outcome cimport BACKPRESSURE_RETRY_MS, no_memory, start
from realtime_communication._core.hub.peers cimport (
    AUTHORITY_HERE,
    WAIT_TARGET,
    Group,
    Waiting,
    group_new,
    peers_authority,
    waiting_add,
    waiting_remove,
)
from realtime_communication._core.hub.publications cimport publish_inbox, replace_payload, transformed_payload
from realtime_communication._core.hub.relay cimport Later, relay_publish
from realtime_communication._core.hub.session cimport Session
from realtime_communication._core.hub.topics cimport TOPIC_INBOX
from realtime_communication._core.hub.variants cimport variant_encoding
from realtime_communication._core.wire.envelope cimport ERROR_UNAVAILABLE, Request, error_name
from realtime_communication._core.wire.outbound cimport write_delivered
from realtime_communication._core.hub.outcome import RequestError


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
        else:
            no_memory(core, session, request)
    elif later is not None:
        later.settle({"delivered": names(delivered, delivered_count), "offline": names(offline, offline_count)}, None)
    buffer_free(&lists)
    free(group)


cdef list names(const Slice* items, uint32_t count):
    return [(<const char*> items[i].data)[:items[i].size].decode() for i in range(count)]
