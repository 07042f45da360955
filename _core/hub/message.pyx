"""Publications; `message.pxd` is the contract."""

from libc.stddef cimport size_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from realtime_communication._core.base.memory cimport (
    Pool,
    Slice,
    pool_free,
    pool_give,
    pool_init,
    pool_take,
    slice_of,
)


cdef Message* message_new(Pool* pool, Slice sender, Slice payload, int encoding) noexcept nogil:
    cdef size_t size = sizeof(Message) + sender.size + payload.size
    cdef Message* message
    if sender.size > 255 or payload.size > 0x7FFFFFFF:
        return NULL
    cdef bint pooled = size <= MESSAGE_ITEM
    if pooled:
        message = <Message*> pool_take(pool)
    else:
        message = <Message*> malloc(size)
    if message == NULL:
        return NULL
    message.references = 1
    message.payload_size = <uint32_t> payload.size
    message.offset = 0
    message.ts = 0
    message.stored_ms = 0
    message.excluded = 0
    message.topic = NULL
    message.newer = NULL
    message.older = NULL
    message.next_pending = NULL
    message.forms = NULL
    message.encoding = <uint8_t> encoding
    message.sender_size = <uint8_t> sender.size
    message.raw = False
    message.pooled = pooled
    if sender.size:
        memcpy(&message.data[0], sender.data, sender.size)
    if payload.size:
        memcpy(&message.data[0] + sender.size, payload.data, payload.size)
    return message


cdef void message_free(Pool* pool, Message* message) noexcept nogil:
    cdef Form* form = message.forms
    cdef Form* next_form
    while form != NULL:
        next_form = form.next
        free(form)
        form = next_form
    if message.pooled:
        pool_give(pool, message)
    else:
        free(message)


cdef class MessageProbe:
    """Makes and drops messages, so that tests see what they hold and when they are freed."""

    cdef Pool pool
    cdef Message* message

    def __cinit__(self, bytes sender not None, bytes payload not None, int encoding=0):
        pool_init(&self.pool, MESSAGE_ITEM, 4)
        self.message = message_new(
            &self.pool,
            slice_of(<const uint8_t*> sender, len(sender)),
            slice_of(<const uint8_t*> payload, len(payload)),
            encoding,
        )
        if self.message == NULL:
            raise ValueError("sender or payload too large for a message")

    def __dealloc__(self):
        if self.message != NULL:
            message_free(&self.pool, self.message)
        pool_free(&self.pool)

    def hold(self):
        """Add a reference."""
        self.message.references += 1

    def drop(self):
        """Drop a reference; return whether the message still lives."""
        cdef bint last = self.message.references == 1
        message_drop(&self.pool, self.message)
        if last:
            self.message = NULL
        return not last

    @property
    def live(self):
        """Pooled messages that are not freed."""
        return self.pool.live

    @property
    def parts(self):
        """Sender and payload as stored."""
        cdef Slice sender = message_sender(self.message)
        cdef Slice payload = message_payload(self.message)
        return (<const char*> sender.data)[:sender.size], (<const char*> payload.data)[:payload.size]
