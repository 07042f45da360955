# What a session's bytes travel through: the reactor's sockets, a TLS transport, a test.
#
# Rules: the hub calls these, never a socket. None of them may call back into the hub, but for `write`, which tells the
# mailbox what has left and may set FLAG_BLOCKED. A driver that finds its peer gone says so with -1 and leaves the rest
# to whoever called.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t

from realtime_communication._core.hub.session cimport Session


cdef class Driver:
    cdef bint secure            # the bytes travel over TLS
    cdef bint stays             # its sessions cannot go to another worker, TLS or not

    # Writes what the mailbox gathers, as far as the socket takes it. 0; -1 when the peer is gone.
    cdef int write(self, Session* session) noexcept
    # Starts or stops asking for input.
    cdef void reading(self, Session* session, bint on) noexcept
    # The hub has forgotten the session: release its socket.
    cdef void finish(self, Session* session) noexcept
    # The request is none for the data plane: `data` is all that was read of it, and the socket goes to its new owner.
    cdef void hand_over(self, Session* session, const uint8_t* data, size_t size) noexcept
    # The session goes to the worker in `slot`: sends its socket there behind what is queued, with `frame`. False: it
    # stays.
    cdef bint pass_on(self, Session* session, int slot, bytes frame) noexcept
    # A session that came from another worker with its socket is served by this driver from now on. 0, or -1.
    cdef int adopt(self, Session* session) noexcept
    # The peer's address for people and logs.
    cdef str peer(self, Session* session)
    # What the connection is to the peer: "websocket" or "sse".
    cdef str transport(self)
    # Something was queued outside a turn: come and write it.
    cdef void wake(self) noexcept
    # Brings the hub's clock up to date, for calls that come outside a turn.
    cdef void refresh(self) noexcept
