"""Mailboxes; `mailbox.pxd` is the contract."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy

from realtime_communication._core.base.memory cimport (
    Arena,
    ArenaPool,
    arena_drop,
    arena_hold,
    arena_pool_init,
    arena_pool_trim,
    arena_take,
    buffer_append,
    buffer_free,
    buffer_init,
    buffer_reserve,
)
from realtime_communication._core.wire.frames cimport OP_TEXT, frame_header_size, write_frame_header

cdef enum:
    QUEUE_START = 16             # entries of a queue's first allocation


cdef void mailbox_init(Mailbox* box) noexcept nogil:
    buffer_init(&box.held)
    buffer_init(&box.priority)
    box.held_at = 0
    box.held_frame = 0
    box.priority_at = 0
    box.priority_messages = 0
    box.pong_at = 0
    box.pong_end = 0
    box.held_messages = 0
    box.span_messages = 0
    box.more = NULL
    box.span_count = 0
    box.more_capacity = 0
    box.queue_head = 0
    box.queue_count = 0
    box.queue_replies = 0
    box.queue_capacity = 0
    box.queue = NULL
    box.queue_bytes = 0


cdef void mailbox_free(Mailbox* box) noexcept nogil:
    drop_spans(box)
    buffer_free(&box.held)
    buffer_free(&box.priority)
    free(box.queue)
    mailbox_init(box)


cdef inline Span* span_at(Mailbox* box, uint32_t index) noexcept nogil:
    if index == 0:
        return &box.first
    return &box.more[index - 1]


cdef void drop_spans(Mailbox* box) noexcept nogil:
    cdef uint32_t i
    for i in range(box.span_count):
        arena_drop(span_at(box, i).arena)
    box.span_count = 0
    box.span_messages = 0
    if box.more != NULL:
        free(box.more)
        box.more = NULL
        box.more_capacity = 0


cdef int mailbox_push_span(Mailbox* box, Arena* arena, uint32_t start, uint32_t end, uint32_t messages) noexcept nogil:
    cdef uint16_t capacity
    cdef Span* more
    cdef Span* span
    if box.span_count >= MAILBOX_SPANS:
        return 1
    if box.span_count > box.more_capacity:
        capacity = 3 if box.more_capacity == 0 else box.more_capacity * 2 + 1
        more = <Span*> realloc(box.more, capacity * sizeof(Span))
        if more == NULL:
            return -1
        box.more = more
        box.more_capacity = capacity
    span = span_at(box, box.span_count)
    span.arena = arena
    span.start = start
    span.end = end
    arena_hold(arena)
    box.span_count += 1
    box.span_messages += messages
    return 0


cdef int mailbox_push_priority(Mailbox* box, int opcode, bint rsv1, const uint8_t* data, size_t size) noexcept nogil:
    cdef size_t header = frame_header_size(size)
    if size > 0x7FFFFFFF - box.priority.size or buffer_reserve(&box.priority, header + size) < 0:
        return -1
    cdef uint8_t* at = write_frame_header(box.priority.data + box.priority.size, opcode, rsv1, size)
    if size:
        memcpy(at, data, size)
    box.priority.size += header + size
    box.priority_messages += 1
    return 0


cdef int mailbox_push_last(Mailbox* box, bint blocked, const uint8_t* frame, size_t size) noexcept nogil:
    if not blocked:
        if mailbox_hold_spans(box) < 0:
            return -1
        return buffer_append(&box.held, frame, size)
    drop_spans(box)
    box.held.size = box.held_at + box.held_frame
    return buffer_append(&box.priority, frame, size)


cdef int mailbox_enqueue(Mailbox* box, Message* message, void* subscription) noexcept nogil:
    cdef uint32_t capacity, i
    cdef Queued* queue
    if box.queue_count == box.queue_capacity:
        capacity = QUEUE_START if box.queue_capacity == 0 else box.queue_capacity * 2
        queue = <Queued*> malloc(capacity * sizeof(Queued))
        if queue == NULL:
            return -1
        for i in range(box.queue_count):
            queue[i] = mailbox_queued(box, i)[0]
        free(box.queue)
        box.queue = queue
        box.queue_capacity = capacity
        box.queue_head = 0
    cdef Queued* entry = mailbox_queued(box, box.queue_count)
    entry.message = message
    entry.subscription = subscription
    message.references += 1
    box.queue_count += 1
    box.queue_bytes += message.payload_size
    if subscription == NULL:
        box.queue_replies += 1
    return 0


cdef bint mailbox_dequeue(Mailbox* box, Queued* out) noexcept nogil:
    if box.queue_count == 0:
        return False
    out[0] = box.queue[box.queue_head]
    box.queue_head = (box.queue_head + 1) & (box.queue_capacity - 1)
    box.queue_count -= 1
    box.queue_bytes -= out.message.payload_size
    if out.subscription == NULL:
        box.queue_replies -= 1
    if box.queue_count == 0:
        free(box.queue)
        box.queue = NULL
        box.queue_capacity = 0
        box.queue_head = 0
    return True


cdef size_t frame_border(const uint8_t* frame, size_t position) noexcept nogil:
    cdef size_t at = 0, size
    cdef int i
    while at < position:
        size = frame[at + 1] & 0x7F
        if size == 126:
            at += 4 + ((<size_t> frame[at + 2] << 8) | frame[at + 3])
        elif size == 127:
            size = 0
            for i in range(8):
                size = (size << 8) | frame[at + 2 + i]
            at += 10 + size
        else:
            at += 2 + size
    return at


cdef inline void add_vector(iovec* vectors, int* count, void* data, size_t size) noexcept nogil:
    if size:
        vectors[count[0]].iov_base = data
        vectors[count[0]].iov_len = size
        count[0] += 1


cdef int mailbox_gather(Mailbox* box, iovec* vectors) noexcept nogil:
    cdef int count = 0
    cdef uint32_t i
    cdef Span* span
    cdef uint8_t* held = box.held.data + box.held_at
    add_vector(vectors, &count, held, box.held_frame)
    add_vector(vectors, &count, box.priority.data + box.priority_at, box.priority.size - box.priority_at)
    add_vector(vectors, &count, held + box.held_frame, box.held.size - box.held_at - box.held_frame)
    for i in range(box.span_count):
        span = span_at(box, i)
        add_vector(vectors, &count, span.arena.data + span.start, span.end - span.start)
    return count


cdef inline size_t smaller(size_t left, size_t right) noexcept nogil:
    return left if left < right else right


cdef int mailbox_advance(Mailbox* box, size_t written) noexcept nogil:
    cdef size_t take
    cdef size_t border
    take = smaller(written, box.held_frame)
    box.held_at += <uint32_t> take
    box.held_frame -= <uint32_t> take
    written -= take
    take = smaller(written, box.priority.size - box.priority_at)
    box.priority_at += <uint32_t> take
    written -= take
    take = smaller(written, box.held.size - box.held_at)
    if take:
        border = frame_border(box.held.data + box.held_at, take)
        box.held_at += <uint32_t> take
        box.held_frame = <uint32_t> (border - take)
        written -= take
    if box.held.data != NULL and box.held_at == box.held.size:
        buffer_free(&box.held)
        box.held_at = 0
        box.held_messages = 0
    if box.priority.data != NULL and box.priority_at == box.priority.size:
        buffer_free(&box.priority)
        box.priority_at = 0
        box.priority_messages = 0
        box.pong_at = 0
    if box.span_count == 0:
        return 0
    if box.span_count == 1 and written == box.first.end - box.first.start:
        arena_drop(box.first.arena)
        box.span_count = 0
        box.span_messages = 0
        if box.more != NULL:
            free(box.more)
            box.more = NULL
            box.more_capacity = 0
        return 0
    return advance_spans(box, written)


cdef int advance_spans(Mailbox* box, size_t written) noexcept nogil:
    cdef uint32_t whole = 0, i
    cdef Span* span
    cdef size_t border = 0
    while whole < box.span_count:
        span = span_at(box, whole)
        if written < span.end - span.start:
            break
        written -= span.end - span.start
        arena_drop(span.arena)
        whole += 1
    if whole == box.span_count:
        box.span_count = 0
        drop_spans(box)
        return 0
    for i in range(whole, box.span_count):
        span_at(box, i - whole)[0] = span_at(box, i)[0]
    box.span_count -= <uint16_t> whole
    if written == 0:
        return 0
    border = frame_border(box.first.arena.data + box.first.start, written) - written
    box.first.start += <uint32_t> written
    # The cut frame has to be finished before anything else, so it moves to the lane that goes first.
    if mailbox_hold_spans(box) < 0:
        return -1
    box.held_frame = <uint32_t> border
    return 0


cdef int mailbox_hold_spans(Mailbox* box) noexcept nogil:
    cdef uint32_t i
    cdef size_t size = 0
    cdef Span* span
    for i in range(box.span_count):
        span = span_at(box, i)
        size += span.end - span.start
    if size == 0:
        return 0
    if size > 0x7FFFFFFF - box.held.size or buffer_reserve(&box.held, size) < 0:
        return -1
    for i in range(box.span_count):
        span = span_at(box, i)
        buffer_append(&box.held, span.arena.data + span.start, span.end - span.start)
    box.held_messages += box.span_messages
    drop_spans(box)
    return 0


cdef class MailboxProbe:
    """A mailbox fed by tests: frames go in by lane, bytes come out in the order they would be written."""

    cdef Mailbox* box
    cdef ArenaPool arenas
    cdef Arena* arena

    def __cinit__(self):
        self.box = <Mailbox*> calloc(1, sizeof(Mailbox))
        if self.box == NULL:
            raise MemoryError
        mailbox_init(self.box)
        arena_pool_init(&self.arenas, 2)
        self.arena = NULL

    def __dealloc__(self):
        if self.box != NULL:
            mailbox_free(self.box)
            free(self.box)
        if self.arena != NULL:
            arena_drop(self.arena)
        arena_pool_trim(&self.arenas, 0)

    def new_arena(self):
        """Let the next span begin in another arena."""
        if self.arena != NULL:
            arena_drop(self.arena)
        self.arena = NULL

    def push(self, bytes payload not None, bint gap=False):
        """Put one text frame into the data lane; `gap` leaves a hole so that it cannot extend the newest span.

        Returns what `mailbox_push` returned. Raises MemoryError.
        """
        cdef size_t size = frame_header_size(len(payload)) + len(payload)
        if self.arena != NULL and self.arena.capacity - self.arena.used < size + gap:
            self.new_arena()
        if self.arena == NULL:
            self.arena = arena_take(&self.arenas, size + gap)
            if self.arena == NULL:
                raise MemoryError
        self.arena.used += gap
        cdef uint32_t start = self.arena.used
        cdef uint8_t* at = write_frame_header(self.arena.data + start, OP_TEXT, False, len(payload))
        memcpy(at, <const char*> payload, len(payload))
        cdef int result = mailbox_push(self.box, self.arena, start, <uint32_t> (start + size), 1)
        self.arena.used += <uint32_t> size
        return result

    def push_priority(self, bytes payload not None):
        """Put one text frame into the priority lane. Raises MemoryError."""
        if mailbox_push_priority(self.box, OP_TEXT, False, <const uint8_t*> payload, len(payload)) < 0:
            raise MemoryError

    def gather(self):
        """All bytes that wait, in the order they would be written."""
        cdef iovec vectors[MAILBOX_VECTORS]
        cdef int count = mailbox_gather(self.box, vectors)
        return b"".join([(<const char*> vectors[i].iov_base)[:vectors[i].iov_len] for i in range(count)])

    def advance(self, size_t written):
        """`written` bytes left. Raises MemoryError."""
        if mailbox_advance(self.box, written) < 0:
            raise MemoryError

    def hold(self):
        """The socket is full. Raises MemoryError."""
        if mailbox_hold_spans(self.box) < 0:
            raise MemoryError

    @property
    def messages(self):
        """Data messages that wait."""
        return mailbox_messages(self.box)

    @property
    def spans(self):
        """Spans that wait."""
        return self.box.span_count

    @property
    def live_arenas(self):
        """Arenas with references, the probe's own included."""
        return self.arenas.live
