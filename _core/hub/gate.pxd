# The gate: request heads, who is let in, the 101 answer. What is no WebSocket request goes to the driver's HTTP side.
#
# Rules: everything is decided before a byte behind the head is read; a refused connection is read no further.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t

from realtime_communication._core.base.memory cimport Slice
from realtime_communication._core.hub.session cimport Session
from realtime_communication._core.hub.sessions cimport Sessions
from realtime_communication._core.wire.http_head cimport HttpHead


cdef class Gate(Sessions):
    cdef HttpHead head
    cdef object admission        # callback for the credentials of an upgrade
    cdef list origins
    cdef bint draining

    cdef void receive_head(self, Session* session, uint8_t* data, size_t size) noexcept
    cdef void upgrade(self, Session* session, bint echo) noexcept
    cdef bint open_upgraded(self, Session* session, object identity) noexcept
    cdef bytes query(self)
    cdef bint accept(self, Session* session, Slice subprotocol) except -1
    # Input of an upgraded session.
    cdef void receive_frames(self, Session* session, uint8_t* data, size_t size) noexcept
