"""Answers that take time; `pending.pxd` is the contract."""

from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport uint32_t, uint8_t
from libc.string cimport memset

from realtime_communication._core.base.memory cimport slice_of
from realtime_communication._core.hub.core cimport Core
from realtime_communication._core.hub.session cimport FLAG_PENDING, Session
from realtime_communication._core.wire.envelope cimport Request


cdef class Pending:
    """The place of an answer that is not known yet. A callback that checks credentials may return one.

    Then `settle` has to be called in the thread of the hub, once, with what the callback could have returned. Until
    then the connection waits, for as long as its time-outs allow.
    """

    def __cinit__(self):
        self.settled = False
        self.bound = False
        self.session = NULL
        self.core = NULL
        memset(&self.request, 0, sizeof(Request))

    @property
    def cancelled(self):
        """Whether nobody waits any more although no answer came: the connection ended, or the time was over."""
        return self.bound and self.session == NULL and not self.settled

    def settle(self, answer):
        """Answer: the connection goes on. Returns whether somebody waited; only the first answer counts."""
        cdef Session* session = self.session
        if self.settled or (self.bound and session == NULL):
            return False
        self.settled = True
        if session == NULL:
            self.answer = answer
        else:
            (<Core> self.core).settled(session, self, answer)
        return True


cdef int pending_bind(Pending pending, Core core, Session* session, const Request* request, bytes response) except -1:
    if pending.bound:
        raise ValueError("a Pending is good for one connection")
    pending.bound = True
    pending.response = response
    if request != NULL:
        pending.request.type = request.type
        pending.request.encoding = request.encoding
        pending.request.id_kind = request.id_kind
        pending.request_id = (<const char*> request.id.data)[:request.id.size] if request.id_kind else b""
        pending.request.id = slice_of(<const uint8_t*> pending.request_id, len(pending.request_id))
    pending.session = session
    pending.core = <void*> core
    Py_INCREF(pending)
    session.pending = <void*> pending
    session.flags |= FLAG_PENDING
    core.counters.pending += 1
    return 0


cdef Pending pending_release(Session* session):
    cdef Pending pending
    if not session.flags & FLAG_PENDING:
        return None
    pending = <Pending> session.pending
    session.pending = NULL
    session.flags &= ~<uint32_t> FLAG_PENDING
    (<Core> pending.core).counters.pending -= 1
    pending.session = NULL
    pending.core = NULL
    Py_DECREF(pending)
    return pending
