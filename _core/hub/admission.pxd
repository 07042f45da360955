# Who may ask how often: a request takes a token from every bucket it is under, or is refused.
#
# Rules: a refused request has taken nothing. A connection that goes on breaking its own limits is abusive; the limit of
# the whole server is nobody's fault. Where there are other workers, a user's limit and the server's are those of all of
# them (shared_limits.pxd).

from libc.stdint cimport int64_t

from realtime_communication._core.hub.core cimport Core
from realtime_communication._core.hub.session cimport Session
from realtime_communication._core.hub.users cimport User


cdef struct Refusal:             # why a limit refused a request
    int64_t retry_after_ms
    const char* scope
    bint abusive                 # the connection goes on breaking its limits


# Takes a token from every bucket a request is under. True when all had one.
cdef bint admit(Core core, Session* session, int type, Refusal* refusal) noexcept nogil
# The same for a request that came over HTTP.
cdef bint admit_user(Core core, User* user, Refusal* refusal) noexcept nogil
