# Consumers that are full, told between the workers of a node, so that they hold publishers on every worker: under
# overflow `block` the publishers of all topics, under `backpressure` the senders of direct messages.
#
# Rules: a worker that mirrors a topic tells its home when its first consumer of it is full, and when none is any more;
# the home tells all workers when the first of them is, or its own, and when none is. Told is what changed, once a
# turn. A worker keeps what its home said with the topic (`full_at`), which lives as long as that is so. Publications
# that are under way meanwhile are taken: only a few turns' worth.

from realtime_communication._core.hub.core cimport Core
from realtime_communication._core.hub.peers cimport Frame
from realtime_communication._core.hub.topics cimport Topic


# Whether a worker's consumer is full, this one's or another one's.
cdef inline bint throttle_holds(const Topic* topic) noexcept nogil:
    return topic.full != 0 or topic.full_at != 0

# Tells what has changed since the last turn.
cdef void throttle_flush(Core core) noexcept
# A FRAME_FULL has come from a worker.
cdef void throttle_take(Core core, int slot, Frame* frame) noexcept
# The sender of a publication should have known: it is told again.
cdef void throttle_remind(Core core, int slot, const Topic* topic) noexcept
# A worker has come that was told nothing yet; one has gone, and holds nobody any more. Of each topic.
cdef void throttle_peer_joined(Core core, int slot, Topic* topic) noexcept
cdef void throttle_peer_left(Core core, int slot, Topic* topic) noexcept
# The topic has another authority, which was told nothing yet.
cdef void throttle_moved(Core core, Topic* topic) noexcept
