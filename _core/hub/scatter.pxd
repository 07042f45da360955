# A DirectMessage whose inboxes are at home on several workers: sent to each home, answered when all have answered.
#
# Rules: each inbox named twice gets it once. The group has one entry an inbox and lives until the last answer; one
# inbox that could not be reached fails the whole request, which may be sent again under its idempotency key.

from libc.stdint cimport uint32_t

from realtime_communication._core.base.memory cimport Slice
from realtime_communication._core.hub.core cimport Core
from realtime_communication._core.hub.peers cimport Group
from realtime_communication._core.hub.relay cimport Later
from realtime_communication._core.hub.session cimport Session
from realtime_communication._core.wire.envelope cimport Request


# The reply goes out with the last answer, over HTTP (`session` is NULL) by `later`. 0, or negative: nothing was sent.
cdef int send_spread(Core core, Session* session, Slice sender, const Request* request, Later later) noexcept
# One more inbox of the group has its answer; with the last one the reply goes out, and the group is freed. `session` is
# NULL when it has gone, `later` None unless the request came over HTTP.
cdef void group_answered(Core core, Session* session, Group* group, const Request* request, Later later) noexcept
# The user ids, for an answer over HTTP.
cdef list names(const Slice* items, uint32_t count)
