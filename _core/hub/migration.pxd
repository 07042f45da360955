# Open connections that move from one worker of the node to another, unseen by their clients.
#
# Rules: only a session at rest moves: it is open, on a plain socket, at a border between messages, with nothing that
# waits to be written, read or answered. What waits may be over in a moment, so whoever asks for sessions to be given
# asks again. A session is at one worker at a time; when the frame that carries it is lost, so is the connection.
#
# Theory: the giver hands out all that was published, and packs what belongs to the session (packing.pxd), which orders
# it has obeyed (orders.pxd) and how far it has come in its topics (places.pxd). The taker unpacks it, and answers when
# the session goes on in all topics.
#
# What is published meanwhile is made up for from the caches. Without `enable_caching` all workers are asked to cache
# for KEEP_MS; when a worker has said that it does, what it published before has arrived. Sessions go after that, for
# GIVE_MS. A worker that joins, and those it joins, do so from the start: topics may come to it while sessions are on
# their way that were given before it was there.
#
# A publication that was not answered keeps its session where it is, so that what it publishes next cannot overtake it.
# What a worker sent may still wait at its end of the bus, connections with it. So one that ends asks all others first
# (`call_others`), and goes when they have answered, which they do behind all that came before (`all_arrived`).
#
# The user counts as connected at the giver until the taker has answered, so that nobody is told that it is offline; and
# so does the connection where all workers share a limit.

from libc.stdint cimport uint64_t

from realtime_communication._core.base.memory cimport Slice
from realtime_communication._core.hub.orders cimport Orders
from realtime_communication._core.hub.peers cimport Frame
from realtime_communication._core.hub.session cimport Session


cdef class Migration(Orders):
    cdef list moving             # (slot, user) of sessions whose taker has not answered yet

    cdef uint64_t asked          # how often all workers were asked
    cdef uint64_t keepers        # a bit for each worker that answered since: it keeps what is published
    cdef uint64_t kept_until_ms  # how long that is relied on

    # Giving.
    cdef int give_any(self, int slot, int most) except -1
    cdef int give_some(self, int slot, int most, double share) except -1
    # False when the session stays.
    cdef bint give(self, Session* session, int slot) except -1
    # Whether what is published from now on can be made up for where a session arrives; asked for where it cannot.
    cdef bint all_is_kept(self) noexcept
    # Every linked worker is asked to keep what is published, and for an answer.
    cdef void ask_all(self) noexcept
    cdef bint is_at_rest(self, Session* session) noexcept
    cdef bytes packed(self, Session* session)
    # The session lives elsewhere now: it goes without a word to anybody.
    cdef void forget_moved(self, Session* session, int slot) noexcept
    # The worker in `slot` has the session of that user, or never will; `stays`: the user is still there.
    cdef void settle_moved(self, int slot, bytes user, bint stays) noexcept
    cdef bint is_moving(self, int slot, Slice user) noexcept
    # How many sessions of the user are on their way.
    cdef int count_moving(self, bytes user) noexcept

    # Taking.
    cdef bint take_session(self, int slot, int fd, Frame* frame) noexcept
    cdef int unpack(self, Session* session, Frame* frame) except -1
