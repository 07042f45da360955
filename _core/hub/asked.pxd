# What other workers ask about topics that are at home here, or whose upstream this worker speaks to.
#
# Rules: every request is answered or refused, now or when the authority it was passed on to has said so. One that comes
# for a topic with another home by now is passed on (a publication) or refused with CODE_MOVED (feed.pxd).

from libc.stdint cimport uint64_t

from realtime_communication._core.hub.answers cimport Answers
from realtime_communication._core.hub.peers cimport Body, Frame, Waiting


cdef class Asked(Answers):
    cdef void asked_to_publish(self, int slot, Frame* frame) noexcept
    # A publication goes on to the topic's authority. Raises MemoryError, with nobody told.
    cdef int pass_on(self, int slot, Frame* frame, int authority, bytes key) except -1
    # Publishes here for it, and answers. Raises MemoryError, with nobody told.
    cdef int publish_for(self, int slot, Frame* frame, const Body* body, bytes key) except -1
    cdef void asked_to_subscribe(self, int slot, Frame* frame) noexcept
    cdef void asked_to_unsubscribe(self, int slot, Frame* frame) noexcept
    cdef void asked_for_history(self, int slot, Frame* frame) noexcept
    # Whether somebody's inbox is fed, which it is from now on.
    cdef void asked_for_inbox(self, int slot, Frame* frame) noexcept
    # The place of a request that is passed on to another authority; NULL without memory.
    cdef Waiting* relay_waiting(self, int slot, const Frame* frame, int authority) noexcept
