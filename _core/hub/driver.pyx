"""The border between sessions and sockets; `driver.pxd` is the contract. This driver does nothing: bytes stay put."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t

from realtime_communication._core.hub.session cimport Session


cdef class Driver:
    cdef int write(self, Session* session) noexcept:
        return 0

    cdef void reading(self, Session* session, bint on) noexcept:
        pass

    cdef void finish(self, Session* session) noexcept:
        pass

    cdef void hand_over(self, Session* session, const uint8_t* data, size_t size) noexcept:
        pass

    cdef bint pass_on(self, Session* session, int slot, bytes frame) noexcept:
        return False

    cdef int adopt(self, Session* session) noexcept:
        return -1

    cdef str peer(self, Session* session):
        return ""

    cdef str transport(self):
        return "websocket"

    cdef void wake(self) noexcept:
        pass

    cdef void refresh(self) noexcept:
        pass
