# The hub of one worker: the life of its sessions, from the first byte to the last, and the door for the control plane.
#
# Rules: a driver opens sessions, feeds them, says when they end, and calls `end_turn` after each batch of input and
# `tick` when `next_deadline` has come. Sessions are freed only in `end_turn`, so pointers stay good within a turn. The
# hub reads no clock: drivers set it with `set_time`.
#
# Theory: input makes requests (session), requests make publications and replies (requests, core, outbox), and all of it
# waits in mailboxes until the end of the turn, when each session with something to say is written once.

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from realtime_communication._core.base.memory cimport Pool, Slice
from realtime_communication._core.hub.core cimport Core
from realtime_communication._core.hub.driver cimport Driver
from realtime_communication._core.hub.session cimport Inbound, Session
from realtime_communication._core.wire.http_head cimport HttpHead


cdef class Hub(Core):
    cdef HttpHead head
    cdef Inbound inbound
    cdef Pool pool               # of sessions
    cdef Session* resume         # sessions with input left over
    cdef Session* waiting        # publishers that wait for a full consumer
    cdef Session* dead           # to be freed at the end of the turn
    cdef uint64_t serials
    cdef uint64_t forgotten_ms   # when the cache was last looked through
    cdef bytes entropy           # random bytes for session ids, used from entropy_at on
    cdef size_t entropy_at
    cdef object admission        # callback for the credentials of an upgrade
    cdef list origins
    cdef Driver home             # the driver that is woken for what is queued outside a turn
    cdef bint draining
    cdef bint configured

    cdef void set_time(self, uint64_t now_ms, uint64_t wall_ms) noexcept nogil
    # A session for a fresh connection, or NULL without memory.
    cdef Session* open(self, Driver driver, int fd) noexcept
    # Input arrived. The bytes are changed in place.
    cdef void receive(self, Session* session, uint8_t* data, size_t size) noexcept
    # The peer's stream has ended or failed: the session is dead.
    cdef void finish(self, Session* session) noexcept
    # Writes what waits for the session, as far as its driver takes it.
    cdef void flush(self, Session* session) noexcept
    # Goes on with input left over; whether there is still more.
    cdef bint resume_some(self) noexcept
    # Hands out and writes everything, then frees what has died.
    cdef void end_turn(self) noexcept
    # Does what is due by the clock.
    cdef void tick(self) noexcept
    # Milliseconds until `tick` has something to do, -1 for never.
    cdef int64_t next_deadline(self) noexcept nogil

    cdef void receive_head(self, Session* session, uint8_t* data, size_t size) noexcept
    cdef void upgrade(self, Session* session, bint echo) noexcept
    cdef bint open_upgraded(self, Session* session, object identity) noexcept
    cdef void reject(self, Session* session, int status, object code, object message, list headers) noexcept
    cdef void receive_frames(self, Session* session, uint8_t* data, size_t size) noexcept
    cdef size_t process(self, Session* session, uint8_t* data, size_t size) noexcept
    cdef void request(self, Session* session) noexcept
    cdef void invalid(self, Session* session) noexcept
    cdef void limit_replies(self, Session* session) noexcept
    cdef void pause(self, Session* session) noexcept
    cdef void unpause(self, Session* session) noexcept
    cdef void wait(self, Session* session) noexcept
    cdef void stop_waiting(self, Session* session) noexcept
    cdef void relieve(self) noexcept
    cdef void close(self, Session* session, int code, const char* reason) noexcept
    cdef void session_expired(self, Session* session) noexcept
    cdef void open_session_expired(self, Session* session) noexcept
    cdef uint64_t deadline(self, const Session* session) noexcept nogil
    cdef void name_session(self, Session* session) noexcept
    cdef void free_dead(self) noexcept
    cdef Session* session_of(self, str session_id) noexcept
    cdef bytes query(self)
    cdef bint accept(self, Session* session, Slice subprotocol) except -1
