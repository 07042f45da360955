"""The hub of one worker; `hub.pxd` is the contract."""

import os

from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset, strcmp

from realtime_communication._core.base.counters cimport Counters
from realtime_communication._core.base.memory cimport arena_pool_trim, buffer_reserve, pool_free, pool_init
from realtime_communication._core.base.shared cimport Shared, shared_slot, shared_tell, word_store
from realtime_communication._core.base.table cimport TableCursor, table_next, table_start
from realtime_communication._core.base.timer_wheel cimport (
    Timer,
    timer_is_set,
    wheel_expired,
    wheel_init,
    wheel_next_ms,
    wheel_set,
)
from realtime_communication._core.hub.control cimport Control
from realtime_communication._core.hub.core cimport KEEP_MS, kept_entries
from realtime_communication._core.hub.driver cimport Driver
from realtime_communication._core.hub.idempotency cimport forget_answers
from realtime_communication._core.hub.newcomers cimport newcomers_init
from realtime_communication._core.hub.outbox cimport outbox_flush_topics, outbox_free, outbox_init
from realtime_communication._core.hub.samples cimport samples_finish, samples_free, samples_init
from realtime_communication._core.hub.session cimport (
    FLAG_DIRTY,
    FLAG_OVERRUN,
    FLAG_STARVED,
    FLAG_WRITE_ARMED,
    Session,
)
from realtime_communication._core.hub.settings cimport CACHE_BYTES, MAX_CUSTOM_LIMITS, Settings, settings_read
from realtime_communication._core.hub.throttle cimport throttle_flush
from realtime_communication._core.hub.token_bucket cimport TokenBucket, bucket_init
from realtime_communication._core.hub.topic_rules cimport TopicRules, topic_rules_read
from realtime_communication._core.hub.topics cimport (
    Topic,
    cache_forget,
    cache_limit,
    next_topic,
    store_free,
    store_init,
)
from realtime_communication._core.hub.transforms cimport transforms_read
from realtime_communication._core.hub.users cimport (
    TIMER_MEMBER,
    TIMER_SESSION,
    TIMER_USER,
    User,
    member_of_timer,
    user_of_timer,
    users_free,
    users_init,
)
from realtime_communication._core.hub.variants cimport SCRATCH_LEAST
from realtime_communication._core.hub.outcome import RequestError as RequestError  # no-cython-lint: public here
from realtime_communication._core.hub.outcome import UndecidedError as UndecidedError  # no-cython-lint: public here

cdef enum:
    TICK_MS = 50                 # of the timer wheel
    FORGET_EACH_MS = 1000        # how often the cache is looked through for what is too old
    FORGET_MOST = 20000          # messages forgotten at a time
    ASK_AGAIN_MS = 100           # between questions about topics whose home did not know about them
    WRITING_MS = 10              # of a turn, behind what is handled in it
    WRITTEN_AT_LEAST = 64        # sessions, in any turn
    KEPT_WHEN_IDLE = 64          # arenas kept by a hub with little to do


