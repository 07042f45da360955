# DirectMessage: a publication on the inbox of each user it names.
#
# Rules: one target that is refused refuses the message for all, before anything is published; so does a transform.
# Bytes of the request are borrowed; nothing here keeps them.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from realtime_communication._core.base.memory cimport Slice
from realtime_communication._core.hub.core cimport Core
from realtime_communication._core.hub.session cimport Patterns, Session
from realtime_communication._core.wire.envelope cimport Request


# A DirectMessage of a connection; an Outcome.
cdef int direct_message(Core core, Session* session, const Request* request) noexcept

# The steps of it, for one that comes over HTTP.
#
# 0, or the ErrorCode that it is refused with, and why.
cdef int check_targets(Core core, uint8_t permissions, uint64_t roles, const Patterns* patterns, const Request* request,
                       const char** message) noexcept
# Milliseconds after which one refused with `code` may be tried again, or NO_RETRY.
cdef int64_t retry_after(int code) noexcept nogil
# Overflow `block`: whether a session of one of the targets has no room.
cdef bint inboxes_full(Core core, const Request* request) noexcept
# Whether one of the inboxes arrives here, or is at home elsewhere.
cdef bint any_arriving(Core core, const Request* request) noexcept nogil
cdef bint any_elsewhere(Core core, const Request* request) noexcept nogil
# Sends it to all its targets, unless that was done before under its idempotency key; `delivered` and `offline` have
# room for all. `wait`: a consumer is full now. 0; -1 without memory, or a negative outcome of a transform, with nothing
# published.
cdef int send_once(Core core, Slice sender, const Request* request, Slice* delivered, uint32_t* delivered_count,
                   Slice* offline, uint32_t* offline_count, bint* wait) noexcept
