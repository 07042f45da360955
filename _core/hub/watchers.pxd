# Who is told of Joins and Leaves, and what they believe.
#
# Rules: a worker with watchers says so to the home of the topic, is *shown* all who are present, and then each change.
# So it knows what its watchers believe, tells them of nothing twice, and of what it finds changed when the truth has
# moved (attendance.pxd). Who was there before the first watcher is shown, but not told.
#
# Theory: with an upstream the home is to it what another worker is to the home: while the topic has watchers it has
# asked for the *roster* of all nodes and passes on what it is told. A Leave may overtake the answer to that question;
# it is remembered until then (`absent`).

from libc.stdint cimport uint64_t

from realtime_communication._core.base.memory cimport Buffer, Slice, slice_of
from realtime_communication._core.base.table cimport Table
from realtime_communication._core.hub.peers cimport AUTHORITY_ARRIVING, AUTHORITY_WORKER, Frame, Waiting
from realtime_communication._core.hub.topics cimport Topic
from realtime_communication._core.hub.upstream cimport Upstream
from realtime_communication._core.hub.users cimport Member, User


cdef inline bint is_worker(int authority) noexcept nogil:
    return AUTHORITY_WORKER <= authority < AUTHORITY_ARRIVING

cdef inline bint is_home(const Topic* topic) noexcept nogil:
    return not is_worker(topic.authority)

cdef inline bint is_watched(const Topic* topic) noexcept nogil:
    return topic.watcher_count != 0 or topic.watching != 0

cdef inline Slice nothing() noexcept nogil:
    return slice_of(NULL, 0)

# Parts of frames: a text behind its size.
cdef void add_user(Buffer* out, Slice user) noexcept nogil
cdef void add_info(Buffer* out, Slice info) noexcept nogil


cdef class Watchers(Upstream):
    cdef Table attendees         # sessions of other workers
    cdef bint quiet              # those who are counted in were there before

    # Nobody watches any more: what was believed does not matter.
    cdef void forget_shown(self, Topic* topic) noexcept
    # What the topic's authority says of a user; `before`: it was there before there were watchers here.
    cdef void show(self, Topic* topic, Slice user, uint64_t id_high, uint64_t id_low, bint leave, bint before,
                   Slice info) noexcept
    cdef void show_leave(self, Topic* topic, User* user, uint64_t id_high, uint64_t id_low) noexcept
    cdef void show_join(self, Topic* topic, User* user, uint64_t id_high, uint64_t id_low, bint before,
                        Slice info) noexcept
    cdef void shown_here(self, int slot, Frame* frame) noexcept
    cdef Slice shown_info(self, Topic* topic, const Member* member) noexcept
    cdef void ask_roster(self, Topic* topic) noexcept
    # The upstream's roster has been shown, or there is none.
    cdef void roster_settled(self, Topic* topic) noexcept
    # The upstream's answer, None when there is none. `waiting` is not taken out.
    cdef void roster_answered(self, Waiting* waiting, object members) noexcept
    cdef void show_bytes(self, Topic* topic, bint leave, bint before, bytes user, bytes session, bytes info) noexcept
    # A frame with nothing but one u8, or not even that when `value` is negative.
    cdef void send_plain(self, int slot, int type, Topic* topic, int value) noexcept
    cdef void send_show(self, int slot, Topic* topic, const Member* member, bint leave, bint before,
                        Slice info) noexcept
    cdef void send_roster(self, int slot, Topic* topic) noexcept
    cdef void send_rosters(self, Topic* topic) noexcept
    cdef void watched_there(self, int slot, Frame* frame) noexcept
