# A driver whose peers live in memory: bytes are handed in and taken out by the caller. Tests of the whole data plane
# stand on it.
#
# Rules: after each `feed` the turn has ended. A connection that is stalled is a peer that does not read.

from realtime_communication._core.hub.driver cimport Driver
from realtime_communication._core.hub.hub cimport Hub
from realtime_communication._core.hub.session cimport Session


cdef class Connection:
    cdef MemoryDriver driver
    cdef Session* session        # NULL once the hub has finished it
    cdef readonly bint stalled   # nothing is taken: the socket is full
    cdef readonly bint reading   # the hub wants input
    cdef readonly bytes handed_over  # what was read of a request that is none for the data plane
    cdef bytearray out           # bytes on their way to the peer


cdef class MemoryDriver(Driver):
    cdef Hub hub
    cdef dict connections        # serial -> Connection
    cdef str address
    cdef list passed             # (slot, bytes queued for it before, frame, Connection) of sessions that went
    cdef Connection arriving     # whose session comes

    cdef int end_turn(self) except -1
