"""Functions that payloads go through; `transforms.pxd` is the contract."""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint8_t

from realtime_communication._core.base.counters cimport Counters
from realtime_communication._core.base.memory cimport Buffer, Slice, buffer_free, buffer_init, slice_of
from realtime_communication._core.hub.core cimport Core, Position, inbox_name
from realtime_communication._core.hub.session cimport Session, pattern_matches
from realtime_communication._core.wire.envelope cimport ERROR_FORBIDDEN, ERROR_INTERNAL, Request
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


cdef int publish_transformed(Core core, Slice topic, int kind, Slice sender, const Request* request, Session* excluded,
                             Position* position) noexcept:
    cdef int outcome
    cdef bytes changed = transform(core.transforms, topic, request.payload, request.encoding,
                                   core.settings.frames.max_message, &core.counters, &outcome)
    if outcome < 0:
        return outcome
    if outcome == TRANSFORM_CHANGED:
        return core.publish(topic, kind, sender, slice_of(<const uint8_t*> changed, len(changed)), JSON_TEXT, excluded,
                            position)
    return core.publish(topic, kind, sender, request.payload, request.encoding, excluded, position)


cdef int transform_all(Core core, const Request* request, dict changed) except -1:
    cdef uint8_t place[256]
    cdef bytes target
    cdef uint32_t i
    cdef int outcome = 0
    for i in range(request.target_count):
        target = (<const char*> request.targets[i].data)[:request.targets[i].size]
        if target in changed:
            continue
        changed[target] = transform(
            core.transforms, inbox_name(request.targets[i], place), request.payload, request.encoding,
            core.settings.frames.max_message, &core.counters, &outcome)
        if outcome < 0:
            return -outcome
    return 0


cdef const char* refusal_by_transform(int outcome, int* code) noexcept nogil:
    if outcome == TRANSFORM_REFUSED:
        code[0] = ERROR_FORBIDDEN
        return b"payload: refused by a transform"
    if outcome == TRANSFORM_FAILED:
        code[0] = ERROR_INTERNAL
        return b"payload: a transform failed"
    return NULL


def read(pairs):
    """The patterns of a list of transforms, as the hub takes it over. Raises ValueError, TypeError."""
    return [pattern for pattern, _ in transforms_read(pairs) or ()]
