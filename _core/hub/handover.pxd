# Where the truth about who is present goes when a topic's home moves, or when the upstream goes and comes back.
#
# Rules: where a topic moves, everybody tells the new home anew. What the watchers believe is doubtful then; it is told
# to be over when nobody has confirmed it for SETTLE_MS, or when the upstream's roster lacks it. Without the upstream a
# node knows of its own sessions alone, and enters all of them again when it is back.

from realtime_communication._core.hub.attendance cimport Attendance
from realtime_communication._core.hub.topics cimport Topic


cdef class Handover(Attendance):
    # The topic's truth comes here, goes to another worker, or from one worker to another.
    cdef void move_attendance(self, Topic* topic, int before) noexcept
    cdef void take_home(self, Topic* topic) noexcept
    cdef void yield_home(self, Topic* topic) noexcept
    # Tells the topic's home all there is to tell.
    cdef void retell(self, Topic* topic) noexcept
    cdef void count_all(self, Topic* topic) noexcept
    cdef void doubt(self, Topic* topic) noexcept
    # Everything is entered upstream; its roster is asked for when there are watchers.
    cdef void globalize_attendance(self, Topic* topic) noexcept
    cdef void enter_all(self, Topic* topic) noexcept
    cdef void localize_attendance(self, Topic* topic) noexcept
