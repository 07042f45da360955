"""Where the truth about a topic's attendance goes; `handover.pxd` is the contract."""

from libc.stdint cimport uint32_t, uint64_t

from realtime_communication._core.base.table cimport TableCursor, table_start
from realtime_communication._core.base.timer_wheel cimport timer_is_set, wheel_cancel, wheel_set
from realtime_communication._core.hub.attendance cimport Attendance
from realtime_communication._core.hub.attendees cimport Attendee, attendee_info
from realtime_communication._core.hub.peers cimport AUTHORITY_WORKER, FRAME_FORGET, FRAME_WATCH
from realtime_communication._core.hub.session cimport Session, session_info
from realtime_communication._core.hub.topics cimport (
    TOPIC_ALL,
    TOPIC_PLAIN,
    WATCH_FRESH,
    WATCH_NONE,
    WATCH_ON,
    Subscription,
    Topic,
    TopicStore,
    next_topic,
    topic_release,
)
from realtime_communication._core.hub.users cimport Member, User, member_remove, user_id
from realtime_communication._core.hub.watchers cimport is_home, is_watched, is_worker

cdef enum:
    SETTLE_MS = 5000             # after which nobody is believed to be present whom the topic's new home has not named


cdef Topic* next_at_home(TopicStore* store, TableCursor* cursor) noexcept nogil:
    """The next plain topic that has its home here; NULL behind the last one."""
    cdef Topic* topic
    while True:
        topic = next_topic(store, cursor)
        if topic == NULL or topic.kind == TOPIC_PLAIN and is_home(topic):
            return topic


