# What operators want of a user's sessions: to subscribe, to unsubscribe, to go. Also of those that are on their way
# from one worker to another just then, which no worker has.
#
# Rules: every worker of the node is told of every order, and remembers it for a while. A session obeys each order once:
# where it was when its worker was told, or where it has arrived. It brings along which orders it has obeyed, so that an
# order that its old worker was told before, and its new one after it came, is not carried out a second time over what
# the client has done since.

from libc.stdint cimport uint64_t

from realtime_communication._core.base.memory cimport Buffer
from realtime_communication._core.hub.peers cimport Frame
from realtime_communication._core.hub.places cimport Places
from realtime_communication._core.hub.session cimport Session


cdef class Orders(Places):
    cdef object sent_away        # deque of (when, session id, user, login, code, reason): who was told to go of late
    cdef object given            # deque of (when, order, user, topic, whether to subscribe)
    cdef object obeyed           # deque of (when, order, serial) of sessions that had obeyed it before they came

    # Whoever matches all that is not None was told to go; that is for those on their way here, too.
    cdef void note_disconnect(self, object named, object user, object login, int code, bytes reason) noexcept
    # Closes a session that was to be closed while it was on its way.
    cdef bint is_sent_away(self, Session* session, bytes user) noexcept

    # Subscribes the user's sessions, or unsubscribes them; how many are, or were. `order` names what is wanted at all
    # workers, 0: there are no others. Raises RequestError for a topic that is not to be had, MemoryError.
    cdef int order_user(self, bytes user, str topic, bint subscribes, uint64_t order) except -1
    cdef bint obey(self, Session* session, bytes topic, bint subscribes) except -1
    cdef bint has_obeyed(self, Session* session, uint64_t order) noexcept
    # The orders that a session has obeyed. Raise MemoryError, and ValueError for what are none.
    cdef int pack_orders(self, Buffer* out, Session* session) except -1
    cdef int unpack_orders(self, Session* session, Frame* frame) except -1
