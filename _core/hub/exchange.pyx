"""What comes from elsewhere; `exchange.pxd` is the contract."""

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.string cimport strlen

from realtime_communication._core.base.memory cimport Buffer, buffer_free, slice_of
from realtime_communication._core.base.table cimport TableCursor, table_start
from realtime_communication._core.hub.bus_user cimport BUS_NONSENSE
from realtime_communication._core.hub.feed cimport LATE, RETRY_MS
from realtime_communication._core.hub.homes cimport Homes
from realtime_communication._core.hub.peers cimport (
    AUTHORITY_HERE,
    AUTHORITY_WORKER,
    FRAME_ACK,
    FRAME_DELIVER,
    FRAME_FULL,
    FRAME_HANDOVER,
    FRAME_HISTORY,
    FRAME_INTEREST,
    FRAME_PAGE,
    FRAME_PUBLISH,
    FRAME_REFUSE,
    FRAME_REMEMBER,
    FRAME_RESET,
    FRAME_SETTLED,
    FRAME_SUBSCRIBE,
    FRAME_SUBSCRIBED,
    FRAME_UNSUBSCRIBE,
    FRAME_WANTED,
    WAIT_RELAY,
    Body,
    Frame,
    Waiting,
    body_read,
    frame_read,
    peers_look,
    take_number,
    waiting_find,
)
from realtime_communication._core.hub.relay cimport is_used
from realtime_communication._core.hub.throttle cimport throttle_peer_joined, throttle_peer_left, throttle_take
from realtime_communication._core.hub.topics cimport Topic, next_topic, topic_find, topic_release
from realtime_communication._core.wire.envelope cimport ERROR_UNAVAILABLE

cdef enum:
    ASK_TIMEOUT_MS = 10000       # after which a request that nobody answered is refused

cdef const char* LOST = b"topic: its home was lost before it answered; the message may or may not have been published"


