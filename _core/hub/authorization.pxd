# Requests that somebody outside has to allow: asked once, then as `verdicts.pxd` remembers.
#
# Rules: he is asked after the token and the rules of topics have allowed the request, and never about the role admin or
# the user's own inbox. While he is asked the request waits, parked, and what its connection has sent behind it waits
# too; no other connection does. An answer starts the request anew.

from libc.stdint cimport uint64_t, uint8_t

from realtime_communication._core.base.memory cimport Slice
from realtime_communication._core.hub.core cimport Core
from realtime_communication._core.hub.session cimport Session
from realtime_communication._core.wire.envelope cimport Request


cdef enum:
    AUTHORIZED = -1              # in place of an Outcome: go on
    ASK_RETRY_MS = 1000          # told when too many are asked about at once


# Whether the session may do the request's act: AUTHORIZED, or the Outcome, with the Error sent where there is one. To
# be called where core.verdicts is not None.
cdef int authorize(Core core, Session* session, const Request* request, int act) noexcept
# A Verdict on somebody who is no session; nobody is asked.
cdef int verdict_on(Core core, int act, uint8_t permissions, Slice user, Slice topic) noexcept
# The answer, remembered for so many milliseconds; the tokens of those who wait for it. Raises MemoryError.
cdef object settle_verdict(Core core, int act, bytes user, bytes topic, bint allowed, uint64_t ttl_ms)
# The session that waited under that token, and waits no more; NULL when it has gone.
cdef Session* take_waiting(Core core, uint64_t token) noexcept
