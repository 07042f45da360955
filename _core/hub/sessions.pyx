"""The life of sessions; `sessions.pxd` is the contract."""

import os

from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

from realtime_communication._core.base.memory cimport buffer_free, pool_give, pool_take
from realtime_communication._core.base.timer_wheel cimport timer_init, wheel_cancel, wheel_set
from realtime_communication._core.hub.core cimport Core
from realtime_communication._core.hub.driver cimport Driver
from realtime_communication._core.hub.mailbox cimport mailbox_push_priority
from realtime_communication._core.hub.newcomers cimport newcomer_remove
from realtime_communication._core.hub.outbox cimport outbox_reply, outbox_touch
from realtime_communication._core.hub.pending cimport Pending, pending_release
from realtime_communication._core.hub.session cimport (
    FLAG_ASKED,
    FLAG_BLOCKED,
    FLAG_DIRTY,
    FLAG_EXPIRY_TOLD,
    FLAG_FULL,
    FLAG_PAUSED,
    FLAG_PENDING,
    FLAG_PINGED,
    FLAG_RESUME,
    FLAG_STARVED,
    FLAG_WAITING,
    FLAG_WITHHELD,
    SESSION_ANONYMOUS,
    SESSION_CLOSING,
    SESSION_DEAD,
    SESSION_HEAD,
    SESSION_OPEN,
    Session,
    session_close,
    session_free,
    session_init,
)
from realtime_communication._core.hub.settings cimport CLOSE_TIMEOUT_MS, OVERFLOW_BLOCK
from realtime_communication._core.hub.users cimport TIMER_SESSION
from realtime_communication._core.hub.variants cimport variant_encoding
from realtime_communication._core.wire.envelope cimport ERROR_TOKEN_EXPIRED, ERROR_UNAUTHORIZED, ERROR_UNAVAILABLE
from realtime_communication._core.wire.frames cimport OP_PING
from realtime_communication._core.wire.outbound cimport write_token_expiring

cdef enum:
    HEAD_TIMEOUT_MS = 9500       # from accept to the end of the head, so that it is over within 10 s
    WELCOME_MS = 1000            # for which Connected waits for a session's inbox to be fed
    UNANSWERED_RETRY_MS = 5000   # told to a client whose credential could not be checked in time
    EXPIRY_NOTICE_SECS = 60      # TokenExpiring comes so long before the end when the token has no refresh_at


