"""What others want to hear of; `notices.pxd` is the contract."""

from libc.stdint cimport uint8_t, uint64_t

from realtime_communication._core.base.memory cimport bytes_of, slice_of
from realtime_communication._core.base.table cimport TableCursor, table_start
from realtime_communication._core.hub.attendees cimport Attendee
from realtime_communication._core.hub.driver cimport Driver
from realtime_communication._core.hub.handover cimport Handover
from realtime_communication._core.hub.peers cimport (
    AUTHORITY_WORKER,
    FRAME_OCCUPIED,
    Frame,
    frame_bare,
    peers_authority,
)
from realtime_communication._core.hub.session cimport Session, session_id
from realtime_communication._core.hub.topics cimport TOPIC_PLAIN, Topic, next_topic, topic_find, topic_name
from realtime_communication._core.hub.users cimport User, user_id
from realtime_communication._core.hub.watchers cimport is_home, is_worker

NOTICES = {
    "connect": NOTICE_CONNECT,
    "disconnect": NOTICE_DISCONNECT,
    "topic_occupied": NOTICE_OCCUPIED,
    "topic_vacated": NOTICE_VACATED,
}


cdef bint is_occupied(const Topic* topic) noexcept nogil:
    return topic != NULL and (topic.subscribers != 0 or topic.attendees != NULL)


