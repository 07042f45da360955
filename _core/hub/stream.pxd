# A connection without a socket: the control plane asks on the peer's behalf and takes what is for it. Server-Sent
# Events stand on it (http/sse.py).
#
# Rules: to the hub it is a session like any other, so that limits, mailboxes, overflow, recovery and presence are the
# same. It has no other form than JSON, uncompressed, and never moves to another worker. `out` stands for the send
# buffer of a socket: while it is full, the session is blocked. The hub's pings are answered when they are taken, since
# whoever takes has written all that it took before.
#
# `on_ready` is called within the hub's turn: it must not call back, and what it raises is lost.

from libc.stddef cimport size_t

from realtime_communication._core.hub.backlog cimport Outbox
from realtime_communication._core.hub.driver cimport Driver
from realtime_communication._core.hub.hub cimport Hub
from realtime_communication._core.hub.session cimport Session


cdef enum:
    STREAM_BYTES = 65536         # most that `out` holds, as much as a socket's buffer as a rule


cdef class Stream(Driver):
    cdef Hub hub
    cdef Session* session        # NULL before `begin`, and once the hub has finished it
    cdef str address             # of the client, for people and logs
    cdef object on_ready
    cdef bytearray out           # frames in the order they leave; the last may be cut
    cdef bytearray cut           # the beginning of a frame whose rest has not been taken
    cdef bint told               # on_ready was called since the last `take`

    cdef void tell(self) noexcept
    # Hands a masked frame of a client to the hub.
    cdef int feed(self, int opcode, bytes payload) except -1


# Moves up to `limit` bytes (all when negative) from the session's mailbox to `out`, as a socket would take them; with a
# limit that is reached the session is blocked. Raises MemoryError.
cdef int move_bytes(Outbox* outbox, Session* session, bytearray out, Py_ssize_t limit) except -1
