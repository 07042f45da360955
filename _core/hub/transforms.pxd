# Functions of the operator that payloads go through before they are published.
#
# Rules: the first pattern that matches a topic counts. A function gets the topic and the payload as JSON, whatever the
# publisher's encoding, and gives JSON back, which is published as JSON: subscribers on the other encoding get it
# transcoded like any other. What it returns is checked like a client's payload. Nothing it raises leaves this module.

from realtime_communication._core.base.counters cimport Counters
from realtime_communication._core.base.memory cimport Slice
from realtime_communication._core.hub.core cimport Core, Position
from realtime_communication._core.hub.session cimport Session
from realtime_communication._core.wire.envelope cimport Request


cdef enum TransformOutcome:
    TRANSFORM_NONE = 0           # no pattern matches: the payload is published as it is
    TRANSFORM_CHANGED = 1        # published is what the function returned
    TRANSFORM_REFUSED = -2       # it returned None: nothing may be published
    TRANSFORM_FAILED = -3        # it raised, or returned no JSON, or too much


# The list that `transform` takes, of pairs (pattern, function); None when there are none. Raises ValueError for a
# pattern that is none, TypeError for what is no pair or cannot be called.
cdef list transforms_read(object pairs)
# Says in `outcome` (TransformOutcome) what becomes of a payload, and returns what is published instead, None for
# nothing. `most` bytes are allowed.
cdef bytes transform(list transforms, Slice topic, Slice payload, int encoding, size_t most, Counters* counters,
                     int* outcome)

# Publishes what the transforms (there are some) make of a request's payload. 0; -1 without memory, or a negative
# outcome, with nothing published.
cdef int publish_transformed(Core core, Slice topic, int kind, Slice sender, const Request* request, Session* excluded,
                             Position* position) noexcept
# Transforms the payload of a DirectMessage for each of its targets: fills `changed`, target -> bytes, or None where no
# pattern matches. 0, or the outcome of the first that is refused or fails, negated: then nobody may get the message.
# Raises MemoryError.
cdef int transform_all(Core core, const Request* request, dict changed) except -1
# The ErrorCode and the message of a negative outcome; NULL for -1.
cdef const char* refusal_by_transform(int outcome, int* code) noexcept nogil
