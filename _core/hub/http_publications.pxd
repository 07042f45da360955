# Broadcast and DirectMessage over HTTP: the body read, the sender's limits, the answer as a Python object.
#
# Rules: `identity` is the caller's, checked by the control plane. There is no connection to be read no further, so what
# would wait is refused, with the time after which it may be tried again.

from realtime_communication._core.base.memory cimport Slice
from realtime_communication._core.hub.core cimport Core


# Take one request from the limits of the user of this name and from the global one. Raises RequestError when one of the
# two is used up, with the time after which it may be tried again, and without memory.
cdef int take_request(Core core, Slice name) except -1

# A dict, or a Later that gives one. Both raise RequestError, the first one UndecidedError when somebody has to be asked
# whether the sender may; then the request comes again, `counted`: it was taken from the sender's limits.
cdef object publish_body(Core core, bytes body, object identity, bint counted)
cdef object send_body(Core core, bytes body, object identity)
