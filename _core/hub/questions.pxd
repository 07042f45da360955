# Who asks about a topic, and not to be subscribed to it: Presence from sessions, from other workers and over HTTP, and
# History over HTTP.
#
# Rules: what the home of a topic knows is answered at once; else the question waits for its answer (peers.pxd). The
# sessions of an inbox are told to nobody, so that the workers are asked one after the other, each for its own. The
# control plane has checked who asks over HTTP.

from libc.stdint cimport uint64_t

from realtime_communication._core.base.memory cimport Buffer, Slice
from realtime_communication._core.hub.notices cimport Notices
from realtime_communication._core.hub.peers cimport Frame, Waiting
from realtime_communication._core.hub.relay cimport Later
from realtime_communication._core.hub.topics cimport Topic


cdef class Questions(Notices):
    # The sessions on a topic at home here, as FRAME_PRESENT has them. -1 without memory, or when they are too many.
    cdef int list_present(self, Topic* topic, Buffer* out) noexcept
    # The user's sessions at this worker, in the same form. -1 likewise.
    cdef int list_inbox(self, Slice topic, Buffer* out) noexcept
    # Who is to be asked first: AUTHORITY_HERE when this worker knows it all.
    cdef int presence_authority(self, Slice topic) noexcept
    # AUTHORITY_WORKER + the first linked slot from that one on, AUTHORITY_HERE when there is none.
    cdef int linked_from(self, int slot) noexcept nogil
    # Another worker has told of an inbox: whether there is one more to ask, or the answer is that it cannot be had.
    cdef bint gather(self, Waiting* waiting, Slice members) noexcept
    # 0; -1 without memory.
    cdef int send_question(self, Waiting* waiting) noexcept
    cdef void asked_for_presence(self, int slot, Frame* frame) noexcept
    cdef void answer_present(self, int slot, uint64_t token, Slice members) noexcept
    cdef void present_settled(self, Waiting* waiting, Slice members) noexcept
    cdef Later later_of(self, Waiting* waiting)
    cdef dict page_here(self, Topic* topic, bint has_position, uint64_t epoch, uint64_t offset, int limit,
                        bint reverse)
