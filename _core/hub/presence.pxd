# Presence: who is subscribed to a topic, asked once. Joins and leaves are told by the core and watchers.pyx.
#
# Rules: everybody is named, but beyond REPLY_BYTES nobody is described.

from libc.stdint cimport uint64_t

from realtime_communication._core.base.memory cimport Slice
from realtime_communication._core.hub.core cimport Core
from realtime_communication._core.hub.peers cimport Frame
from realtime_communication._core.hub.session cimport Session
from realtime_communication._core.wire.envelope cimport Request


cdef struct Present:             # a session on a topic, wherever it is connected
    uint64_t id_high
    uint64_t id_low
    uint64_t joined_at           # milliseconds since the epoch
    Slice user
    Slice info                   # a JSON object; empty: none


# An Outcome.
cdef int presence(Core core, Session* session, const Request* request) noexcept
# PresenceState of the sessions in `members`, as FRAME_PRESENT has them.
cdef void presence_answered(Core core, Session* session, const Request* request, Frame* members) noexcept
# One of them, taken from the front; False when there is no more.
cdef bint next_present(Frame* members, Present* out) noexcept nogil