cdef class Hub(Control):
    """The hub of one worker.

    `node_id` names the node to clients. Nothing works before `configure` is called. Not thread-safe: all happens
    in the thread of the event loop.
    """

    def __cinit__(self, str node_id not None):
        memset(&self.counters, 0, sizeof(Counters))
        self.node_id = node_id.encode()
        self.answered = {}
        self.origins = []
        self.proxies = None
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
        self.keep_until_ms = 0
        self.configured = False
        self.home = Driver()
        self.shared = NULL
        self.share = NULL
        self.shared_owner = NULL
        newcomers_init(&self.newcomers)
        samples_init(&self.samples)
        users_init(&self.users)
        wheel_init(&self.wheel, 0, TICK_MS)
        store_init(&self.store, 0, 0)
        outbox_init(&self.outbox, &self.settings, &self.counters, &self.store, 0)
        pool_init(&self.pool, sizeof(Session), 0)

    def __dealloc__(self):
        self.peers.spread = False    # nobody is told any more
        self.noticing = 0
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
        rules = topic_rules_read(settings.topics)
        settings_read(&self.settings, settings)
        self.transforms = transforms
        self.use_rules(rules)
        self.origins = list(settings.allowed_origins)
        self.proxies = settings.trusted_proxies
        self.refusal_headers = list(settings.refusal_headers)
        self.secure_headers = list(settings.secure_refusal_headers)
        if not self.configured:
            self.configured = True
            pool_init(&self.pool, sizeof(Session), settings.connection_pool_size)
            store_init(&self.store, settings.message_pool_size,
                       1 if self.settings.deterministic_ids else int.from_bytes(os.urandom(8), "big") | (1 << 63))
            self.outbox.arenas.ceiling = settings.buffer_pool_size
            # Refusals for want of memory, and all small replies, need none.
            if buffer_reserve(&self.outbox.text, SCRATCH_LEAST) < 0:
                raise MemoryError
            bucket_init(&self.global_bucket, &self.settings.global_rate, self.now_ms)
        else:
            self.move_custom_buckets(&before)
            self.follow(&before)
        cache_limit(&self.store, kept_entries(self), CACHE_BYTES)

    cdef int use_rules(self, TopicRules rules) except -1:
        cdef TopicRules before = self.rules
        cdef Session* session = self.sessions
        cdef TableCursor cursor
        cdef Topic* topic
        self.rules = rules
        table_start(&cursor)
        topic = next_topic(&self.store, &cursor)
        while topic != NULL:
            topic.hidden = 0
            topic = next_topic(&self.store, &cursor)
        while session != NULL:
            session.roles = rules.moved(before, session.roles) if rules is not None else 0
            session = session.next
        return 0

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

    def set_token_callback(self, authenticate_token):
        """Who is asked first about an upgrade request whose only credential can be a bearer token, with that token.

        `authenticate_token(token)` answers with an identity, or with None: `authenticate_upgrade` of `set_callbacks`
        is asked then, as if nobody had been before.
        """
        self.token_admission = authenticate_token

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

    # --- the end of a turn

    cdef bint has_more_to_say(self) noexcept:
        return self.outbox.dirty != NULL or self.outbox.relieved

    cdef bint write_some(self, Session* session) noexcept:
        cdef Session* following
        cdef uint32_t written = 0
        while session != NULL:
            following = session.next_dirty
            session.flags &= ~<uint32_t> FLAG_DIRTY
            if session.flags & (FLAG_OVERRUN | FLAG_STARVED):
                self.overrun(session)
            if not session.flags & FLAG_WRITE_ARMED:
                self.flush(session)
            session = following
            written += 1
            if written % WRITTEN_AT_LEAST == 0 and self.over_ms:
                self.home.refresh()
                if self.now_ms >= self.over_ms + WRITING_MS:
                    break
        if session == NULL:
            return True
        following = session
        while following.next_dirty != NULL:
            following = following.next_dirty
        following.next_dirty = self.outbox.dirty
        self.outbox.dirty = session
        return False

    cdef void end_turn(self) noexcept:
        cdef Session* session
        while True:
            outbox_flush_topics(&self.outbox)
            session = self.outbox.dirty
            self.outbox.dirty = NULL
            if session == NULL and not self.outbox.relieved:
                break
            if not self.write_some(session):
                break
            if self.outbox.relieved:
                self.relieve()
        self.due = 0
        if self.outbox.full_first != NULL:
            throttle_flush(self)
        if self.samples.unfinished != self.samples.next:
            self.home.refresh()
            samples_finish(&self.samples, self.wall_ns)
        if self.dead != NULL:
            self.free_dead()
        if self.upward:
            self.notify_upstream()
        if self.noticing:
            self.tell_notices()
        if self.shared != NULL:
            shared_tell(self.share, &self.counters)

    # --- time

    cdef int64_t next_deadline(self) noexcept:
        cdef int64_t wait = wheel_next_ms(&self.wheel, self.now_ms)
        if self.unsynced or self.peers.holding or self.looks_ahead():
            return ASK_AGAIN_MS if wait < 0 else min(wait, <int64_t> ASK_AGAIN_MS)
        if wait < 0 or wait > FORGET_EACH_MS:
            if self.store.oldest != NULL or self.peers.oldest != NULL or len(self.answered):
                return FORGET_EACH_MS
        return wait

    cdef void tick(self) noexcept:
        cdef Timer* timer
        cdef uint64_t kept_ms
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
        if self.noticing:
            self.look_at_topics()
        if self.now_ms - self.forgotten_ms >= FORGET_EACH_MS:
            self.forgotten_ms = self.now_ms
            kept_ms = self.settings.cache_ttl_ms if self.settings.caching else <uint64_t> KEEP_MS
            if self.now_ms > kept_ms:
                cache_forget(&self.store, self.now_ms - kept_ms, FORGET_MOST)
            forget_answers(self)
            arena_pool_trim(&self.outbox.arenas, max(<size_t> KEPT_WHEN_IDLE, self.outbox.arenas.kept // 2))
