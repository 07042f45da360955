# Functions of the operator that payloads go through before they are published.
#
# Rules: the first pattern that matches a topic counts. A function gets the topic and the payload as JSON, whatever the
# publisher's encoding, and gives JSON back, which is published as JSON: subscribers on the other encoding get it
# transcoded like any other. What it returns is checked like a client's payload. Nothing it raises leaves this module.

from realtime_communication._core.base.counters cimport Counters
from realtime_communication._core.base.memory cimport Slice


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
