# The asking side of topics that are not at home here: requests become frames for another worker, or items for the
# upstream, and wait for their answer under a token (peers.pxd). asked.pyx has the answering side.
#
# Rules: a Broadcast or DirectMessage does not hold its connection up: the Ack comes when it comes. A Subscribe or a
# History does: its bytes are parked with the session, which is not read until the answer is here (OUTCOME_ASKED), so
# that what follows it finds it done.

from libc.stdint cimport int64_t, uint8_t, uint64_t

from realtime_communication._core.base.memory cimport Slice
from realtime_communication._core.hub.core cimport Core
from realtime_communication._core.hub.peers cimport Frame, Waiting
from realtime_communication._core.hub.session cimport Session
from realtime_communication._core.hub.topics cimport Topic
from realtime_communication._core.wire.envelope cimport Request


cdef class Later:
    cdef readonly bint settled
    cdef object value
    cdef object error
    cdef object callback

    cpdef settle(self, object value, object error)


# One publication on its way. `key` is b"" or an idempotency key with its scope. 0; -1 without memory or with too much
# waiting for that worker.
cdef int relay_publish(Core core, int authority, Slice topic, int kind, Slice sender, Slice payload, int encoding,
                       uint64_t excluded, bytes key, uint64_t token) noexcept
# The same for one that came from a worker, whose body is what is left of `frame`.
cdef int relay_bytes(Core core, int authority, const Waiting* waiting, const Frame* frame, bytes key) noexcept
# A Broadcast whose topic is not at home here; an Outcome. It was let in.
cdef int relay_broadcast(Core core, Session* session, const Request* request, int authority, bytes key) noexcept
# The same over HTTP: a Later, or None without memory.
cdef Later relay_body(Core core, Slice sender, const Request* request, int authority, bytes key)
# The position and wishes of a Subscribe, or a History, go out; `waiting` is its place. 0, or -1.
cdef int relay_subscribe(Core core, Waiting* waiting, bint has_position, uint64_t epoch, uint64_t offset,
                         int64_t history) noexcept
cdef int relay_history(Core core, Waiting* waiting, bint has_position, uint64_t epoch, uint64_t offset, int64_t limit,
                       bint reverse) noexcept
# The session's request waits for its topic's authority. An Outcome.
cdef int ask_subscribe(Core core, Session* session, const Request* request, Topic* topic) noexcept
# The same for a subscription that an administrator gives the session, which is not held up.
cdef int ask_given(Core core, Session* session, Topic* topic) noexcept
cdef int ask_history(Core core, Session* session, const Request* request, Topic* topic, int64_t limit) noexcept
# Asks where the topic stands, for those who are subscribed already; without memory `unsynced` has it asked again.
cdef void ask_sync(Core core, Topic* topic) noexcept
# Nobody needs the topic's feed any more.
cdef void end_feed(Core core, Topic* topic) noexcept
# Nobody is left here who has this inbox: to who comes next it is as one that was never here.
cdef void forget_inbox(Core core, Topic* inbox) noexcept
# Whether anybody does.
cdef bint is_used(Core core, const Topic* topic) noexcept nogil
# Whoever feeds the inbox of a session that was attached hears of it, and is asked to say when it is fed. False: it is
# already, or nobody can be asked.
cdef bint ask_welcome(Core core, Session* session) noexcept
# A user's first session here, or the last one gone.
cdef void user_here(Core core, Slice user, bint here) noexcept
# The users of an inbox at home here were or were not on this node, and are or are not now.
cdef void tell_upstream_of_user(Core core, Topic* inbox, bint here) noexcept
# The number behind an epoch's text, 0 when it is none.
cdef uint64_t epoch_number(Slice text) noexcept nogil
# The request that a waiting one answers, as far as a reply needs it.
cdef void request_of(const Waiting* waiting, Request* out) noexcept nogil
