# History: a page of a topic's messages, before or after a position.
#
# Rules: a position of another epoch counts as none, and the page's own epoch tells. A page may hold fewer messages than
# it was asked for, never more bytes than REPLY_BYTES; pages together are the whole.

from libc.stdint cimport uint64_t

from realtime_communication._core.hub.core cimport Core
from realtime_communication._core.hub.peers cimport Frame
from realtime_communication._core.hub.session cimport Session
from realtime_communication._core.hub.topics cimport Topic
from realtime_communication._core.wire.envelope cimport Request


# An Outcome.
cdef int history(Core core, Session* session, const Request* request) noexcept
# The page that another authority has answered with; `bodies` holds nothing but bodies behind their sizes, the first
# with the offset `first`.
cdef void history_answered(Core core, Session* session, const Request* request, uint64_t epoch, uint64_t offset,
                           Frame* bodies, uint64_t first) noexcept
# The offsets of a HistoryPage; none when first > last.
cdef void page_range(const Topic* topic, bint has_position, uint64_t epoch, uint64_t offset, uint64_t limit,
                     bint reverse, uint64_t* first, uint64_t* last) noexcept nogil
