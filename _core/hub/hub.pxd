# The hub of one worker: its settings, its turns and its clock.
#
# Rules: a driver opens sessions, feeds them, says when they end, and calls `end_turn` after each batch of input and
# `tick` when `next_deadline` has come. Sessions are freed only in `end_turn`, so pointers stay good within a turn. The
# hub reads no clock: drivers set it with `set_time`.
#
# Theory: input makes requests (dispatch), requests make publications and replies (requests, core, outbox), and all of
# it waits in mailboxes until the end of the turn, when each session with something to say is written once.

from libc.stdint cimport int64_t, uint64_t

from realtime_communication._core.hub.control cimport Control
from realtime_communication._core.hub.session cimport Session
from realtime_communication._core.hub.settings cimport Settings
from realtime_communication._core.hub.topic_rules cimport TopicRules


cdef class Hub(Control):
    cdef uint64_t forgotten_ms   # when the cache was last looked through
    cdef bint configured

    cdef void set_time(self, uint64_t now_ms, uint64_t wall_ms) noexcept nogil
    # Hands out and writes everything, then frees what has died. When the driver has said when the turn is over
    # (`over_ms`, dispatch.pxd), it may end before all is written: consumers that read what they missed from the cache
    # have something to be told for as long as they take it. The rest is the next turn's.
    cdef void end_turn(self) noexcept
    # Writes these and who follows them in the list. False: the time is over; the rest is first the next time.
    cdef bint write_some(self, Session* session) noexcept
    # Whether a turn has left something for the next one.
    cdef bint has_more_to_say(self) noexcept
    # Does what is due by the clock.
    cdef void tick(self) noexcept
    # Milliseconds until `tick` has something to do, -1 for never.
    cdef int64_t next_deadline(self) noexcept

    # Other rules of topics; sessions keep those of their roles that both know.
    cdef int use_rules(self, TopicRules rules) except -1
    # What follows from other settings for the sessions and users there are.
    cdef void follow(self, const Settings* before) noexcept
    cdef void move_custom_buckets(self, const Settings* before) noexcept nogil
