# What comes from other workers and from the upstream, and what it does here; relay.pyx has the asking side.
#
# Rules: bytes in by `receive_peer`, bytes out in each peer's buffer (bus_user.pxd); what carries them (io/bus.pyx, a
# test) keeps their order. Whatever comes is checked: a frame that makes no sense is counted and thrown away. A worker
# that is cut off has its requests refused, and its topics are asked about again when their authority is known.
#
# Theory: all that one authority sends a worker about a topic travels one way, in order. An answer that says where the
# topic stands is therefore preceded by every message up to there, so a mirror that is `synced` never misses one; and a
# message that is not the next one is either known already or the sign of a history that was lost.

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint64_t

from realtime_communication._core.base.memory cimport Slice
from realtime_communication._core.hub.gate cimport Gate
from realtime_communication._core.hub.peers cimport Body, Frame, Waiting
from realtime_communication._core.hub.session cimport Inbound, Session
from realtime_communication._core.hub.topics cimport Topic


cdef enum:
    CODE_MOVED = 255             # in place of an ErrorCode: ask the home that is the right one now


cdef class Exchange(Gate):
    cdef Inbound inbound
    cdef uint64_t hold_until_ms  # when topics that should arrive are given up
    cdef list next_members       # (me, members, version) that come into force when nothing is held any more
    cdef list held_frames        # (slot, bytes) of requests that came for topics that may still arrive, or too early
    cdef size_t held_bytes       # of those frames
    cdef bint unsynced           # some topics are to be asked about again

    # Requests that nobody has answered in time are refused.
    cdef void expire_asked(self) noexcept

    cdef void take_frame(self, int slot, Frame* frame) noexcept
    cdef int tell_homes_of_users(self) except -1
    cdef Waiting* relay_waiting(self, int slot, const Frame* frame, int authority) noexcept
    cdef void asked_to_publish(self, int slot, Frame* frame) noexcept
    cdef void asked_to_subscribe(self, int slot, Frame* frame) noexcept
    cdef void asked_for_history(self, int slot, Frame* frame) noexcept
    cdef void asked_for_inbox(self, int slot, Frame* frame) noexcept
    cdef void lose_interest(self, int slot, Topic* topic) noexcept
    cdef void gain_interest(self, int slot, Topic* topic) noexcept
    cdef void answer_ack(self, int slot, uint64_t token, uint64_t epoch, uint64_t offset, bint reached) noexcept
    cdef void answer_refuse(self, int slot, uint64_t token, int code, const char* text, int64_t retry) noexcept
    cdef void answer_stored(self, int slot, int type, uint64_t token, Topic* topic, bint recovered, uint64_t first,
                            uint64_t last) noexcept
    cdef void answer_bodies(self, int slot, int type, uint64_t token, uint64_t epoch, uint64_t offset, bint recovered,
                            uint64_t first, Slice bodies) noexcept
    # A message of a topic that is fed from elsewhere.
    cdef void deliver(self, Topic* topic, uint64_t offset, const Body* body) noexcept
    cdef void delivered(self, Slice name, int kind, uint64_t epoch, uint64_t offset, const Body* body) noexcept
    # Answers to requests of this worker.
    cdef void acked(self, Waiting* waiting, uint64_t epoch, uint64_t offset, bint reached) noexcept
    cdef void refused(self, Waiting* waiting, int code, Slice text, int64_t retry) noexcept
    cdef void subscribe_settled(self, Waiting* waiting, uint64_t epoch, uint64_t offset, bint recovered,
                                uint64_t first, Slice bodies) noexcept
    cdef void history_settled(self, Waiting* waiting, uint64_t epoch, uint64_t offset, uint64_t first,
                              Slice bodies) noexcept
    # The place of a session that came from another worker: the mirror stands where its authority has answered from; or
    # it has not answered, and `waiting` is taken care of if that returns True.
    cdef void place_answered(self, Waiting* waiting, Topic* topic, bint recovered, Frame* bodies,
                             uint64_t first) noexcept
    cdef bint place_refused(self, Waiting* waiting) noexcept
    cdef void end_place(self, Waiting* waiting) noexcept
    # Nobody has said that a session's inbox is fed: it hears Connected now, or its inbox has another home to ask.
    cdef void welcome_refused(self, Waiting* waiting, int code) noexcept
    cdef void ask_welcomes_again(self) noexcept
    # Reads the parked request of a session whose answer is here. False: it has gone, or is closing.
    cdef bint resume_parked(self, Session* session) noexcept
    cdef void drop_waiting(self, Waiting* waiting) noexcept
    cdef void write_stored(self, int slot, int type, Slice name, uint64_t token, Topic* topic, bint recovered,
                           uint64_t first, uint64_t last) noexcept
    cdef void change_members(self, int me, uint64_t mask, uint64_t version) noexcept
    cdef uint64_t others(self) noexcept nogil
    cdef bint awaits_somebody(self) noexcept nogil
    cdef void tell_settled(self, int slot) noexcept
    cdef void hand_answers_over(self) noexcept
    cdef void hand_over(self, Topic* topic, int slot) noexcept
    cdef void arrive(self, int slot, Frame* frame) noexcept
    cdef void store_arrived(self, Topic* topic, const Body* body, bint fresh) noexcept
    cdef void stop_holding(self) noexcept
    cdef void take_held(self) noexcept
    cdef bint answer_subscribe(self, Waiting* waiting, Topic* topic, bint recovered, Frame* bodies,
                               uint64_t first) noexcept
    cdef void hold(self, int slot, const Frame* frame) noexcept
    cdef void take_answer(self, Frame* frame) noexcept
    # The topic's authority is another one now, or has to be asked anew.
    cdef void move_topic(self, Topic* topic, int authority) noexcept
    cdef void ask_again(self, Topic* topic) noexcept
