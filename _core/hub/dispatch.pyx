"""From bytes to requests; `dispatch.pxd` is the contract."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t

from realtime_communication._core.base.memory cimport buffer_append, buffer_free
from realtime_communication._core.hub.admission cimport Refusal, admit
from realtime_communication._core.hub.driver cimport Driver
from realtime_communication._core.hub.mailbox cimport mailbox_has_bytes
from realtime_communication._core.hub.migration cimport Migration
from realtime_communication._core.hub.outbox cimport outbox_touch
from realtime_communication._core.hub.outcome cimport (
    OUTCOME_ASKED,
    OUTCOME_PARKED,
    OUTCOME_PENDING,
    OUTCOME_UNAUTHORIZED,
    OUTCOME_WAIT,
    no_memory,
)
from realtime_communication._core.hub.requests cimport handle_request
from realtime_communication._core.hub.session cimport (
    EVENT_CLOSED,
    EVENT_ECHO,
    EVENT_INVALID,
    EVENT_NEED_MORE,
    EVENT_REQUEST,
    FLAG_ASKED,
    FLAG_BLOCKED,
    FLAG_OVERRUN,
    FLAG_PAUSED,
    FLAG_PINGED,
    FLAG_RESUME,
    FLAG_STARVED,
    SESSION_ANONYMOUS,
    SESSION_CLOSING,
    SESSION_HEAD,
    SESSION_LINGER,
    SESSION_OPEN,
    Session,
    session_answer_close,
    session_receive,
)
from realtime_communication._core.hub.variants cimport variant_frame, variant_of
from realtime_communication._core.wire.envelope cimport ERROR_BAD_REQUEST, ERROR_RATE_LIMITED, envelope_parse
from realtime_communication._core.wire.frames cimport OP_TEXT

cdef enum:
    REPLY_LANE_BYTES = 262144    # replies that wait before they are written within a turn


cdef class Dispatch(Migration):

    cdef void receive(self, Session* session, uint8_t* data, size_t size) noexcept:
        session.received_ms = self.now_ms
        session.work += 1
        session.flags &= ~<uint32_t> FLAG_PINGED
        self.counters.bytes_received += size
        if session.state == SESSION_HEAD:
            self.receive_head(session, data, size)
        elif session.state < SESSION_LINGER:
            self.receive_frames(session, data, size)

    cdef void receive_frames(self, Session* session, uint8_t* data, size_t size) noexcept:
        cdef size_t used
        if session.stash.size:
            # Input is left over already; the driver should have waited, but no byte is lost.
            self.keep(session, data, size)
            return
        used = self.process(session, data, size)
        if used < size and session.state < SESSION_CLOSING:
            if not self.keep(session, data + used, size - used):
                return
            session.stash_at = 0
            if not session.flags & (FLAG_PAUSED | FLAG_RESUME):
                session.flags |= FLAG_RESUME
                session.next_resume = self.resume
                self.resume = session

    cdef bint resume_some(self) noexcept:
        cdef Session* session = self.resume
        cdef Session* following
        cdef size_t at
        self.resume = NULL
        while session != NULL:
            following = session.next_resume
            session.flags &= ~<uint32_t> FLAG_RESUME
            if session.parked.size and not session.flags & FLAG_PAUSED:
                self.unpark(session)
            if session.state < SESSION_LINGER and not session.flags & FLAG_PAUSED:
                at = session.stash_at
                session.stash_at += <uint32_t> self.process(session, session.stash.data + at, session.stash.size - at)
                if session.stash_at >= session.stash.size or session.state >= SESSION_LINGER:
                    buffer_free(&session.stash)
                    session.stash_at = 0
                elif not session.flags & FLAG_PAUSED:
                    session.flags |= FLAG_RESUME
                    session.next_resume = self.resume
                    self.resume = session
            session = following
        return self.resume != NULL

    cdef size_t process(self, Session* session, uint8_t* data, size_t size) noexcept:
        """Handles input up to the bounds of a turn; how many bytes that were."""
        cdef size_t at = 0, used = 0
        cdef uint32_t budget = self.settings.batch_size
        cdef uint64_t until = self.now_ms + self.settings.batch_ms
        cdef int event
        if self.over_ms:
            until = min(until, self.over_ms)
            if self.now_ms >= self.over_ms:
                budget = 1
        if self.due >= TURN_DELIVERIES:
            budget = 1
        while at < size and budget and not session.flags & FLAG_PAUSED and session.state < SESSION_LINGER:
            try:
                event = session_receive(
                    session, self.inbound, &self.settings, &self.counters, data + at, size - at, &used)
            except Exception:
                self.close(session, 1011, b"internal error")
                return size
            at += used
            budget -= 1
            if event == EVENT_REQUEST:
                self.request(session)
            elif event == EVENT_INVALID:
                self.invalid(session)
            elif event == EVENT_ECHO:
                if variant_frame(
                        variant_of(0 if self.inbound.frame.opcode == OP_TEXT else 1, 0, session.window_bits),
                        self.inbound.frame.data, self.inbound.frame.size, self.settings.compression_threshold,
                        &session.mailbox.priority) == 0:
                    session.mailbox.priority_messages += 1
                else:
                    session.flags |= FLAG_STARVED
                outbox_touch(&self.outbox, session)
            elif event == EVENT_CLOSED:
                if self.inbound.close_reason[0] != 0:  # a fault: what a peer says for itself has no reason of ours
                    self.tell(session, self.inbound.close_code, self.inbound.close_reason)
                self.leave(session)
                session_answer_close(session, self.inbound, self.now_ms)
                self.renew(session)
                outbox_touch(&self.outbox, session)  # nothing may be left to say, but the driver ends the stream
            if mailbox_has_bytes(&session.mailbox):
                outbox_touch(&self.outbox, session)
                self.limit_replies(session)
            if event == EVENT_NEED_MORE:
                return size
            if self.due >= TURN_DELIVERIES:
                break
            if budget & 15 == 0:
                (<Driver> session.driver).refresh()
                if self.now_ms > until:
                    break
        return at

    cdef void request(self, Session* session) noexcept:
        cdef Refusal refusal
        cdef int outcome
        self.counters.requests += 1
        if session.expires_at >= 0 and session.expires_at * 1000 <= <int64_t> self.wall_ms:
            self.open_session_expired(session)
            return
        if not admit(self, session, self.inbound.request.type, &refusal):
            self.over_limit(session, &refusal)
            return
        outcome = handle_request(self, session, &self.inbound.request)
        if outcome == OUTCOME_PARKED:
            if buffer_append(&session.parked, self.inbound.message.data, self.inbound.message.size) < 0:
                no_memory(self, session, &self.inbound.request)
            else:
                self.wait(session)
        elif outcome == OUTCOME_ASKED:
            if buffer_append(&session.parked, self.inbound.message.data, self.inbound.message.size) < 0:
                self.close(session, 1013, b"out of memory")
                return
            session.flags |= FLAG_ASKED
            self.pause(session)
        elif outcome == OUTCOME_WAIT:
            self.wait(session)
        elif outcome == OUTCOME_PENDING:
            self.await_answer(session)
        elif outcome == OUTCOME_UNAUTHORIZED:
            self.close(session, 4401, b"unauthorized")

    cdef void over_limit(self, Session* session, const Refusal* refusal) noexcept:
        self.error(session, &self.inbound.request, ERROR_RATE_LIMITED, b"more requests than the limit allows",
                   refusal.retry_after_ms, refusal.scope)
        if refusal.abusive:
            self.counters.abusive += 1
            self.close(session, 4429, b"rate limit abuse")

    cdef void unpark(self, Session* session) noexcept:
        cdef int outcome
        if session.state != SESSION_OPEN or envelope_parse(
                &self.inbound.scratch, session.encoding, session.parked.data, session.parked.size, 0,
                &self.inbound.request) < 0:
            buffer_free(&session.parked)
            return
        outcome = handle_request(self, session, &self.inbound.request)
        if outcome == OUTCOME_PARKED:
            self.wait(session)
            return
        if outcome == OUTCOME_ASKED:
            session.flags |= FLAG_ASKED
            self.pause(session)
            return
        buffer_free(&session.parked)
        if outcome == OUTCOME_WAIT:
            self.wait(session)

    cdef void invalid(self, Session* session) noexcept:
        cdef Refusal refusal
        cdef int code = self.inbound.request.error
        self.counters.requests += 1
        self.counters.invalid += 1
        if not admit(self, session, self.inbound.request.type, &refusal):
            self.over_limit(session, &refusal)
            return
        if code != ERROR_BAD_REQUEST or not self.settings.drop_invalid:
            self.error(session, &self.inbound.request, code, self.inbound.request.error_message, -1, NULL)
        if session.state == SESSION_ANONYMOUS:
            self.close(session, 4401, b"unauthorized")

    # --- bounds of what waits

    cdef void limit_replies(self, Session* session) noexcept:
        """Write replies early when many wait; a peer that reads none of them is read no further."""
        cdef uint32_t replies = session.mailbox.priority_messages + session.mailbox.queue_replies
        cdef bint many = replies >= self.settings.priority_capacity or (
            session.mailbox.priority.size - session.mailbox.priority_at > REPLY_LANE_BYTES)
        if not many:
            return
        if not session.flags & FLAG_BLOCKED:
            self.flush(session)
        if session.state < SESSION_LINGER and session.flags & FLAG_BLOCKED and (
                session.mailbox.priority.size or session.mailbox.queue_replies):
            self.pause(session)

    cdef void overrun(self, Session* session) noexcept:
        """Ends a session that does not read the joins and leaves it asked for, or for which there was no memory: what
        it was to be told cannot be told later."""
        cdef bint starved = session.flags & FLAG_STARVED != 0
        session.flags &= ~<uint32_t> (FLAG_OVERRUN | FLAG_STARVED)
        if starved:
            self.close(session, 1013, b"out of memory")
        elif session.state == SESSION_OPEN:
            self.counters.slow_consumers += 1
            self.close(session, 4490, b"slow consumer")
