# How far a session that moves to another worker has come in each of its topics, and how it goes on from there.
#
# Theory: the giver notes for each topic of the session (those it subscribes to, its inbox and the topic of all
# connections) how far it has come. The taker goes on from there: with what its own mirror of the topic has cached, or,
# when that stands elsewhere, with what the topic's authority answers to that position. All that an authority sends a
# worker travels in order, so after its answer the mirror is where the answer says. Until all topics are settled the
# session is not read. What cannot be filled in is told, as always, with `Lagged{recovered: false}`.

from libc.stdint cimport uint8_t, uint64_t

from realtime_communication._core.base.memory cimport Buffer, Slice
from realtime_communication._core.hub.beliefs cimport Beliefs
from realtime_communication._core.hub.message cimport Message
from realtime_communication._core.hub.peers cimport Frame, Waiting
from realtime_communication._core.hub.session cimport Session
from realtime_communication._core.hub.topics cimport Subscription, Topic


cdef struct Place:               # how far a session has come in a topic
    uint64_t epoch
    uint64_t offset
    uint64_t joined_at
    uint64_t serial              # of the session, once it is here
    uint8_t watching


cdef class Places(Beliefs):
    # serial -> [slot, user, places not settled yet, {topic: roster}] of sessions whose giver waits.
    cdef dict arriving

    # Whether it is known how far the session has come in all its topics; what is not is asked for.
    cdef bint has_places(self, Session* session) noexcept
    cdef bint has_place(self, Topic* topic) noexcept
    # All topics of a session, to the end of the frame. Raise MemoryError, and ValueError for what are none.
    cdef int pack_places(self, Buffer* out, Session* session) except -1
    cdef int unpack_places(self, Session* session, Frame* frame) except -1
    # One of the places counted in `arriving` is settled; `session` is NULL when it is gone.
    cdef void place_ended(self, Session* session, uint64_t serial) noexcept
    # The session goes on in a topic from that place, now or when the topic's authority has answered.
    cdef void resume_place(self, Session* session, Topic* topic, const Place* place) noexcept
    # Whether it could go on with what is here.
    cdef bint resumed_here(self, Session* session, Topic* topic, const Place* place) noexcept
    cdef void ask_place(self, Waiting* waiting, Topic* topic) noexcept
    cdef void give_message(self, Session* session, Topic* topic, const Message* message) noexcept
    # Subscribes the session behind what it was given; NULL without memory.
    cdef Subscription* rejoin(self, Session* session, Topic* topic, const Place* place) noexcept
    # The same where there is a gap, which the client is told, and how many messages it is within an epoch.
    cdef void rejoin_lost(self, Session* session, Topic* topic, const Place* place) noexcept

    # Hooks: an open session has settled everywhere, `entry` is what `arriving` had of it; its giver waits to hear so.
    cdef void arrived(self, Session* session, list entry) noexcept
    cdef void tell_migrated(self, int slot, Slice user) noexcept
