# Who is present on topics, over all workers and nodes; questions.pyx tells who asks.
#
# Rules: the home of a topic has the truth. Every worker tells it of its sessions that enter and leave, and the home
# counts them by user; watchers.pyx tells those who asked for it. With an upstream the home enters its node's sessions
# there, and does not decide itself who was the first or the last one.
#
# Theory: sessions that are told to a worker that is not the home (yet) are kept, and counted when it is; their worker
# takes them back when it finds a home elsewhere (FORGET). What happens when a home moves is in handover.pyx.

from libc.stdint cimport uint64_t

from realtime_communication._core.base.memory cimport Slice
from realtime_communication._core.hub.attendees cimport Attendee
from realtime_communication._core.hub.peers cimport Frame
from realtime_communication._core.hub.session cimport Session
from realtime_communication._core.hub.topics cimport Topic
from realtime_communication._core.hub.watchers cimport Watchers


cdef class Attendance(Watchers):
    # A session of another worker is not there any more. The topic is not released.
    cdef void drop_attendee(self, Attendee* attendee, bint graceful) noexcept
    cdef void entered_there(self, int slot, Frame* frame) noexcept
    cdef void left_there(self, int slot, Frame* frame) noexcept
    cdef void forget_there(self, int slot, Topic* topic) noexcept
    cdef void send_enter(self, int slot, Topic* topic, const Session* session, uint64_t joined_at) noexcept

    cdef bint tells_upstream(self) noexcept nogil
    cdef void enter_upstream(self, Topic* topic, uint64_t id_high, uint64_t id_low, Slice user, uint64_t joined_at,
                             Slice info) noexcept
    cdef void exit_upstream(self, Topic* topic, uint64_t id_high, uint64_t id_low, Slice user) noexcept
    # Another worker of this node keeps a session up there from now on.
    cdef void moved_upstream(self, Topic* topic, uint64_t id_high, uint64_t id_low) noexcept
    cdef void hand_upstream_over(self, Attendee* attendee) noexcept
