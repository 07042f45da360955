"""Who is present; `attendance.pxd` is the contract."""

from libc.stddef cimport size_t
from libc.stdint cimport uint64_t, uint8_t

from realtime_communication._core.base.memory cimport Buffer, Slice, bytes_of
from realtime_communication._core.base.table cimport TableCursor, table_next, table_start
from realtime_communication._core.base.timer_wheel cimport wheel_cancel, wheel_set
from realtime_communication._core.hub.attendees cimport (
    Attendee,
    attendee_add,
    attendee_describe,
    attendee_find,
    attendee_remove,
)
from realtime_communication._core.hub.peers cimport (
    AUTHORITY_WORKER,
    FRAME_ENTER,
    FRAME_EXIT,
    FRAME_FORGET,
    Frame,
    add_u64,
    add_u8,
    frame_done,
    frame_to,
    take_number,
    take_slice,
)
from realtime_communication._core.hub.session cimport Session, session_id, session_info
from realtime_communication._core.hub.settings cimport PRESENCE_GRACE_MS
from realtime_communication._core.hub.topics cimport (
    TOPIC_PLAIN,
    Subscription,
    Topic,
    next_topic,
    topic_find,
    topic_name,
    topic_release,
)
from realtime_communication._core.hub.users cimport (
    Member,
    User,
    member_add,
    member_find,
    member_remove,
    user_id,
    user_open,
)
from realtime_communication._core.hub.watchers cimport Watchers, add_info, add_user, is_home, is_worker

cdef enum:
    SESSION_DIGITS = 32


cdef bytes digits_of(uint64_t id_high, uint64_t id_low):
    cdef Session named
    cdef uint8_t digits[SESSION_DIGITS]
    named.id_high = id_high
    named.id_low = id_low
    session_id(&named, digits)
    return (<const char*> digits)[:SESSION_DIGITS]


