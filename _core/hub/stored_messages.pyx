"""Messages of the past; `stored_messages.pxd` is the contract."""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t

from realtime_communication._core.base.memory cimport Buffer, Slice, buffer_append, buffer_free, buffer_init
from realtime_communication._core.hub.core cimport Core
from realtime_communication._core.hub.message cimport Message, message_payload, message_sender
from realtime_communication._core.hub.outbox cimport outbox_reply
from realtime_communication._core.hub.outcome cimport no_memory
from realtime_communication._core.hub.peers cimport Body, Frame, body_read, take_number, take_slice
from realtime_communication._core.hub.session cimport Session
from realtime_communication._core.hub.settings cimport REPLY_BYTES
from realtime_communication._core.hub.topics cimport Topic, topic_message
from realtime_communication._core.hub.variants cimport variant_encoding
from realtime_communication._core.wire.envelope cimport Request
from realtime_communication._core.wire.outbound cimport write_list_tail, write_stored_message


cdef bint next_body(Frame* bodies, Body* out) noexcept nogil:
    cdef bint ok = True
    cdef Slice bytes = take_slice(bodies, <size_t> take_number(bodies, 4, &ok), &ok)
    return ok and body_read(bytes, out)


cdef uint32_t readable_bodies(Core core, const Session* session, const Frame* bodies) noexcept nogil:
    """How many of the bodies the session can be given."""
    cdef Frame rest = bodies[0]
    cdef Body body
    cdef uint32_t count = 0
    while next_body(&rest, &body):
        count += core.settings.transcoding or body.encoding == variant_encoding(session.variant)
    return count


cdef void send_bodies(Core core, Session* session, const Request* request, Frame* bodies, uint64_t first, bint reverse,
                      bint in_order) noexcept:
    """Writes messages that came from elsewhere behind a head, ends the list and sends it."""
    cdef Buffer* out = &core.outbox.text
    cdef int encoding = variant_encoding(session.variant)
    cdef Body body
    cdef Body* read
    cdef Buffer kept
    cdef uint64_t count = 0, i, at
    cdef bint empty = True
    buffer_init(&kept)
    while next_body(bodies, &body):
        if buffer_append(&kept, &body, sizeof(Body)) < 0:
            buffer_free(&kept)
            no_memory(core, session, request)
            return
        count += 1
    read = <Body*> kept.data
    for i in range(count):
        at = count - 1 - i if reverse else i
        if not core.settings.transcoding and read[at].encoding != encoding:
            continue
        if write_stored_message(out, encoding, empty, first + at, read[at].ts, read[at].sender, read[at].payload,
                                read[at].encoding) < 0:
            buffer_free(&kept)
            no_memory(core, session, request)
            return
        empty = False
    buffer_free(&kept)
    if write_list_tail(out, encoding) == 0:
        outbox_reply(&core.outbox, session, in_order)
    else:
        no_memory(core, session, request)


cdef bint is_readable(Core core, const Session* session, const Message* message) noexcept nogil:
    return core.settings.transcoding or message.encoding == variant_encoding(session.variant)


cdef uint32_t readable(
    Core core, const Session* session, const Topic* topic, uint64_t first, uint64_t last
) noexcept nogil:
    """How many of the cached messages first..last the session can be given."""
    cdef uint32_t count = 0
    if core.settings.transcoding:
        return <uint32_t> (last + 1 - first)
    while first <= last:
        count += is_readable(core, session, topic_message(topic, first))
        first += 1
    return count


cdef bint fits(const Topic* topic, uint64_t first, uint64_t last) noexcept nogil:
    """Whether the payloads of first..last together are within the bound of one reply."""
    cdef uint64_t bytes = 0
    while first <= last:
        bytes += topic_message(topic, first).payload_size
        if bytes > REPLY_BYTES:
            return False
        first += 1
    return True


cdef void send_stored(Core core, Session* session, const Request* request, const Topic* topic, uint64_t first,
                      uint64_t last, bint reverse, bint in_order) noexcept:
    """Writes the cached messages first..last behind a head, ends the list and sends it."""
    cdef Buffer* out = &core.outbox.text
    cdef int encoding = variant_encoding(session.variant)
    cdef uint64_t steps = last + 1 - first, i
    cdef Message* message
    cdef bint empty = True
    for i in range(steps):
        message = topic_message(topic, last - i if reverse else first + i)
        if not is_readable(core, session, message):
            continue
        if write_stored_message(out, encoding, empty, message.offset, message.ts, message_sender(message),
                                message_payload(message), message.encoding) < 0:
            no_memory(core, session, request)
            return
        empty = False
    if write_list_tail(out, encoding) == 0:
        outbox_reply(&core.outbox, session, in_order)
    else:
        no_memory(core, session, request)
