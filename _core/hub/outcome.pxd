# What a request comes to, over a connection or over HTTP, and what all replies have in common.
#
# Rules: an Outcome is for the one who reads the connection: whether it goes on. What the client is told of a request
# that fails is an Error, and over HTTP a RequestError.

from realtime_communication._core.base.memory cimport Buffer
from realtime_communication._core.hub.core cimport Core
from realtime_communication._core.hub.session cimport Session
from realtime_communication._core.wire.envelope cimport Request


cdef enum:
    NO_RETRY = -1                # an Error without retry_after_ms
    BACKPRESSURE_RETRY_MS = 1000  # told to a publisher whose consumer is full, or when there is no memory
    DRAINING_RETRY_MS = 1000     # told to a publisher when the server ends; its successor will be there


cdef enum Outcome:               # of a request
    OUTCOME_DONE = 0
    OUTCOME_WAIT = 1             # overflow `block`: a consumer of what was published is full; read no more for now
    OUTCOME_PARKED = 3           # not handled: a consumer is full (`block`) or a topic arrives; to be done again
    OUTCOME_UNAUTHORIZED = 2     # the Error is queued; close with 4401
    OUTCOME_PENDING = 4          # the credential's answer comes later (pending.pxd); read no more for now
    OUTCOME_ASKED = 5            # another authority is asked (relay.pxd); park the request, read no more for now


# Why nothing is accepted that might not be delivered any more; nobody keeps the server from its end by publishing on.
cdef inline const char* ending() noexcept nogil:
    return b"the server is shutting down; publish when you are connected again"


# The buffer of the next reply, emptied.
cdef inline Buffer* start(Core core) noexcept nogil:
    core.outbox.text.size = 0
    return &core.outbox.text


# The Error of a request for which there is no memory.
cdef void no_memory(Core core, Session* session, const Request* request) noexcept
# Sends what was written, if the request asked for a reply by an id; `in_order`: behind the messages that wait.
cdef void reply(Core core, Session* session, const Request* request, bint in_order) noexcept
