# What happens here that somebody outside wants to hear of: users who connect and disconnect, topics that get their
# first subscriber and lose their last one.
#
# Rules: nothing is noted, and nothing looked at, that nobody asked for. What is noted waits until it is taken, up to
# MOST_NOTICES; what is beyond is counted. A connection that moves to another worker neither ends nor begins.
#
# Theory: whether a topic is occupied is known at its home, where the subscribers of all workers are counted, and it
# alone tells. A change is not told when it happens but looked at a little later, and told when it is true then: an end
# after VACANT_MS, so that a client that comes back leaves no trace. What was told goes along when the home moves.

from libc.stdint cimport uint64_t

from realtime_communication._core.hub.handover cimport Handover
from realtime_communication._core.hub.session cimport Session
from realtime_communication._core.hub.topics cimport Topic


cdef enum NoticeBit:
    NOTICE_CONNECT = 1
    NOTICE_DISCONNECT = 2
    NOTICE_OCCUPIED = 4
    NOTICE_VACATED = 8
    NOTICE_TOPICS = 12           # either of them


cdef enum:
    MOST_NOTICES = 10000         # that wait to be taken
    VACANT_MS = 2000             # for which a topic has no subscriber before that is told
    SETTLED_MS = 1000            # after homes have changed, before a home tells anything


cdef class Notices(Handover):
    cdef int noticing            # NoticeBits
    cdef list noticed            # tuples, oldest first
    cdef uint64_t unnoticed      # that found no room since they were last taken
    cdef object notice_wake      # told that there is something to take
    cdef bint notice_told        # it was, since they were last taken
    cdef set occupied            # names of topics that are told to be
    cdef dict soon               # names to be looked at with the next tick
    cdef dict late               # name -> when it is looked at, in monotonic ms; earliest first
    cdef uint64_t settled_ms     # when homes have settled after a change

    # Names of the topics at home here that somebody on this node is subscribed to. Raises MemoryError.
    cdef list names_of_occupied(self)
    cdef void add_notice(self, tuple notice) noexcept
    cdef void notice_session(self, str kind, Session* session) noexcept
    # Whoever takes the notices is told that there are some.
    cdef void tell_notices(self) noexcept
    # Somebody may have been the first on a topic, or the last.
    cdef void note_topic(self, Topic* topic) noexcept
    # A tick is wanted soon.
    cdef bint looks_ahead(self) noexcept
    cdef void look_at_topics(self) noexcept
    cdef void judge(self, bytes name, bint vacated) noexcept
    # The home of a topic that is told to be occupied is another worker now.
    cdef void pass_occupied(self, bytes name, int slot) noexcept
