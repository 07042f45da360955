"""Who is told of Joins and Leaves; `watchers.pxd` is the contract."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint64_t

from realtime_communication._core.base.memory cimport Buffer, Slice, buffer_append, bytes_of, slice_of
from realtime_communication._core.base.table cimport table_init
from realtime_communication._core.base.timer_wheel cimport timer_is_set, wheel_cancel
from realtime_communication._core.hub.attendees cimport Attendee, attendee_find, attendee_info, attendees_free
from realtime_communication._core.hub.peers cimport (
    AUTHORITY_UPSTREAM,
    AUTHORITY_WORKER,
    FRAME_SHOW,
    FRAME_SHOWN,
    FRAME_WATCH,
    MAX_WORKERS,
    WAIT_ROSTER,
    Frame,
    Waiting,
    add_u64,
    add_u8,
    frame_done,
    frame_to,
    put_u16,
    take_number,
    take_slice,
    waiting_add,
    waiting_topic,
)
from realtime_communication._core.hub.relay cimport epoch_number
from realtime_communication._core.hub.session cimport Session, session_info
from realtime_communication._core.hub.settings cimport INFO_BYTES
from realtime_communication._core.hub.topics cimport (
    TOPIC_PLAIN,
    WATCH_FRESH,
    WATCH_NONE,
    WATCH_ON,
    Topic,
    topic_find,
    topic_name,
    topic_release,
)
from realtime_communication._core.hub.upstream cimport Upstream
from realtime_communication._core.hub.users cimport (
    Member,
    User,
    member_add,
    member_find,
    member_remove,
    user_id,
    user_open,
)

cdef enum:
    SESSION_DIGITS = 32


cdef void add_user(Buffer* out, Slice user) noexcept nogil:
    add_u8(out, <uint8_t> user.size)
    buffer_append(out, user.data, user.size)


cdef void add_info(Buffer* out, Slice info) noexcept nogil:
    cdef uint8_t size[2]
    put_u16(size, <int> info.size)
    buffer_append(out, size, 2)
    buffer_append(out, info.data, info.size)


cdef class Watchers(Upstream):

    def __cinit__(self, str node_id not None):
        table_init(&self.attendees)
        self.quiet = False

    def __dealloc__(self):
        attendees_free(&self.attendees)

    cdef void tell_watchers(self, Topic* topic, const Member* member, bint leave, Slice info) noexcept:
        cdef uint64_t left
        cdef int slot
        if self.quiet:
            return
        Upstream.tell_watchers(self, topic, member, leave, info)
        if is_worker(topic.authority):
            return
        left = topic.watching
        for slot in range(MAX_WORKERS):
            if left == 0:
                return
            if left & 1:
                self.send_show(slot, topic, member, leave, False, info)
            left >>= 1

    cdef void watched(self, Topic* topic) noexcept:
        cdef bint any = topic.watcher_count != 0 if is_worker(topic.authority) else is_watched(topic)
        if any == (topic.watch_state != WATCH_NONE):
            return
        if not any:
            self.forget_shown(topic)
            topic.watch_state = WATCH_NONE
            topic.roster = 0
        elif is_worker(topic.authority):
            topic.watch_state = WATCH_FRESH
        elif self.peers.upstream:
            topic.watch_state = WATCH_FRESH
            self.ask_roster(topic)
        else:
            topic.watch_state = WATCH_ON
        if is_worker(topic.authority):
            self.send_plain(topic.authority - AUTHORITY_WORKER, FRAME_WATCH, topic, any)

    cdef void forget_shown(self, Topic* topic) noexcept:
        cdef Member* member = <Member*> topic.first_member
        cdef Member* following
        cdef User* user
        while member != NULL:
            following = member.next_of_topic
            member.doubtful = False
            member.absent = False
            if member.sessions == 0 and not (member.parting or (is_home(topic) and timer_is_set(&member.timer))):
                user = member.user
                member_remove(&self.users, &self.wheel, member)
                self.forget_user(user)
            elif self.peers.upstream:
                member.shown = False
            member = following

    # --- what is known

    cdef void show(self, Topic* topic, Slice name, uint64_t id_high, uint64_t id_low, bint leave, bint before,
                   Slice info) noexcept:
        cdef User* user
        if topic.watch_state == WATCH_NONE or name.size == 0:
            return
        user = user_open(&self.users, name)
        if user == NULL:
            return
        if leave:
            self.show_leave(topic, user, id_high, id_low)
        else:
            self.show_join(topic, user, id_high, id_low, before, info)
        self.forget_user(user)

    cdef void show_leave(self, Topic* topic, User* user, uint64_t id_high, uint64_t id_low) noexcept:
        cdef Member* member = member_find(&self.users, user, topic)
        cdef Member told
        if member == NULL and topic.roster:
            # The roster that was asked for may still have it.
            member = member_add(&self.users, user, topic)
        if member == NULL:
            return
        if member.shown or (topic.roster and topic.watch_state == WATCH_FRESH):
            told = member[0]
            told.id_high = id_high
            told.id_low = id_low
            self.tell_watchers(topic, &told, True, nothing())
        member.shown = False
        member.doubtful = False
        member.absent = topic.roster != 0
        if member.sessions == 0 and not member.parting and not member.absent:
            member_remove(&self.users, &self.wheel, member)

    cdef void show_join(self, Topic* topic, User* user, uint64_t id_high, uint64_t id_low, bint before,
                        Slice info) noexcept:
        cdef Member* member = member_find(&self.users, user, topic)
        cdef Member told
        if member == NULL:
            member = member_add(&self.users, user, topic)
        if member == NULL or (before and member.absent):
            return
        member.absent = False
        member.doubtful = False
        if member.sessions == 0 and not member.parting:
            wheel_cancel(&self.wheel, &member.timer)
            member.id_high = id_high
            member.id_low = id_low
        if member.shown:
            return
        member.shown = True
        if before and topic.watch_state == WATCH_FRESH:
            return
        told = member[0]
        told.id_high = id_high
        told.id_low = id_low
        self.tell_watchers(topic, &told, False, info)

    cdef void show_bytes(self, Topic* topic, bint leave, bint before, bytes user, bytes session, bytes info) noexcept:
        cdef const uint8_t* digits = <const uint8_t*> <const char*> session
        if len(session) == SESSION_DIGITS and 0 < len(user) < 255 and len(info) <= INFO_BYTES:
            self.show(topic, slice_of(<const uint8_t*> <const char*> user, len(user)),
                      epoch_number(slice_of(digits, 16)), epoch_number(slice_of(digits + 16, 16)), leave, before,
                      slice_of(<const uint8_t*> <const char*> info, len(info)))

    cdef Slice shown_info(self, Topic* topic, const Member* member) noexcept:
        """The info of the session that is noted with a member, where it is known."""
        cdef Attendee* attendee = attendee_find(&self.attendees, topic, member.id_high, member.id_low)
        cdef Session* session = member.user.sessions
        if attendee != NULL:
            return attendee_info(attendee)
        while session != NULL:
            if session.id_high == member.id_high and session.id_low == member.id_low:
                return session_info(session)
            session = session.next_of_user
        return nothing()

    # --- other workers

    cdef void take_frame(self, int slot, Frame* frame) noexcept:
        if frame.type == FRAME_WATCH:
            self.watched_there(slot, frame)
        elif frame.type == FRAME_SHOW or frame.type == FRAME_SHOWN:
            self.shown_here(slot, frame)
        else:
            Upstream.take_frame(self, slot, frame)

    cdef void watched_there(self, int slot, Frame* frame) noexcept:
        cdef bint ok = True
        cdef bint on = take_number(frame, 1, &ok) != 0
        cdef uint64_t bit = <uint64_t> 1 << slot
        cdef Topic* topic
        if not ok:
            return
        topic = self.open_topic(frame.topic, TOPIC_PLAIN)
        if topic == NULL:
            return
        if on:
            topic.watching |= bit
            self.watched(topic)
            if is_home(topic) and topic.roster == 0:
                self.send_roster(slot, topic)
        else:
            topic.watching &= ~bit
            self.watched(topic)
        topic_release(&self.store, topic)

    cdef void shown_here(self, int slot, Frame* frame) noexcept:
        cdef Topic* topic = topic_find(&self.store, frame.topic)
        cdef bint ok = True
        cdef bint leave, before
        cdef uint64_t id_high, id_low
        cdef Slice name, info
        if topic == NULL or topic.authority != AUTHORITY_WORKER + slot:
            return
        if frame.type == FRAME_SHOWN:
            if topic.watch_state == WATCH_FRESH:
                topic.watch_state = WATCH_ON
            return
        leave = take_number(frame, 1, &ok) != 0
        before = take_number(frame, 1, &ok) != 0
        id_high = take_number(frame, 8, &ok)
        id_low = take_number(frame, 8, &ok)
        name = take_slice(frame, <size_t> take_number(frame, 1, &ok), &ok)
        info = take_slice(frame, <size_t> take_number(frame, 2, &ok), &ok)
        if ok:
            self.show(topic, name, id_high, id_low, leave, before, info)
            topic_release(&self.store, topic)

    cdef void send_plain(self, int slot, int type, Topic* topic, int value) noexcept:
        cdef Buffer* out
        if not self.peers.workers[slot].linked:
            return
        out = frame_to(&self.peers, slot, type, TOPIC_PLAIN, topic_name(topic), 0, 1)
        if out != NULL:
            if value >= 0:
                add_u8(out, <uint8_t> value)
            frame_done(&self.peers, slot)

    cdef void send_show(self, int slot, Topic* topic, const Member* member, bint leave, bint before,
                        Slice info) noexcept:
        cdef Slice user = user_id(member.user)
        cdef Buffer* out = frame_to(&self.peers, slot, FRAME_SHOW, TOPIC_PLAIN, topic_name(topic), 0,
                                    21 + user.size + info.size)
        if out != NULL:
            add_u8(out, leave)
            add_u8(out, before)
            add_u64(out, member.id_high)
            add_u64(out, member.id_low)
            add_user(out, user)
            add_info(out, info)
            frame_done(&self.peers, slot)

    cdef void send_roster(self, int slot, Topic* topic) noexcept:
        cdef Member* member = <Member*> topic.first_member
        while member != NULL:
            if member.shown:
                self.send_show(slot, topic, member, False, True, self.shown_info(topic, member))
            member = member.next_of_topic
        self.send_plain(slot, FRAME_SHOWN, topic, -1)

    cdef void send_rosters(self, Topic* topic) noexcept:
        cdef int slot
        for slot in range(MAX_WORKERS):
            if topic.watching >> slot & 1:
                self.send_roster(slot, topic)
    # --- the upstream

    cdef void ask_roster(self, Topic* topic) noexcept:
        cdef Member* member = <Member*> topic.first_member
        cdef Waiting* waiting = waiting_add(&self.peers, WAIT_ROSTER, AUTHORITY_UPSTREAM, NULL, 0, 0, nothing(),
                                            topic_name(topic), TOPIC_PLAIN, self.now_ms)
        if waiting == NULL:
            return
        topic.roster = waiting.token
        while member != NULL:
            member.doubtful = member.shown
            member = member.next_of_topic
        try:
            self.upward.append(("presence", bytes_of(topic_name(topic)), waiting.token))
        except Exception:
            pass                 # it is not answered in time then

    cdef void roster_answered(self, Waiting* waiting, object members) noexcept:
        cdef Topic* topic = topic_find(&self.store, waiting_topic(waiting))
        cdef Member* member
        if topic == NULL or topic.roster != waiting.token:
            return
        if members is None:
            # Nobody is doubted for a question that was not answered.
            member = <Member*> topic.first_member
            while member != NULL:
                member.doubtful = False
                member = member.next_of_topic
        else:
            for user, session, _, info in members:
                self.show_bytes(topic, False, True, user, session, info)
        self.roster_settled(topic)
        topic_release(&self.store, topic)

    cdef void roster_settled(self, Topic* topic) noexcept:
        cdef Member* member = <Member*> topic.first_member
        cdef Member* following
        cdef User* user
        topic.roster = 0
        topic.watch_state = WATCH_ON
        while member != NULL:
            following = member.next_of_topic
            if member.doubtful and member.sessions == 0 and not member.parting:
                self.tell_watchers(topic, member, True, nothing())
                member.shown = False
            member.doubtful = False
            member.absent = False
            if not member.shown and member.sessions == 0 and not member.parting:
                user = member.user
                member_remove(&self.users, &self.wheel, member)
                self.forget_user(user)
            member = following
        self.send_rosters(topic)

    cdef void refused(self, Waiting* waiting, int code, Slice text, int64_t retry) noexcept:
        if waiting.kind == WAIT_ROSTER:
            self.roster_answered(waiting, None)
        Upstream.refused(self, waiting, code, text, retry)

    def tell_presence(self, bytes topic not None, bint leave, bytes user not None, bytes session_id not None,
                      bytes info not None):
        """The first session of a user over all nodes is on a topic, or the last one is gone; of this node as well."""
        cdef Topic* found = topic_find(&self.store, slice_of(<const uint8_t*> topic, len(topic)))
        if found == NULL or found.kind != TOPIC_PLAIN or is_worker(found.authority) or not self.peers.upstream:
            return
        self.home.refresh()
        self.show_bytes(found, leave, False, user, session_id, info)
        topic_release(&self.store, found)
        self.home.wake()
