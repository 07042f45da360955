"""Sessions that move; `migration.pxd` is the contract."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free

from realtime_communication._core.base.memory cimport Buffer, Slice, buffer_free, buffer_init, slice_of
from realtime_communication._core.base.shared cimport shared_connect, shared_disconnect
from realtime_communication._core.base.timer_wheel cimport wheel_cancel, wheel_set
from realtime_communication._core.hub.beliefs cimport ROSTER_BYTES
from realtime_communication._core.hub.choice cimport (
    Candidate,
    candidates_new,
    count_movable,
    is_movable,
    work_of_all,
)
from realtime_communication._core.hub.core cimport KEEP_MS, inbox_name
from realtime_communication._core.hub.driver cimport Driver
from realtime_communication._core.hub.orders cimport Orders
from realtime_communication._core.hub.outbox cimport outbox_flush_topics
from realtime_communication._core.hub.packing cimport pack_session, unpack_session
from realtime_communication._core.hub.peers cimport (
    AUTHORITY_WORKER,
    FRAME_KEEP,
    FRAME_KEPT,
    FRAME_MIGRATE,
    FRAME_MIGRATED,
    FRAME_UNSUBSCRIBE,
    MAX_WORKERS,
    Frame,
    frame_bare,
    frame_end,
    frame_read,
    frame_start,
)
from realtime_communication._core.hub.session cimport (
    FLAG_ARRIVING,
    FLAG_ASKED,
    FLAG_COUNTED,
    FLAG_DEFLATE,
    FLAG_EXPIRY_TOLD,
    FLAG_PINGED,
    SESSION_OPEN,
    Session,
)
from realtime_communication._core.hub.token_bucket cimport bucket_init
from realtime_communication._core.hub.topics cimport (
    TOPIC_INBOX,
    TOPIC_PLAIN,
    WATCH_FRESH,
    Subscription,
    Topic,
    topic_find,
    topic_release,
)
from realtime_communication._core.hub.users cimport User, user_attach, user_detach, user_find, user_id, user_open


cdef enum:
    GIVE_MS = 8000               # for which sessions go once all workers keep what is published
    ASK_KEEP_MS = 1000           # between questions to do so


cdef class Migration(Orders):

    def __cinit__(self, str node_id not None):
        self.moving = []

    # --- giving

    def give_sessions(self, int slot, int most, share=None):
        """Hand up to `most` sessions over to the worker in `slot`, live; how many went.

        `share` is None for whichever there are; else they have rested since they moved last, and are the least busy
        ones for 0, or for a number up to 1 the busiest ones that do up to this share of what `work` counts. Sessions
        that something waits for stay, but may go when they are asked for again. Raises ValueError.
        """
        cdef int given = 0
        if not 0 <= slot < MAX_WORKERS or slot == self.peers.me:
            raise ValueError(f"slot: {slot} is no other worker's")
        if share is not None and not 0 <= share <= 1:
            raise ValueError(f"share: {share} is not between 0 and 1")
        if not self.peers.workers[slot].linked or self.peers.holding:
            return 0
        self.home.refresh()
        if self.all_is_kept():
            outbox_flush_topics(&self.outbox)
            given = self.give_any(slot, most) if share is None else self.give_some(slot, most, share)
        self.counters.migrated += <uint64_t> given
        self.home.wake()
        return given

    def work(self):
        """How often sessions were read or written of late; to be called once a second, each call halves it."""
        return work_of_all(self.sessions)

    def movable_count(self):
        """Open connections that can move: not those over TLS."""
        return count_movable(self.sessions)

    cdef int give_any(self, int slot, int most) except -1:
        cdef Session* session = self.sessions
        cdef Session* following
        cdef int tried = 0, given = 0
        while session != NULL and tried < most:
            following = session.next
            if self.is_at_rest(session):
                tried += 1
                given += self.give(session, slot)
            session = following
        return given

    cdef int give_some(self, int slot, int most, double share) except -1:
        cdef size_t count = 0, i
        cdef Candidate* found = candidates_new(self.sessions, self.now_ms, share > 0, &count)
        cdef uint64_t total = 0, budget
        cdef int tried = 0, given = 0
        for i in range(count):
            total += found[i].work
        budget = <uint64_t> (share * total)
        try:
            for i in range(count):
                if tried >= most:
                    break
                if (share > 0 and (found[i].work == 0 or found[i].work > budget)) or (
                        not self.is_at_rest(found[i].session)):
                    continue
                tried += 1
                if self.give(found[i].session, slot):
                    given += 1
                    if share > 0:
                        budget -= found[i].work
        finally:
            free(found)
        return given

    cdef bint give(self, Session* session, int slot) except -1:
        if not self.has_places(session):
            return False
        frame = self.packed(session)
        if not (<Driver> session.driver).pass_on(session, slot, frame):
            return False
        self.forget_moved(session, slot)
        return True

    def call_others(self):
        """Ask every linked worker for an answer, which it gives when it has all that was sent to it before."""
        self.home.refresh()
        self.ask_all()
        self.home.wake()

    def all_arrived(self):
        """Whether the others have all that was sent to them up to `call_others`, and all sessions handed over."""
        cdef int slot
        for slot in range(MAX_WORKERS):
            if self.peers.workers[slot].linked and not self.keepers >> slot & 1:
                return False
        return not self.moving

    # --- what is published meanwhile

    cdef bint all_is_kept(self) noexcept:
        cdef uint64_t others = self.others()
        if self.settings.caching and (self.rules is None or not self.rules.bounds_history):
            return True
        if self.kept_until_ms > self.now_ms and self.keepers & others == others:
            return True
        if self.kept_until_ms > self.now_ms and self.kept_until_ms - GIVE_MS + ASK_KEEP_MS > self.now_ms:
            return False         # asked a moment ago
        self.kept_until_ms = self.now_ms + GIVE_MS
        self.keep_until_ms = self.now_ms + KEEP_MS
        self.ask_all()
        return False

    cdef void ask_all(self) noexcept:
        cdef int slot
        self.keepers = 0
        self.asked += 1
        for slot in range(MAX_WORKERS):
            if self.peers.workers[slot].linked:
                frame_bare(&self.peers, slot, FRAME_KEEP, 0, slice_of(NULL, 0), self.asked)

    # --- at rest

    cdef bint is_at_rest(self, Session* session) noexcept:
        cdef uint32_t harmless = FLAG_COUNTED | FLAG_EXPIRY_TOLD | FLAG_PINGED | FLAG_DEFLATE
        cdef Subscription* subscription = <Subscription*> session.subscriptions
        if not is_movable(session) or session.flags & ~harmless or session.asks != NULL or session.user == NULL:
            return False
        if session.stash.size or session.parked.size or session.mailbox.queue_count or session.mailbox.span_count or (
                session.mailbox.priority.size != session.mailbox.priority_at) or (
                session.mailbox.held.size != session.mailbox.held_at):
            return False
        if session.parser.stage or session.parser.opcode or session.parser.buffer.size:
            return False
        while subscription != NULL:
            if subscription.lagging or subscription.dropped or subscription.topic.pending or (
                    subscription.watching and subscription.topic.watch_state == WATCH_FRESH):
                return False
            subscription = subscription.next_of_session
        return self.roster_size(session) <= ROSTER_BYTES

    cdef bytes packed(self, Session* session):
        cdef Buffer out
        cdef Py_ssize_t start
        buffer_init(&out)
        try:
            start = frame_start(&out, FRAME_MIGRATE, TOPIC_PLAIN, user_id(<User*> session.user), 0, 4096)
            if start < 0:
                raise MemoryError
            pack_session(&out, session, self.rules, self.now_ms)
            self.pack_orders(&out, session)
            self.pack_places(&out, session)
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

    cdef int count_moving(self, bytes user) noexcept:
        cdef int count = 0
        for _, its_user in self.moving:
            count += its_user == user
        return count

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
        self.keepers &= ~(<uint64_t> 1 << slot)
        Orders.peer_left(self, slot)

    cdef void peer_joined(self, int slot, uint64_t incarnation) noexcept:
        self.keepers &= ~(<uint64_t> 1 << slot)
        # Sessions may be on their way among workers that know of each other longer; topics move meanwhile, to either.
        self.keep_until_ms = max(self.keep_until_ms, self.now_ms + KEEP_MS)
        Orders.peer_joined(self, slot, incarnation)

    cdef void take_frame(self, int slot, Frame* frame) noexcept:
        if frame.type == FRAME_MIGRATED:
            self.settle_moved(slot, (<const char*> frame.topic.data)[:frame.topic.size], frame.token != 0)
        elif frame.type == FRAME_KEEP:
            self.keep_until_ms = self.now_ms + KEEP_MS
            frame_bare(&self.peers, slot, FRAME_KEPT, 0, slice_of(NULL, 0), frame.token)
        elif frame.type == FRAME_KEPT:
            if frame.token == self.asked:
                self.keepers |= <uint64_t> 1 << slot
        elif frame.type == FRAME_UNSUBSCRIBE and frame.kind == TOPIC_INBOX and (
                self.is_moving(slot, slice_of(frame.topic.data + 1, frame.topic.size - 1))):
            pass                 # it said so before the user was there again, or says it again with its answer
        else:
            Orders.take_frame(self, slot, frame)

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
        cdef User* found = user_find(&self.users, user)
        cdef bint stays = found != NULL and found.session_count != 0
        if self.peers.workers[slot].linked:
            frame_bare(&self.peers, slot, FRAME_MIGRATED, TOPIC_PLAIN, user, stays)

    cdef bint take_session(self, int slot, int fd, Frame* frame) noexcept:
        """Whether the descriptor is the session's now."""
        cdef Session* session = self.open(self.home, fd)
        cdef bytes name
        if session == NULL:
            self.tell_migrated(slot, frame.topic)
            return False
        self.counters.accepted -= 1
        try:
            name = (<const char*> frame.topic.data)[:frame.topic.size]
            self.arriving[session.serial] = [slot, name, 1, {}]  # the session itself is a place, too
            if self.home.adopt(session) < 0:
                raise MemoryError
            self.unpack(session, frame)
            if not self.is_sent_away(session, name) and self.draining:
                self.close(session, 1012, b"worker restarting")
        except Exception:
            # Half of a session is worse than none: the client comes back and recovers.
            self.finish(session)
        self.place_ended(session, session.serial)
        return True

    cdef int unpack(self, Session* session, Frame* frame) except -1:
        """Fill the session in, and let it go on. Raises MemoryError, ValueError for what is none."""
        cdef User* user
        unpack_session(session, frame, self.rules, self.now_ms)
        self.unpack_orders(session, frame)
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
        session.flags |= FLAG_COUNTED | FLAG_ARRIVING
        self.counters.connections += 1
        if self.shared != NULL:
            shared_connect(self.shared, self.share, <uint64_t> -1)  # it is counted at the giver until we answer
        if self.peers.spread and user.session_count == 1:
            self.user_seen(frame.topic, True)
        wheel_set(&self.wheel, &session.timer, self.deadline(session))
        self.unpack_places(session, frame)
        session.moved_ms = max(<uint32_t> self.now_ms, <uint32_t> 1)
        if (<list> self.arriving[session.serial])[2] > 1:
            session.flags |= FLAG_ASKED
            self.pause(session)
        return 0
