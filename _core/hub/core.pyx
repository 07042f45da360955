"""The hub's state and the acts on it; `core.pxd` is the contract."""

from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport free
from libc.string cimport memcpy, strlen

from realtime_communication._core.base.memory cimport Buffer, Slice, slice_of
from realtime_communication._core.base.shared cimport shared_disconnect
from realtime_communication._core.base.timer_wheel cimport timer_is_set, wheel_cancel, wheel_set
from realtime_communication._core.hub.backlog cimport backlog_count_full, backlog_discard, backlog_forget
from realtime_communication._core.hub.bus_user cimport BusUser
from realtime_communication._core.hub.driver cimport Driver
from realtime_communication._core.hub.message cimport (
    Message,
    message_drop,
    message_new,
    message_payload,
    message_sender,
)
from realtime_communication._core.hub.newcomers cimport newcomer_remove
from realtime_communication._core.hub.outbox cimport (
    outbox_flush_topic,
    outbox_publish,
    outbox_reply,
    outbox_tell_reset,
    outbox_touch,
)
from realtime_communication._core.hub.peers cimport (
    AUTHORITY_ARRIVING,
    AUTHORITY_WORKER,
    FRAME_DELIVER,
    FRAME_RESET,
    MAX_WORKERS,
    add_body,
    add_u64,
    frame_done,
    frame_to,
    peers_authority,
    waiting_forget_session,
)
from realtime_communication._core.hub.samples cimport samples_add, samples_pick
from realtime_communication._core.hub.session cimport (
    FLAG_ASKED,
    FLAG_BLOCKED,
    FLAG_COUNTED,
    FLAG_FULL,
    FLAG_OVERRUN,
    FLAG_STARVED,
    FLAG_WITHHELD,
    SESSION_OPEN,
    Login,
    Narrowing,
    Session,
    login_new,
    narrowing_free,
    narrowing_new,
    session_id,
    session_info,
)
from realtime_communication._core.hub.settings cimport CACHE_BYTES, PRESENCE_GRACE_MS
from realtime_communication._core.hub.token_bucket cimport bucket_full_in_ms, bucket_idle_ms, bucket_init
from realtime_communication._core.hub.topic_rules cimport TopicRule, rule_of
from realtime_communication._core.hub.topics cimport (
    TOPIC_ALL,
    TOPIC_INBOX,
    TOPIC_PLAIN,
    Subscription,
    Topic,
    store_fresh_epoch,
    subscription_add,
    subscription_remove,
    topic_append,
    topic_epoch,
    topic_excess,
    topic_find,
    topic_name,
    topic_open,
    topic_release,
    topic_reset,
    topic_trim,
)
from realtime_communication._core.hub.users cimport (
    Member,
    User,
    member_add,
    member_find,
    member_remove,
    user_attach,
    user_detach,
    user_find,
    user_id,
    user_open,
    user_release,
)
from realtime_communication._core.hub.variants cimport variant_encoding
from realtime_communication._core.wire.envelope cimport Request
from realtime_communication._core.wire.outbound cimport write_error, write_join

cdef enum:
    FAULTS_A_SECOND = 10         # faults of peers that are told one by one; the others are counted


cdef Slice inbox_name(Slice user, uint8_t* place) noexcept nogil:
    place[0] = b"@"
    memcpy(place + 1, user.data, user.size)
    return slice_of(place, user.size + 1)


