# What a session that watches who is present believes, and how it goes on to do so at another worker.
#
# Rules: the client of a session that moves is told of nobody twice, and of everybody who came or went meanwhile, so
# that what it believes is true again. Somebody who came and went within that moment is not told of.
#
# Theory: the giver packs whom the session was told of (`Member.shown`). The taker has the topic's home show all who are
# present once more; everything of one answer lies side by side on the link, so when its end comes the taker knows what
# the home knew at one moment, tells the session what is different, and the session watches from there on. At the home
# itself that moment is now. With an upstream the home does the same with the roster of all nodes.
#
# A session with more beliefs than ROSTER_BYTES does not move.

from libc.stddef cimport size_t
from libc.stdint cimport uint64_t

from realtime_communication._core.base.memory cimport Buffer
from realtime_communication._core.hub.peers cimport Frame
from realtime_communication._core.hub.questions cimport Questions
from realtime_communication._core.hub.session cimport Session
from realtime_communication._core.hub.topics cimport Subscription, Topic
from realtime_communication._core.hub.users cimport Member


cdef enum:
    ROSTER_BYTES = 65536         # of one session


cdef class Beliefs(Questions):
    cdef dict doubting           # topic -> [[subscription's address, serial, {user: session}, since]], not watching yet
    cdef dict described_there    # topic -> {user: (session, info)} of those shown since, while somebody doubts

    # Bytes that the beliefs of a session take; 0 for one that watches nothing.
    cdef size_t roster_size(self, Session* session) noexcept
    # Whom a subscription was told of, and the opposite: {user: (id_high, id_low)}. Raise MemoryError, ValueError.
    cdef int pack_roster(self, Buffer* out, Topic* topic) except -1
    cdef dict unpack_roster(self, Frame* frame)
    # Whether the beliefs of a session that came are still to be compared.
    cdef bint is_doubting(self, Subscription* subscription) noexcept
    # The subscription watches from now on, or from when the home has shown who is there; `watch_resumed` is told.
    cdef void resume_watch(self, Subscription* subscription, dict believed) noexcept
    # Compares where it can be done now; `late`: with what there is.
    cdef void compare(self, Topic* topic, bint late) noexcept
    cdef int compare_one(self, Topic* topic, list doubt, bint late) except -1
    cdef int tell_difference(self, Session* session, Topic* topic, dict believed) except -1
    cdef void ask_who_is_there(self, Topic* topic) noexcept
    cdef void end_doubts(self, Topic* topic, Subscription* subscription) noexcept

    # Hook: the session watches, or has gone.
    cdef void watch_resumed(self, Session* session, uint64_t serial) noexcept
