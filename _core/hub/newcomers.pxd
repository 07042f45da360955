# Sockets whose peers have not authenticated: how many there are, how many of each site, and which are the oldest.
#
# Rules: nothing here raises, ends a session or reads a clock. A session is a newcomer from its accept until its peer
# has authenticated or the session is dead; whoever counts too many ends the oldest.
#
# Theory: a peer that means to come in does so within some round trips, one that only holds a place stays as long as it
# may. So the oldest newcomer is the one to make room, of all or of its site, and two lists in the order of arrival name
# it at once. A site is what one subscriber has addresses of: an IPv4 address, or an IPv6 network of 64 bits. Peers on
# this machine and on Unix sockets have none: they stand for everybody who comes through a proxy here.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t

from realtime_communication._core.base.memory cimport Slice
from realtime_communication._core.base.table cimport Table, TableEntry
from realtime_communication._core.hub.session cimport Session

cdef enum:
    SITE_BYTES = 8               # of the longest key


cdef enum Bound:                 # whether the newcomers of a site are bounded
    BOUND_UNKNOWN = 0            # nobody has asked yet
    BOUND_YES = 1
    BOUND_NO = 2                 # it is a proxy that brings the newcomers of others


cdef enum:                       # the lines that a newcomer stands in
    LINE_OF_ALL = 0
    LINE_OF_SITE = 1
    LINES = 2


cdef struct Line:                # newcomers in the order of their arrival
    size_t count
    Newcomer* oldest
    Newcomer* newest


cdef struct Site:                # where newcomers are from; there as long as one is
    TableEntry entry
    Line line
    uint8_t bound                # Bound
    uint8_t key[SITE_BYTES]


cdef struct Newcomer:
    Session* session
    Site* site                   # NULL: none
    Newcomer* next[LINES]        # the next younger one in each line
    Newcomer* previous[LINES]


cdef struct Newcomers:
    Line line
    Table sites


cdef void newcomers_init(Newcomers* newcomers) noexcept nogil
# Counts a session in, from the peer at `address`: 4 or 16 bytes in network order, or none. The session's own from then
# on. NULL without memory: it is not counted.
cdef Newcomer* newcomer_add(Newcomers* newcomers, Session* session, Slice address) noexcept nogil
# Counts it out, and frees it; nothing for a session that is none.
cdef void newcomer_remove(Newcomers* newcomers, Session* session) noexcept nogil
