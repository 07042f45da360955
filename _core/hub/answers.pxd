# Answers to what this worker has asked other workers and the upstream (relay.pyx has the asking side), and what they
# mean for those who wait for them.
#
# Rules: every request is taken out by its answer, a refusal or the end of its time. A session that waits may have gone
# in the meantime, and a topic may have another authority: whoever answers then does not feed this worker any more.

from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memset

from realtime_communication._core.base.memory cimport Slice
from realtime_communication._core.hub.feed cimport Feed
from realtime_communication._core.hub.peers cimport Frame, Waiting
from realtime_communication._core.hub.session cimport Inbound, Session
from realtime_communication._core.hub.topics cimport Topic


# An answer's bodies, or whatever else is in it one by one, to be read from the start.
cdef inline Frame frame_of(Slice items) noexcept nogil:
    cdef Frame out
    memset(&out, 0, sizeof(Frame))
    out.rest = items.data
    out.rest_size = items.size
    return out


cdef class Answers(Feed):
    cdef Inbound inbound

    # Takes it out; a request over HTTP must have been answered.
    cdef void drop_waiting(self, Waiting* waiting) noexcept
    cdef void acked(self, Waiting* waiting, uint64_t epoch, uint64_t offset, bint reached) noexcept
    cdef void refused(self, Waiting* waiting, int code, Slice text, int64_t retry) noexcept
    cdef void sync_refused(self, Waiting* waiting) noexcept
    cdef void subscribe_settled(self, Waiting* waiting, uint64_t epoch, uint64_t offset, bint recovered,
                                uint64_t first, Slice bodies) noexcept
    # Brings the mirror to where its authority has answered from.
    cdef void catch_up(self, Waiting* waiting, Topic* topic, uint64_t epoch, uint64_t offset, bint recovered,
                       uint64_t first, Frame* bodies) noexcept
    cdef bint answer_subscribe(self, Waiting* waiting, Topic* topic, bint recovered, Frame* bodies,
                               uint64_t first) noexcept
    cdef void history_settled(self, Waiting* waiting, uint64_t epoch, uint64_t offset, uint64_t first,
                              Slice bodies) noexcept
    # The place of a session that came from another worker: the mirror stands where its authority has answered from; or
    # it has not answered, and `waiting` is taken care of if that returns True.
    cdef void place_answered(self, Waiting* waiting, Topic* topic, bint recovered, Frame* bodies,
                             uint64_t first) noexcept
    cdef bint place_refused(self, Waiting* waiting) noexcept
    cdef void end_place(self, Waiting* waiting) noexcept
    # Nobody has said that a session's inbox is fed: it hears Connected now, or its inbox has another home to ask.
    cdef void welcome_refused(self, Waiting* waiting, int code) noexcept
    cdef void ask_welcomes_again(self) noexcept
    # Reads the parked request of a session whose answer is here. False: it has gone, or is closing.
    cdef bint resume_parked(self, Session* session) noexcept
