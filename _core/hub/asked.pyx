"""What other workers ask; `asked.pxd` is the contract."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint64_t

from realtime_communication._core.base.memory cimport Slice, bytes_of, slice_of
from realtime_communication._core.hub.answers cimport Answers
from realtime_communication._core.hub.core cimport Position
from realtime_communication._core.hub.feed cimport CODE_MOVED, LATE, MOVING, RETRY_MS
from realtime_communication._core.hub.history cimport page_range
from realtime_communication._core.hub.outbox cimport outbox_flush_topic
from realtime_communication._core.hub.peers cimport (
    AUTHORITY_HERE,
    AUTHORITY_UPSTREAM,
    AUTHORITY_WORKER,
    FRAME_PAGE,
    FRAME_SUBSCRIBED,
    WAIT_RELAY,
    Body,
    Frame,
    Waiting,
    body_read,
    peers_authority,
    take_number,
    take_slice,
    waiting_add,
)
from realtime_communication._core.hub.publications cimport publish_inbox, publish_keyed
from realtime_communication._core.hub.relay cimport epoch_number, relay_bytes, relay_history, relay_subscribe
from realtime_communication._core.hub.subscriptions cimport is_covered, subscribed_from
from realtime_communication._core.hub.throttle cimport throttle_remind
from realtime_communication._core.hub.topics cimport (
    EPOCH_SIZE,
    TOPIC_ALL,
    TOPIC_INBOX,
    Topic,
    topic_find,
    topic_release,
)
from realtime_communication._core.wire.envelope cimport ERROR_UNAVAILABLE


cdef void refuse_moved(Asked core, int slot, const Frame* frame, Topic* topic) noexcept:
    """The topic, opened to find that out, is at home elsewhere; NULL: there was no memory for it."""
    core.answer_refuse(slot, frame.token, CODE_MOVED, MOVING, RETRY_MS)
    if topic != NULL:
        topic_release(&core.store, topic)


cdef class Asked(Answers):

    cdef void asked_to_publish(self, int slot, Frame* frame) noexcept:
        cdef bint ok = True
        cdef Slice key = take_slice(frame, <size_t> take_number(frame, 2, &ok), &ok)
        cdef Body body
        cdef int authority
        cdef Topic* topic
        if not ok or not body_read(slice_of(frame.rest, frame.rest_size), &body):
            return
        authority = peers_authority(&self.peers, frame.topic)
        if self.draining and authority < AUTHORITY_WORKER:
            self.answer_refuse(slot, frame.token, ERROR_UNAVAILABLE, MOVING, RETRY_MS)
            return
        topic = topic_find(&self.store, frame.topic)
        if topic != NULL and authority < AUTHORITY_WORKER:
            throttle_remind(self, slot, topic)
        try:
            if authority >= AUTHORITY_WORKER or authority == AUTHORITY_UPSTREAM:
                self.pass_on(slot, frame, authority, bytes_of(key))
            else:
                self.publish_for(slot, frame, &body, bytes_of(key))
        except MemoryError:
            self.answer_refuse(slot, frame.token, ERROR_UNAVAILABLE, LATE, RETRY_MS)

    cdef int pass_on(self, int slot, Frame* frame, int authority, bytes key) except -1:
        cdef Waiting* waiting = self.relay_waiting(slot, frame, authority)
        if authority >= AUTHORITY_WORKER:
            # It was sent before its sender heard of the new home.
            if waiting == NULL or relay_bytes(self, authority, waiting, frame, key) < 0:
                self.answer_refuse(slot, frame.token, ERROR_UNAVAILABLE, MOVING, RETRY_MS)
        elif waiting == NULL:
            self.answer_refuse(slot, frame.token, ERROR_UNAVAILABLE, LATE, RETRY_MS)
        else:
            self.upward.append(("publish", bytes_of(frame.topic), waiting.token,
                                (<const char*> frame.rest)[:frame.rest_size], key))
        return 0

    cdef int publish_for(self, int slot, Frame* frame, const Body* body, bytes key) except -1:
        cdef Position position
        cdef bint reached = False
        cdef int outcome
        self.origin_instance = body.instance
        self.origin_serial = body.excluded
        if frame.kind == TOPIC_INBOX:
            outcome = publish_inbox(self, slice_of(frame.topic.data + 1, frame.topic.size - 1), body.sender,
                                    body.payload, body.encoding, key, &position, &reached)
        else:
            outcome = publish_keyed(self, frame.topic, frame.kind, body.sender, body.payload, body.encoding, key,
                                    &position)
        self.origin_serial = 0
        if outcome < 0:
            self.answer_refuse(slot, frame.token, ERROR_UNAVAILABLE, LATE, RETRY_MS)
        elif frame.token:
            self.answer_ack(slot, frame.token, epoch_number(slice_of(position.epoch, EPOCH_SIZE)), position.offset,
                            reached)
        return 0

    cdef Waiting* relay_waiting(self, int slot, const Frame* frame, int authority) noexcept:
        cdef Waiting* waiting = waiting_add(
            &self.peers, WAIT_RELAY, authority, NULL, 0, 0, slice_of(NULL, 0), frame.topic, frame.kind,
            self.now_ms)
        if waiting != NULL:
            waiting.peer = <uint8_t> slot
            waiting.peer_token = frame.token
            waiting.asked = frame.type
        return waiting

    cdef void asked_to_subscribe(self, int slot, Frame* frame) noexcept:
        cdef bint ok = True, recovered = False
        cdef bint has_position = take_number(frame, 1, &ok) != 0
        cdef uint64_t epoch = take_number(frame, 8, &ok)
        cdef uint64_t offset = take_number(frame, 8, &ok)
        cdef int64_t history = <int64_t> take_number(frame, 8, &ok)
        cdef Topic* topic
        cdef Waiting* waiting
        cdef uint64_t first
        if not ok:
            return
        # An inbox and the topic of all connections have subscribers from their first moment on.
        if frame.kind == TOPIC_INBOX:
            self.inbox(slice_of(frame.topic.data + 1, frame.topic.size - 1))
        elif frame.kind == TOPIC_ALL:
            self.everyone()
        topic = self.open_topic(frame.topic, frame.kind)
        if topic == NULL or topic.authority >= AUTHORITY_WORKER:
            refuse_moved(self, slot, frame, topic)
            return
        if topic.authority == AUTHORITY_UPSTREAM and not is_covered(topic, has_position, epoch, offset, history):
            waiting = self.relay_waiting(slot, frame, AUTHORITY_UPSTREAM)
            if waiting == NULL or relay_subscribe(self, waiting, has_position, epoch, offset, history) < 0:
                self.answer_refuse(slot, frame.token, ERROR_UNAVAILABLE, LATE, RETRY_MS)
                return
            topic.asking += 1
            return
        outbox_flush_topic(&self.outbox, topic)
        self.gain_interest(slot, topic)
        first = subscribed_from(topic, has_position, epoch, offset, history, &recovered)
        self.answer_stored(slot, FRAME_SUBSCRIBED, frame.token, topic, recovered, first, topic.offset)

    cdef void asked_to_unsubscribe(self, int slot, Frame* frame) noexcept:
        cdef Topic* topic = topic_find(&self.store, frame.topic)
        if topic != NULL:
            self.lose_interest(slot, topic)
            topic_release(&self.store, topic)

    cdef void asked_for_inbox(self, int slot, Frame* frame) noexcept:
        cdef Topic* topic = NULL
        cdef Waiting* waiting
        if frame.kind == TOPIC_INBOX:
            topic = self.inbox(slice_of(frame.topic.data + 1, frame.topic.size - 1))
        if topic == NULL or topic.authority >= AUTHORITY_WORKER:
            refuse_moved(self, slot, frame, topic)
            return
        self.gain_interest(slot, topic)
        if frame.token == 0:
            return
        if topic.authority == AUTHORITY_HERE or topic.synced:
            self.answer_ack(slot, frame.token, topic.epoch, topic.offset, True)
            return
        waiting = self.relay_waiting(slot, frame, AUTHORITY_UPSTREAM)
        if waiting != NULL and relay_subscribe(self, waiting, False, 0, 0, 0) == 0:
            return
        if waiting != NULL:
            self.drop_waiting(waiting)
        self.answer_refuse(slot, frame.token, ERROR_UNAVAILABLE, LATE, RETRY_MS)

    cdef void asked_for_history(self, int slot, Frame* frame) noexcept:
        cdef bint ok = True
        cdef bint has_position = take_number(frame, 1, &ok) != 0
        cdef uint64_t epoch = take_number(frame, 8, &ok)
        cdef uint64_t offset = take_number(frame, 8, &ok)
        cdef int64_t limit = <int64_t> take_number(frame, 8, &ok)
        cdef bint reverse = take_number(frame, 1, &ok) != 0
        cdef Topic* topic
        cdef Waiting* waiting
        cdef uint64_t first = 0, last = 0
        if not ok:
            return
        topic = self.open_topic(frame.topic, frame.kind)
        if topic == NULL or topic.authority >= AUTHORITY_WORKER:
            self.answer_refuse(slot, frame.token, CODE_MOVED, MOVING, RETRY_MS)
        elif topic.authority == AUTHORITY_UPSTREAM:
            waiting = self.relay_waiting(slot, frame, AUTHORITY_UPSTREAM)
            if waiting == NULL or relay_history(self, waiting, has_position, epoch, offset, limit, reverse) < 0:
                self.answer_refuse(slot, frame.token, ERROR_UNAVAILABLE, LATE, RETRY_MS)
        else:
            page_range(topic, has_position, epoch, offset, <uint64_t> max(limit, 0), reverse, &first, &last)
            self.answer_stored(slot, FRAME_PAGE, frame.token, topic, False, first, last)
        if topic != NULL:
            topic_release(&self.store, topic)
