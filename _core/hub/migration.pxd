# Open connections that move from one worker of the node to another, unseen by their clients.
#
# Rules: only a session at rest moves: it is open, on a plain socket, at a border between messages, with nothing that
# waits to be written, read or answered. What waits may be over in a moment, so whoever asks for sessions to be given
# asks again. A session is at one worker at a time; when the frame that carries it is lost, so is the connection.
#
# Theory: the giver hands out all that was published, and notes for each topic of the session (those it subscribes to,
# its inbox and the topic of all connections) how far it has come. The taker goes on from there: with what its own
# mirror of the topic has cached, or, when that stands elsewhere, with what the topic's authority answers to that
# position. All that an authority sends a worker travels in order, so after its answer the mirror is where the answer
# says. Until all topics are settled the session is not read. What cannot be filled in is told, as always, with
# `Lagged{recovered: false}`.
#
# A publication that was not answered keeps its session where it is, so that what it publishes next cannot overtake it.
# The user counts as connected at the giver until the taker has answered, so that nobody is told that it is offline; and
# so does the connection where all workers share a limit.

from libc.stdint cimport uint8_t, uint64_t

from realtime_communication._core.base.memory cimport Slice
from realtime_communication._core.hub.message cimport Message
from realtime_communication._core.hub.peers cimport Frame, Waiting
from realtime_communication._core.hub.session cimport Session
from realtime_communication._core.hub.topics cimport Subscription, Topic
from realtime_communication._core.hub.questions cimport Questions


cdef struct Place:               # how far a session has come in a topic
    uint64_t epoch
    uint64_t offset
    uint64_t joined_at
    uint64_t serial              # of the session, once it is here
    uint8_t watching


cdef class Migration(Questions):
    cdef list moving             # (slot, user) of sessions whose taker has not answered yet
    cdef dict arriving           # serial -> [slot, user, places not settled yet] of sessions whose giver waits
    cdef object sent_away        # deque of (when, session id, user, login, code, reason): who was told to go of late

    # Giving.
    cdef bint is_at_rest(self, Session* session) noexcept
    # Whether it is known how far the session has come in all its topics; what is not is asked for.
    cdef bint has_places(self, Session* session) noexcept
    cdef bint has_place(self, Topic* topic) noexcept
    cdef bytes packed(self, Session* session)
    # The session lives elsewhere now: it goes without a word to anybody.
    cdef void forget_moved(self, Session* session, int slot) noexcept
    # The worker in `slot` has the session of that user, or never will; `stays`: the user is still there.
    cdef void settle_moved(self, int slot, bytes user, bint stays) noexcept
    cdef bint is_moving(self, int slot, Slice user) noexcept

    # Taking.
    cdef bint take_session(self, int slot, int fd, Frame* frame) noexcept
    cdef int unpack(self, Session* session, Frame* frame) except -1
    cdef int unpack_places(self, Session* session, Frame* frame) except -1
    # Whoever matches all that is not None was told to go; that is for those on their way here, too.
    cdef void note_disconnect(self, object named, object user, object login, int code, bytes reason) noexcept
    cdef bint is_sent_away(self, Session* session, bytes user) noexcept
    # The giver need not speak for the user any longer.
    cdef void tell_migrated(self, int slot, Slice user) noexcept
    cdef void place_ended(self, uint64_t serial) noexcept
    cdef void give_message(self, Session* session, Topic* topic, const Message* message) noexcept
    # The session goes on in a topic from that place, now or when the topic's authority has answered.
    cdef void resume_place(self, Session* session, Topic* topic, const Place* place) noexcept
    # Whether it could go on with what is here.
    cdef bint resumed_here(self, Session* session, Topic* topic, const Place* place) noexcept
    cdef void ask_place(self, Waiting* waiting, Topic* topic) noexcept
    # Subscribes the session behind what it was given; NULL without memory.
    cdef Subscription* rejoin(self, Session* session, Topic* topic, const Place* place) noexcept
    # The same where there is a gap, which the client is told.
    cdef void rejoin_lost(self, Session* session, Topic* topic, const Place* place) noexcept
