# What waits to leave through one connection.
#
# Three lanes of finished bytes and one of messages:
#   held      data frames that a full socket left behind, or that were encoded from the queue; an unfinished frame in it
#             goes before everything else, the rest after the priority lane
#   priority  replies, errors and control frames
#   spans     data frames in shared arenas, one span for all that lies side by side
#   queue     references to messages, kept only while the socket is full: a slow consumer pins no arena and copies no
#             payload. `hub/outbox` turns them into held bytes when the socket takes bytes again.
#
# Rules: bytes leave in the order gathered. Every span begins and ends at a frame border. No socket here: `gather` says
# what to write, `advance` is told how much was written.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from realtime_communication._core.base.memory cimport Arena, Buffer
from realtime_communication._core.hub.message cimport Message


cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void* iov_base
        size_t iov_len


cdef enum:
    MAILBOX_VECTORS = 67         # entries a gather may fill: 64 spans and the other lanes
    MAILBOX_SPANS = 64           # spans that may wait; one more asks for a flush


cdef struct Span:                # bytes start..end of an arena's data; holds a reference to the arena
    Arena* arena
    uint32_t start
    uint32_t end


cdef struct Queued:
    Message* message             # holds a reference
    void* subscription           # Subscription*, NULL for raw frames


cdef struct Mailbox:
    Buffer held
    Buffer priority
    uint32_t held_at             # bytes of held already written
    uint32_t held_frame          # bytes from held_at to the end of the frame it lies in, 0 at a border
    uint32_t priority_at         # bytes of priority already written
    uint32_t priority_messages   # messages added since the lane was last empty
    uint32_t pong_at             # start + 1 of the newest pong in priority, 0 when there is none
    uint32_t pong_end            # its end
    uint32_t held_messages       # data messages in held, counted down when it is empty
    uint32_t span_messages       # data messages in spans
    Span first                   # the first span, inline
    Span* more                   # the others, NULL until needed
    uint16_t span_count
    uint16_t more_capacity
    uint32_t queue_head
    uint32_t queue_count
    uint32_t queue_replies       # entries without a subscription
    uint32_t queue_capacity      # a power of two, 0 while there is no queue
    Queued* queue
    uint64_t queue_bytes         # payload bytes that the queue refers to


cdef void mailbox_init(Mailbox* box) noexcept nogil
# Lets go of all bytes and spans. The queue must have been emptied by its owner.
cdef void mailbox_free(Mailbox* box) noexcept nogil

# Adds a span of `messages` frames. 0; -1 without memory; 1 when the mailbox has no place for another span: flush first.
cdef int mailbox_push_span(Mailbox* box, Arena* arena, uint32_t start, uint32_t end, uint32_t messages) noexcept nogil


# Extends the newest span when the bytes follow it, else adds a span; result as above.
cdef inline int mailbox_push(
    Mailbox* box, Arena* arena, uint32_t start, uint32_t end, uint32_t messages
) noexcept nogil:
    cdef Span* last
    if box.span_count == 1:
        last = &box.first
    elif box.span_count > 1:
        last = &box.more[box.span_count - 2]
    else:
        return mailbox_push_span(box, arena, start, end, messages)
    if last.arena == arena and last.end == start:
        last.end = end
        box.span_messages += messages
        return 0
    return mailbox_push_span(box, arena, start, end, messages)


# Appends a finished frame to the priority lane; 0, or -1 without memory.
cdef int mailbox_push_priority(Mailbox* box, int opcode, bint rsv1, const uint8_t* data, size_t size) noexcept nogil

# A finished frame that nothing may follow. Behind all data when the socket takes bytes; when it is full, the data that
# has not begun to leave is dropped and the frame goes next. 0, or -1 without memory.
cdef int mailbox_push_last(Mailbox* box, bint blocked, const uint8_t* frame, size_t size) noexcept nogil

# Appends to the queue, taking a reference. 0, or -1 without memory.
cdef int mailbox_enqueue(Mailbox* box, Message* message, void* subscription) noexcept nogil
# Takes the oldest entry out; its reference is the caller's. False when the queue is empty.
cdef bint mailbox_dequeue(Mailbox* box, Queued* out) noexcept nogil
# Entry `index` from the oldest; index < queue_count.
cdef inline Queued* mailbox_queued(Mailbox* box, uint32_t index) noexcept nogil:
    return &box.queue[(box.queue_head + index) & (box.queue_capacity - 1)]

# Fills `vectors` (MAILBOX_VECTORS entries) with what to write next, returns how many.
cdef int mailbox_gather(Mailbox* box, iovec* vectors) noexcept nogil
# `written` bytes of the last gather have left. 0, or -1 when a cut span could not be kept for lack of memory.
cdef int mailbox_advance(Mailbox* box, size_t written) noexcept nogil
# The socket is full: copies all spans to held, so that no arena stays pinned. 0, or -1 without memory.
cdef int mailbox_hold_spans(Mailbox* box) noexcept nogil


cdef inline bint mailbox_has_bytes(const Mailbox* box) noexcept nogil:
    return box.span_count != 0 or box.priority.size != box.priority_at or box.held.size != box.held_at


cdef inline uint32_t mailbox_messages(const Mailbox* box) noexcept nogil:
    return box.queue_count + box.held_messages + box.span_messages


# Bytes from `frame` (a border) to the first frame border at or behind `position` bytes.
cdef size_t frame_border(const uint8_t* frame, size_t position) noexcept nogil
