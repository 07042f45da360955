"""Who may what; `permissions.pxd` is the contract."""

from libc.stdint cimport uint8_t

from realtime_communication._core.base.memory cimport Slice
from realtime_communication._core.hub.core cimport inbox_name
from realtime_communication._core.hub.session cimport PERMISSION_ADMIN, PERMISSION_WRITE, Patterns, patterns_match


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
