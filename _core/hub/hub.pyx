"""The hub of one worker; `hub.pxd` is the contract."""

import os
import random

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset, strcmp, strlen

from realtime_communication._core.base.counters cimport Counters, counters_dict
from realtime_communication._core.base.memory cimport (
    Buffer,
    Slice,
    arena_pool_trim,
    buffer_append,
    buffer_free,
    buffer_init,
    pool_free,
    pool_give,
    pool_init,
    pool_take,
    slice_is,
    slice_of,
)
from realtime_communication._core.base.table cimport TableCursor, table_next, table_start
from realtime_communication._core.base.timer_wheel cimport (
    Timer,
    timer_init,
    wheel_cancel,
    wheel_expired,
    wheel_init,
    wheel_next_ms,
    wheel_set,
)
from realtime_communication._core.hub.core cimport Core, Position, Refusal
from realtime_communication._core.hub.driver cimport Driver
from realtime_communication._core.hub.mailbox cimport mailbox_has_bytes, mailbox_messages, mailbox_push_priority
from realtime_communication._core.hub.outbox cimport (
    outbox_flush_topics,
    outbox_free,
    outbox_init,
    outbox_reply,
    outbox_touch,
)
from realtime_communication._core.hub.publications cimport OUTCOME_UNAUTHORIZED, OUTCOME_WAIT, publish_body, send_body
from realtime_communication._core.hub.publications import RequestError as RequestError
from realtime_communication._core.hub.requests cimport handle_request, welcome
from realtime_communication._core.hub.session cimport (
    EVENT_CLOSED,
    EVENT_ECHO,
    EVENT_INVALID,
    EVENT_NEED_MORE,
    EVENT_REQUEST,
    FLAG_BLOCKED,
    FLAG_COUNTED,
    FLAG_DEFLATE,
    FLAG_DIRTY,
    FLAG_ECHO,
    FLAG_EXPIRY_TOLD,
    FLAG_FULL,
    FLAG_PAUSED,
    FLAG_PINGED,
    FLAG_RESUME,
    FLAG_WAITING,
    FLAG_WRITE_ARMED,
    SESSION_ANONYMOUS,
    SESSION_CLOSING,
    SESSION_DEAD,
    SESSION_HEAD,
    SESSION_LINGER,
    SESSION_OPEN,
    Inbound,
    Session,
    session_answer_close,
    session_close,
    session_free,
    session_id,
    session_init,
    session_receive,
)
from realtime_communication._core.hub.settings cimport CACHE_BYTES, CLOSE_TIMEOUT_MS, settings_read
from realtime_communication._core.hub.token_bucket cimport bucket_init
from realtime_communication._core.hub.topics cimport (
    TOPIC_PLAIN,
    Subscription,
    Topic,
    cache_forget,
    cache_limit,
    store_free,
    store_init,
    topic_epoch,
    topic_name,
)
from realtime_communication._core.hub.users cimport (
    TIMER_MEMBER,
    TIMER_SESSION,
    TIMER_USER,
    User,
    member_of_timer,
    user_id,
    user_of_timer,
    users_free,
    users_init,
)
from realtime_communication._core.hub.variants cimport variant_encoding, variant_frame, variant_of
from realtime_communication._core.wire.deflate cimport DeflateOffer, deflate_negotiate, deflate_response
from realtime_communication._core.wire.envelope cimport (
    ERROR_BAD_REQUEST,
    ERROR_RATE_LIMITED,
    ERROR_TOKEN_EXPIRED,
    ERROR_UNAUTHORIZED,
    JSON_TEXT,
)
from realtime_communication._core.wire.frames cimport OP_BINARY, OP_PING, OP_TEXT, frame_parser_init
from realtime_communication._core.wire.handshake cimport (
    choose_subprotocol,
    handshake_check,
    origin_allowed,
    refusal,
    upgrade_response,
)
from realtime_communication._core.wire.http_head cimport (
    HttpHead,
    head_count,
    head_fields,
    head_find_end,
    head_get,
    head_parse,
)
from realtime_communication._core.wire.outbound cimport write_closing, write_token_expiring

