"""Functions that payloads go through; `transforms.pxd` is the contract."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t

from realtime_communication._core.base.counters cimport Counters
from realtime_communication._core.base.memory cimport Buffer, Slice, buffer_free, buffer_init, slice_of
from realtime_communication._core.hub.session cimport pattern_matches
from realtime_communication._core.wire.json_scan cimport json_validate
from realtime_communication._core.wire.transcode cimport JSON_TEXT, transcode
from realtime_communication._core.wire.utf8 cimport utf8_valid


cdef list transforms_read(object pairs):
    cdef list made = []
    for pattern, function in pairs:
        if not callable(function):
            raise TypeError("transforms: what belongs to a pattern must be callable")
        if not pattern or "*" in pattern[:-1]:
            raise ValueError("transforms: a pattern is a topic, or a prefix and * at its end")
        made.append(((<str> pattern).encode(), function))
    return made or None


cdef object function_of(list transforms, Slice topic):
    for pattern, function in transforms:
        if pattern_matches(slice_of(<const uint8_t*> <bytes> pattern, len(<bytes> pattern)), topic):
            return function
    return None


cdef bytes as_json(Slice payload, int encoding):
    cdef Buffer out
    if encoding == JSON_TEXT:
        return (<const char*> payload.data)[:payload.size]
    buffer_init(&out)
    try:
        if transcode(payload, encoding, JSON_TEXT, &out) < 0:
            raise MemoryError
        return (<const char*> out.data)[:out.size]
    finally:
        buffer_free(&out)


cdef bint is_payload(object made, size_t most) except -1:
    cdef bytes text
    if not isinstance(made, bytes):
        return False
    text = made
    return <size_t> len(text) <= most and json_validate(<const uint8_t*> text, len(text)) == 0 and utf8_valid(
        <const uint8_t*> text, len(text))


cdef bytes transform(list transforms, Slice topic, Slice payload, int encoding, size_t most, Counters* counters,
                     int* outcome):
    outcome[0] = TRANSFORM_NONE
    try:
        function = function_of(transforms, topic)
        if function is None:
            return None
        made = function((<const char*> topic.data)[:topic.size].decode(), as_json(payload, encoding))
        if made is None:
            counters.transformed += 1
            outcome[0] = TRANSFORM_REFUSED
            return None
        if is_payload(made, most):
            counters.transformed += 1
            outcome[0] = TRANSFORM_CHANGED
            return made
    except BaseException:  # it is the operator's code, and the publisher is not to blame for it
        pass
    counters.transform_errors += 1
    outcome[0] = TRANSFORM_FAILED
    return None


def read(pairs):
    """The patterns of a list of transforms, as the hub takes it over. Raises ValueError, TypeError."""
    return [pattern for pattern, _ in transforms_read(pairs) or ()]
