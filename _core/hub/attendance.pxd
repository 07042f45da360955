# Who is present on topics, over all workers and nodes; questions.pyx tells who asks.
#
# Rules: the home of a topic has the truth. Every worker tells it of its sessions that enter and leave, also those that
# are only said to be there again; the home counts them by user. Who is told of Joins and Leaves is another matter: a
# worker with watchers says so to the home, is *shown* all who are present, and then each change. So it knows what its
# watchers believe, and tells them of nothing twice, and of what it finds changed when the truth has moved.
#
# Theory: with an upstream the home is to it what another worker is to the home. It enters its node's sessions there,
# asks for the *roster* of all nodes while it has watchers, and passes on what it is told.
#
# Where a topic moves, everybody tells the new home anew. What the watchers believe is doubtful then; it is told to be
# over when nobody has confirmed it for SETTLE_MS, or when the upstream's roster lacks it. Sessions that are told to a
# worker that is not the home (yet) are kept, and counted when it is; their worker takes them back when it finds a home
# elsewhere (FORGET).

from libc.stdint cimport uint64_t

from realtime_communication._core.base.memory cimport Slice
from realtime_communication._core.base.table cimport Table
from realtime_communication._core.hub.attendees cimport Attendee
from realtime_communication._core.hub.peers cimport Frame, Waiting
from realtime_communication._core.hub.session cimport Session
from realtime_communication._core.hub.topics cimport Topic
from realtime_communication._core.hub.upstream cimport Upstream
from realtime_communication._core.hub.users cimport Member, User


cdef class Attendance(Upstream):
    cdef Table attendees
    cdef bint quiet              # those who are counted in were there before

    # The topic's truth comes here, goes to another worker, or from one worker to another.
    cdef void move_attendance(self, Topic* topic, int before) noexcept
    cdef void take_home(self, Topic* topic) noexcept
    cdef void yield_home(self, Topic* topic) noexcept
    # Tells the topic's home all there is to tell.
    cdef void retell(self, Topic* topic) noexcept
    cdef void count_all(self, Topic* topic) noexcept
    cdef void doubt(self, Topic* topic) noexcept
    # Nobody watches any more: what was believed does not matter.
    cdef void forget_shown(self, Topic* topic) noexcept
    # Everything is entered upstream; its roster is asked for when there are watchers.
    cdef void globalize_attendance(self, Topic* topic) noexcept
    cdef void enter_all(self, Topic* topic) noexcept
    cdef void localize_attendance(self, Topic* topic) noexcept
    cdef void ask_roster(self, Topic* topic) noexcept
    # The upstream's answer, None when there is none. `waiting` is not taken out.
    cdef void roster_answered(self, Waiting* waiting, object members) noexcept
    # The upstream's roster has been shown, or there is none.
    cdef void roster_settled(self, Topic* topic) noexcept
    # What the topic's authority says of a user; `before`: it was there before there were watchers here.
    cdef void show(self, Topic* topic, Slice user, uint64_t id_high, uint64_t id_low, bint leave, bint before,
                   Slice info) noexcept
    cdef void show_leave(self, Topic* topic, User* user, uint64_t id_high, uint64_t id_low) noexcept
    cdef void show_join(self, Topic* topic, User* user, uint64_t id_high, uint64_t id_low, bint before,
                        Slice info) noexcept
    cdef void show_bytes(self, Topic* topic, bint leave, bint before, bytes user, bytes session, bytes info) noexcept
    # A session of another worker is not there any more. The topic is not released.
    cdef void drop_attendee(self, Attendee* attendee, bint graceful) noexcept

    cdef bint tells_upstream(self) noexcept nogil
    cdef void enter_upstream(self, Topic* topic, uint64_t id_high, uint64_t id_low, Slice user, uint64_t joined_at,
                             Slice info) noexcept
    cdef void exit_upstream(self, Topic* topic, uint64_t id_high, uint64_t id_low, Slice user) noexcept
    # Another worker of this node keeps a session up there from now on.
    cdef void moved_upstream(self, Topic* topic, uint64_t id_high, uint64_t id_low) noexcept
    cdef void hand_upstream_over(self, Attendee* attendee) noexcept
    cdef Slice shown_info(self, Topic* topic, const Member* member) noexcept
    cdef void send_enter(self, int slot, Topic* topic, const Session* session, uint64_t joined_at) noexcept
    cdef void send_plain(self, int slot, int type, Topic* topic, int value) noexcept
    cdef void send_show(self, int slot, Topic* topic, const Member* member, bint leave, bint before,
                        Slice info) noexcept
    cdef void send_rosters(self, Topic* topic) noexcept
    cdef void send_roster(self, int slot, Topic* topic) noexcept
    cdef void entered_there(self, int slot, Frame* frame) noexcept
    cdef void left_there(self, int slot, Frame* frame) noexcept
    cdef void forget_there(self, int slot, Topic* topic) noexcept
    cdef void watched_there(self, int slot, Frame* frame) noexcept
    cdef void shown_here(self, int slot, Frame* frame) noexcept
