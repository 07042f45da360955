# Which workers are homes of topics, and what happens to topics when that changes.
#
# Rules: a topic goes to its new home with its history, and its home begins nothing before that has arrived: what is
# asked meanwhile is held, up to a bound. Whoever hears of new members late holds what those send who heard before.
#
# The home before says who mirrors a topic. One of them may have unsubscribed on the way, there, where nobody heard it
# any more; so once all have settled each of them is asked whether that still holds.

from libc.stddef cimport size_t
from libc.stdint cimport uint64_t

from realtime_communication._core.hub.asked cimport Asked
from realtime_communication._core.hub.peers cimport Body, Frame
from realtime_communication._core.hub.topics cimport Topic


cdef class Homes(Asked):
    cdef uint64_t hold_until_ms  # when topics that should arrive are given up
    cdef list next_members       # (me, members, version) that come into force when nothing is held any more
    cdef list held_frames        # (slot, bytes) of requests that came for topics that may still arrive, or too early
    cdef size_t held_bytes       # of those frames

    cdef void change_members(self, int me, uint64_t mask, uint64_t version) noexcept
    cdef uint64_t others(self) noexcept nogil
    # Whether a linked worker may still have something to hand over.
    cdef bint awaits_somebody(self) noexcept nogil
    # This worker has handed over all that it had, or another one has.
    cdef void tell_settled(self, int slot) noexcept
    cdef void hear_settled(self, int slot, Frame* frame) noexcept
    # The homes of their inboxes hear of the users here. Raises MemoryError.
    cdef int tell_homes_of_users(self) except -1
    # The topic's authority is another one now, or has to be asked anew.
    cdef void move_topic(self, Topic* topic, int authority) noexcept
    cdef void ask_again(self, Topic* topic) noexcept
    cdef void hand_over(self, Topic* topic, int slot) noexcept
    cdef void hand_answers_over(self) noexcept
    cdef void arrive(self, int slot, Frame* frame) noexcept
    cdef void ask_mirrors(self, Topic* topic) noexcept
    # Another worker takes this one for a mirror of the topic, and is told when it is not.
    cdef void asked_whether_wanted(self, int slot, Frame* frame) noexcept
    cdef void store_arrived(self, Topic* topic, const Body* body, bint fresh) noexcept
    # The answer to an idempotency key of a topic that is at home here now.
    cdef void remember(self, Frame* frame) noexcept
    cdef void hold(self, int slot, const Frame* frame) noexcept
    cdef void take_held(self) noexcept
    cdef void stop_holding(self) noexcept
