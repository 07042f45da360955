# Answers that take time: a callback that checks a credential returns a Pending and settles it later.
#
# Rules: nothing is read from the session meanwhile; of what it sends all the same, at most ANONYMOUS_BYTES are kept
# before it is authenticated. What it needs to go on is kept here: of an upgrade the finished 101 answer, of a request
# its id. The link between both is cut when the session ends, is told that it took too long, or goes on; a Pending may
# outlive its session and its hub, and settling it then does nothing.
#
# Not thread-safe: it is settled in the thread of the hub.

from realtime_communication._core.hub.core cimport Core
from realtime_communication._core.hub.session cimport Session
from realtime_communication._core.wire.envelope cimport Request


cdef class Pending:
    cdef readonly bint settled
    cdef object answer           # given before the callback had returned
    cdef bint bound              # a session has waited for it
    cdef Session* session        # NULL while none waits
    cdef void* core              # Core, borrowed; NULL while none waits
    cdef bytes response          # of an upgrade
    cdef Request request         # of a message: type, encoding and id
    cdef bytes request_id        # what `request.id` points into


# The session waits from now on: FLAG_PENDING. `request` is NULL for an upgrade, whose 101 answer is `response`. Raises
# ValueError when another one has waited for it.
cdef int pending_bind(Pending pending, Core core, Session* session, const Request* request, bytes response) except -1
# The session waits no longer, if it did; what it waited for, or None.
cdef Pending pending_release(Session* session)