cdef class Handover(Attendance):

    cdef void peer_joined(self, int slot, uint64_t incarnation) noexcept:
        cdef TableCursor cursor
        cdef Topic* topic
        Attendance.peer_joined(self, slot, incarnation)
        table_start(&cursor)
        topic = next_topic(&self.store, &cursor)
        while topic != NULL:
            if topic.kind == TOPIC_PLAIN and topic.authority == AUTHORITY_WORKER + slot:
                self.retell(topic)
            topic = next_topic(&self.store, &cursor)

    # --- from home to home

    cdef void move_topic(self, Topic* topic, int authority) noexcept:
        cdef int before = topic.authority
        Attendance.move_topic(self, topic, authority)
        if topic.authority == before:
            return
        if topic.kind == TOPIC_PLAIN:
            self.move_attendance(topic, before)
        if topic.kind != TOPIC_ALL:
            topic_release(&self.store, topic)  # an inbox too: it was here for a user on another worker

    cdef void move_attendance(self, Topic* topic, int before) noexcept:
        if is_worker(before) and self.peers.workers[before - AUTHORITY_WORKER].linked:
            self.send_plain(before - AUTHORITY_WORKER, FRAME_FORGET, topic, -1)
        if not is_worker(before) and is_worker(topic.authority):
            self.yield_home(topic)
        elif is_worker(before) and not is_worker(topic.authority):
            self.take_home(topic)
        elif is_worker(before):
            self.retell(topic)

    cdef void yield_home(self, Topic* topic) noexcept:
        cdef Member* member = <Member*> topic.first_member
        cdef Member* following
        cdef Attendee* attendee = <Attendee*> topic.attendees
        cdef Session* session
        cdef User* user
        cdef uint32_t i, j
        while attendee != NULL:
            attendee.member = NULL
            attendee = attendee.next
        while member != NULL:
            following = member.next_of_topic
            wheel_cancel(&self.wheel, &member.timer)
            if member.parting:
                self.exit_upstream(topic, member.id_high, member.id_low, user_id(member.user))
            member.sessions = 0
            member.parting = False
            member.absent = False
            if not member.shown or topic.watcher_count == 0:
                user = member.user
                member_remove(&self.users, &self.wheel, member)
                self.forget_user(user)
            member = following
        for i in range(topic.group_count if self.tells_upstream() else 0):
            for j in range(topic.groups[i].count):
                session = topic.groups[i].items[j].session
                self.moved_upstream(topic, session.id_high, session.id_low)
        topic.roster = 0
        if topic.watcher_count == 0:
            topic.watch_state = WATCH_NONE
        elif topic.watch_state == WATCH_NONE:
            topic.watch_state = WATCH_ON
        self.retell(topic)

    cdef void take_home(self, Topic* topic) noexcept:
        cdef Member* member = <Member*> topic.first_member
        cdef bint fresh = topic.watch_state == WATCH_FRESH
        if not self.peers.upstream:
            self.doubt(topic)
        while self.peers.upstream and member != NULL:
            wheel_cancel(&self.wheel, &member.timer)
            member = member.next_of_topic
        self.quiet = fresh           # those who began to watch just now are told of nobody who was there before them
        self.count_all(topic)
        self.quiet = False
        if not is_watched(topic):
            topic.watch_state = WATCH_NONE
        elif self.peers.upstream:
            topic.watch_state = WATCH_FRESH if fresh or topic.watch_state == WATCH_NONE else WATCH_ON
            self.ask_roster(topic)
        else:
            topic.watch_state = WATCH_ON
            self.send_rosters(topic)

    cdef void count_all(self, Topic* topic) noexcept:
        """All sessions that are known to be on the topic."""
        cdef Attendee* attendee = <Attendee*> topic.attendees
        cdef Subscription* subscription
        cdef Session* session
        cdef uint32_t i, j
        for i in range(topic.group_count):
            for j in range(topic.groups[i].count):
                subscription = topic.groups[i].items[j].subscription
                session = subscription.session
                self.count_in(<User*> session.user, topic, session.id_high, session.id_low, session_info(session))
        while attendee != NULL:
            attendee.member = self.count_in(attendee.user, topic, attendee.id_high, attendee.id_low,
                                            attendee_info(attendee))
            attendee = attendee.next
        if self.tells_upstream():
            self.enter_all(topic)

    cdef void doubt(self, Topic* topic) noexcept:
        """Nobody is believed to be present for long whom no home confirms."""
        cdef Member* member = <Member*> topic.first_member
        while member != NULL:
            if member.sessions == 0:
                wheel_set(&self.wheel, &member.timer, self.now_ms + SETTLE_MS)
            member = member.next_of_topic

    cdef void retell(self, Topic* topic) noexcept:
        cdef int slot = topic.authority - AUTHORITY_WORKER
        cdef Subscription* subscription
        cdef uint32_t i, j
        if not self.peers.workers[slot].linked:
            return               # it is told when it is there
        for i in range(topic.group_count):
            for j in range(topic.groups[i].count):
                subscription = topic.groups[i].items[j].subscription
                self.send_enter(slot, topic, subscription.session, subscription.joined_at)
        if topic.watch_state != WATCH_NONE:
            self.doubt(topic)
            self.send_plain(slot, FRAME_WATCH, topic, True)

    # --- from and to the upstream

    def upstream_lost(self):
        """As `Upstream.upstream_lost`; who is present is known of this node alone. Watchers go on to believe in those
        of other nodes."""
        cdef bint was = self.peers.upstream
        cdef TableCursor cursor
        cdef Topic* topic
        Attendance.upstream_lost(self)
        table_start(&cursor)
        topic = next_at_home(&self.store, &cursor) if was else NULL
        while topic != NULL:
            self.localize_attendance(topic)
            topic_release(&self.store, topic)
            topic = next_at_home(&self.store, &cursor)
        self.home.wake()

    cdef void localize_attendance(self, Topic* topic) noexcept:
        cdef Member* member = <Member*> topic.first_member
        cdef Member* following
        cdef User* user
        while member != NULL:
            following = member.next_of_topic
            member.doubtful = False
            member.absent = False
            if not member.shown and (member.sessions or timer_is_set(&member.timer)):
                member.shown = True
                if topic.watch_state == WATCH_ON:
                    self.tell_watchers(topic, member, False, self.shown_info(topic, member))
            elif not member.shown:
                user = member.user
                member_remove(&self.users, &self.wheel, member)
                self.forget_user(user)
            member = following
        if topic.roster:
            self.roster_settled(topic)
        topic.watch_state = WATCH_ON if is_watched(topic) else WATCH_NONE

    def upstream_back(self):
        """As `Upstream.upstream_back`; all sessions of this node are entered again."""
        cdef TableCursor cursor
        cdef Topic* topic
        Attendance.upstream_back(self)
        table_start(&cursor)
        topic = next_at_home(&self.store, &cursor)
        while topic != NULL:
            self.globalize_attendance(topic)
            topic_release(&self.store, topic)
            topic = next_at_home(&self.store, &cursor)
        self.home.wake()

    cdef void globalize_attendance(self, Topic* topic) noexcept:
        cdef Member* member = <Member*> topic.first_member
        while member != NULL:
            if member.sessions == 0 and not member.parting:
                wheel_cancel(&self.wheel, &member.timer)
            member = member.next_of_topic
        self.enter_all(topic)
        if not is_watched(topic):
            self.forget_shown(topic)
            topic.watch_state = WATCH_NONE
            return
        topic.watch_state = WATCH_ON
        self.ask_roster(topic)

    cdef void enter_all(self, Topic* topic) noexcept:
        cdef Attendee* attendee = <Attendee*> topic.attendees
        cdef Subscription* subscription
        cdef Session* session
        cdef uint32_t i, j
        for i in range(topic.group_count):
            for j in range(topic.groups[i].count):
                subscription = topic.groups[i].items[j].subscription
                session = subscription.session
                self.enter_upstream(topic, session.id_high, session.id_low, user_id(<User*> session.user),
                                    subscription.joined_at, session_info(session))
        while attendee != NULL:
            self.enter_upstream(topic, attendee.id_high, attendee.id_low, user_id(attendee.user), attendee.joined_at,
                                attendee_info(attendee))
            attendee.entered = True
            attendee = attendee.next
