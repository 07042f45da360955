"""The hub of one worker; `hub.pxd` is the contract."""

import os
import random

from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset, strcmp

from realtime_communication._core.base.counters cimport Counters, counters_dict
from realtime_communication._core.base.memory cimport (
    Slice,
    arena_pool_trim,
    buffer_append,
    buffer_free,
    pool_free,
    pool_init,
    slice_of,
)
from realtime_communication._core.base.shared cimport Shared, shared_key, shared_slot, shared_tell, word_store
from realtime_communication._core.base.table cimport TableCursor, table_next, table_start
from realtime_communication._core.base.timer_wheel cimport (
    Timer,
    timer_is_set,
    wheel_expired,
    wheel_init,
    wheel_next_ms,
    wheel_set,
)
from realtime_communication._core.hub.core cimport Position, Refusal
from realtime_communication._core.hub.driver cimport Driver
from realtime_communication._core.hub.http_publications cimport publish_body, send_body
from realtime_communication._core.hub.http_requests cimport subscribe_user, unsubscribe_user
from realtime_communication._core.hub.idempotency cimport forget_answers
from realtime_communication._core.hub.mailbox cimport mailbox_has_bytes, mailbox_messages
from realtime_communication._core.hub.migration cimport Migration
from realtime_communication._core.hub.outbox cimport (
    outbox_flush_topics,
    outbox_free,
    outbox_init,
    outbox_reply,
    outbox_touch,
)
from realtime_communication._core.hub.outcome cimport (
    OUTCOME_ASKED,
    OUTCOME_PARKED,
    OUTCOME_PENDING,
    OUTCOME_UNAUTHORIZED,
    OUTCOME_WAIT,
    no_memory,
)
from realtime_communication._core.hub.peers cimport AUTHORITY_HERE, peers_authority
from realtime_communication._core.hub.relay cimport relay_publish
from realtime_communication._core.hub.requests cimport handle_request
from realtime_communication._core.hub.samples cimport (
    samples_finish,
    samples_free,
    samples_init,
    samples_set_rate,
    samples_take,
)
from realtime_communication._core.hub.session cimport (
    EVENT_CLOSED,
    EVENT_ECHO,
    EVENT_INVALID,
    EVENT_NEED_MORE,
    EVENT_REQUEST,
    FLAG_ASKED,
    FLAG_BLOCKED,
    FLAG_COUNTED,
    FLAG_DIRTY,
    FLAG_ECHO,
    FLAG_OVERRUN,
    FLAG_PAUSED,
    FLAG_PINGED,
    FLAG_RESUME,
    FLAG_WRITE_ARMED,
    SESSION_ANONYMOUS,
    SESSION_CLOSING,
    SESSION_HEAD,
    SESSION_LINGER,
    SESSION_OPEN,
    Session,
    session_answer_close,
    session_id,
    session_receive,
)
from realtime_communication._core.hub.settings cimport CACHE_BYTES, MAX_CUSTOM_LIMITS, Settings, settings_read
from realtime_communication._core.hub.shared_limits cimport shared_user_read
from realtime_communication._core.hub.throttle cimport throttle_flush
from realtime_communication._core.hub.token_bucket cimport TokenBucket, bucket_full_in_ms, bucket_init, bucket_remaining
from realtime_communication._core.hub.topics cimport (
    TOPIC_PLAIN,
    Topic,
    cache_forget,
    cache_limit,
    store_free,
    store_init,
    store_largest,
    topic_epoch,
    topic_name,
)
from realtime_communication._core.hub.transforms cimport transforms_read
from realtime_communication._core.hub.users cimport (
    TIMER_MEMBER,
    TIMER_SESSION,
    TIMER_USER,
    User,
    member_of_timer,
    user_find,
    user_id,
    user_of_timer,
    users_free,
    users_init,
)
from realtime_communication._core.hub.variants cimport variant_encoding, variant_frame, variant_of
from realtime_communication._core.wire.envelope cimport ERROR_BAD_REQUEST, ERROR_RATE_LIMITED, JSON_TEXT, envelope_parse
from realtime_communication._core.wire.frames cimport OP_TEXT
from realtime_communication._core.wire.handshake cimport refusal
from realtime_communication._core.wire.outbound cimport write_closing
from realtime_communication._core.hub.outcome import RequestError as RequestError  # no-cython-lint: public here

