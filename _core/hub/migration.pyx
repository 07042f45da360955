"""Sessions that move; `migration.pxd` is the contract."""

from collections import deque

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport malloc
from libc.string cimport memcpy, memset

from realtime_communication._core.base.memory cimport Buffer, Slice, buffer_append, buffer_free, buffer_init, slice_of
from realtime_communication._core.base.shared cimport shared_connect, shared_disconnect
from realtime_communication._core.base.timer_wheel cimport wheel_cancel, wheel_set
from realtime_communication._core.hub.core cimport inbox_name
from realtime_communication._core.hub.driver cimport Driver
from realtime_communication._core.hub.message cimport Message, message_drop, message_new
from realtime_communication._core.hub.outbox cimport outbox_flush_topic, outbox_flush_topics, outbox_reply
from realtime_communication._core.hub.peers cimport (
    AUTHORITY_ARRIVING,
    AUTHORITY_HERE,
    AUTHORITY_NOBODY,
    AUTHORITY_WORKER,
    FRAME_MIGRATE,
    FRAME_MIGRATED,
    FRAME_UNSUBSCRIBE,
    MAX_WORKERS,
    WAIT_MOVED,
    Body,
    Frame,
    Waiting,
    add_u8,
    add_u32,
    add_u64,
    frame_end,
    frame_read,
    frame_start,
    put_u16,
    take_number,
    take_slice,
    waiting_add,
    waiting_id,
    waiting_topic,
)
from realtime_communication._core.hub.questions cimport Questions
from realtime_communication._core.hub.relay cimport ask_sync, relay_subscribe
from realtime_communication._core.hub.session cimport (
    FLAG_ASKED,
    FLAG_COUNTED,
    FLAG_DEFLATE,
    FLAG_EXPIRY_TOLD,
    FLAG_FULL,
    FLAG_PINGED,
    SESSION_OPEN,
    Patterns,
    Session,
    info_new,
    patterns_new,
    session_id,
)
from realtime_communication._core.hub.settings cimport MAX_CUSTOM_LIMITS
from realtime_communication._core.hub.stored_messages cimport next_body
from realtime_communication._core.hub.token_bucket cimport TokenBucket, bucket_init
from realtime_communication._core.hub.topics cimport (
    EPOCH_SIZE,
    TOPIC_ALL,
    TOPIC_INBOX,
    TOPIC_PLAIN,
    Subscription,
    Topic,
    epoch_text,
    subscription_add,
    subscription_find,
    subscription_watch,
    topic_find,
    topic_first,
    topic_message,
    topic_name,
    topic_release,
)
from realtime_communication._core.hub.users cimport User, user_attach, user_detach, user_find, user_id, user_open
from realtime_communication._core.hub.variants cimport message_envelope, variant_encoding
from realtime_communication._core.wire.frames cimport frame_parser_init
from realtime_communication._core.wire.outbound cimport write_lagged

cdef enum:
    SETTLE_MS = 10000            # for a place to be settled, before its gap is told; no more than any request waits
    SENT_AWAY_MS = 10000         # for a session to arrive that was on its way when it was to be closed
    SENT_AWAY_MOST = 1000        # of them remembered
    ABSENT = 0xFFFFFFFF          # in place of a size: there is none


cdef int add_text(Buffer* out, const void* data, size_t size) noexcept nogil:
    if add_u32(out, <uint32_t> size) < 0:
        return -1
    return buffer_append(out, data, size)


cdef int add_patterns(Buffer* out, const Patterns* patterns) noexcept nogil:
    cdef uint32_t i
    if patterns == NULL:
        return add_u32(out, <uint32_t> ABSENT)
    if add_u32(out, patterns.count) < 0:
        return -1
    for i in range(patterns.count):
        if add_text(out, patterns.items[i].data, patterns.items[i].size) < 0:
            return -1
    return 0


