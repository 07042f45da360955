# Sessions of other workers on topics of this one.
#
# Rules: a container only. An attendee keeps its topic and its user; whoever removes it releases them.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint64_t

from realtime_communication._core.base.memory cimport Slice
from realtime_communication._core.base.table cimport Table, TableEntry
from realtime_communication._core.hub.session cimport Info
from realtime_communication._core.hub.topics cimport Topic
from realtime_communication._core.hub.users cimport Member, User


cdef struct Attendee:
    TableEntry entry             # keyed by the three below
    Topic* topic
    uint64_t id_high             # of the session
    uint64_t id_low
    Attendee* next               # of its topic
    Attendee* previous
    User* user
    Member* member               # it is counted in there; NULL while the topic is not at home here
    uint64_t joined_at           # milliseconds since the epoch
    Info* info                   # NULL: none
    uint8_t slot                 # of its worker
    bint entered                 # upstream, by this worker


cdef Attendee* attendee_find(const Table* attendees, Topic* topic, uint64_t id_high, uint64_t id_low) noexcept nogil
# One that is not there yet, and not counted in. NULL without memory.
cdef Attendee* attendee_add(Table* attendees, Topic* topic, User* user, uint64_t id_high,
                            uint64_t id_low) noexcept nogil
# A copy of what is shown of it; without memory nothing is.
cdef void attendee_describe(Attendee* attendee, Slice info) noexcept nogil
# Frees it; neither its topic nor its user is released.
cdef void attendee_remove(Table* attendees, Attendee* attendee) noexcept nogil
# Frees all without a look at what they belong to.
cdef void attendees_free(Table* attendees) noexcept nogil

# Empty when there is none.
cdef inline Slice attendee_info(const Attendee* attendee) noexcept nogil:
    cdef Slice out
    out.data = NULL
    out.size = 0
    if attendee.info != NULL:
        out.data = attendee.info.data
        out.size = attendee.info.size
    return out