cdef class Sessions(Core):

    cdef Session* open(self, Driver driver, int fd) noexcept:
        cdef Session* session = <Session*> pool_take(&self.pool)
        if session == NULL:
            return NULL
        self.serials += 1
        session_init(session, fd, self.serials, self.now_ms)
        timer_init(&session.timer, TIMER_SESSION)
        session.driver = <void*> driver
        Py_INCREF(driver)
        session.next = self.sessions
        if self.sessions != NULL:
            self.sessions.previous = session
        self.sessions = session
        self.counters.accepted += 1
        self.renew(session)
        return session

    cdef void name_session(self, Session* session) noexcept:
        """Give the session its id: 128 random bits, or a count."""
        if self.settings.deterministic_ids:
            session.id_high = self.peers.me  # workers count for themselves
            session.id_low = session.serial
            return
        if self.entropy_at + 16 > <size_t> len(self.entropy):
            self.entropy = os.urandom(4096)
            self.entropy_at = 0
        memcpy(&session.id_high, <const char*> self.entropy + self.entropy_at, 8)
        memcpy(&session.id_low, <const char*> self.entropy + self.entropy_at + 8, 8)
        self.entropy_at += 16

    cdef void finish(self, Session* session) noexcept:
        if session.state == SESSION_DEAD:
            return
        self.leave(session)
        self.stop_waiting(session)
        pending_release(session)
        wheel_cancel(&self.wheel, &session.timer)
        self.counters.closed += 1
        self.bury(session)
        (<Driver> session.driver).finish(session)

    cdef void bury(self, Session* session) noexcept:
        newcomer_remove(&self.newcomers, session)
        if session.previous != NULL:
            session.previous.next = session.next
        else:
            self.sessions = session.next
        if session.next != NULL:
            session.next.previous = session.previous
        session.state = SESSION_DEAD
        session.next = self.dead
        self.dead = session

    cdef void free_dead(self) noexcept:
        cdef Session* session = self.dead
        cdef Session* following
        self.dead = NULL
        while session != NULL:
            following = session.next
            if session.flags & (FLAG_DIRTY | FLAG_RESUME):
                session.next = self.dead
                self.dead = session
            else:
                session_free(session)
                Py_DECREF(<Driver> session.driver)
                pool_give(&self.pool, session)
            session = following

    cdef void close(self, Session* session, int code, const char* reason) noexcept:
        """Start the closing handshake; the session leaves everything at once."""
        if session.state < SESSION_ANONYMOUS or session.state >= SESSION_CLOSING:
            return
        if code not in (1001, 1012, 4403):  # these are an operator's own doing
            self.tell(session, code, reason)
        self.leave(session)
        session_close(session, code, reason, self.now_ms)
        self.stop_waiting(session)
        pending_release(session)
        if session.flags & FLAG_PAUSED:
            self.unpause(session)
        self.renew(session)
        outbox_touch(&self.outbox, session)

    cdef void flush(self, Session* session) noexcept:
        if session.state == SESSION_DEAD or session.flags & FLAG_WITHHELD:
            return
        session.work += 1
        if (<Driver> session.driver).write(session) < 0:
            self.finish(session)
            return
        if session.flags & FLAG_STARVED:
            session.flags &= ~<uint32_t> FLAG_STARVED
            self.close(session, 1013, b"out of memory")
        elif session.flags & FLAG_PAUSED and not session.flags & (FLAG_WAITING | FLAG_PENDING | FLAG_ASKED) and (
                session.mailbox.priority.size == 0 and session.mailbox.queue_replies == 0):
            self.unpause(session)

    cdef void pause(self, Session* session) noexcept:
        if not session.flags & FLAG_PAUSED:
            session.flags |= FLAG_PAUSED
            (<Driver> session.driver).reading(session, False)

    cdef void unpause(self, Session* session) noexcept:
        session.flags &= ~<uint32_t> FLAG_PAUSED
        session.received_ms = self.now_ms  # what it sent meanwhile is still to be read
        (<Driver> session.driver).reading(session, True)
        if (session.stash.size or session.parked.size) and not session.flags & FLAG_RESUME:
            session.flags |= FLAG_RESUME
            session.next_resume = self.resume
            self.resume = session
            self.home.wake()

    cdef void withhold(self, Session* session) noexcept:
        # What is said to it meanwhile waits behind Connected, under the bounds of a slow consumer.
        session.flags |= FLAG_WITHHELD | FLAG_BLOCKED
        session.since_ms = self.now_ms
        self.renew(session)

    cdef void let_out(self, Session* session) noexcept:
        if session.flags & FLAG_WITHHELD:
            session.flags &= ~<uint32_t> FLAG_WITHHELD
            self.renew(session)
            outbox_touch(&self.outbox, session)

    cdef void await_answer(self, Session* session) noexcept:
        self.pause(session)
        session.received_ms = self.now_ms  # from here on the time runs
        wheel_set(&self.wheel, &session.timer, self.deadline(session))

    cdef void go_on(self, Session* session) noexcept:
        if not session.flags & FLAG_PAUSED or session.flags & (FLAG_WAITING | FLAG_PENDING | FLAG_ASKED):
            return
        if session.flags & FLAG_BLOCKED and (session.mailbox.priority.size or session.mailbox.queue_replies):
            return               # it does not read its replies: `flush` goes on once it does
        self.unpause(session)

    cdef void unanswered(self, Session* session) noexcept:
        cdef Pending pending = pending_release(session)
        if session.state == SESSION_HEAD:
            self.counters.timed_out += 1
            buffer_free(&session.stash)  # what stands behind a refused request is not read
            self.reject(session, 503, "unavailable", "the credential could not be checked in time",
                        [("Retry-After", str(UNANSWERED_RETRY_MS // 1000))])
            self.go_on(session)
            return
        self.error(session, &pending.request, ERROR_UNAVAILABLE, b"the credential could not be checked in time",
                   UNANSWERED_RETRY_MS, NULL)
        if session.state == SESSION_ANONYMOUS:
            self.counters.timed_out += 1
            self.close(session, 4408, b"authentication timed out")
        else:
            self.go_on(session)

    cdef void wait(self, Session* session) noexcept:
        """Overflow `block`: the publisher is not read until a full consumer has room."""
        self.pause(session)
        if not session.flags & FLAG_WAITING:
            session.flags |= FLAG_WAITING
            session.next_waiting = self.waiting
            self.waiting = session

    cdef void stop_waiting(self, Session* session) noexcept:
        cdef Session** link = &self.waiting
        if not session.flags & FLAG_WAITING:
            return
        while link[0] != session:
            link = &link[0].next_waiting
        link[0] = session.next_waiting
        session.flags &= ~<uint32_t> FLAG_WAITING

    cdef void relieve(self) noexcept:
        """A full consumer has room: those that waited go on, and wait again if theirs is another."""
        cdef Session* session = self.waiting
        cdef Session* following
        self.outbox.relieved = False
        self.waiting = NULL
        while session != NULL:
            following = session.next_waiting
            session.flags &= ~<uint32_t> FLAG_WAITING
            self.unpause(session)
            session = following

    cdef void renew(self, Session* session) noexcept:
        if session.state == SESSION_OPEN and session.expires_at >= 0:
            session.flags &= ~<uint32_t> FLAG_EXPIRY_TOLD
        wheel_set(&self.wheel, &session.timer, self.deadline(session))

    cdef uint64_t deadline(self, const Session* session) noexcept nogil:
        """When something is to be done about the session, if it stays as it is."""
        cdef uint64_t at
        cdef int64_t left, notice
        if session.state == SESSION_HEAD:
            return session.opened_ms + HEAD_TIMEOUT_MS
        if session.state == SESSION_ANONYMOUS:
            return session.since_ms + self.settings.auth_timeout_ms
        if session.state >= SESSION_CLOSING:
            return session.since_ms + CLOSE_TIMEOUT_MS
        at = session.received_ms + self.settings.client_timeout_ms
        if session.flags & FLAG_PENDING:
            at = session.received_ms + self.settings.auth_timeout_ms
        elif not session.flags & FLAG_PINGED and self.settings.heartbeat_ms < self.settings.client_timeout_ms:
            at = session.received_ms + self.settings.heartbeat_ms
        elif session.flags & FLAG_PINGED:
            # It may answer and fall silent again: that has to be found out within another interval.
            at = min(at, self.now_ms + self.settings.heartbeat_ms)
        if session.flags & FLAG_WITHHELD and session.since_ms + WELCOME_MS < at:
            at = session.since_ms + WELCOME_MS
        if self.holds_others(session) and session.since_ms + self.settings.client_timeout_ms < at:
            at = session.since_ms + self.settings.client_timeout_ms
        if session.expires_at >= 0:
            left = session.expires_at * 1000 - <int64_t> self.wall_ms
            if not session.flags & FLAG_EXPIRY_TOLD:
                notice = (session.refresh_at if session.refresh_at >= 0 else session.expires_at - EXPIRY_NOTICE_SECS)
                notice = notice * 1000 - <int64_t> self.wall_ms
                left = min(left, notice)
            if left < 0:
                left = 0
            if self.now_ms + <uint64_t> left < at:
                at = self.now_ms + <uint64_t> left
        return at

    cdef bint holds_others(self, const Session* session) noexcept nogil:
        return session.flags & FLAG_FULL and self.settings.overflow == OVERFLOW_BLOCK

    cdef void renew_all(self) noexcept:
        cdef uint32_t interval = self.settings.heartbeat_ms
        cdef Session* session = self.sessions
        while session != NULL:
            if session.state == SESSION_OPEN and not session.flags & FLAG_PENDING and (
                    interval < self.settings.client_timeout_ms and session.received_ms + interval < self.now_ms):
                session.received_ms = self.now_ms - interval
                session.flags &= ~<uint32_t> FLAG_PINGED
            wheel_set(&self.wheel, &session.timer, self.deadline(session))
            session = session.next

    cdef void session_expired(self, Session* session) noexcept:
        if session.flags & FLAG_PENDING and session.state < SESSION_OPEN:
            self.unanswered(session)
            return
        if session.state == SESSION_HEAD:
            self.counters.timed_out += 1
            if session.stash.size:
                # A browser may hold a connection open before it has a request, and would take a 408 for its answer.
                self.reject(session, 408, "bad_request", "request head: not complete within 10 seconds", None)
                self.flush(session)
            self.finish(session)
            return
        if session.state == SESSION_ANONYMOUS:
            self.counters.timed_out += 1
            self.error(session, NULL, ERROR_UNAUTHORIZED, b"no Authenticate within websocket.auth_timeout_secs",
                       -1, NULL)
            self.close(session, 4408, b"authentication timed out")
            return
        if session.state >= SESSION_CLOSING:
            self.finish(session)
            return
        self.open_session_expired(session)
        if session.state == SESSION_OPEN:
            wheel_set(&self.wheel, &session.timer, self.deadline(session))

    cdef void open_session_expired(self, Session* session) noexcept:
        cdef int64_t wall = <int64_t> self.wall_ms
        if session.flags & FLAG_WITHHELD and self.now_ms - session.since_ms >= WELCOME_MS:
            self.let_out(session)
        if session.expires_at >= 0 and session.expires_at * 1000 <= wall:
            self.counters.expired += 1
            self.error(session, NULL, ERROR_TOKEN_EXPIRED, b"the token has expired", -1, NULL)
            self.close(session, 4401, b"token expired")
            return
        if session.flags & (FLAG_WAITING | FLAG_ASKED):
            session.received_ms = self.now_ms  # it is left unread: the silence is not the peer's
        if self.holds_others(session) and self.now_ms - min(session.since_ms, session.received_ms) >= (
                self.settings.client_timeout_ms):
            # Others wait for it, so this comes first: a stuck consumer does not see the pings it should answer, either.
            self.counters.slow_consumers += 1
            self.close(session, 4490, b"slow consumer")
            return
        if session.flags & FLAG_PENDING:
            # It is not read, so its silence says nothing.
            if self.now_ms - session.received_ms >= self.settings.auth_timeout_ms:
                self.unanswered(session)
            return
        if self.now_ms - session.received_ms >= self.settings.client_timeout_ms:
            self.counters.timed_out += 1
            self.close(session, 4408, b"nothing heard for websocket.client_timeout_secs")
            return
        if session.expires_at >= 0 and not session.flags & FLAG_EXPIRY_TOLD and (
                (session.refresh_at if session.refresh_at >= 0 else session.expires_at - EXPIRY_NOTICE_SECS) * 1000
                <= wall):
            session.flags |= FLAG_EXPIRY_TOLD
            self.outbox.text.size = 0
            if write_token_expiring(&self.outbox.text, variant_encoding(session.variant), session.expires_at) == 0:
                outbox_reply(&self.outbox, session, False)
        if not session.flags & FLAG_PINGED and self.now_ms - session.received_ms >= self.settings.heartbeat_ms:
            session.flags |= FLAG_PINGED
            mailbox_push_priority(&session.mailbox, OP_PING, False, NULL, 0)
            outbox_touch(&self.outbox, session)

    cdef void reject(self, Session* session, int status, object code, object message, list headers) noexcept:
        pass
