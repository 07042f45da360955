# The life of sessions: opening, pausing, closing, deadlines, freeing.
#
# Rules: a session is freed only by `free_dead`, at the end of a turn, and only when no list has it any more. Whoever
# ends a session makes it leave everything first. A session keeps its driver alive, so that there is always somebody to
# tell.

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint64_t

from realtime_communication._core.base.memory cimport Pool
from realtime_communication._core.hub.core cimport Core
from realtime_communication._core.hub.driver cimport Driver
from realtime_communication._core.hub.session cimport Session


cdef class Sessions(Core):
    cdef Pool pool               # of sessions
    cdef Session* resume         # sessions with input left over
    cdef Session* waiting        # publishers that wait for a full consumer
    cdef Session* dead           # to be freed at the end of the turn
    cdef uint64_t serials
    cdef bytes entropy           # random bytes for session ids, used from entropy_at on
    cdef size_t entropy_at
    cdef Driver home             # the driver that is woken for what is queued outside a turn

    # A session for a fresh connection, or NULL without memory.
    cdef Session* open(self, Driver driver, int fd) noexcept
    # The peer's stream has ended or failed: the session is dead.
    cdef void finish(self, Session* session) noexcept
    # Writes what waits for the session, as far as its driver takes it.
    cdef void flush(self, Session* session) noexcept
    cdef void close(self, Session* session, int code, const char* reason) noexcept
    cdef void pause(self, Session* session) noexcept
    cdef void unpause(self, Session* session) noexcept
    # The session waits for the answer it is bound to (pending.pxd): it is not read.
    cdef void await_answer(self, Session* session) noexcept
    # What was withheld from the session is written at the end of the turn.
    cdef void let_out(self, Session* session) noexcept
    # It waits no longer: it is read again, unless something else forbids it.
    cdef void go_on(self, Session* session) noexcept
    # Nobody has answered for its credential in time.
    cdef void unanswered(self, Session* session) noexcept
    cdef void wait(self, Session* session) noexcept
    cdef void stop_waiting(self, Session* session) noexcept
    cdef void relieve(self) noexcept
    cdef void session_expired(self, Session* session) noexcept
    cdef void open_session_expired(self, Session* session) noexcept
    cdef uint64_t deadline(self, const Session* session) noexcept nogil
    # Publishers wait for it (overflow `block`).
    cdef bint holds_others(self, const Session* session) noexcept nogil
    # The times of the settings have changed: all deadlines anew. Who has been silent for longer than is allowed now is
    # asked before it is given up.
    cdef void renew_all(self) noexcept
    cdef void name_session(self, Session* session) noexcept
    # Out of the list of all, into that of the dead.
    cdef void bury(self, Session* session) noexcept
    cdef void free_dead(self) noexcept
    # Answers a request that is not upgraded with an HTTP error and ends the connection.
    cdef void reject(self, Session* session, int status, object code, object message, list headers) noexcept
