# What belongs to a session, as bytes: for another worker of the node, which runs the same code.
#
# Rules: nothing of topics, users or sockets. Times travel as how long ago it was; flags that tell of work under way
# stay behind, because a session that is packed has none (migration.pxd). Nothing is believed of the bytes: what is cut
# off is no session. Roles go by their names, which the receiver's rules may give other bits, or none.

from libc.stdint cimport uint64_t

from realtime_communication._core.base.memory cimport Buffer
from realtime_communication._core.hub.peers cimport Frame
from realtime_communication._core.hub.session cimport Session
from realtime_communication._core.hub.topic_rules cimport TopicRules


# Raises MemoryError.
cdef int pack_session(Buffer* out, const Session* session, TopicRules rules, uint64_t now_ms) except -1
# Fills a fresh session in, and takes its bytes off the frame. What it was given until then is its own where this
# raises: MemoryError, ValueError for what is no session.
cdef int unpack_session(Session* session, Frame* frame, TopicRules rules, uint64_t now_ms) except -1
