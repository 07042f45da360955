# What stands above this node and gives the offsets of its topics, Redis as a rule, as seen from the hub: items go out,
# answers and feeds come in, all of it through Python, since it crosses a network in batches anyway.
#
# Rules: the upstream does what it is asked in the order it is asked, topic by topic. An answer may come before the feed
# has got to where it says the topic stands; it is held until then. While the upstream is away its topics are served
# here, and what is published waits for it, up to a bound.

from libc.stdint cimport uint64_t

from realtime_communication._core.hub.exchange cimport Exchange
from realtime_communication._core.hub.topics cimport Topic


cdef class Upstream(Exchange):
    cdef object upward_notify    # tells the upstream that there are items
    cdef bint upward_told
    cdef dict held               # topic -> answers that wait for its feed to get there

    # Tells the upstream of new items, once in a turn.
    cdef void notify_upstream(self) noexcept
    # The cached messages behind `offset`, as bodies.
    cdef bytes stored_after(self, Topic* topic, uint64_t offset)
