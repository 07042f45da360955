# What a token allows: which topics its bearer may publish on, subscribe to and read, and to whom it may send.
#
# Rules: the role admin may all that anybody may. Names that begin with @ or $ are the server's own, whatever the token
# says. A refusal is a message for people, NULL is none.

from libc.stdint cimport uint8_t

from realtime_communication._core.base.memory cimport Slice
from realtime_communication._core.hub.session cimport Patterns, Session


# Names that only the server publishes on: inboxes and system topics.
cdef inline bint is_reserved(Slice topic) noexcept nogil:
    return topic.data[0] == b"@" or topic.data[0] == b"$"


# `to_all`: on the topic of every connection.
cdef const char* forbidden_to_publish(uint8_t permissions, const Patterns* patterns, Slice topic,
                                      bint to_all) noexcept nogil
# A message to `alice` is a publication on `@alice`, so the token's patterns have to allow that name.
cdef bint may_send_to(uint8_t permissions, const Patterns* patterns, Slice user) noexcept nogil
# A session may always read its own inbox.
cdef const char* forbidden_to_subscribe(const Session* session, Slice topic) noexcept nogil
cdef const char* forbidden_to_read(const Session* session, Slice topic) noexcept nogil