cdef enum:
    TICK_MS = 50                 # of the timer wheel
    HEAD_TIMEOUT_MS = 9500       # from accept to the end of the head, so that it is over within 10 s
    REPLY_LANE_BYTES = 262144    # replies that wait before they are written within a turn
    FORGET_EACH_MS = 1000        # how often the cache is looked through for what is too old
    FORGET_MOST = 20000          # messages forgotten at a time
    KEPT_WHEN_IDLE = 64          # arenas kept by a hub with little to do
    EXPIRY_NOTICE_SECS = 60      # TokenExpiring comes so long before the end when the token has no refresh_at
    DEFAULT_RETRY_SECS = 5       # Retry-After of a 503


cdef class Hub(Core):
    """The hub of one worker.

    `node_id` names the node to clients. Nothing works before `configure` was called. Not thread-safe: everything happens
    in the thread of the event loop.
    """

    def __cinit__(self, str node_id not None):
        memset(&self.counters, 0, sizeof(Counters))
        self.node_id = node_id.encode()
        self.inbound = Inbound()
        self.answered = {}
        self.origins = []
        self.entropy = b""
        self.entropy_at = 0
        self.sessions = NULL
        self.resume = NULL
        self.waiting = NULL
        self.dead = NULL
        self.stamp = 0
        self.serials = 0
        self.now_ms = 1
        self.wall_ms = 0
        self.forgotten_ms = 0
        self.draining = False
        self.configured = False
        self.home = Driver()
        users_init(&self.users)
        wheel_init(&self.wheel, 0, TICK_MS)
        store_init(&self.store, 0, 0)
        outbox_init(&self.outbox, &self.settings, &self.counters, &self.store, 0)
        pool_init(&self.pool, sizeof(Session), 0)

    def __dealloc__(self):
        while self.sessions != NULL:
            self.finish(self.sessions)
        outbox_flush_topics(&self.outbox)
        self.free_dead()
        users_free(&self.users)
        store_free(&self.store)
        outbox_free(&self.outbox)
        pool_free(&self.pool)

    # --- configuration

    def configure(self, settings):
        """Take new settings over; live connections are under them at once.

        `settings` has the attributes of the control plane's core settings. Raises ValueError naming the one out of range;
        the settings are then as before. Pool sizes and deterministic ids count the first time only.
        """
        settings_read(&self.settings, settings)
        self.origins = list(settings.allowed_origins)
        if not self.configured:
            self.configured = True
            pool_init(&self.pool, sizeof(Session), settings.connection_pool_size)
            store_init(&self.store, settings.message_pool_size,
                       1 if self.settings.deterministic_ids else int.from_bytes(os.urandom(8), "big") | (1 << 63))
            self.outbox.arenas.ceiling = settings.buffer_pool_size
            bucket_init(&self.global_bucket, &self.settings.global_rate, self.now_ms)
        cache_limit(&self.store, self.settings.cache_entries if self.settings.caching else 0, CACHE_BYTES)

    def set_callbacks(self, authenticate_upgrade, authenticate_message):
        """Who checks credentials: of upgrade requests, and of Authenticate and Refresh."""
        self.admission = authenticate_upgrade
        self.authenticate = authenticate_message

    cdef void set_time(self, uint64_t now_ms, uint64_t wall_ms) noexcept nogil:
        self.now_ms = now_ms
        self.wall_ms = wall_ms
        self.outbox.now_ms = now_ms

    # --- sessions

    cdef Session* open(self, Driver driver, int fd) noexcept:
        cdef Session* session = <Session*> pool_take(&self.pool)
        if session == NULL:
            return NULL
        self.serials += 1
        session_init(session, fd, self.serials, self.now_ms)
        timer_init(&session.timer, TIMER_SESSION)
        session.driver = <void*> driver
        self.counters.accepted += 1
        self.renew(session)
        return session

    cdef void name_session(self, Session* session) noexcept:
        """Give the session its id: 128 random bits, or a count."""
        if self.settings.deterministic_ids:
            session.id_high = 0
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
        wheel_cancel(&self.wheel, &session.timer)
        session.state = SESSION_DEAD
        self.counters.closed += 1
        session.next_dead = self.dead
        self.dead = session
        (<Driver> session.driver).finish(session)

    cdef void free_dead(self) noexcept:
        cdef Session* session = self.dead
        cdef Session* following
        self.dead = NULL
        while session != NULL:
            following = session.next_dead
            if session.flags & (FLAG_DIRTY | FLAG_RESUME):
                session.next_dead = self.dead
                self.dead = session
            else:
                session_free(session)
                pool_give(&self.pool, session)
            session = following

    cdef void close(self, Session* session, int code, const char* reason) noexcept:
        """Start the closing handshake; the session leaves everything at once."""
        if session.state < SESSION_ANONYMOUS or session.state >= SESSION_CLOSING:
            return
        self.leave(session)
        session_close(session, code, reason, self.now_ms)
        self.stop_waiting(session)
        if session.flags & FLAG_PAUSED:
            self.unpause(session)
        self.renew(session)
        outbox_touch(&self.outbox, session)

    # --- the head

    cdef void receive(self, Session* session, uint8_t* data, size_t size) noexcept:
        session.received_ms = self.now_ms
        session.flags &= ~<uint32_t> FLAG_PINGED
        self.counters.bytes_received += size
        if session.state == SESSION_HEAD:
            self.receive_head(session, data, size)
        elif session.state < SESSION_LINGER:
            self.receive_frames(session, data, size)

    cdef void receive_head(self, Session* session, uint8_t* data, size_t size) noexcept:
        cdef Buffer taken
        cdef Py_ssize_t end
        cdef const char* reason = NULL
        cdef int status
        cdef bint echo
        buffer_init(&taken)
        if session.stash.size:
            if buffer_append(&session.stash, data, size) < 0:
                self.finish(session)
                return
            data = session.stash.data
            size = session.stash.size
        end = head_find_end(data, size, &session.stash_at)
        if end == 0:
            if session.stash.size == 0 and buffer_append(&session.stash, data, size) < 0:
                self.finish(session)
            return
        if end < 0:
            self.reject(session, <int> -end, "too_large" if end == -431 else "bad_request",
                        "request head: larger than 16384 bytes" if end == -431 else "request head: not HTTP/1.1", None)
            return
        status = head_parse(data, size, &self.head, &reason)
        if status:
            self.reject(session, status, "too_large" if status == 431 else "bad_request", reason, None)
            return
        echo = self.settings.debug_echo and slice_is(self.head.path, b"/debug/echo", 11)
        if not echo and not slice_is(self.head.path, b"/ws", 3):
            self.counters.handed_over += 1
            wheel_cancel(&self.wheel, &session.timer)
            (<Driver> session.driver).hand_over(session, data, size)
            session.state = SESSION_DEAD
            session.next_dead = self.dead
            self.dead = session
            return
        # From here on the stash is for frames; the head's bytes live in `taken` until its rest is handled.
        taken = session.stash
        buffer_init(&session.stash)
        session.stash_at = 0
        self.upgrade(session, echo)
        if SESSION_ANONYMOUS <= session.state < SESSION_CLOSING and size > self.head.size:
            self.receive_frames(session, data + self.head.size, size - self.head.size)
        buffer_free(&taken)

    cdef void reject(self, Session* session, int status, object code, object message, list headers) noexcept:
        """Answer the request with an HTTP error and end the connection."""
        cdef bytes response
        self.counters.refused += 1
        session.state = SESSION_LINGER
        session.since_ms = self.now_ms
        self.renew(session)
        try:
            response = refusal(status, code, message, headers)
        except Exception:
            self.finish(session)
            return
        if buffer_append(&session.mailbox.priority, <const char*> response, len(response)) < 0:
            self.finish(session)
            return
        outbox_touch(&self.outbox, session)

    cdef void upgrade(self, Session* session, bint echo) noexcept:
        """Answer a request on a WebSocket path, whose head is in `self.head`."""
        cdef const char* code = NULL
        cdef const char* reason = NULL
        cdef int encoding = 0, compression = 0
        cdef Slice chosen
        cdef const Slice* origin
        cdef int status = handshake_check(&self.head, &code, &reason)
        cdef object identity = None
        if status:
            self.reject(session, status, code, reason, None)
            return
        try:
            origin = head_get(&self.head, b"origin", 6)
            if self.settings.origin_check and origin != NULL and (
                    head_count(&self.head, b"origin", 6) != 1 or not origin_allowed(origin[0], self.origins)):
                self.reject(session, 403, "forbidden", "Origin: not among security.cors.allowed_origins", None)
                return
            if choose_subprotocol(&self.head, self.settings.compression, &encoding, &compression, &chosen):
                self.reject(session, 400, "unsupported", "Sec-WebSocket-Protocol: none of the list is supported", None)
                return
            if self.draining:
                self.reject(session, 503, "unavailable", "the server is shutting down",
                            [("Retry-After", str(DEFAULT_RETRY_SECS))])
                return
            if self.counters.connections >= self.settings.max_connections:
                self.reject(session, 503, "unavailable", "websocket.max_connections is reached",
                            [("Retry-After", str(DEFAULT_RETRY_SECS))])
                return
            if not echo and self.admission is not None:
                identity = self.admission(head_fields(&self.head), self.query(), self.peer_of(session))
                if isinstance(identity, tuple):
                    self.reject(session, identity[0], identity[1], identity[2],
                                identity[3] if len(identity) > 3 else None)
                    return
            session.encoding = <uint8_t> encoding
            session.compression = <uint8_t> compression
            if self.accept(session, chosen) and self.open_upgraded(session, identity) and echo:
                session.flags |= FLAG_ECHO
                session.state = SESSION_OPEN
        except Exception:
            self.reject(session, 500, "internal", "the request could not be answered", None)

    cdef bytes query(self):
        return (<const char*> self.head.query.data)[:self.head.query.size] if self.head.query.data != NULL else b""

    cdef bint accept(self, Session* session, Slice subprotocol) except -1:
        """Queue the 101 answer."""
        cdef DeflateOffer offer
        cdef uint32_t i
        cdef bytes extensions = b""
        cdef bytes response
        offer.accepted = False
        if self.settings.compression and not session.compression:
            for i in range(self.head.count):
                if not offer.accepted and is_extensions(self.head.fields[i].name):
                    deflate_negotiate(self.head.fields[i].value, &offer)
        if offer.accepted:
            extensions = deflate_response(&offer)
            session.flags |= FLAG_DEFLATE
            session.window_bits = offer.server_window_bits
        session.variant = variant_of(session.encoding, session.compression,
                                     offer.server_window_bits if offer.accepted else 0)
        response = upgrade_response(head_get(&self.head, b"sec-websocket-key", 17)[0], subprotocol, extensions)
        if buffer_append(&session.mailbox.priority, <const char*> response, len(response)) < 0:
            raise MemoryError
        frame_parser_init(&session.parser, offer.accepted)
        outbox_touch(&self.outbox, session)
        return True

    cdef bint open_upgraded(self, Session* session, object identity) noexcept:
        """Count the connection in; with an identity it is open at once. False when that failed."""
        session.state = SESSION_ANONYMOUS
        session.since_ms = self.now_ms
        session.flags |= FLAG_COUNTED
        session.previous = NULL
        session.next = self.sessions
        if self.sessions != NULL:
            self.sessions.previous = session
        self.sessions = session
        self.counters.connections += 1
        self.counters.upgraded += 1
        self.name_session(session)
        if identity is not None:
            try:
                self.attach(session, identity)
            except Exception:
                self.close(session, 1011, b"internal error")
                return False
            welcome(self, session, NULL)
        self.renew(session)
        return True

    # --- frames

    cdef void receive_frames(self, Session* session, uint8_t* data, size_t size) noexcept:
        cdef size_t used
        if session.stash.size:
            # Input is left over already; the driver should have waited, but no byte is lost.
            if buffer_append(&session.stash, data, size) < 0:
                self.close(session, 1011, b"internal error")
            return
        used = self.process(session, data, size)
        if used < size and session.state < SESSION_CLOSING:
            if buffer_append(&session.stash, data + used, size - used) < 0:
                self.close(session, 1011, b"internal error")
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
            if session.state < SESSION_LINGER and not session.flags & FLAG_PAUSED:
                at = session.stash_at
                session.stash_at += self.process(session, session.stash.data + at, session.stash.size - at)
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
        while at < size and budget and not session.flags & FLAG_PAUSED and session.state < SESSION_LINGER:
            try:
                event = session_receive(session, self.inbound, &self.settings, &self.counters, data + at, size - at, &used)
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
                variant_frame(variant_of(0 if self.inbound.frame.opcode == OP_TEXT else 1, 0, session.window_bits),
                              self.inbound.frame.data, self.inbound.frame.size, self.settings.compression_threshold,
                              &session.mailbox.priority)
                session.mailbox.priority_messages += 1
                outbox_touch(&self.outbox, session)
            elif event == EVENT_CLOSED:
                self.leave(session)
                session_answer_close(session, self.inbound, self.now_ms)
                self.renew(session)
            if mailbox_has_bytes(&session.mailbox):
                outbox_touch(&self.outbox, session)
                self.limit_replies(session)
            if event == EVENT_NEED_MORE:
                return size
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
        if not self.admit(session, self.inbound.request.type, &refusal):
            self.error(session, &self.inbound.request, ERROR_RATE_LIMITED, b"more requests than the limit allows",
                       refusal.retry_after_ms, refusal.scope)
            if refusal.abusive:
                self.counters.abusive += 1
                self.close(session, 4429, b"rate limit abuse")
            return
        outcome = handle_request(self, session, &self.inbound.request)
        if outcome == OUTCOME_WAIT:
            self.wait(session)
        elif outcome == OUTCOME_UNAUTHORIZED:
            self.close(session, 4401, b"unauthorized")

    cdef void invalid(self, Session* session) noexcept:
        cdef Refusal refusal
        cdef int code = self.inbound.request.error
        self.counters.requests += 1
        self.counters.invalid += 1
        if not self.admit(session, self.inbound.request.type, &refusal):
            self.error(session, &self.inbound.request, ERROR_RATE_LIMITED, b"more requests than the limit allows",
                       refusal.retry_after_ms, refusal.scope)
            if refusal.abusive:
                self.counters.abusive += 1
                self.close(session, 4429, b"rate limit abuse")
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

    cdef void pause(self, Session* session) noexcept:
        if not session.flags & FLAG_PAUSED:
            session.flags |= FLAG_PAUSED
            (<Driver> session.driver).reading(session, False)

    cdef void unpause(self, Session* session) noexcept:
        session.flags &= ~<uint32_t> FLAG_PAUSED
        (<Driver> session.driver).reading(session, True)
        if session.stash.size and not session.flags & FLAG_RESUME:
            session.flags |= FLAG_RESUME
            session.next_resume = self.resume
            self.resume = session
            self.home.wake()

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

    # --- the end of a turn

    cdef void flush(self, Session* session) noexcept:
        if session.state == SESSION_DEAD:
            return
        if (<Driver> session.driver).write(session) < 0:
            self.finish(session)
            return
        if session.flags & FLAG_PAUSED and not session.flags & FLAG_WAITING and (
                session.mailbox.priority.size == 0 and session.mailbox.queue_replies == 0):
            self.unpause(session)

    cdef void end_turn(self) noexcept:
        cdef Session* session
        cdef Session* following
        while True:
            outbox_flush_topics(&self.outbox)
            session = self.outbox.dirty
            self.outbox.dirty = NULL
            if session == NULL and not self.outbox.relieved:
                break
            while session != NULL:
                following = session.next_dirty
                session.flags &= ~<uint32_t> FLAG_DIRTY
                if not session.flags & FLAG_WRITE_ARMED:
                    self.flush(session)
                session = following
            if self.outbox.relieved:
                self.relieve()
        if self.dead != NULL:
            self.free_dead()

    # --- time

    cdef int64_t next_deadline(self) noexcept nogil:
        cdef int64_t wait = wheel_next_ms(&self.wheel, self.now_ms)
        if self.store.oldest != NULL and (wait < 0 or wait > FORGET_EACH_MS):
            return FORGET_EACH_MS
        return wait

    cdef void tick(self) noexcept:
        cdef Timer* timer
        while True:
            timer = wheel_expired(&self.wheel, self.now_ms)
            if timer == NULL:
                break
            if timer.kind == TIMER_SESSION:
                self.session_expired(<Session*> timer)
            elif timer.kind == TIMER_MEMBER:
                self.member_expired(member_of_timer(timer))
            elif timer.kind == TIMER_USER:
                self.forget_user(user_of_timer(timer))
        if self.now_ms - self.forgotten_ms >= FORGET_EACH_MS:
            self.forgotten_ms = self.now_ms
            if self.now_ms > self.settings.cache_ttl_ms:
                cache_forget(&self.store, self.now_ms - self.settings.cache_ttl_ms, FORGET_MOST)
            arena_pool_trim(&self.outbox.arenas, max(<size_t> KEPT_WHEN_IDLE, self.outbox.arenas.kept // 2))

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
        if not session.flags & FLAG_PINGED and self.settings.heartbeat_ms < self.settings.client_timeout_ms:
            at = session.received_ms + self.settings.heartbeat_ms
        if session.flags & FLAG_FULL and session.since_ms + self.settings.client_timeout_ms < at:
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

    cdef void renew(self, Session* session) noexcept:
        if session.state == SESSION_OPEN and session.expires_at >= 0:
            session.flags &= ~<uint32_t> FLAG_EXPIRY_TOLD
        wheel_set(&self.wheel, &session.timer, self.deadline(session))

    cdef void session_expired(self, Session* session) noexcept:
        if session.state == SESSION_HEAD:
            self.counters.timed_out += 1
            self.reject(session, 408, "bad_request", "request head: not complete within 10 seconds", None)
            self.flush(session)
            self.finish(session)
            return
        if session.state == SESSION_ANONYMOUS:
            self.counters.timed_out += 1
            self.error(session, NULL, ERROR_UNAUTHORIZED, b"no Authenticate within websocket.auth_timeout_secs", -1, NULL)
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
        if session.expires_at >= 0 and session.expires_at * 1000 <= wall:
            self.counters.expired += 1
            self.error(session, NULL, ERROR_TOKEN_EXPIRED, b"the token has expired", -1, NULL)
            self.close(session, 4401, b"token expired")
            return
        if self.now_ms - session.received_ms >= self.settings.client_timeout_ms:
            self.counters.timed_out += 1
            self.close(session, 4408, b"nothing heard for websocket.client_timeout_secs")
            return
        if session.flags & FLAG_FULL and self.now_ms - session.since_ms >= self.settings.client_timeout_ms:
            self.counters.slow_consumers += 1
            self.close(session, 4490, b"slow consumer")
            return
        if session.expires_at >= 0 and not session.flags & FLAG_EXPIRY_TOLD and (
                (session.refresh_at if session.refresh_at >= 0 else session.expires_at - EXPIRY_NOTICE_SECS) * 1000 <= wall):
            session.flags |= FLAG_EXPIRY_TOLD
            self.outbox.text.size = 0
            if write_token_expiring(&self.outbox.text, variant_encoding(session.variant), session.expires_at) == 0:
                outbox_reply(&self.outbox, session, False)
        if not session.flags & FLAG_PINGED and self.now_ms - session.received_ms >= self.settings.heartbeat_ms:
            session.flags |= FLAG_PINGED
            mailbox_push_priority(&session.mailbox, OP_PING, False, NULL, 0)
            outbox_touch(&self.outbox, session)

    # --- the door for the control plane

    def publish_request(self, bytes body not None, identity):
        """Publish what came over HTTP: JSON {topic, payload, idempotency_key?}.

        Returns {"epoch", "offset"}. Raises RequestError with a code of the protocol's list.
        """
        self.home.refresh()
        try:
            return publish_body(self, body, identity)
        finally:
            self.home.wake()

    def send_request(self, bytes body not None, identity):
        """Send what came over HTTP: JSON {to, payload, idempotency_key?}.

        Returns {"delivered", "offline"}, lists of user ids. Raises RequestError with a code of the protocol's list.
        """
        self.home.refresh()
        try:
            return send_body(self, body, identity)
        finally:
            self.home.wake()

    def publish_system(self, str topic not None, bytes payload not None):
        """Publish a valid JSON `payload` on a topic, as nobody. Raises MemoryError."""
        cdef bytes name = topic.encode()
        cdef Position position
        self.home.refresh()
        if self.publish(slice_of(<const uint8_t*> name, len(name)), TOPIC_PLAIN, slice_of(NULL, 0),
                        slice_of(<const uint8_t*> payload, len(payload)), JSON_TEXT, NULL, &position) < 0:
            raise MemoryError
        self.home.wake()

    def connection_count(self):
        """WebSocket connections there are."""
        return self.counters.connections

    def queued(self):
        """Messages and replies that wait in mailboxes."""
        cdef Session* session = self.sessions
        cdef uint64_t total = 0
        while session != NULL:
            total += mailbox_messages(&session.mailbox) + session.mailbox.priority_messages
            session = session.next
        return total

    def stats(self):
        """Counters and gauges by name."""
        made = counters_dict(&self.counters)
        made["topics"] = self.store.topics.count
        made["users"] = self.users.users.count
        made["members"] = self.users.members.count
        made["cached_messages"] = self.store.cached
        made["cached_bytes"] = self.store.cached_bytes
        made["idempotency_keys"] = len(self.answered)
        made["sessions"] = self.pool.live
        made["arenas"] = self.outbox.arenas.live
        made["timers"] = self.wheel.count
        return made

    def connections(self, int limit=1000):
        """What is known of up to `limit` connections, newest first."""
        cdef Session* session = self.sessions
        made = []
        while session != NULL and len(made) < limit:
            made.append(describe(self, session))
            session = session.next
        return made

    def topics(self, int limit=1000):
        """What is known of up to `limit` topics."""
        cdef TableCursor cursor
        cdef Topic* topic
        cdef uint8_t epoch[16]
        made = []
        table_start(&cursor)
        while len(made) < limit:
            topic = <Topic*> table_next(&self.store.topics, &cursor)
            if topic == NULL:
                break
            topic_epoch(topic, epoch)
            made.append({
                "topic": text_of(topic_name(topic)),
                "epoch": (<const char*> epoch)[:16].decode(),
                "offset": topic.offset,
                "subscribers": topic.subscribers,
                "cached": topic.cached,
            })
        return made

    cdef Session* session_of(self, str wanted) noexcept:
        cdef Session* session = self.sessions
        while session != NULL:
            if id_text(session) == wanted:
                return session
            session = session.next
        return NULL

    def disconnect(self, *, str session_id=None, str user_id=None, str login=None, int code=4403, str reason=""):
        """Close the connections that match all that is given; how many there were. Raises ValueError without any."""
        cdef Session* session = self.sessions
        cdef Session* following
        cdef bytes text = reason.encode()
        cdef int count = 0
        if session_id is None and user_id is None and login is None:
            raise ValueError("disconnect needs a session_id, a user_id or a login")
        while session != NULL:
            following = session.next
            if (session_id is None or id_text(session) == session_id) and (
                    user_id is None or user_text(session) == user_id) and (
                    login is None or (session.login != NULL and session.login.decode() == login)):
                self.close(session, code, text)
                count += 1
            session = following
        self.home.wake()
        return count

    def begin_drain(self, int spread_ms, str reason="server shutting down"):
        """Refuse upgrades from now on, and tell every client to come back within `spread_ms` milliseconds, each at
        another moment."""
        cdef Session* session = self.sessions
        cdef bytes text = reason.encode()
        self.draining = True
        self.home.refresh()
        while session != NULL:
            self.outbox.text.size = 0
            if session.state == SESSION_OPEN and not session.flags & FLAG_ECHO and write_closing(
                    &self.outbox.text, variant_encoding(session.variant), 1001,
                    slice_of(<const uint8_t*> text, len(text)), True, random.randint(0, spread_ms)) == 0:
                outbox_reply(&self.outbox, session, False)
            session = session.next
        self.home.wake()

    def close_all(self, int code, str reason not None):
        """Start the closing handshake on every connection."""
        cdef Session* session = self.sessions
        cdef Session* following
        cdef bytes text = reason.encode()
        self.home.refresh()
        while session != NULL:
            following = session.next
            self.close(session, code, text)
            session = following
        self.home.wake()


cdef bint is_extensions(Slice name) noexcept nogil:
    cdef const char* wanted = b"sec-websocket-extensions"
    cdef size_t i
    if name.size != 24:
        return False
    for i in range(24):
        if (name.data[i] | 0x20) != (<uint8_t> wanted[i] | 0x20):
            return False
    return True


cdef str text_of(Slice text):
    return (<const char*> text.data)[:text.size].decode()


cdef str id_text(const Session* session):
    cdef uint8_t digits[32]
    session_id(session, digits)
    return (<const char*> digits)[:32].decode()


cdef str user_text(const Session* session):
    return text_of(user_id(<User*> session.user)) if session.user != NULL else None


cdef dict describe(Hub hub, Session* session):
    return {
        "session_id": id_text(session),
        "user_id": user_text(session),
        "address": hub.peer_of(session),
        "encoding": "json" if session.encoding == JSON_TEXT else "msgpack",
        "subscriptions": session.subscription_count,
        "queued": mailbox_messages(&session.mailbox),
        "replies_queued": session.mailbox.priority_messages,
        "blocked": session.flags & FLAG_BLOCKED != 0,
        "connected_ms": hub.now_ms - session.opened_ms,
        "silent_ms": hub.now_ms - session.received_ms,
    }