cdef class Attendance(Watchers):

    # --- sessions that come and go

    cdef void enter(self, Session* session, Topic* topic) noexcept:
        if is_worker(topic.authority):
            self.send_enter(topic.authority - AUTHORITY_WORKER, topic, session, self.wall_ms)
            return
        if self.tells_upstream():
            self.enter_upstream(topic, session.id_high, session.id_low, user_id(<User*> session.user), self.wall_ms,
                                session_info(session))
        Watchers.enter(self, session, topic)

    cdef void exit(self, Session* session, User* user, Topic* topic, bint graceful) noexcept:
        cdef Buffer* out
        cdef int slot
        if not is_worker(topic.authority):
            Watchers.exit(self, session, user, topic, graceful)
            return
        slot = topic.authority - AUTHORITY_WORKER
        if not self.peers.workers[slot].linked:
            return               # it is told anew who is there
        out = frame_to(&self.peers, slot, FRAME_EXIT, TOPIC_PLAIN, topic_name(topic), 0, 17)
        if out != NULL:
            add_u64(out, session.id_high)
            add_u64(out, session.id_low)
            add_u8(out, graceful)
            frame_done(&self.peers, slot)

    cdef Member* count_in(self, User* user, Topic* topic, uint64_t id_high, uint64_t id_low, Slice info) noexcept:
        cdef Member* member = member_find(&self.users, user, topic)
        if member != NULL and member.parting:
            member.parting = False
            if member.id_high != id_high or member.id_low != id_low:
                self.exit_upstream(topic, member.id_high, member.id_low, user_id(user))
        if not self.peers.upstream:
            member = Watchers.count_in(self, user, topic, id_high, id_low, info)
            if member != NULL:
                member.doubtful = False
            return member
        # The upstream says whether it is a user's first session over all nodes.
        if member == NULL:
            member = member_add(&self.users, user, topic)
            if member == NULL:
                return NULL
        wheel_cancel(&self.wheel, &member.timer)
        member.sessions += 1
        member.id_high = id_high
        member.id_low = id_low
        return member

    cdef void count_out(self, Member* member, uint64_t id_high, uint64_t id_low, bint graceful) noexcept:
        cdef Topic* topic = member.topic
        cdef bint waits = member.sessions == 1 and graceful and (
            self.peers.upstream or topic.subscribers != 0 or topic.watching != 0)
        if self.tells_upstream():
            if waits:
                member.parting = True
            else:
                self.exit_upstream(topic, id_high, id_low, user_id(member.user))
        if not self.peers.upstream:
            Watchers.count_out(self, member, id_high, id_low, graceful)
            return
        member.sessions -= 1
        if member.sessions:
            return
        member.id_high = id_high
        member.id_low = id_low
        if waits:
            wheel_set(&self.wheel, &member.timer, self.now_ms + PRESENCE_GRACE_MS)
        elif not member.shown and not member.absent:
            member_remove(&self.users, &self.wheel, member)

    cdef void member_expired(self, void* expired) noexcept:
        cdef Member* member = <Member*> expired
        cdef Topic* topic = member.topic
        cdef User* user = member.user
        if member.parting:
            member.parting = False
            self.exit_upstream(topic, member.id_high, member.id_low, user_id(user))
        if not self.peers.upstream or is_worker(topic.authority):
            Watchers.member_expired(self, expired)
            return
        if member.shown or member.absent:
            return               # the upstream says when it is over
        member_remove(&self.users, &self.wheel, member)
        topic_release(&self.store, topic)
        self.forget_user(user)

    cdef void described(self, Session* session) noexcept:
        cdef Subscription* subscription = <Subscription*> session.subscriptions
        cdef Topic* topic
        while subscription != NULL:
            topic = subscription.topic
            if topic.kind == TOPIC_PLAIN and is_worker(topic.authority):
                self.send_enter(topic.authority - AUTHORITY_WORKER, topic, session, subscription.joined_at)
            elif topic.kind == TOPIC_PLAIN and self.tells_upstream():
                self.enter_upstream(topic, session.id_high, session.id_low, user_id(<User*> session.user),
                                    subscription.joined_at, session_info(session))
            subscription = subscription.next_of_session

    # --- sessions of other workers

    cdef void take_frame(self, int slot, Frame* frame) noexcept:
        cdef Topic* topic
        if frame.type < FRAME_ENTER:
            Watchers.take_frame(self, slot, frame)
        elif frame.topic.size == 0 or frame.kind != TOPIC_PLAIN:
            return
        elif frame.type == FRAME_ENTER:
            self.entered_there(slot, frame)
        elif frame.type == FRAME_EXIT:
            self.left_there(slot, frame)
        elif frame.type == FRAME_FORGET:
            topic = topic_find(&self.store, frame.topic)
            if topic != NULL:
                self.forget_there(slot, topic)
        else:
            Watchers.take_frame(self, slot, frame)

    cdef void entered_there(self, int slot, Frame* frame) noexcept:
        cdef bint ok = True
        cdef uint64_t id_high = take_number(frame, 8, &ok)
        cdef uint64_t id_low = take_number(frame, 8, &ok)
        cdef uint64_t joined_at = take_number(frame, 8, &ok)
        cdef Slice name = take_slice(frame, <size_t> take_number(frame, 1, &ok), &ok)
        cdef Slice info = take_slice(frame, <size_t> take_number(frame, 2, &ok), &ok)
        cdef Topic* topic
        cdef User* user
        cdef Attendee* attendee
        if not ok or name.size == 0:
            return
        topic = self.open_topic(frame.topic, TOPIC_PLAIN)
        if topic == NULL:
            return
        user = user_open(&self.users, name)
        if user == NULL:
            topic_release(&self.store, topic)
            return
        attendee = attendee_find(&self.attendees, topic, id_high, id_low)
        if attendee == NULL:
            attendee = attendee_add(&self.attendees, topic, user, id_high, id_low)
        if attendee != NULL:
            attendee.slot = <uint8_t> slot
            attendee.joined_at = joined_at
            attendee_describe(attendee, info)
            if is_home(topic):
                if self.tells_upstream():
                    self.enter_upstream(topic, id_high, id_low, name, joined_at, info)
                    attendee.entered = True
                if attendee.member == NULL:
                    attendee.member = self.count_in(user, topic, id_high, id_low, info)
        topic_release(&self.store, topic)
        self.forget_user(user)

    cdef void left_there(self, int slot, Frame* frame) noexcept:
        cdef bint ok = True
        cdef uint64_t id_high = take_number(frame, 8, &ok)
        cdef uint64_t id_low = take_number(frame, 8, &ok)
        cdef bint graceful = take_number(frame, 1, &ok) != 0
        cdef Topic* topic = topic_find(&self.store, frame.topic)
        cdef Attendee* attendee
        if not ok or topic == NULL:
            return
        attendee = attendee_find(&self.attendees, topic, id_high, id_low)
        if attendee != NULL and attendee.slot == slot:
            self.drop_attendee(attendee, graceful)
            topic_release(&self.store, topic)

    cdef void drop_attendee(self, Attendee* attendee, bint graceful) noexcept:
        cdef User* user = attendee.user
        if attendee.member != NULL:
            self.count_out(attendee.member, attendee.id_high, attendee.id_low, graceful)
        elif attendee.entered and self.tells_upstream():
            # It went before its worker heard of the topic's new home, which so never hears of it.
            self.exit_upstream(attendee.topic, attendee.id_high, attendee.id_low, user_id(user))
        attendee_remove(&self.attendees, attendee)
        self.forget_user(user)

    cdef void forget_there(self, int slot, Topic* topic) noexcept:
        cdef Attendee* attendee = <Attendee*> topic.attendees
        cdef Attendee* following
        while attendee != NULL:
            following = attendee.next
            if attendee.slot == slot:
                if self.tells_upstream():
                    self.hand_upstream_over(attendee)
                self.drop_attendee(attendee, True)
            attendee = following
        topic.watching &= ~(<uint64_t> 1 << slot)
        self.watched(topic)
        topic_release(&self.store, topic)

    cdef void hand_upstream_over(self, Attendee* attendee) noexcept:
        """Its worker tells the topic's new home of it, which enters it upstream, or has by now."""
        cdef Member* member = attendee.member
        self.moved_upstream(attendee.topic, attendee.id_high, attendee.id_low)
        attendee.entered = False
        if member == NULL or not self.peers.upstream:
            return
        attendee.member = NULL
        member.sessions -= 1
        if member.sessions == 0 and not member.shown and not member.absent:
            member_remove(&self.users, &self.wheel, member)

    cdef void peer_left(self, int slot) noexcept:
        cdef TableCursor cursor
        cdef Attendee* attendee
        cdef Topic* topic
        Watchers.peer_left(self, slot)
        table_start(&cursor)
        while True:
            attendee = <Attendee*> table_next(&self.attendees, &cursor)
            if attendee == NULL:
                break
            if attendee.slot == slot:
                topic = attendee.topic
                self.drop_attendee(attendee, True)
                topic_release(&self.store, topic)
        table_start(&cursor)
        topic = next_topic(&self.store, &cursor)
        while topic != NULL:
            if topic.watching >> slot & 1:
                topic.watching &= ~(<uint64_t> 1 << slot)
                self.watched(topic)
                topic_release(&self.store, topic)
            topic = next_topic(&self.store, &cursor)

    # --- the upstream

    cdef bint tells_upstream(self) noexcept nogil:
        return self.peers.upstream or self.keeps_upstream

    cdef void enter_upstream(self, Topic* topic, uint64_t id_high, uint64_t id_low, Slice user, uint64_t joined_at,
                             Slice info) noexcept:
        try:
            self.upward.append(("enter", bytes_of(topic_name(topic)), digits_of(id_high, id_low), bytes_of(user),
                                joined_at, bytes_of(info)))
        except Exception:
            pass                 # without memory it is entered when the upstream has been away

    cdef void exit_upstream(self, Topic* topic, uint64_t id_high, uint64_t id_low, Slice user) noexcept:
        try:
            self.upward.append(("exit", bytes_of(topic_name(topic)), digits_of(id_high, id_low), bytes_of(user)))
        except Exception:
            pass

    cdef void moved_upstream(self, Topic* topic, uint64_t id_high, uint64_t id_low) noexcept:
        try:
            self.upward.append(("moved", bytes_of(topic_name(topic)), digits_of(id_high, id_low)))
        except Exception:
            pass                 # the new home takes it over all the same

    # --- frames

    cdef void send_enter(self, int slot, Topic* topic, const Session* session, uint64_t joined_at) noexcept:
        cdef Slice user = user_id(<User*> session.user)
        cdef Slice info = session_info(session)
        cdef Buffer* out
        if not self.peers.workers[slot].linked:
            return               # it is told when it is there
        out = frame_to(&self.peers, slot, FRAME_ENTER, TOPIC_PLAIN, topic_name(topic), 0, 27 + user.size + info.size)
        if out != NULL:
            add_u64(out, session.id_high)
            add_u64(out, session.id_low)
            add_u64(out, joined_at)
            add_user(out, user)
            add_info(out, info)
            frame_done(&self.peers, slot)
