# How full the mailboxes of a worker are: how many connections have how much waiting for them, and which have most.
#
# Rules: one walk over the sessions, made when somebody asks; nothing is kept or counted while messages move.

from libc.stdint cimport uint32_t, uint64_t

from realtime_communication._core.hub.session cimport Session


cdef enum:
    DEPTHS = 16                  # steps in which depths are told: none, 1, 2 to 3, 4 to 7, …, and from 2^14 on
    MOST_SLOWEST = 1000          # connections that are told as the slowest ones


# Walks the list that begins at `session`, over those that are counted as connections. `depths` gets DEPTHS numbers;
# `slowest` has room for `limit` + 1, and gets the `count` with most waiting, most first, none without anything.
cdef void survey(Session* session, uint64_t* depths, Session** slowest, uint32_t limit, uint32_t* count) noexcept nogil
