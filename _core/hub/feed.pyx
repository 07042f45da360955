"""What is said to other workers and taken from their feeds; `feed.pxd` is the contract."""

import os

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport strlen

from realtime_communication._core.base.memory cimport Buffer, Slice, buffer_append, slice_of
from realtime_communication._core.hub.gate cimport Gate
from realtime_communication._core.hub.message cimport (
    Message,
    message_drop,
    message_new,
    message_payload,
    message_sender,
)
from realtime_communication._core.hub.outbox cimport outbox_publish
from realtime_communication._core.hub.peers cimport (
    AUTHORITY_HERE,
    AUTHORITY_UPSTREAM,
    FRAME_ACK,
    FRAME_REFUSE,
    Body,
    add_body,
    add_u32,
    add_u64,
    add_u8,
    frame_done,
    frame_failed,
    frame_to,
    peers_free,
    peers_init,
    put_u32,
)
from realtime_communication._core.hub.relay cimport end_feed, is_used, tell_upstream_of_user, user_here
from realtime_communication._core.hub.topics cimport (
    TOPIC_ALL,
    TOPIC_INBOX,
    TOPIC_PLAIN,
    Topic,
    topic_find,
    topic_message,
    topic_release,
    topic_reset,
)

cdef const char* MOVING = b"topic: its home is changing; try again"
cdef const char* LATE = b"topic: its home did not answer in time"


cdef class Feed(Gate):

    def __cinit__(self, str node_id not None):
        peers_init(&self.peers)
        self.peers.instance = int.from_bytes(os.urandom(8), "big") | 1
        self.upward = []

    def __dealloc__(self):
        peers_free(&self.peers)

    cdef Buffer* outgoing(self, int slot) noexcept:
        return &self.peers.workers[slot].out if not self.peers.workers[slot].starved else NULL

    # --- who is fed

    cdef void gain_interest(self, int slot, Topic* topic) noexcept:
        cdef bint used = is_used(self, topic)
        topic.interest |= <uint64_t> 1 << slot
        if topic.kind == TOPIC_INBOX and not used and topic.authority == AUTHORITY_UPSTREAM:
            tell_upstream_of_user(self, topic, True)

    cdef void lose_interest(self, int slot, Topic* topic) noexcept:
        cdef uint64_t bit = <uint64_t> 1 << slot
        if not topic.interest & bit:
            return
        topic.interest &= ~bit
        if is_used(self, topic) or topic.authority != AUTHORITY_UPSTREAM:
            return
        if topic.kind == TOPIC_INBOX:
            tell_upstream_of_user(self, topic, False)
        elif topic.synced:
            end_feed(self, topic)

    cdef void unused(self, Topic* topic) noexcept:
        if not self.peers.spread or topic.authority == AUTHORITY_HERE or topic.kind != TOPIC_PLAIN or (
                is_used(self, topic)):
            return
        end_feed(self, topic)

    cdef void user_seen(self, Slice user, bint here) noexcept:
        user_here(self, user, here)

    # --- what another worker is answered

    cdef void answer_ack(self, int slot, uint64_t token, uint64_t epoch, uint64_t offset, bint reached) noexcept:
        cdef Buffer* out = frame_to(&self.peers, slot, FRAME_ACK, 0, slice_of(NULL, 0), token, 17)
        if out != NULL:
            add_u64(out, epoch)
            add_u64(out, offset)
            add_u8(out, reached)
            frame_done(&self.peers, slot)

    cdef void answer_refuse(self, int slot, uint64_t token, int code, const char* text, int64_t retry) noexcept:
        cdef size_t size = strlen(text)
        cdef Buffer* out
        if token == 0:
            return
        out = frame_to(&self.peers, slot, FRAME_REFUSE, 0, slice_of(NULL, 0), token, 5 + size)
        if out != NULL:
            add_u8(out, <uint8_t> code)
            add_u32(out, <uint32_t> <int32_t> retry)
            buffer_append(out, text, size)
            frame_done(&self.peers, slot)

    cdef void answer_stored(self, int slot, int type, uint64_t token, Topic* topic, bint recovered, uint64_t first,
                            uint64_t last) noexcept:
        self.write_stored(slot, type, slice_of(NULL, 0), token, topic, recovered, first, last)

    cdef void write_stored(self, int slot, int type, Slice name, uint64_t token, Topic* topic, bint recovered,
                           uint64_t first, uint64_t last) noexcept:
        cdef Buffer* out = frame_to(&self.peers, slot, type, topic.kind, name, token, 25)
        cdef Message* message
        cdef size_t at
        if out == NULL:
            return
        add_u64(out, topic.epoch)
        add_u64(out, topic.offset)
        add_u8(out, recovered)
        add_u64(out, first)
        while first <= last:
            message = topic_message(topic, first)
            at = out.size
            if add_u32(out, 0) < 0 or add_body(out, message.ts, 0, 0, message.encoding, message_sender(message),
                                               message_payload(message)) < 0:
                frame_failed(&self.peers, slot)
                return
            put_u32(out.data + at, <uint32_t> (out.size - at - 4))
            first += 1
        frame_done(&self.peers, slot)

    cdef void answer_bodies(self, int slot, int type, uint64_t token, uint64_t epoch, uint64_t offset, bint recovered,
                            uint64_t first, Slice bodies) noexcept:
        cdef Buffer* out = frame_to(&self.peers, slot, type, 0, slice_of(NULL, 0), token, 25 + bodies.size)
        if out != NULL:
            add_u64(out, epoch)
            add_u64(out, offset)
            add_u8(out, recovered)
            add_u64(out, first)
            buffer_append(out, bodies.data, bodies.size)
            frame_done(&self.peers, slot)

    # --- what another worker feeds

    cdef void delivered(self, Slice name, int kind, uint64_t epoch, uint64_t offset, const Body* body) noexcept:
        cdef Topic* topic
        if kind == TOPIC_INBOX:
            topic = self.inbox(slice_of(name.data + 1, name.size - 1))
        elif kind == TOPIC_ALL:
            topic = self.everyone()
        else:
            topic = topic_find(&self.store, name)
        if topic == NULL or topic.authority == AUTHORITY_HERE:
            return
        if not topic.synced:
            if kind == TOPIC_PLAIN or not is_used(self, topic):
                topic_release(&self.store, topic)
                return               # the answer that is on its way includes it, or nobody is left to get it
            if topic.foreign and (topic.epoch != epoch or topic.offset + 1 != offset):
                self.reset(topic, epoch, offset - 1)
            elif topic.epoch != epoch or topic.offset + 1 != offset:
                topic_reset(&self.store, topic, epoch, offset - 1)
            topic.foreign = True
            topic.synced = True
        if topic.epoch != epoch or offset > topic.offset + 1:
            self.reset(topic, epoch, offset - 1)
        if offset == topic.offset + 1:
            self.deliver(topic, offset, body)

    cdef void deliver(self, Topic* topic, uint64_t offset, const Body* body) noexcept:
        cdef Message* message = message_new(&self.store.messages, body.sender, body.payload, body.encoding)
        if message == NULL:
            # It is missing here from now on, and so is everything before it: both are told.
            self.reset(topic, topic.epoch, offset)
            return
        message.ts = body.ts
        message.stored_ms = self.now_ms
        message.excluded = body.excluded if body.instance == self.peers.instance else 0
        topic.members += 1
        self.store_message(topic, message)
        outbox_publish(&self.outbox, topic, message)
        self.due += topic.subscribers
        if topic.interest:
            self.feed(topic, message, body.instance, body.excluded)
        topic.members -= 1
        message_drop(&self.store.messages, message)