cdef object take_text(Frame* frame, bint* ok):
    cdef uint64_t size = take_number(frame, 4, ok)
    cdef Slice text
    if not ok[0] or size == <uint64_t> ABSENT:
        return None
    text = take_slice(frame, <size_t> size, ok)
    return (<const char*> text.data)[:text.size]


cdef object take_patterns(Frame* frame, bint* ok):
    cdef uint64_t count = take_number(frame, 4, ok)
    if not ok[0] or count == <uint64_t> ABSENT:
        return None
    found = []
    while count and ok[0]:
        text = take_text(frame, ok)
        if text is not None:
            found.append(text.decode())
        count -= 1
    return found


cdef Place place_of(const Waiting* waiting) noexcept nogil:
    cdef Place place
    cdef Slice kept = waiting_id(waiting)
    memset(&place, 0, sizeof(Place))
    if kept.size == sizeof(Place):
        memcpy(&place, kept.data, sizeof(Place))
    return place


cdef class Migration(Questions):

    def __cinit__(self, str node_id not None):
        self.moving = []
        self.arriving = {}
        self.sent_away = deque(maxlen=SENT_AWAY_MOST)

    # --- operators

    cdef void note_disconnect(self, object named, object user, object login, int code, bytes reason) noexcept:
        if not self.peers.spread:
            return
        try:
            self.sent_away.append((self.now_ms, named, user, login, code, reason))
        except MemoryError:
            pass

    cdef bint is_sent_away(self, Session* session, bytes user) noexcept:
        """Closes a session that was to be closed while it was on its way."""
        cdef uint8_t digits[32]
        cdef uint64_t at
        if not self.sent_away:
            return False
        session_id(session, digits)
        name = (<const char*> digits)[:32].decode()
        login = session.login.decode() if session.login != NULL else None
        for at, its_id, its_user, its_login, code, reason in self.sent_away:
            if at + SENT_AWAY_MS >= self.now_ms and session.opened_ms <= at and (
                    its_id is None or its_id == name) and (
                    its_user is None or its_user == user.decode()) and (its_login is None or its_login == login):
                self.close(session, code, <bytes> reason)
                return True
        return False

    # --- giving

    def give_sessions(self, int slot, int most):
        """Hand up to `most` sessions over to the worker in `slot`, live; how many went.

        Sessions that something waits for stay, but may go when they are asked for again. Raises ValueError.
        """
        cdef Session* session = self.sessions
        cdef Session* following
        cdef bytes frame
        cdef int tried = 0, given = 0
        if not 0 <= slot < MAX_WORKERS or slot == self.peers.me:
            raise ValueError(f"slot: {slot} is no other worker's")
        if not self.peers.workers[slot].linked or self.peers.holding or not self.settings.caching:
            return 0
        self.home.refresh()
        outbox_flush_topics(&self.outbox)
        while session != NULL and tried < most:
            following = session.next
            if self.is_at_rest(session):
                tried += 1
                if self.has_places(session):
                    frame = self.packed(session)
                    if (<Driver> session.driver).pass_on(session, slot, frame):
                        self.forget_moved(session, slot)
                        given += 1
            session = following
        self.counters.migrated += <uint64_t> given
        self.home.wake()
        return given

    cdef bint is_at_rest(self, Session* session) noexcept:
        cdef uint32_t harmless = FLAG_COUNTED | FLAG_EXPIRY_TOLD | FLAG_PINGED | FLAG_DEFLATE
        cdef Subscription* subscription = <Subscription*> session.subscriptions
        if session.state != SESSION_OPEN or session.flags & ~harmless or session.asks != NULL or session.user == NULL:
            return False
        if session.stash.size or session.parked.size or session.mailbox.queue_count or session.mailbox.span_count or (
                session.mailbox.priority.size != session.mailbox.priority_at) or (
                session.mailbox.held.size != session.mailbox.held_at):
            return False
        if session.parser.stage or session.parser.opcode or session.parser.buffer.size:
            return False
        while subscription != NULL:
            if subscription.lagging or subscription.dropped or subscription.topic.pending:
                return False
            subscription = subscription.next_of_session
        return True

    cdef bint has_places(self, Session* session) noexcept:
        cdef Topic* inbox = self.inbox(user_id(<User*> session.user))
        cdef Topic* everyone = self.everyone()
        cdef Subscription* subscription = <Subscription*> session.subscriptions
        cdef bint ready = inbox != NULL and everyone != NULL
        while subscription != NULL:
            if not self.has_place(subscription.topic):
                ready = False
            subscription = subscription.next_of_session
        return ready

    cdef bint has_place(self, Topic* topic) noexcept:
        if topic.authority == AUTHORITY_HERE or topic.synced:
            return True
        if topic.authority != AUTHORITY_ARRIVING and not topic.asking:
            ask_sync(self, topic)
        return False

    cdef bytes packed(self, Session* session):
        cdef Buffer out
        cdef Subscription* subscription = <Subscription*> session.subscriptions
        cdef Slice name
        cdef Py_ssize_t start
        cdef uint32_t count = 0
        cdef bint has_custom = session.custom != NULL
        cdef uint8_t size[2]
        buffer_init(&out)
        try:
            start = frame_start(&out, FRAME_MIGRATE, TOPIC_PLAIN, user_id(<User*> session.user), 0, 4096)
            if start < 0:
                raise MemoryError
            for number in (session.id_high, session.id_low, self.now_ms - session.received_ms,
                           self.now_ms - session.since_ms, self.now_ms - session.opened_ms,
                           self.now_ms - session.strikes_ms, <uint64_t> session.expires_at,
                           <uint64_t> session.refresh_at):
                add_u64(&out, number)
            add_u32(&out, session.flags)
            add_u32(&out, session.strikes)
            for number in (session.variant, session.encoding, session.compression, session.window_bits,
                           session.permissions, has_custom):
                add_u8(&out, number)
            buffer_append(&out, &session.bucket, sizeof(TokenBucket))
            if has_custom:
                buffer_append(&out, session.custom, MAX_CUSTOM_LIMITS * sizeof(TokenBucket))
            add_patterns(&out, session.subscribe_patterns)
            add_patterns(&out, session.publish_patterns)
            if session.login != NULL:
                login = <bytes> session.login
                add_text(&out, <const char*> login, len(login))
            else:
                add_u32(&out, <uint32_t> ABSENT)
            if session.info != NULL:
                add_text(&out, &session.info.data[0], session.info.size)
            else:
                add_u32(&out, <uint32_t> ABSENT)
            while subscription != NULL:
                name = topic_name(subscription.topic)
                put_u16(size, <uint16_t> name.size)
                buffer_append(&out, size, 2)
                buffer_append(&out, name.data, name.size)
                add_u8(&out, subscription.topic.kind)
                add_u64(&out, subscription.topic.epoch)
                add_u64(&out, subscription.topic.offset)
                add_u64(&out, subscription.joined_at)
                if add_u8(&out, subscription.watching != 0) < 0:
                    raise MemoryError
                count += 1
                subscription = subscription.next_of_session
            frame_end(&out, start)
            return (<const char*> out.data)[:out.size]
        finally:
            buffer_free(&out)

    cdef void forget_moved(self, Session* session, int slot) noexcept:
        cdef User* user = <User*> session.user
        cdef Slice name = user_id(user)
        cdef Topic* inbox = self.inbox(name)
        if inbox != NULL and inbox.authority < AUTHORITY_WORKER:
            self.gain_interest(slot, inbox)  # until the taker speaks for itself
        try:
            self.moving.append((slot, (<const char*> name.data)[:name.size]))
        except MemoryError:
            if self.shared != NULL:
                shared_disconnect(self.share)
        while session.subscriptions != NULL:
            # Presence: the user is back, at another worker, before its grace is over.
            self.part(<Subscription*> session.subscriptions, True)
        user_detach(user, session)
        self.forget_user(user)
        session.flags &= ~<uint32_t> FLAG_COUNTED
        self.counters.connections -= 1
        wheel_cancel(&self.wheel, &session.timer)
        self.bury(session)

    cdef bint is_moving(self, int slot, Slice user) noexcept:
        return bool(self.moving) and (slot, (<const char*> user.data)[:user.size]) in self.moving

    cdef void settle_moved(self, int slot, bytes user, bint stays) noexcept:
        cdef Slice name = slice_of(<const uint8_t*> user, len(user))
        cdef uint8_t place[256]
        cdef User* found
        cdef Topic* inbox
        try:
            self.moving.remove((slot, user))
        except ValueError:
            return
        if self.shared != NULL:
            shared_disconnect(self.share)
        if not stays and not self.is_moving(slot, name):
            inbox = topic_find(&self.store, inbox_name(name, place))
            if inbox != NULL:
                self.lose_interest(slot, inbox)
                topic_release(&self.store, inbox)
        found = user_find(&self.users, name)
        if found != NULL and found.session_count:
            return
        for _, other in self.moving:
            if other == user:
                return
        if self.peers.spread:
            self.user_seen(name, False)

    cdef void peer_left(self, int slot) noexcept:
        for taker, user in list(self.moving):
            if taker == slot:
                self.settle_moved(slot, user, False)
        Questions.peer_left(self, slot)

    cdef void take_frame(self, int slot, Frame* frame) noexcept:
        if frame.type == FRAME_MIGRATED:
            self.settle_moved(slot, (<const char*> frame.topic.data)[:frame.topic.size], frame.token != 0)
        elif frame.type == FRAME_UNSUBSCRIBE and frame.kind == TOPIC_INBOX and frame.topic.size > 1 and (
                self.is_moving(slot, slice_of(frame.topic.data + 1, frame.topic.size - 1))):
            pass                 # it said so before the user was there again, or says it again with its answer
        else:
            Questions.take_frame(self, slot, frame)

    # --- taking

    cdef bint descriptor_received(self, int slot, int fd, const uint8_t* frame, size_t size) noexcept:
        cdef Frame read
        cdef bint kept = False
        if frame_read(frame, size, &read) != <Py_ssize_t> size or read.type != FRAME_MIGRATE or not (
                0 < read.topic.size < 255):
            return False
        if fd != -1:
            kept = self.take_session(slot, fd, &read)
        else:
            self.tell_migrated(slot, read.topic)
        return kept

    cdef void tell_migrated(self, int slot, Slice user) noexcept:
        cdef Buffer* out = self.outgoing(slot)
        cdef User* found = user_find(&self.users, user)
        cdef bint stays = found != NULL and found.session_count != 0
        cdef Py_ssize_t start
        if not self.peers.workers[slot].linked:
            return
        start = frame_start(out, FRAME_MIGRATED, TOPIC_PLAIN, user, stays, 0)
        if start >= 0:
            frame_end(out, start)

    cdef void place_ended(self, uint64_t serial) noexcept:
        entry = self.arriving.get(serial)
        if entry is None:
            return
        entry[2] -= 1
        if entry[2] == 0:
            del self.arriving[serial]
            self.tell_migrated(entry[0], slice_of(<const uint8_t*> <bytes> entry[1], len(<bytes> entry[1])))

    cdef bint take_session(self, int slot, int fd, Frame* frame) noexcept:
        """Whether the descriptor is the session's now."""
        cdef Session* session = self.open(self.home, fd)
        cdef bytes name
        if session == NULL:
            return False
        self.counters.accepted -= 1
        try:
            name = (<const char*> frame.topic.data)[:frame.topic.size]
            self.arriving[session.serial] = [slot, name, 1]
            if self.home.adopt(session) < 0:
                raise MemoryError
            self.unpack(session, frame)
            if not self.is_sent_away(session, name) and self.draining:
                self.close(session, 1012, b"worker restarting")
        except Exception:
            # Half of a session is worse than none: the client comes back and recovers.
            self.finish(session)
        self.place_ended(session.serial)
        return True

    cdef int unpack(self, Session* session, Frame* frame) except -1:
        """Fill the session in, and let it go on. Raises MemoryError, ValueError for what is none."""
        cdef bint ok = True
        cdef uint64_t[8] numbers
        cdef int i
        cdef Slice bytes_
        cdef uint8_t has_custom
        cdef User* user
        for i in range(8):
            numbers[i] = take_number(frame, 8, &ok)
        session.id_high, session.id_low = numbers[0], numbers[1]
        session.received_ms = self.now_ms - numbers[2]
        session.since_ms = self.now_ms - numbers[3]
        session.opened_ms = self.now_ms - numbers[4]
        session.strikes_ms = self.now_ms - numbers[5]
        session.expires_at, session.refresh_at = <int64_t> numbers[6], <int64_t> numbers[7]
        session.flags |= <uint32_t> take_number(frame, 4, &ok) & (FLAG_EXPIRY_TOLD | FLAG_PINGED | FLAG_DEFLATE)
        session.strikes = <uint32_t> take_number(frame, 4, &ok)
        session.variant = <uint8_t> take_number(frame, 1, &ok)
        session.encoding = <uint8_t> take_number(frame, 1, &ok)
        session.compression = <uint8_t> take_number(frame, 1, &ok)
        session.window_bits = <uint8_t> take_number(frame, 1, &ok)
        session.permissions = <uint8_t> take_number(frame, 1, &ok)
        has_custom = <uint8_t> take_number(frame, 1, &ok)
        bytes_ = take_slice(frame, sizeof(TokenBucket), &ok)
        if ok:
            memcpy(&session.bucket, bytes_.data, sizeof(TokenBucket))
        if ok and has_custom:
            bytes_ = take_slice(frame, MAX_CUSTOM_LIMITS * sizeof(TokenBucket), &ok)
            session.custom = <TokenBucket*> malloc(MAX_CUSTOM_LIMITS * sizeof(TokenBucket)) if ok else NULL
            if session.custom != NULL:
                memcpy(session.custom, bytes_.data, MAX_CUSTOM_LIMITS * sizeof(TokenBucket))
        session.subscribe_patterns = patterns_new(take_patterns(frame, &ok))
        session.publish_patterns = patterns_new(take_patterns(frame, &ok))
        login = take_text(frame, &ok)
        if login is not None:
            session.login = <char*> malloc(len(login) + 1)
            if session.login == NULL:
                raise MemoryError
            memcpy(session.login, <const char*> <bytes> login, len(login) + 1)
        session.info = info_new(take_text(frame, &ok))
        if not ok or not 0 < frame.topic.size < 255:
            raise ValueError("not a session")
        frame_parser_init(&session.parser, session.flags & FLAG_DEFLATE != 0)
        # Those who are here already are subscribed to them first; this one joins at its own place.
        self.inbox(frame.topic)
        self.everyone()
        user = user_open(&self.users, frame.topic)
        if user == NULL:
            raise MemoryError
        wheel_cancel(&self.wheel, &user.timer)
        if user.bucket.refilled_ms == 0:
            bucket_init(&user.bucket, &self.settings.user_rate, self.now_ms)
        user_attach(user, session)
        session.state = SESSION_OPEN
        session.flags |= FLAG_COUNTED
        self.counters.connections += 1
        if self.shared != NULL:
            shared_connect(self.shared, self.share, <uint64_t> -1)  # it is counted at the giver until we answer
        if self.peers.spread and user.session_count == 1:
            self.user_seen(frame.topic, True)
        wheel_set(&self.wheel, &session.timer, self.deadline(session))
        self.unpack_places(session, frame)
        if session.asks != NULL:
            session.flags |= FLAG_ASKED
            self.pause(session)
        return 0

    cdef int unpack_places(self, Session* session, Frame* frame) except -1:
        cdef bint ok = True
        cdef Slice name
        cdef Place place
        cdef Topic* topic
        cdef int kind
        while frame.rest_size:
            name = take_slice(frame, <size_t> take_number(frame, 2, &ok), &ok)
            kind = <int> take_number(frame, 1, &ok)
            memset(&place, 0, sizeof(Place))
            place.serial = session.serial
            place.epoch = take_number(frame, 8, &ok)
            place.offset = take_number(frame, 8, &ok)
            place.joined_at = take_number(frame, 8, &ok)
            place.watching = <uint8_t> take_number(frame, 1, &ok)
            if not ok or kind > TOPIC_ALL:
                raise ValueError("not a session")
            topic = self.open_topic(name, kind)
            if topic == NULL:
                raise MemoryError
            self.resume_place(session, topic, &place)
            topic_release(&self.store, topic)
        return 0

    # --- places

    cdef void resume_place(self, Session* session, Topic* topic, const Place* place) noexcept:
        cdef Waiting* waiting
        cdef list entry = self.arriving.get(session.serial)
        if self.resumed_here(session, topic, place):
            return
        waiting = waiting_add(&self.peers, WAIT_MOVED, AUTHORITY_NOBODY, session, 0, 0,
                              slice_of(<const uint8_t*> place, sizeof(Place)), topic_name(topic), topic.kind,
                              self.now_ms)
        if waiting == NULL:
            self.rejoin_lost(session, topic, place)
            return
        topic.asking += 1
        if entry is not None:
            entry[2] += 1
        self.ask_place(waiting, topic)

    cdef bint resumed_here(self, Session* session, Topic* topic, const Place* place) noexcept:
        cdef Message* message
        cdef uint64_t offset = place.offset
        if topic.authority != AUTHORITY_HERE and (not topic.synced or topic.authority == AUTHORITY_ARRIVING):
            return False
        if topic.epoch != place.epoch or place.offset > topic.offset:
            if topic.authority != AUTHORITY_HERE:
                return False
            self.rejoin_lost(session, topic, place)
            return True
        if place.offset + 1 < topic_first(topic):
            if topic.authority != AUTHORITY_HERE:
                return False
            self.rejoin_lost(session, topic, place)
            return True
        outbox_flush_topic(&self.outbox, topic)
        while offset < topic.offset:
            offset += 1
            message = topic_message(topic, offset)
            if message.excluded != session.serial:
                self.give_message(session, topic, message)
        self.rejoin(session, topic, place)
        return True

    cdef void give_message(self, Session* session, Topic* topic, const Message* message) noexcept:
        """One message of the gap, in its place before those that are to come."""
        cdef int encoding = variant_encoding(session.variant)
        if not self.settings.transcoding and encoding != message.encoding:
            self.counters.untranscoded += 1
            return
        self.outbox.text.size = 0
        if message_envelope(&self.outbox.text, &self.outbox.piece, encoding, topic.kind == TOPIC_INBOX,
                            topic_name(topic), message) == 0:
            outbox_reply(&self.outbox, session, True)
            self.counters.deliveries += 1

    cdef void ask_place(self, Waiting* waiting, Topic* topic) noexcept:
        cdef Place place = place_of(waiting)
        if self.peers.holding or topic.authority == AUTHORITY_ARRIVING:
            waiting.authority = AUTHORITY_NOBODY
            self.unsynced = True
            return
        waiting.authority = topic.authority
        if relay_subscribe(self, waiting, True, place.epoch, place.offset, 0) < 0:
            waiting.authority = AUTHORITY_NOBODY
            self.unsynced = True

    cdef void expire_asked(self) noexcept:
        cdef Waiting* waiting
        cdef Waiting* following
        cdef Topic* topic
        cdef Place place
        cdef bint again = self.unsynced
        Questions.expire_asked(self)
        waiting = self.peers.oldest
        while again and waiting != NULL:
            following = waiting.next
            if waiting.kind == WAIT_MOVED and waiting.authority == AUTHORITY_NOBODY:
                topic = topic_find(&self.store, waiting_topic(waiting))
                place = place_of(waiting)
                if topic == NULL or waiting.session == NULL:
                    self.end_place(waiting)
                elif self.resumed_here(waiting.session, topic, &place):
                    self.end_place(waiting)
                else:
                    self.ask_place(waiting, topic)
            waiting = following

    cdef void place_answered(self, Waiting* waiting, Topic* topic, bint recovered, Frame* bodies,
                             uint64_t first) noexcept:
        cdef Session* session = waiting.session
        cdef Place place = place_of(waiting)
        cdef Body body
        cdef Message* message
        if session == NULL or session.state != SESSION_OPEN:
            return
        if not recovered or topic.epoch != place.epoch:
            self.rejoin_lost(session, topic, &place)
            return
        outbox_flush_topic(&self.outbox, topic)
        while next_body(bodies, &body):
            message = message_new(&self.store.messages, body.sender, body.payload, body.encoding)
            if message == NULL:
                self.rejoin_lost(session, topic, &place)
                return
            message.ts = body.ts
            message.offset = first
            if first > place.offset:
                self.give_message(session, topic, message)
            message_drop(&self.store.messages, message)
            first += 1
        self.rejoin(session, topic, &place)

    cdef bint place_refused(self, Waiting* waiting) noexcept:
        cdef Topic* topic = topic_find(&self.store, waiting_topic(waiting))
        cdef Place place = place_of(waiting)
        if waiting.session != NULL and topic != NULL:
            if waiting.since_ms + SETTLE_MS > self.now_ms:
                waiting.authority = AUTHORITY_NOBODY
                self.unsynced = True  # asked again with the next tick, of its home by then
                return True
            self.rejoin_lost(waiting.session, topic, &place)
        self.end_place(waiting)
        return True

    cdef Subscription* rejoin(self, Session* session, Topic* topic, const Place* place) noexcept:
        cdef Subscription* made = subscription_find(&self.store, session, topic)
        if made != NULL:
            return made
        outbox_flush_topic(&self.outbox, topic)
        made = subscription_add(&self.store, session, topic, place.joined_at)
        if made == NULL:
            self.close(session, 1013, b"out of memory")
            return NULL
        if session.flags & FLAG_FULL:
            topic.full += 1
        if topic.kind == TOPIC_PLAIN:
            self.counters.subscriptions = self.store.subscription_count
            # Presence: the user was here a moment ago, at another worker.
            if AUTHORITY_WORKER <= topic.authority < AUTHORITY_NOBODY:
                self.send_enter(topic.authority - AUTHORITY_WORKER, topic, session, place.joined_at)
            else:
                self.enter(session, topic)
            if place.watching:
                subscription_watch(made, True)
                if self.peers.spread or topic.watch_state:
                    self.watched(topic)
        return made

    cdef void rejoin_lost(self, Session* session, Topic* topic, const Place* place) noexcept:
        cdef uint8_t epoch[EPOCH_SIZE]
        outbox_flush_topic(&self.outbox, topic)
        epoch_text(topic.epoch, epoch)
        self.outbox.text.size = 0
        if write_lagged(&self.outbox.text, variant_encoding(session.variant), topic_name(topic), 0,
                        slice_of(epoch, EPOCH_SIZE), topic.offset, False) == 0:
            outbox_reply(&self.outbox, session, True)
        self.rejoin(session, topic, place)

    cdef void end_place(self, Waiting* waiting) noexcept:
        cdef Session* session = waiting.session
        cdef Place place = place_of(waiting)
        self.drop_waiting(waiting)
        self.place_ended(place.serial)
        if session != NULL and session.asks == NULL and session.flags & FLAG_ASKED:
            session.flags &= ~<uint32_t> FLAG_ASKED
            self.go_on(session)
