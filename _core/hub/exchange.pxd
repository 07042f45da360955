# What comes from other workers: each frame goes to where it is handled, and links come and go.
#
# Rules: bytes in by `receive_peer`. Whatever comes is checked: a frame that makes no sense is thrown away. A worker
# that is cut off has its requests refused, and its topics are asked about again when their authority is known.

from realtime_communication._core.hub.homes cimport Homes
from realtime_communication._core.hub.peers cimport Frame, Waiting


cdef const char* LOST            # the topic's home was lost before it answered


cdef class Exchange(Homes):
    cdef void take_frame(self, int slot, Frame* frame) noexcept
    # A message of a topic that is fed from there, or the place where its history goes on.
    cdef void take_feed(self, int slot, Frame* frame) noexcept
    # The answer to a request of this worker.
    cdef void take_answer(self, Waiting* waiting, Frame* frame) noexcept
    # Requests that nobody has answered in time are refused.
    cdef void expire_asked(self) noexcept