cdef class Core(BusUser):

    cdef int publish(self, Slice name, int kind, Slice sender, Slice payload, int encoding, Session* excluded,
                     Position* out) noexcept:
        cdef Topic* topic = self.open_topic(name, kind)
        cdef Message* message
        cdef int result
        if topic == NULL:
            return -1
        if topic.foreign:
            self.localize(topic)
        message = message_new(&self.store.messages, sender, payload, encoding)
        if message == NULL:
            topic_release(&self.store, topic)
            return -1
        message.ts = self.wall_ms
        message.stored_ms = self.now_ms
        message.excluded = excluded.serial if excluded != NULL else 0
        topic.members += 1       # keeps the topic while its own message may be the one the cache forgets
        self.store_message(topic, message)
        out.offset = topic.offset
        topic_epoch(topic, out.epoch)
        result = outbox_publish(&self.outbox, topic, message)
        self.due += topic.subscribers
        if topic.interest:
            self.feed(topic, message, self.origin_instance if self.origin_serial else self.peers.instance,
                      self.origin_serial or message.excluded)
        if self.keeps_upstream:
            self.kept_for_upstream(topic, message)
        if self.samples.below and samples_pick(&self.samples):
            self.counters.samples_lost += samples_add(&self.samples, kind == TOPIC_INBOX, name, self.wall_ns)
        topic.members -= 1
        message_drop(&self.store.messages, message)
        topic_release(&self.store, topic)
        return result

    cdef void store_message(self, Topic* topic, Message* message) noexcept:
        cdef size_t entries = kept_entries(self)
        cdef const TopicRule* rule = NULL
        if self.rules is not None and self.rules.bounds_history:
            rule = rule_of(self.rules, topic_name(topic))
            if rule != NULL and not rule.history and not keeps_all(self):
                entries = 0
        topic_append(&self.store, topic, message, entries, CACHE_BYTES)
        if rule != NULL:
            self.trim(topic, rule)

    cdef void trim(self, Topic* topic, const TopicRule* rule) noexcept:
        cdef uint64_t before_ms = 0
        topic.hidden = 0
        if rule == NULL:
            return
        if rule.history_ms and rule.history_ms < self.now_ms:
            before_ms = self.now_ms - rule.history_ms
        if keeps_all(self):
            topic.hidden = topic_excess(topic, rule.history_size, before_ms) if rule.history else topic.cached
        else:
            topic_trim(&self.store, topic, rule.history_size, before_ms)

    cdef Topic* open_topic(self, Slice name, int kind) noexcept:
        cdef Topic* topic = topic_open(&self.store, name, kind)
        if topic != NULL and topic.cached and self.rules is not None and self.rules.bounds_history:
            self.trim(topic, rule_of(self.rules, name))
        if topic != NULL and self.peers.spread:
            topic.authority = <uint8_t> peers_authority(&self.peers, name)
            if kind == TOPIC_ALL and topic.authority < AUTHORITY_WORKER:
                topic.interest = self.peers.members & ~(<uint64_t> 1 << self.peers.me)
        return topic

    cdef void feed(self, Topic* topic, const Message* message, uint64_t instance, uint64_t excluded) noexcept:
        cdef uint64_t left = topic.interest
        cdef Slice sender = message_sender(message)
        cdef Slice payload = message_payload(message)
        cdef Buffer* out
        cdef int slot
        for slot in range(MAX_WORKERS):
            if left == 0:
                return
            if left & 1:
                out = frame_to(&self.peers, slot, FRAME_DELIVER, topic.kind, topic_name(topic), 0,
                               48 + sender.size + payload.size)
                if out != NULL:
                    add_u64(out, topic.epoch)
                    add_u64(out, message.offset)
                    add_body(out, message.ts, instance if excluded else 0, excluded, message.encoding, sender, payload)
                    frame_done(&self.peers, slot)
            left >>= 1

    cdef void reset(self, Topic* topic, uint64_t epoch, uint64_t offset) noexcept:
        cdef uint64_t left = topic.interest
        cdef uint64_t missed = offset - topic.offset if epoch == topic.epoch and offset > topic.offset else 0
        cdef Buffer* out
        cdef int slot
        outbox_flush_topic(&self.outbox, topic)
        topic_reset(&self.store, topic, epoch, offset)
        outbox_tell_reset(&self.outbox, topic, missed)
        for slot in range(MAX_WORKERS):
            if left & 1:
                out = frame_to(&self.peers, slot, FRAME_RESET, topic.kind, topic_name(topic), 0, 16)
                if out != NULL:
                    add_u64(out, epoch)
                    add_u64(out, offset)
                    frame_done(&self.peers, slot)
            left >>= 1

    cdef void localize(self, Topic* topic) noexcept:
        topic.foreign = False
        topic.synced = False
        self.reset(topic, store_fresh_epoch(&self.store), 0)

    cdef Topic* inbox(self, Slice user) noexcept:
        cdef uint8_t place[256]
        cdef Slice name = inbox_name(user, place)
        cdef Topic* topic = topic_find(&self.store, name)
        cdef User* owner
        cdef Session* session
        if topic != NULL:
            return topic
        topic = self.open_topic(name, TOPIC_INBOX)
        owner = user_find(&self.users, user)
        if topic == NULL or owner == NULL:
            return topic
        session = owner.sessions
        while session != NULL:
            self.join_or_starve(session, topic)
            session = session.next_of_user
        return topic

    cdef Topic* everyone(self) noexcept:
        cdef Slice name = slice_of(b"*", 1)
        cdef Topic* topic = topic_find(&self.store, name)
        cdef Session* session = self.sessions
        if topic != NULL:
            return topic
        topic = self.open_topic(name, TOPIC_ALL)
        if topic == NULL:
            return NULL
        while session != NULL:
            if session.user != NULL:
                self.join_or_starve(session, topic)
            session = session.next
        return topic

    cdef Subscription* join(self, Session* session, Topic* topic) noexcept:
        cdef Subscription* made
        cdef User* user = <User*> session.user
        cdef Member* fresh = NULL
        outbox_flush_topic(&self.outbox, topic)
        # Whoever could not be counted in must not be subscribed, or would be counted out in another's place.
        if topic.kind == TOPIC_PLAIN and not AUTHORITY_WORKER <= topic.authority < AUTHORITY_ARRIVING and (
                member_find(&self.users, user, topic) == NULL):
            fresh = member_add(&self.users, user, topic)
            if fresh == NULL:
                return NULL
        made = subscription_add(&self.store, session, topic, self.wall_ms)
        if made == NULL:
            if fresh != NULL:
                member_remove(&self.users, &self.wheel, fresh)
            return NULL
        if session.flags & FLAG_FULL:
            backlog_count_full(&self.outbox, topic, 1)
        if topic.kind == TOPIC_PLAIN:
            self.counters.subscriptions = self.store.subscription_count
            self.enter(session, topic)
        return made

    cdef void join_or_starve(self, Session* session, Topic* topic) noexcept:
        """Subscribe a session to what every session is subscribed to, or close it at the end of the turn."""
        if self.join(session, topic) == NULL:
            session.flags |= FLAG_STARVED
            outbox_touch(&self.outbox, session)

    cdef void enter(self, Session* session, Topic* topic) noexcept:
        self.count_in(<User*> session.user, topic, session.id_high, session.id_low, session_info(session))

    cdef Member* count_in(self, User* user, Topic* topic, uint64_t id_high, uint64_t id_low, Slice info) noexcept:
        cdef Member* member = member_find(&self.users, user, topic)
        if member == NULL:
            member = member_add(&self.users, user, topic)
            if member == NULL:
                return NULL
        wheel_cancel(&self.wheel, &member.timer)
        member.sessions += 1
        member.id_high = id_high
        member.id_low = id_low
        if not member.shown:
            member.shown = True
            self.tell_watchers(topic, member, False, info)
        return member

    cdef void part(self, Subscription* subscription, bint graceful) noexcept:
        cdef Topic* topic = subscription.topic
        cdef Session* session = subscription.session
        cdef User* user = <User*> session.user
        outbox_flush_topic(&self.outbox, topic)
        backlog_forget(&self.outbox, subscription)
        subscription_remove(&self.store, subscription)
        if topic.kind == TOPIC_PLAIN:
            self.counters.subscriptions = self.store.subscription_count
            self.exit(session, user, topic, graceful)
            if self.peers.spread or topic.watch_state:
                self.watched(topic)
        if topic.synced and topic.subscribers == 0:
            self.unused(topic)
        topic_release(&self.store, topic)

    cdef void exit(self, Session* session, User* user, Topic* topic, bint graceful) noexcept:
        cdef Member* member = member_find(&self.users, user, topic)
        if member != NULL and member.sessions:
            self.count_out(member, session.id_high, session.id_low, graceful)

    cdef void count_out(self, Member* member, uint64_t id_high, uint64_t id_low, bint graceful) noexcept:
        cdef Topic* topic = member.topic
        member.sessions -= 1
        if member.sessions:
            return
        member.id_high = id_high
        member.id_low = id_low
        if graceful and (topic.subscribers or topic.watching):
            wheel_set(&self.wheel, &member.timer, self.now_ms + PRESENCE_GRACE_MS)
            return
        self.tell_watchers(topic, member, True, slice_of(NULL, 0))
        member_remove(&self.users, &self.wheel, member)

    cdef void member_expired(self, void* expired) noexcept:
        cdef Member* member = <Member*> expired
        cdef Topic* topic = member.topic
        cdef User* user = member.user
        self.tell_watchers(topic, member, True, slice_of(NULL, 0))
        member_remove(&self.users, &self.wheel, member)
        topic_release(&self.store, topic)
        self.forget_user(user)

    cdef void tell_watchers(self, Topic* topic, const Member* member, bint leave, Slice info) noexcept:
        cdef uint32_t i
        for i in range(topic.watcher_count):
            self.tell_watcher(topic.watchers[i].session, topic, member, leave, info)

    cdef void tell_watcher(self, Session* session, Topic* topic, const Member* member, bint leave, Slice info) noexcept:
        cdef Session source
        cdef uint8_t digits[32]
        if not leave and session.id_high == member.id_high and session.id_low == member.id_low:
            return
        source.id_high = member.id_high
        source.id_low = member.id_low
        session_id(&source, digits)
        self.outbox.text.size = 0
        if write_join(&self.outbox.text, variant_encoding(session.variant), leave, topic_name(topic),
                      user_id(member.user), slice_of(digits, 32), info) == 0:
            outbox_reply(&self.outbox, session, False)
            if session.flags & FLAG_BLOCKED and (
                    session.mailbox.priority_messages + session.mailbox.queue_replies
                    > self.settings.priority_capacity):
                session.flags |= FLAG_OVERRUN

    cdef int attach(self, Session* session, object identity) except -1:
        cdef bytes name = (<str> identity.user_id).encode()
        cdef Slice key = slice_of(<const uint8_t*> name, len(name))
        cdef uint8_t place[256]
        cdef User* user
        cdef Topic* topic
        if not 0 < key.size < 255:
            raise ValueError("user_id must have 1 to 254 bytes")
        self.grant(session, identity)
        user = user_open(&self.users, key)
        if user == NULL:
            raise MemoryError
        wheel_cancel(&self.wheel, &user.timer)
        if user.bucket.refilled_ms == 0:
            bucket_init(&user.bucket, &self.settings.user_rate, self.now_ms)
        user_attach(user, session)
        newcomer_remove(&self.newcomers, session)
        session.state = SESSION_OPEN
        topic = topic_find(&self.store, inbox_name(key, place))
        if topic != NULL and self.join(session, topic) == NULL:
            raise MemoryError
        topic = topic_find(&self.store, slice_of(b"*", 1))
        if topic != NULL and self.join(session, topic) == NULL:
            raise MemoryError
        return 0

    cdef int grant(self, Session* session, object identity) except -1:
        # Everything is made before anything changes: half of a token's rights could be more than it has.
        cdef int64_t expires_at = -1 if identity.expires_at is None else identity.expires_at
        cdef int64_t refresh_at = -1 if identity.refresh_at is None else identity.refresh_at
        cdef uint8_t permissions = identity.permissions
        cdef uint64_t roles = self.roles_of(identity)
        cdef Login* login = login_new(identity.login)
        cdef Narrowing* narrowing
        try:
            narrowing = narrowing_new(identity.subscribe_patterns, identity.publish_patterns, identity.presence_info)
        except BaseException:
            free(login)
            raise
        session.roles = roles
        if login != NULL:
            free(session.login)
            session.login = login
        narrowing_free(session.narrowing)
        session.narrowing = narrowing
        session.permissions = permissions
        session.expires_at = expires_at
        session.refresh_at = refresh_at
        return 0

    cdef uint64_t roles_of(self, object identity) except? 0:
        if self.rules is None or not self.rules.roles:
            return 0
        return self.rules.bits_of(identity.roles)

    cdef void leave(self, Session* session) noexcept:
        cdef User* user = <User*> session.user
        backlog_discard(&self.outbox, session)
        waiting_forget_session(session)
        session.flags &= ~<uint32_t> (FLAG_ASKED | FLAG_WITHHELD)
        while session.subscriptions != NULL:
            self.part(<Subscription*> session.subscriptions, True)
        if user != NULL:
            user_detach(user, session)
            if self.peers.spread and user.session_count == 0:
                self.user_seen(user_id(user), False)
            self.forget_user(user)
        if session.flags & FLAG_COUNTED:
            session.flags &= ~<uint32_t> FLAG_COUNTED
            self.counters.connections -= 1
            if self.shared != NULL:
                shared_disconnect(self.share)

    cdef void forget_user(self, User* user) noexcept:
        """Free a user without sessions in the next sweep, once its bucket is as good as new or long idle."""
        cdef uint64_t wait = 0, idle, bound
        if user.session_count or user.members:
            return
        if self.settings.rate_limiting and user.bucket.refilled_ms:
            wait = bucket_full_in_ms(&user.bucket, &self.settings.user_rate, self.now_ms)
            idle = bucket_idle_ms(&user.bucket, self.now_ms)
            bound = <uint64_t> self.settings.idle_bucket_ms + self.settings.user_rate.interval_ms
            wait = min(wait, bound - idle if idle < bound else 0)
        if wait == 0:
            wheel_cancel(&self.wheel, &user.timer)
            user_release(&self.users, user)
        elif not timer_is_set(&user.timer):
            wait += self.now_ms + self.settings.sweep_ms - 1
            wheel_set(&self.wheel, &user.timer, wait - wait % self.settings.sweep_ms)

    cdef void error(self, Session* session, const Request* request, int code, const char* message,
                    int64_t retry_after_ms, const char* scope) noexcept:
        self.outbox.text.size = 0
        if write_error(&self.outbox.text, variant_encoding(session.variant), request, code,
                       slice_of(message, strlen(message)), retry_after_ms, scope) == 0:
            outbox_reply(&self.outbox, session, False)

    cdef str peer_of(self, Session* session):
        return (<Driver> session.driver).peer(session)

    cdef void tell(self, Session* session, int code, object reason) noexcept:
        cdef uint64_t second = self.now_ms // 1000
        if self.on_fault is None:
            return
        if second != self.told_second:
            self.told_second = second
            self.told = 0
        if self.told >= FAULTS_A_SECOND:
            self.untold += 1
            return
        self.told += 1
        try:
            self.on_fault(self.peer_of(session), code, reason.decode() if isinstance(reason, bytes) else reason,
                          self.untold)
        except Exception:
            return               # what cannot be told must not change what happens to the peer
        self.untold = 0

    cdef void settled(self, Session* session, object pending, object answer) noexcept:
        pass

    cdef void renew(self, Session* session) noexcept:
        pass

    cdef void withhold(self, Session* session) noexcept:
        pass

    cdef void user_seen(self, Slice user, bint here) noexcept:
        pass

    cdef void unused(self, Topic* topic) noexcept:
        pass

    cdef void watched(self, Topic* topic) noexcept:
        pass

    cdef void described(self, Session* session) noexcept:
        pass

    cdef int ask_presence(self, Session* session, const Request* request) noexcept:
        return 0

    cdef void kept_for_upstream(self, Topic* topic, const Message* message) noexcept:
        pass