cdef class Exchange(Homes):

    cdef void peer_joined(self, int slot, uint64_t incarnation) noexcept:
        cdef TableCursor cursor
        cdef Topic* topic
        self.peers.workers[slot].linked = True
        peers_look(&self.peers)
        self.peers.settled[slot] = 0
        if self.peers.version:
            self.tell_settled(slot)
        topic = topic_find(&self.store, slice_of(b"*", 1))
        if topic != NULL and topic.authority < AUTHORITY_WORKER:
            topic.interest = self.others()
        table_start(&cursor)
        topic = next_topic(&self.store, &cursor)
        while topic != NULL:
            if topic.authority == AUTHORITY_WORKER + slot and not topic.synced and not topic.asking:
                self.ask_again(topic)
            throttle_peer_joined(self, slot, topic)
            topic = next_topic(&self.store, &cursor)
        # What was said of inboxes to the one before it is not known to this one.
        try:
            self.tell_homes_of_users()
        except MemoryError:
            pass

    cdef void peer_left(self, int slot) noexcept:
        cdef Waiting* waiting
        cdef Waiting* following
        cdef TableCursor cursor
        cdef Topic* topic
        self.peers.workers[slot].linked = False
        peers_look(&self.peers)
        if self.peers.holding and not self.awaits_somebody():
            self.stop_holding()  # the next members may be without this one, for whom nothing waits after that
        buffer_free(&self.peers.workers[slot].out)
        self.peers.workers[slot].starved = False
        waiting = self.peers.oldest
        while waiting != NULL:
            following = waiting.next
            if waiting.kind == WAIT_RELAY and waiting.peer == slot:
                self.drop_waiting(waiting)
            elif waiting.authority == AUTHORITY_WORKER + slot:
                self.refused(waiting, ERROR_UNAVAILABLE, slice_of(LOST, strlen(LOST)), RETRY_MS)
            waiting = following
        table_start(&cursor)
        topic = next_topic(&self.store, &cursor)
        while topic != NULL:
            throttle_peer_left(self, slot, topic)
            if topic.authority == AUTHORITY_WORKER + slot:
                topic.synced = False
                if is_used(self, topic):
                    topic.foreign = True
            if topic.interest >> slot & 1:
                self.lose_interest(slot, topic)
            topic_release(&self.store, topic)
            topic = next_topic(&self.store, &cursor)

    cdef size_t receive_peer(self, int slot, const uint8_t* data, size_t size) noexcept:
        cdef Frame frame
        cdef size_t at = 0
        cdef Py_ssize_t used
        while True:
            used = frame_read(data + at, size - at, &frame)
            if used < 0:
                return <size_t> BUS_NONSENSE
            if used == 0:
                return at
            at += <size_t> used
            self.take_frame(slot, &frame)

    cdef void take_frame(self, int slot, Frame* frame) noexcept:
        cdef Waiting* waiting
        cdef int type = frame.type
        if type in (FRAME_PUBLISH, FRAME_SUBSCRIBE, FRAME_HISTORY, FRAME_INTEREST, FRAME_UNSUBSCRIBE) and (
                self.peers.holding or self.peers.settled[slot] > self.peers.version) or (
                type == FRAME_FULL and self.peers.holding):
            self.hold(slot, frame)
        elif type == FRAME_PUBLISH:
            self.asked_to_publish(slot, frame)
        elif type == FRAME_DELIVER or type == FRAME_RESET:
            self.take_feed(slot, frame)
        elif type == FRAME_SUBSCRIBE:
            self.asked_to_subscribe(slot, frame)
        elif type == FRAME_HISTORY:
            self.asked_for_history(slot, frame)
        elif type == FRAME_UNSUBSCRIBE:
            self.asked_to_unsubscribe(slot, frame)
        elif type == FRAME_INTEREST:
            self.asked_for_inbox(slot, frame)
        elif type == FRAME_FULL:
            throttle_take(self, slot, frame)
        elif type == FRAME_HANDOVER:
            self.arrive(slot, frame)
        elif type == FRAME_REMEMBER:
            self.remember(frame)
        elif type == FRAME_SETTLED:
            self.hear_settled(slot, frame)
        elif type == FRAME_WANTED:
            self.asked_whether_wanted(slot, frame)
        else:
            waiting = waiting_find(&self.peers, frame.token)
            if waiting != NULL and waiting.authority == AUTHORITY_WORKER + slot:
                self.take_answer(waiting, frame)

    cdef void take_feed(self, int slot, Frame* frame) noexcept:
        cdef bint ok = True
        cdef uint64_t epoch = take_number(frame, 8, &ok)
        cdef uint64_t offset = take_number(frame, 8, &ok)
        cdef Body body
        cdef Topic* topic
        if not ok:
            return
        if frame.type == FRAME_DELIVER:
            if body_read(slice_of(frame.rest, frame.rest_size), &body):
                self.delivered(frame.topic, frame.kind, epoch, offset, &body)
            return
        topic = topic_find(&self.store, frame.topic)
        if topic != NULL and topic.authority == AUTHORITY_WORKER + slot and topic.synced:
            self.reset(topic, epoch, offset)

    cdef void take_answer(self, Waiting* waiting, Frame* frame) noexcept:
        cdef bint ok = True, flag
        cdef uint64_t epoch, offset, first
        cdef int64_t retry
        cdef int code
        if frame.type == FRAME_REFUSE:
            code = <int> take_number(frame, 1, &ok)
            retry = <int32_t> take_number(frame, 4, &ok)
            if ok:
                self.refused(waiting, code, slice_of(frame.rest, frame.rest_size), retry)
            return
        if frame.type not in (FRAME_ACK, FRAME_SUBSCRIBED, FRAME_PAGE):
            return
        epoch = take_number(frame, 8, &ok)
        offset = take_number(frame, 8, &ok)
        flag = take_number(frame, 1, &ok) != 0
        if frame.type == FRAME_ACK:
            if ok:
                self.acked(waiting, epoch, offset, flag)
            return
        first = take_number(frame, 8, &ok)
        if ok and frame.type == FRAME_SUBSCRIBED:
            self.subscribe_settled(waiting, epoch, offset, flag, first, slice_of(frame.rest, frame.rest_size))
        elif ok:
            self.history_settled(waiting, epoch, offset, first, slice_of(frame.rest, frame.rest_size))

    cdef void expire_asked(self) noexcept:
        cdef TableCursor cursor
        cdef Topic* topic
        if self.peers.holding and self.now_ms >= self.hold_until_ms:
            self.stop_holding()
        while self.peers.oldest != NULL and self.peers.oldest.since_ms + ASK_TIMEOUT_MS <= self.now_ms:
            self.refused(self.peers.oldest, ERROR_UNAVAILABLE, slice_of(LATE, strlen(LATE)), RETRY_MS)
        if not self.unsynced:
            return
        self.unsynced = False
        self.outbox.relieved = True
        self.ask_welcomes_again()
        table_start(&cursor)
        topic = next_topic(&self.store, &cursor)
        while topic != NULL:
            if topic.authority != AUTHORITY_HERE and not topic.synced and not topic.asking:
                self.ask_again(topic)
            topic = next_topic(&self.store, &cursor)

    # --- peers that speak through Python

    def link(self, int slot, bint up):
        """A worker can be spoken to from now on, or no longer."""
        self.home.refresh()
        if up:
            self.peer_joined(slot, 0)
        else:
            self.peer_left(slot)
        self.home.wake()

    def take_for_peer(self, int slot):
        """The bytes that wait for a worker; None when the link has to end."""
        cdef Buffer* out = self.outgoing(slot)
        if out == NULL:
            return None
        taken = (<const char*> out.data)[:out.size]
        out.size = 0
        return taken

    def receive_from_peer(self, int slot, bytes data not None):
        """What a worker sent; how many bytes of it were whole frames, -1 when they are none."""
        self.home.refresh()
        used = <Py_ssize_t> self.receive_peer(slot, <const uint8_t*> data, len(data))
        self.home.wake()
        return used
