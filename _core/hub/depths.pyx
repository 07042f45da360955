"""How full mailboxes are; `depths.pxd` is the contract."""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from realtime_communication._core.hub.mailbox cimport mailbox_messages
from realtime_communication._core.hub.session cimport FLAG_COUNTED, Session


cdef void survey(Session* session, uint64_t* depths, Session** slowest, uint32_t limit, uint32_t* count) noexcept nogil:
    cdef uint32_t waiting, at
    memset(depths, 0, DEPTHS * sizeof(uint64_t))
    while session != NULL:
        if session.flags & FLAG_COUNTED:
            waiting = waiting_for(session)
            depths[depth_of(waiting)] += 1
            if waiting and (count[0] < limit or (limit and waiting_for(slowest[count[0] - 1]) < waiting)):
                at = count[0]
                while at and waiting_for(slowest[at - 1]) < waiting:
                    slowest[at] = slowest[at - 1]
                    at -= 1
                slowest[at] = session
                count[0] = min(count[0] + 1, limit)
        session = session.next


cdef inline uint32_t waiting_for(const Session* session) noexcept nogil:
    return mailbox_messages(&session.mailbox) + session.mailbox.priority_messages


cdef inline int depth_of(uint32_t waiting) noexcept nogil:
    """The bit length, at most DEPTHS - 1."""
    cdef int bits = 0
    while waiting and bits < DEPTHS - 1:
        bits += 1
        waiting >>= 1
    return bits
