"""Who may what; `permissions.pxd` is the contract."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t

from realtime_communication._core.base.memory cimport Slice
from realtime_communication._core.hub.core cimport inbox_name
from realtime_communication._core.hub.session cimport (
    PERMISSION_ADMIN,
    PERMISSION_READ,
    PERMISSION_SUBSCRIBE,
    PERMISSION_WRITE,
    Patterns,
    Session,
    patterns_match,
    subscribe_patterns,
)
from realtime_communication._core.hub.users cimport User, user_id


cdef const char* forbidden_to_publish(uint8_t permissions, const Patterns* patterns, Slice topic,
                                      bint to_all) noexcept nogil:
    if not permissions & (PERMISSION_WRITE | PERMISSION_ADMIN):
        return b"the token lacks the permission write"
    if to_all:
        if not permissions & PERMISSION_ADMIN:
            return b"topic: only the role admin may publish to every connection"
        return NULL
    if is_reserved(topic):
        return b"topic: names that begin with @ or $ cannot be published on"
    if not permissions & PERMISSION_ADMIN and not patterns_match(patterns, topic):
        return b"topic: outside the topics that the token may publish on"
    return NULL


cdef bint may_send_to(uint8_t permissions, const Patterns* patterns, Slice user) noexcept nogil:
    """A message to `alice` is a publication on `@alice`, so the token's patterns have to allow that name."""
    cdef uint8_t place[256]
    return permissions & PERMISSION_ADMIN or patterns == NULL or patterns_match(patterns, inbox_name(user, place))


cdef inline bint may(const Session* session, int permission) noexcept nogil:
    return session.permissions & (permission | PERMISSION_ADMIN) != 0


cdef bint is_own_inbox(const Session* session, Slice topic) noexcept nogil:
    cdef Slice name = user_id(<User*> session.user)
    cdef size_t i
    if topic.size != name.size + 1 or topic.data[0] != b"@":
        return False
    for i in range(name.size):
        if topic.data[i + 1] != name.data[i]:
            return False
    return True


cdef const char* forbidden_to_subscribe(const Session* session, Slice topic) noexcept nogil:
    if not may(session, PERMISSION_SUBSCRIBE):
        return b"the token lacks the permission subscribe"
    if is_reserved(topic):
        return b"topic: names that begin with @ or $ cannot be subscribed to"
    if not session.permissions & PERMISSION_ADMIN and not patterns_match(subscribe_patterns(session), topic):
        return b"topic: outside the topics that the token may subscribe to"
    return NULL


cdef const char* forbidden_to_read(const Session* session, Slice topic) noexcept nogil:
    if not may(session, PERMISSION_READ):
        return b"the token lacks the permission read"
    if is_own_inbox(session, topic):
        return NULL
    if is_reserved(topic):
        return b"topic: names that begin with @ or $ cannot be read"
    if not session.permissions & PERMISSION_ADMIN and not patterns_match(subscribe_patterns(session), topic):
        return b"topic: outside the topics that the token may subscribe to"
    return NULL
