# Messages of the past behind the head of a reply: those of a topic's own cache, or those that another home sent.
#
# Rules: a session gets what its encoding can read. The head says how many there are, so it is counted before it is
# written; a reply has at most REPLY_BYTES of payload.

from libc.stdint cimport uint32_t, uint64_t

from realtime_communication._core.hub.core cimport Core
from realtime_communication._core.hub.peers cimport Body, Frame
from realtime_communication._core.hub.session cimport Session
from realtime_communication._core.hub.topics cimport Topic
from realtime_communication._core.wire.envelope cimport Request


# Whether the payloads of the cached messages first..last together are within the bound of one reply.
cdef bint fits(const Topic* topic, uint64_t first, uint64_t last) noexcept nogil
# How many of the cached messages first..last the session can be given.
cdef uint32_t readable(
    Core core, const Session* session, const Topic* topic, uint64_t first, uint64_t last
) noexcept nogil
# Writes them behind a head, ends the list and sends it; `in_order`: behind the messages that wait.
cdef void send_stored(Core core, Session* session, const Request* request, const Topic* topic, uint64_t first,
                      uint64_t last, bint reverse, bint in_order) noexcept

# The same of bodies behind their sizes, the first with the offset `first`.
cdef uint32_t readable_bodies(Core core, const Session* session, const Frame* bodies) noexcept nogil
cdef void send_bodies(Core core, Session* session, const Request* request, Frame* bodies, uint64_t first, bint reverse,
                      bint in_order) noexcept
# One of them, taken from the front; False when there is no more.
cdef bint next_body(Frame* bodies, Body* out) noexcept nogil