cdef class Notices(Handover):

    def __cinit__(self, str node_id not None):
        self.noticing = 0
        self.noticed = []
        self.unnoticed = 0
        self.notice_told = False
        self.occupied = set()
        self.soon = {}
        self.late = {}
        self.settled_ms = 0

    def notice(self, events, wake):
        """Note these events from now on, names of NOTICES, and call `wake` when there is something to take, once until
        it is taken. What is occupied already is not told. Raises ValueError for another name."""
        cdef int wanted = 0
        for event in events:
            if event not in NOTICES:
                raise ValueError(f"events: {event!r} is none of {', '.join(NOTICES)}")
            wanted |= <int> NOTICES[event]
        self.notice_wake = wake
        if not wanted & NOTICE_TOPICS:
            self.occupied.clear()
            self.soon.clear()
            self.late.clear()
        elif not self.noticing & NOTICE_TOPICS:
            self.occupied.update(self.names_of_occupied())
        self.noticing = wanted

    cdef list names_of_occupied(self):
        cdef TableCursor cursor
        cdef Topic* topic
        cdef list names = []
        table_start(&cursor)
        topic = next_topic(&self.store, &cursor)
        while topic != NULL:
            if topic.kind == TOPIC_PLAIN and is_home(topic) and is_occupied(topic):
                names.append(bytes_of(topic_name(topic)))
            topic = next_topic(&self.store, &cursor)
        return names

    def take_notices(self):
        """What was noted since this was last called, oldest first, and how much found no room.

        (`connect`, at, user, session id, transport), (`disconnect`, the same and milliseconds it was connected) and
        (`topic_occupied` or `topic_vacated`, at, topic); `at` is in milliseconds since the epoch.
        """
        cdef list taken = self.noticed
        cdef uint64_t lost = self.unnoticed
        self.noticed = []
        self.unnoticed = 0
        self.notice_told = False
        return taken, lost

    cdef void add_notice(self, tuple notice) noexcept:
        if len(self.noticed) >= MOST_NOTICES:
            self.unnoticed += 1
            return
        try:
            self.noticed.append(notice)
        except MemoryError:
            self.unnoticed += 1

    cdef void tell_notices(self) noexcept:
        if self.notice_told or not self.noticed or self.notice_wake is None:
            return
        self.notice_told = True
        try:
            self.notice_wake()
        except Exception:
            self.notice_told = False  # with the next turn again

    # --- sessions

    cdef void notice_session(self, str kind, Session* session) noexcept:
        cdef uint8_t digits[32]
        try:
            session_id(session, digits)
            notice = (kind, self.wall_ms, bytes_of(user_id(<User*> session.user)).decode(),
                      (<const char*> digits)[:32].decode(), (<Driver> session.driver).transport())
            if kind == "disconnect":
                notice += (self.now_ms - session.opened_ms,)
            self.add_notice(notice)
        except Exception:
            self.unnoticed += 1

    cdef int attach(self, Session* session, object identity) except -1:
        Handover.attach(self, session, identity)
        if self.noticing & NOTICE_CONNECT:
            self.notice_session("connect", session)
        return 0

    cdef void leave(self, Session* session) noexcept:
        if self.noticing & NOTICE_DISCONNECT and session.user != NULL:
            self.notice_session("disconnect", session)
        Handover.leave(self, session)

    # --- topics

    cdef void enter(self, Session* session, Topic* topic) noexcept:
        Handover.enter(self, session, topic)
        if self.noticing & NOTICE_TOPICS and topic.subscribers == 1 and topic.attendees == NULL:
            self.note_topic(topic)

    cdef void exit(self, Session* session, User* user, Topic* topic, bint graceful) noexcept:
        Handover.exit(self, session, user, topic, graceful)
        if self.noticing & NOTICE_TOPICS and not is_occupied(topic):
            self.note_topic(topic)

    cdef void entered_there(self, int slot, Frame* frame) noexcept:
        cdef Topic* topic
        Handover.entered_there(self, slot, frame)
        if self.noticing & NOTICE_TOPICS:
            topic = topic_find(&self.store, frame.topic)
            if topic != NULL and topic.subscribers == 0 and topic.attendees != NULL and (
                    (<Attendee*> topic.attendees).next == NULL):
                self.note_topic(topic)

    cdef void drop_attendee(self, Attendee* attendee, bint graceful) noexcept:
        cdef Topic* topic = attendee.topic
        Handover.drop_attendee(self, attendee, graceful)
        if self.noticing & NOTICE_TOPICS and not is_occupied(topic):
            self.note_topic(topic)

    cdef void take_home(self, Topic* topic) noexcept:
        Handover.take_home(self, topic)
        if self.noticing & NOTICE_TOPICS and is_occupied(topic):
            self.note_topic(topic)

    cdef void change_members(self, int me, uint64_t mask, uint64_t version) noexcept:
        cdef int authority
        cdef bytes name
        Handover.change_members(self, me, mask, version)
        if not self.noticing & NOTICE_TOPICS:
            return
        self.settled_ms = self.now_ms + SETTLED_MS
        try:
            for name in list(self.occupied):
                authority = peers_authority(&self.peers, slice_of(<const uint8_t*> name, len(name)))
                if is_worker(authority):
                    self.pass_occupied(name, authority - AUTHORITY_WORKER)
        except MemoryError:
            pass                 # what stays behind is passed on when it is looked at

    cdef void note_topic(self, Topic* topic) noexcept:
        if not is_home(topic):
            return
        try:
            name = bytes_of(topic_name(topic))
            if is_occupied(topic):
                if name not in self.occupied:
                    self.soon[name] = None
            elif name in self.occupied:
                self.late.pop(name, None)
                self.late[name] = self.now_ms + VACANT_MS
        except MemoryError:
            self.unnoticed += 1

    cdef bint looks_ahead(self) noexcept:
        return self.noticing & NOTICE_TOPICS and (bool(self.soon) or bool(self.late))

    cdef void look_at_topics(self) noexcept:
        cdef dict names
        if not self.looks_ahead() or self.peers.holding or self.now_ms < self.settled_ms:
            return
        names = self.soon
        self.soon = {}
        for name in names:
            self.judge(name, False)
        while self.late:
            name, due = next(iter(self.late.items()))
            if due > self.now_ms:
                break
            del self.late[name]
            self.judge(name, True)

    cdef void judge(self, bytes name, bint vacated) noexcept:
        cdef int authority = peers_authority(&self.peers, slice_of(<const uint8_t*> name, len(name)))
        cdef bint known = name in self.occupied
        cdef bint occupied = is_occupied(topic_find(&self.store, slice_of(<const uint8_t*> name, len(name))))
        if is_worker(authority):
            if known:
                self.pass_occupied(name, authority - AUTHORITY_WORKER)
        elif occupied and not known:
            self.occupied.add(name)
            if self.noticing & NOTICE_OCCUPIED:
                self.add_notice(("topic_occupied", self.wall_ms, name.decode()))
        elif vacated and known and not occupied:
            self.occupied.discard(name)
            if self.noticing & NOTICE_VACATED:
                self.add_notice(("topic_vacated", self.wall_ms, name.decode()))

    cdef void pass_occupied(self, bytes name, int slot) noexcept:
        self.occupied.discard(name)
        if self.peers.workers[slot].linked:
            frame_bare(&self.peers, slot, FRAME_OCCUPIED, TOPIC_PLAIN, slice_of(<const uint8_t*> name, len(name)), 0)

    cdef void take_frame(self, int slot, Frame* frame) noexcept:
        if frame.type != FRAME_OCCUPIED:
            Handover.take_frame(self, slot, frame)
        elif self.noticing & NOTICE_TOPICS and frame.topic.size:
            try:
                name = bytes_of(frame.topic)
                self.occupied.add(name)
                self.late.pop(name, None)
                self.late[name] = self.now_ms + VACANT_MS
            except MemoryError:
                self.unnoticed += 1
