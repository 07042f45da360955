# Broadcast and DirectMessage, from a connection or over HTTP: who may, once or again, to whom, and the answer.
#
# Rules: what is published is published through `core`; a request that is refused has published nothing. Bytes of the
# request are borrowed; nothing here keeps them.

from realtime_communication._core.base.memory cimport Buffer, Slice
from realtime_communication._core.hub.core cimport Core, Position
from realtime_communication._core.hub.peers cimport Group
from realtime_communication._core.hub.relay cimport Later
from realtime_communication._core.hub.session cimport Session
from realtime_communication._core.wire.envelope cimport Request


cdef enum:
    NO_RETRY = -1                # an Error without retry_after_ms


cdef enum Outcome:               # of a request
    OUTCOME_DONE = 0
    OUTCOME_WAIT = 1             # overflow `block`: a consumer of what was published is full; read no more for now
    OUTCOME_PARKED = 3           # not handled: a consumer is full (`block`) or a topic arrives; to be done again
    OUTCOME_UNAUTHORIZED = 2     # the Error is queued; close with 4401
    OUTCOME_PENDING = 4          # the credential's answer comes later (pending.pxd); read no more for now
    OUTCOME_ASKED = 5            # another authority is asked (relay.pxd); park the request, read no more for now


# Names that only the server publishes on: inboxes and system topics.
cdef inline bint is_reserved(Slice topic) noexcept nogil:
    return topic.data[0] == b"@" or topic.data[0] == b"$"


# The buffer of the next reply, emptied.
cdef inline Buffer* start(Core core) noexcept nogil:
    core.outbox.text.size = 0
    return &core.outbox.text


# Lets idempotency keys go that nobody is answered by any more.
cdef void forget_answers(Core core) noexcept
cdef void no_memory(Core core, Session* session, const Request* request) noexcept
cdef int broadcast(Core core, Session* session, const Request* request) noexcept
cdef int direct_message(Core core, Session* session, const Request* request) noexcept

# Publications that come over HTTP; `identity` is the caller's. A dict, or a Later that gives one. Both raise
# RequestError.
cdef object publish_body(Core core, bytes body, object identity)
cdef object send_body(Core core, bytes body, object identity)

# What another worker asks for. `key` is b"" or an idempotency key with its scope: answered before, nothing is published
# again. 0, or -1 without memory. `reached`: whether the user has a session on this node.
cdef int publish_keyed(Core core, Slice topic, int kind, Slice sender, Slice payload, int encoding, bytes key,
                       Position* position) noexcept
cdef int publish_inbox(Core core, Slice user, Slice sender, Slice payload, int encoding, bytes key, Position* position,
                       bint* reached) noexcept
# One more inbox of the group has its answer; with the last one the reply goes out, and the group is freed. `session` is
# NULL when it has gone, `later` None unless the request came over HTTP.
cdef void group_answered(Core core, Session* session, Group* group, const Request* request, Later later) noexcept