cdef enum:
    TICK_MS = 50                 # of the timer wheel
    REPLY_LANE_BYTES = 262144    # replies that wait before they are written within a turn
    FORGET_EACH_MS = 1000        # how often the cache is looked through for what is too old
    FORGET_MOST = 20000          # messages forgotten at a time
    ASK_AGAIN_MS = 100           # between questions about topics whose home did not know about them
    KEPT_WHEN_IDLE = 64          # arenas kept by a hub with little to do


cdef class Hub(Migration):
    """The hub of one worker.

    `node_id` names the node to clients. Nothing works before `configure` is called. Not thread-safe: all happens
    in the thread of the event loop.
    """

    def __cinit__(self, str node_id not None):
        memset(&self.counters, 0, sizeof(Counters))
        self.node_id = node_id.encode()
        self.answered = {}
        self.origins = []
        self.refusal_headers = []
        self.secure_headers = []
        self.entropy = b""
        self.entropy_at = 0
        self.sessions = NULL
        self.resume = NULL
        self.waiting = NULL
        self.dead = NULL
        self.stamp = 0
        self.told_second = 0
        self.told = 0
        self.untold = 0
        self.serials = 0
        self.now_ms = 1
        self.wall_ms = 0
        self.wall_ns = 0
        self.forgotten_ms = 0
        self.draining = False
        self.configured = False
        self.home = Driver()
        self.shared = NULL
        self.share = NULL
        self.shared_owner = NULL
        samples_init(&self.samples)
        users_init(&self.users)
        wheel_init(&self.wheel, 0, TICK_MS)
        store_init(&self.store, 0, 0)
        outbox_init(&self.outbox, &self.settings, &self.counters, &self.store, 0)
        pool_init(&self.pool, sizeof(Session), 0)

    def __dealloc__(self):
        self.peers.spread = False    # nobody is told any more
        while self.sessions != NULL:
            self.finish(self.sessions)
        outbox_flush_topics(&self.outbox)
        self.free_dead()
        samples_free(&self.samples)
        users_free(&self.users)
        store_free(&self.store)
        outbox_free(&self.outbox)
        pool_free(&self.pool)
        if self.shared_owner != NULL:
            Py_DECREF(<object> self.shared_owner)

    # --- configuration

    def use_shared(self, Shared shared not None, slot):
        """Share limits and counters with the other workers of the server from now on, as the worker in `slot`.

        The slot must be new or forgotten. Raises ValueError for a slot that is not there, RuntimeError the second time.
        """
        if self.shared != NULL:
            raise RuntimeError("the hub shares its limits already")
        if not 0 <= slot < shared.map.workers:
            raise ValueError(f"slot: {slot} is not between 0 and {shared.map.workers - 1}")
        Py_INCREF(shared)
        self.shared_owner = <void*> shared
        self.shared = &shared.map
        self.share = shared_slot(self.shared, slot)
        word_store(&self.share.connections, self.counters.connections)
        shared_tell(self.share, &self.counters)

    def configure(self, settings):
        """Take new settings over; live connections are under them at once.

        `settings` has the attributes of the control plane's core settings. ValueError names the one out of range;
        the settings are then as before, and after a TypeError for a transform that cannot be called as well. Pool sizes
        and deterministic ids count the first time only.
        """
        cdef Settings before = self.settings
        transforms = transforms_read(settings.transforms) if settings.enable_message_transformation else None
        settings_read(&self.settings, settings)
        self.transforms = transforms
        self.origins = list(settings.allowed_origins)
        self.refusal_headers = list(settings.refusal_headers)
        self.secure_headers = list(settings.secure_refusal_headers)
        if not self.configured:
            self.configured = True
            pool_init(&self.pool, sizeof(Session), settings.connection_pool_size)
            store_init(&self.store, settings.message_pool_size,
                       1 if self.settings.deterministic_ids else int.from_bytes(os.urandom(8), "big") | (1 << 63))
            self.outbox.arenas.ceiling = settings.buffer_pool_size
            bucket_init(&self.global_bucket, &self.settings.global_rate, self.now_ms)
        else:
            self.move_custom_buckets(&before)
            self.follow(&before)
        cache_limit(&self.store, self.settings.cache_entries if self.settings.caching else 0, CACHE_BYTES)

    cdef void follow(self, const Settings* before) noexcept:
        cdef TableCursor cursor
        cdef User* user
        self.home.refresh()
        if (self.settings.heartbeat_ms != before.heartbeat_ms
                or self.settings.client_timeout_ms != before.client_timeout_ms
                or self.settings.auth_timeout_ms != before.auth_timeout_ms):
            self.renew_all()
        table_start(&cursor)
        while True:
            user = <User*> table_next(&self.users.users, &cursor)
            if user == NULL:
                break
            if timer_is_set(&user.timer):
                wheel_set(&self.wheel, &user.timer, self.now_ms)  # how long it is kept is found out again
        if self.waiting != NULL:
            self.outbox.relieved = True  # they wait again if they still have to
        self.home.wake()

    cdef void move_custom_buckets(self, const Settings* before) noexcept nogil:
        """A custom limit that has another place now keeps its buckets; a new or another one begins with full ones."""
        cdef TokenBucket[MAX_CUSTOM_LIMITS] moved
        cdef uint32_t i, j
        cdef Session* session = self.sessions
        while session != NULL:
            if session.custom != NULL:
                memset(moved, 0, sizeof(moved))
                for i in range(self.settings.custom_count):
                    for j in range(before.custom_count):
                        if self.settings.custom_types[i] == before.custom_types[j] and strcmp(
                                &self.settings.custom_names[i][0], &before.custom_names[j][0]) == 0:
                            moved[i] = session.custom[j]
                            break
                memcpy(session.custom, moved, sizeof(moved))
            session = session.next

    def set_echo_callback(self, admit_echo):
        """Who is asked about upgrade requests for the echo endpoint: as `authenticate_upgrade` of `set_callbacks`, but
        its answer is None or a refusal."""
        self.echo_admission = admit_echo

    def set_callbacks(self, authenticate_upgrade, authenticate_message):
        """Who checks credentials.

        `authenticate_upgrade(headers, query, peer, secure)` is asked about upgrade requests, and answers with an
        identity, None (the first message must authenticate) or a refusal (status, code, message, headers).
        `authenticate_message(token, api_key, peer)` is asked about Authenticate and Refresh, and answers with an
        identity or a refusal (code, message). Both may answer with a Pending that is settled later.
        """
        self.admission = authenticate_upgrade
        self.authenticate = authenticate_message

    def report_faults(self, told):
        """Call `told(peer, code, reason, untold)` for each peer that is refused or closed by a fault of its own.

        `code` is the status of the HTTP answer, or the close code. Of a flood only some are told; `untold` counts those
        left out since the last call.
        """
        self.on_fault = told

    cdef void set_time(self, uint64_t now_ms, uint64_t wall_ms) noexcept nogil:
        self.now_ms = now_ms
        self.wall_ms = wall_ms
        self.wall_ns = wall_ms * 1000000
        self.outbox.now_ms = now_ms

    cdef void receive(self, Session* session, uint8_t* data, size_t size) noexcept:
        session.received_ms = self.now_ms
        session.flags &= ~<uint32_t> FLAG_PINGED
        self.counters.bytes_received += size
        if session.state == SESSION_HEAD:
            self.receive_head(session, data, size)
        elif session.state < SESSION_LINGER:
            self.receive_frames(session, data, size)

    # --- frames

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
                variant_frame(variant_of(0 if self.inbound.frame.opcode == OP_TEXT else 1, 0, session.window_bits),
                              self.inbound.frame.data, self.inbound.frame.size, self.settings.compression_threshold,
                              &session.mailbox.priority)
                session.mailbox.priority_messages += 1
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
            if budget & 15 == 0:
                (<Driver> session.driver).refresh()
                if self.now_ms > until:
                    break
        return at

    cdef void request(self, Session* session) noexcept:
        cdef Refusal refusal  # no-cython-lint
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
        cdef Refusal refusal  # no-cython-lint
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

    cdef void overrun(self, Session* session) noexcept:
        """Ends a session that does not read the joins and leaves it asked for: they cannot be told later."""
        session.flags &= ~<uint32_t> FLAG_OVERRUN
        if session.state == SESSION_OPEN:
            self.counters.slow_consumers += 1
            self.close(session, 4490, b"slow consumer")

    # --- the end of a turn

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
                if session.flags & FLAG_OVERRUN:
                    self.overrun(session)
                if not session.flags & FLAG_WRITE_ARMED:
                    self.flush(session)
                session = following
            if self.outbox.relieved:
                self.relieve()
        if self.outbox.full_first != NULL:
            throttle_flush(self)
        if self.samples.unfinished != self.samples.next:
            self.home.refresh()
            samples_finish(&self.samples, self.wall_ns)
        if self.dead != NULL:
            self.free_dead()
        if self.upward:
            self.notify_upstream()
        if self.shared != NULL:
            shared_tell(self.share, &self.counters)

    # --- time

    cdef int64_t next_deadline(self) noexcept:
        cdef int64_t wait = wheel_next_ms(&self.wheel, self.now_ms)
        if self.unsynced or self.peers.holding:
            return ASK_AGAIN_MS if wait < 0 else min(wait, <int64_t> ASK_AGAIN_MS)
        if wait < 0 or wait > FORGET_EACH_MS:
            if self.store.oldest != NULL or self.peers.oldest != NULL or len(self.answered):
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
        if self.unsynced or self.peers.holding or self.peers.oldest != NULL:
            self.expire_asked()
        if self.now_ms - self.forgotten_ms >= FORGET_EACH_MS:
            self.forgotten_ms = self.now_ms
            if self.now_ms > self.settings.cache_ttl_ms:
                cache_forget(&self.store, self.now_ms - self.settings.cache_ttl_ms, FORGET_MOST)
            forget_answers(self)
            arena_pool_trim(&self.outbox.arenas, max(<size_t> KEPT_WHEN_IDLE, self.outbox.arenas.kept // 2))

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

    def subscribe_user(self, str user_id not None, str topic not None):  # no-cython-lint
        """Subscribe the live sessions of a user, whatever their tokens allow; how many are now. Each is told so.

        Raises RequestError for a topic nobody can subscribe to.
        """
        self.home.refresh()
        try:
            return subscribe_user(self, user_id, topic)
        finally:
            self.home.wake()

    def unsubscribe_user(self, str user_id not None, str topic not None):  # no-cython-lint
        """End the subscriptions of a user's live sessions; how many there were. Each is told. Raises RequestError."""
        self.home.refresh()
        try:
            return unsubscribe_user(self, user_id, topic)
        finally:
            self.home.wake()

    def user_limit(self, str user_id not None):  # no-cython-lint
        """The limit that a user's requests are under: (most requests at once, requests left, milliseconds until all are
        back); None when rate limiting is off."""
        cdef bytes name = user_id.encode()
        cdef User* user
        cdef TokenBucket* bucket
        cdef TokenBucket full, common
        if not self.settings.rate_limiting:
            return None
        self.home.refresh()
        user = user_find(&self.users, slice_of(<const uint8_t*> name, len(name)))
        bucket_init(&full, &self.settings.user_rate, self.now_ms)
        bucket = &user.bucket if user != NULL and user.bucket.refilled_ms else &full
        if self.shared != NULL and shared_user_read(
                self.shared, shared_key(self.shared, <const uint8_t*> name, len(name)), &common):
            bucket = &common
        return (
            bucket_remaining(&full, &self.settings.user_rate, self.now_ms),
            bucket_remaining(bucket, &self.settings.user_rate, self.now_ms),
            bucket_full_in_ms(bucket, &self.settings.user_rate, self.now_ms),
        )

    def publish_system(self, str topic not None, bytes payload not None):
        """Publish a valid JSON `payload` on a topic, as nobody. Raises MemoryError."""
        cdef bytes name = topic.encode()
        cdef Slice text = slice_of(<const uint8_t*> name, len(name))
        cdef int authority = peers_authority(&self.peers, text)
        cdef Position position
        self.home.refresh()
        if authority != AUTHORITY_HERE:
            if relay_publish(self, authority, text, TOPIC_PLAIN, slice_of(NULL, 0),
                             slice_of(<const uint8_t*> payload, len(payload)), JSON_TEXT, 0, b"", 0) < 0:
                raise MemoryError
        elif self.publish(slice_of(<const uint8_t*> name, len(name)), TOPIC_PLAIN, slice_of(NULL, 0),
                          slice_of(<const uint8_t*> payload, len(payload)), JSON_TEXT, NULL, &position) < 0:
            raise MemoryError
        self.home.wake()

    def observe(self, double rate):
        """Sample this share of all publications from now on; 0 samples none, and forgets what was not taken.

        Raises ValueError when it is not between 0 and 1, MemoryError.
        """
        if not 0 <= rate <= 1:
            raise ValueError(f"rate: {rate} is not between 0 and 1")
        if samples_set_rate(&self.samples, rate, int.from_bytes(os.urandom(8), "big")) < 0:
            raise MemoryError

    def take_samples(self):
        """The samples since they were last taken, at most 4,096, oldest first: (kind, topic, start, duration).

        The kind is `Broadcast` or `DirectMessage`, the start in nanoseconds since the epoch when its turn of the loop
        began, the duration in nanoseconds until that turn had written everything.
        """
        return samples_take(&self.samples)

    def topic_counts(self, uint32_t limit):
        """The topics with the most subscribers, at most `limit`: (topic, subscribers, offset), inboxes not counted."""
        cdef Topic** found
        cdef uint32_t count, i
        if limit == 0:
            return []
        limit = <uint32_t> min(<size_t> limit, self.store.topics.count)
        found = <Topic**> malloc((limit + 1) * sizeof(Topic*))
        if found == NULL:
            raise MemoryError
        try:
            count = store_largest(&self.store, found, limit)
            return [(text_of(topic_name(found[i])), found[i].subscribers, found[i].offset) for i in range(count)]
        finally:
            free(found)

    def connection_count(self):
        """WebSocket connections there are."""
        return self.counters.connections

    def closing_count(self):
        """Connections that are told to close, and whose sockets are still open."""
        cdef Session* session = self.sessions
        cdef uint64_t total = 0
        while session != NULL:
            total += session.state >= SESSION_CLOSING
            session = session.next
        return total

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
        made["arenas_kept"] = self.outbox.arenas.kept
        made["timers"] = self.wheel.count
        return made

    def connections(self, int limit=1000):
        """What is known of up to `limit` connections, newest first."""
        cdef Session* session = self.sessions
        made = []
        while session != NULL and len(made) < limit:
            if session.flags & FLAG_COUNTED:
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
            if session.flags & FLAG_COUNTED and id_text(session) == wanted:
                return session
            session = session.next
        return NULL

    def disconnect(self, *, str session_id=None, str user_id=None, str login=None,  # no-cython-lint
                   int code=4403, str reason=""):
        """Close the connections that match all that is given; how many there were. Raises ValueError without any."""
        cdef Session* session = self.sessions
        cdef Session* following
        cdef bytes text = reason.encode()
        cdef int count = 0
        if session_id is None and user_id is None and login is None:
            raise ValueError("disconnect needs a session_id, a user_id or a login")
        self.note_disconnect(session_id, user_id, login, code, text)
        while session != NULL:
            following = session.next
            if session.flags & FLAG_COUNTED and (session_id is None or id_text(session) == session_id) and (
                    user_id is None or user_text(session) == user_id) and (
                    login is None or (session.login != NULL and session.login.decode() == login)):
                self.close(session, code, text)
                count += 1
            session = following
        self.home.wake()
        return count

    def begin_drain(self, int spread_ms, str reason="server shutting down", int code=1001):
        """Refuse upgrades and publications from now on, and tell every client to come back within `spread_ms`
        milliseconds, each at another moment. `code` is what their connections will be closed with."""
        cdef Session* session = self.sessions
        cdef bytes text = reason.encode()
        self.draining = True
        self.home.refresh()
        while session != NULL:
            self.outbox.text.size = 0
            if session.state == SESSION_OPEN and not session.flags & FLAG_ECHO and write_closing(
                    &self.outbox.text, variant_encoding(session.variant), code,
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
            if session.state == SESSION_HEAD:
                self.finish(session)
            self.close(session, code, text)
            session = following
        self.home.wake()


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
