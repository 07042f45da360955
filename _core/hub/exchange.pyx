"""What comes from elsewhere; `exchange.pxd` is the contract."""

import os

from cpython.ref cimport Py_DECREF
from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset, strlen

from realtime_communication._core.base.memory cimport Buffer, Slice, buffer_append, buffer_free, slice_of
from realtime_communication._core.base.table cimport TableCursor, table_next, table_start
from realtime_communication._core.hub.bus_user cimport BUS_NONSENSE
from realtime_communication._core.hub.core cimport Position, kept_entries
from realtime_communication._core.hub.history cimport history_answered, page_range
from realtime_communication._core.hub.http_requests cimport given_answered
from realtime_communication._core.hub.message cimport (
    Message,
    message_drop,
    message_new,
    message_payload,
    message_sender,
)
from realtime_communication._core.hub.outbox cimport outbox_flush_topic, outbox_publish, outbox_reply
from realtime_communication._core.hub.outcome cimport OUTCOME_ASKED, no_memory
from realtime_communication._core.hub.outcome cimport start as reply_buffer
from realtime_communication._core.hub.peers cimport (
    AUTHORITY_ARRIVING,
    AUTHORITY_HERE,
    AUTHORITY_NOBODY,
    AUTHORITY_UPSTREAM,
    AUTHORITY_WORKER,
    FRAME_ACK,
    FRAME_DELIVER,
    FRAME_FULL,
    FRAME_HANDOVER,
    FRAME_HEAD,
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
    MAX_WORKERS,
    WAIT_ACK,
    WAIT_GIVEN,
    WAIT_MOVED,
    WAIT_PAGE,
    WAIT_PRESENCE,
    WAIT_RELAY,
    WAIT_SUBSCRIBED,
    WAIT_SYNC,
    WAIT_TARGET,
    WAIT_WELCOME,
    Body,
    Frame,
    Group,
    Peers,
    Waiting,
    add_body,
    add_u8,
    add_u32,
    add_u64,
    body_read,
    frame_end,
    frame_read,
    frame_start,
    peers_authority,
    peers_free,
    peers_home,
    peers_init,
    peers_look,
    peers_set,
    put_u32,
    take_number,
    take_slice,
    waiting_add,
    waiting_find,
    waiting_remove,
    waiting_topic,
)
from realtime_communication._core.hub.publications cimport publish_inbox, publish_keyed
from realtime_communication._core.hub.relay cimport (
    Later,
    ask_subscribe,
    ask_sync,
    ask_welcome,
    end_feed,
    epoch_number,
    is_used,
    relay_bytes,
    relay_history,
    relay_subscribe,
    request_of,
    tell_upstream_of_user,
    user_here,
)
from realtime_communication._core.hub.scatter cimport group_answered
from realtime_communication._core.hub.session cimport FLAG_ASKED, FLAG_WITHHELD, SESSION_OPEN, Inbound, Session
from realtime_communication._core.hub.settings cimport CACHE_BYTES
from realtime_communication._core.hub.stored_messages cimport next_body
from realtime_communication._core.hub.subscriptions cimport is_covered, subscribe_answered, subscribed_from
from realtime_communication._core.hub.throttle cimport (
    throttle_moved,
    throttle_peer_joined,
    throttle_peer_left,
    throttle_remind,
    throttle_take,
)
from realtime_communication._core.hub.topics cimport (
    EPOCH_SIZE,
    TOPIC_ALL,
    TOPIC_INBOX,
    TOPIC_PLAIN,
    Topic,
    epoch_text,
    topic_append,
    topic_find,
    topic_first,
    topic_message,
    topic_name,
    topic_release,
    topic_reset,
)
from realtime_communication._core.hub.users cimport User, user_id
from realtime_communication._core.hub.variants cimport variant_encoding
from realtime_communication._core.wire.envelope cimport ERROR_UNAVAILABLE, Request, envelope_parse, error_name
from realtime_communication._core.wire.outbound cimport write_ack
from realtime_communication._core.hub.outcome import RequestError

cdef enum:
    HOLD_MS = 3000               # after which topics are no longer waited for that should arrive
    HANDOVER_BYTES = 16777216    # of one topic's history
    HELD_FRAMES = 100000         # of other workers that wait for topics to arrive
    HELD_BYTES = 67108864        # of them; histories that come too early may have as much as the cache
    ASK_TIMEOUT_MS = 10000       # after which a request that nobody answered is refused
    RETRY_MS = 200               # told to clients whose topic is about to have another home

cdef const char* MOVING = b"topic: its home is changing; try again"
cdef const char* LOST = b"topic: its home was lost before it answered; the message may or may not have been published"
cdef const char* LATE = b"topic: its home did not answer in time"


cdef bint is_ahead(const Peers* peers, int slot, Slice topic) noexcept nogil:
    """Whether a worker that hands the topic over knows of newer members than this one: it said so, or had
    handed over for the same ones, and takes this worker for the home of a topic that is at home with itself."""
    return peers.settled[slot] > peers.version or (
        peers.settled[slot] == peers.version and peers_authority(peers, topic) == AUTHORITY_WORKER + slot)


cdef class Exchange(Gate):

    def __cinit__(self, str node_id not None):
        peers_init(&self.peers)
        self.peers.instance = int.from_bytes(os.urandom(8), "big") | 1
        self.upward = []
        self.held_frames = []
        self.held_bytes = 0
        self.next_members = []
        self.inbound = Inbound()

    def __dealloc__(self):
        while self.peers.oldest != NULL:
            self.drop_waiting(self.peers.oldest)
        peers_free(&self.peers)

    # --- membership

    def set_members(self, int me, members, uint64_t version=0):
        """Which slots are homes of topics from `version` on: `members`, numbers from 0 to 63; `me` is this worker's,
        which may be none of them. All workers that can be linked should be by now.

        Topics whose home is another worker now are handed over to it, with their history. Those that have their home
        here now arrive from the worker before, and what is asked about them waits for that; where it is gone they begin
        a new epoch, and their subscribers are told. A version that is not the newest is passed over. Raises ValueError.
        """
        cdef uint64_t mask = 0
        for slot in members:
            if not 0 <= slot < MAX_WORKERS:
                raise ValueError(f"members: {slot} is not between 0 and {MAX_WORKERS - 1}")
            mask |= <uint64_t> 1 << <int> slot
        if not 0 <= me < MAX_WORKERS:
            raise ValueError(f"me: {me} is not between 0 and {MAX_WORKERS - 1}")
        if version == 0:
            version = self.peers.version + 1
        newest = self.next_members[len(self.next_members) - 1][2] if self.next_members else self.peers.version
        if version <= newest:
            return
        self.home.refresh()
        if self.peers.holding:
            self.next_members.append((me, mask, version))  # when all has arrived that is on its way here
        else:
            self.change_members(me, mask, version)
        self.home.wake()

    cdef void change_members(self, int me, uint64_t mask, uint64_t version) noexcept:
        cdef uint64_t old = self.peers.members
        cdef TableCursor cursor
        cdef Topic* topic
        cdef int slot
        if self.peers.version == 0 and self.settings.deterministic_ids:
            self.store.epoch += <uint64_t> me << 24  # epochs that count begin elsewhere in each worker
        self.peers.version = version
        peers_set(&self.peers, me, mask)
        self.hold_until_ms = self.now_ms + HOLD_MS
        # What has its authority upstream is not handed over.
        self.peers.holding = not self.peers.upstream and old != 0 and (
            self.awaits_somebody() or bool(self.held_frames))
        self.hand_answers_over()
        table_start(&cursor)
        while True:
            topic = <Topic*> table_next(&self.store.topics, &cursor)
            if topic == NULL:
                break
            if topic.kind == TOPIC_ALL and self.peers.spread:
                topic.interest = self.others()
            self.move_topic(topic, peers_authority(&self.peers, topic_name(topic)))
        for slot in range(MAX_WORKERS):
            if self.peers.workers[slot].linked:
                self.tell_settled(slot)
            elif old >> slot & 1 and not mask >> slot & 1:
                self.peer_left(slot)
        self.take_held()         # of workers that had heard of it before
        try:
            self.tell_homes_of_users()
        except MemoryError:
            pass
        if self.peers.holding and not self.awaits_somebody():
            self.stop_holding()

    cdef uint64_t others(self) noexcept nogil:
        """A bit for each worker that can be spoken to, and each home."""
        cdef uint64_t mask = self.peers.members
        cdef int slot
        for slot in range(MAX_WORKERS):
            if self.peers.workers[slot].linked:
                mask |= <uint64_t> 1 << slot
        return mask & ~(<uint64_t> 1 << self.peers.me)

    cdef bint awaits_somebody(self) noexcept nogil:
        cdef int slot
        for slot in range(MAX_WORKERS):
            if self.peers.workers[slot].linked and self.peers.settled[slot] < self.peers.version:
                return True
        return False

    cdef void tell_settled(self, int slot) noexcept:
        cdef Buffer* out = self.outgoing(slot)
        cdef Py_ssize_t start = frame_start(out, FRAME_SETTLED, 0, slice_of(NULL, 0), 0, 8)
        if start >= 0:
            add_u64(out, self.peers.version)
            frame_end(out, start)

    cdef void hand_answers_over(self) noexcept:
        """Idempotency keys go to the homes of their topics."""
        cdef Buffer* out
        cdef Py_ssize_t start
        cdef int slot
        cdef bytes key, epoch, topic
        if not self.answered or self.peers.upstream:
            return
        try:
            for key, (until, epoch, offset) in list(self.answered.items()):
                topic = key.split(b"\0", 2)[1]
                slot = peers_home(&self.peers, slice_of(<const uint8_t*> topic, len(topic)))
                if slot == self.peers.me or until <= self.now_ms:
                    continue
                out = self.outgoing(slot)
                start = frame_start(out, FRAME_REMEMBER, 0, slice_of(NULL, 0), 0, 24 + len(key))
                if start < 0:
                    return
                add_u64(out, epoch_number(slice_of(<const uint8_t*> epoch, len(epoch))))
                add_u64(out, offset)
                add_u64(out, until - self.now_ms)
                buffer_append(out, <const char*> key, len(key))
                frame_end(out, start)
                del self.answered[key]
        except MemoryError:
            pass                 # a repeated request is published once more then

    cdef void hand_over(self, Topic* topic, int slot) noexcept:
        """The topic's history goes to its new home, as much of it as one frame takes."""
        cdef uint64_t first = topic_first(topic), offset = topic.offset, mirrors = topic.interest
        cdef size_t size = 0
        outbox_flush_topic(&self.outbox, topic)
        while offset >= first:
            size += topic_message(topic, offset).payload_size + 300
            if size > HANDOVER_BYTES:
                break
            offset -= 1
        # Who mirrors it will ask for it; until then it must not be taken for one that nobody uses.
        if topic.subscribers:
            mirrors |= <uint64_t> 1 << self.peers.me
        self.write_stored(slot, FRAME_HANDOVER, topic_name(topic), mirrors, topic, False, offset + 1, topic.offset)

    cdef void arrive(self, int slot, Frame* frame) noexcept:
        """A topic that another worker was the home of comes with its history."""
        cdef Frame whole = frame[0]
        cdef bint ok = True
        cdef uint64_t epoch = take_number(frame, 8, &ok)
        cdef uint64_t offset = take_number(frame, 8, &ok)
        take_number(frame, 1, &ok)
        cdef uint64_t first = take_number(frame, 8, &ok)
        cdef Topic* topic
        cdef Body body
        cdef uint64_t known
        if not ok:
            return
        if is_ahead(&self.peers, slot, frame.topic):
            self.hold(slot, &whole)
            return
        if not self.peers.holding or peers_authority(&self.peers, frame.topic) != AUTHORITY_ARRIVING:
            return
        topic = self.open_topic(frame.topic, frame.kind)
        if topic == NULL:
            return
        outbox_flush_topic(&self.outbox, topic)
        if topic.epoch != epoch or topic.offset > offset or topic.offset + 1 < first:
            if topic.offset or (topic.kind == TOPIC_PLAIN and is_used(self, topic)):
                self.reset(topic, epoch, offset)
            known = offset
        else:
            known = topic.offset
        topic_reset(&self.store, topic, epoch, first - 1)
        while next_body(frame, &body):
            self.store_arrived(topic, &body, topic.offset + 1 > known)
        topic.authority = AUTHORITY_HERE
        topic.foreign = False
        topic.synced = False
        topic.interest |= frame.token & self.others()
        throttle_moved(self, topic)
        topic_release(&self.store, topic)

    cdef void store_arrived(self, Topic* topic, const Body* body, bint fresh) noexcept:
        cdef Message* message
        if fresh:
            self.deliver(topic, topic.offset + 1, body)
            return
        message = message_new(&self.store.messages, body.sender, body.payload, body.encoding)
        if message == NULL:
            topic_reset(&self.store, topic, topic.epoch, topic.offset + 1)
            return
        message.ts = body.ts
        message.stored_ms = self.now_ms
        topic.members += 1
        topic_append(&self.store, topic, message, kept_entries(self), CACHE_BYTES)
        topic.members -= 1
        message_drop(&self.store.messages, message)

    cdef void stop_holding(self) noexcept:
        """All has arrived that will; what nobody handed over begins here."""
        cdef TableCursor cursor
        cdef Topic* topic
        self.peers.holding = False
        table_start(&cursor)
        while True:
            topic = <Topic*> table_next(&self.store.topics, &cursor)
            if topic == NULL:
                break
            if topic.authority == AUTHORITY_ARRIVING:
                topic.authority = AUTHORITY_HERE
                topic.synced = False
                throttle_moved(self, topic)
                if topic.foreign:
                    self.localize(topic)
                topic_release(&self.store, topic)
        self.take_held()
        self.outbox.relieved = True
        if self.next_members:
            me, mask, version = self.next_members.pop(0)
            self.change_members(me, mask, version)

    cdef void take_held(self) noexcept:
        """Take the frames that were held back; some may have to be held back again."""
        cdef list frames = self.held_frames
        self.held_frames = []
        self.held_bytes = 0
        for slot, data in frames:
            self.receive_peer(slot, <const uint8_t*> <const char*> (<bytes> data), len(<bytes> data))

    cdef int tell_homes_of_users(self) except -1:
        cdef Session* session = self.sessions
        cdef set told = set()
        if not self.peers.spread:
            return 0
        while session != NULL:
            if session.user != NULL and <size_t> session.user not in told:
                told.add(<size_t> session.user)
                user_here(self, user_id(<User*> session.user), True)
            session = session.next
        return 0

    cdef void move_topic(self, Topic* topic, int authority) noexcept:
        cdef bint was_here = topic.authority == AUTHORITY_HERE
        if topic.authority == authority and (authority == AUTHORITY_HERE or topic.synced):
            return
        if was_here and AUTHORITY_WORKER <= authority < AUTHORITY_ARRIVING and (
                topic.offset or topic.interest or topic.subscribers):
            self.hand_over(topic, authority - AUTHORITY_WORKER)
        if topic.authority == AUTHORITY_UPSTREAM and authority >= AUTHORITY_WORKER and (topic.synced or topic.asking):
            end_feed(self, topic)
        if topic.authority != authority:
            throttle_moved(self, topic)
        topic.authority = <uint8_t> authority
        topic.synced = topic.synced and authority == AUTHORITY_ARRIVING  # fed on by the home before
        if authority == AUTHORITY_HERE:
            if not was_here and topic.foreign:
                self.localize(topic)
            return
        if topic.offset or was_here:
            topic.foreign = True     # what it says of its history is good for asking what came after
        if authority == AUTHORITY_ARRIVING:
            return
        if authority >= AUTHORITY_WORKER:
            topic.interest = 0
        self.ask_again(topic)

    cdef void ask_again(self, Topic* topic) noexcept:
        if topic.authority not in (AUTHORITY_HERE, AUTHORITY_ARRIVING) and topic.kind == TOPIC_PLAIN and (
                is_used(self, topic)):
            ask_sync(self, topic)

    # --- peers

    cdef Buffer* outgoing(self, int slot) noexcept:
        return &self.peers.workers[slot].out

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
        while True:
            topic = <Topic*> table_next(&self.store.topics, &cursor)
            if topic == NULL:
                break
            if topic.authority == AUTHORITY_WORKER + slot and not topic.synced and not topic.asking:
                self.ask_again(topic)
            throttle_peer_joined(self, slot, topic)
        # What was said of inboxes to the one before it is not known to this one.
        try:
            self.tell_homes_of_users()
        except MemoryError:
            pass

    cdef void peer_left(self, int slot) noexcept:
        cdef Waiting* waiting = self.peers.oldest
        cdef Waiting* following
        cdef TableCursor cursor
        cdef Topic* topic
        self.peers.workers[slot].linked = False
        peers_look(&self.peers)
        if self.peers.holding and not self.awaits_somebody():
            self.stop_holding()
        buffer_free(&self.peers.workers[slot].out)
        while waiting != NULL:
            following = waiting.next
            if waiting.kind == WAIT_RELAY and waiting.peer == slot:
                self.drop_waiting(waiting)
            elif waiting.authority == AUTHORITY_WORKER + slot:
                self.refused(waiting, ERROR_UNAVAILABLE, slice_of(LOST, strlen(LOST)), RETRY_MS)
            waiting = following
        table_start(&cursor)
        while True:
            topic = <Topic*> table_next(&self.store.topics, &cursor)
            if topic == NULL:
                break
            throttle_peer_left(self, slot, topic)
            if topic.authority == AUTHORITY_WORKER + slot:
                topic.synced = False
                if is_used(self, topic):
                    topic.foreign = True
            if topic.interest >> slot & 1:
                self.lose_interest(slot, topic)
            topic_release(&self.store, topic)

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
        cdef bint ok = True
        cdef Topic* topic
        cdef Waiting* waiting
        cdef Body body
        cdef uint64_t epoch, offset, first
        cdef bint flag
        cdef int code
        cdef int64_t retry
        cdef int type = frame.type
        if type in (FRAME_PUBLISH, FRAME_SUBSCRIBE, FRAME_HISTORY, FRAME_INTEREST, FRAME_UNSUBSCRIBE) and (
                self.peers.holding or self.peers.settled[slot] > self.peers.version) or (
                type == FRAME_FULL and self.peers.holding):
            self.hold(slot, frame)
            return
        if type == FRAME_PUBLISH:
            self.asked_to_publish(slot, frame)
        elif type == FRAME_DELIVER:
            epoch = take_number(frame, 8, &ok)
            offset = take_number(frame, 8, &ok)
            if ok and body_read(slice_of(frame.rest, frame.rest_size), &body):
                self.delivered(frame.topic, frame.kind, epoch, offset, &body)
        elif type == FRAME_SUBSCRIBE:
            self.asked_to_subscribe(slot, frame)
        elif type == FRAME_HISTORY:
            self.asked_for_history(slot, frame)
        elif type == FRAME_UNSUBSCRIBE:
            topic = topic_find(&self.store, frame.topic)
            if topic != NULL:
                self.lose_interest(slot, topic)
                topic_release(&self.store, topic)
        elif type == FRAME_INTEREST:
            self.asked_for_inbox(slot, frame)
        elif type == FRAME_FULL:
            throttle_take(self, slot, frame)
        elif type == FRAME_HANDOVER:
            self.arrive(slot, frame)
        elif type == FRAME_REMEMBER:
            self.take_answer(frame)
        elif type == FRAME_SETTLED:
            self.peers.settled[slot] = take_number(frame, 8, &ok)
            if self.peers.holding and not self.awaits_somebody():
                self.stop_holding()
        elif type == FRAME_RESET:
            epoch = take_number(frame, 8, &ok)
            offset = take_number(frame, 8, &ok)
            topic = topic_find(&self.store, frame.topic)
            if ok and topic != NULL and topic.authority == AUTHORITY_WORKER + slot and topic.synced:
                self.reset(topic, epoch, offset)
        else:
            waiting = waiting_find(&self.peers, frame.token)
            if waiting == NULL or waiting.authority != AUTHORITY_WORKER + slot:
                return
            if type == FRAME_ACK:
                epoch = take_number(frame, 8, &ok)
                offset = take_number(frame, 8, &ok)
                flag = take_number(frame, 1, &ok) != 0
                if ok:
                    self.acked(waiting, epoch, offset, flag)
            elif type == FRAME_REFUSE:
                code = <int> take_number(frame, 1, &ok)
                retry = <int32_t> take_number(frame, 4, &ok)
                if ok:
                    self.refused(waiting, code, slice_of(frame.rest, frame.rest_size), retry)
            elif type == FRAME_SUBSCRIBED or type == FRAME_PAGE:
                epoch = take_number(frame, 8, &ok)
                offset = take_number(frame, 8, &ok)
                flag = take_number(frame, 1, &ok) != 0
                first = take_number(frame, 8, &ok)
                if ok and type == FRAME_SUBSCRIBED:
                    self.subscribe_settled(waiting, epoch, offset, flag, first, slice_of(frame.rest, frame.rest_size))
                elif ok:
                    self.history_settled(waiting, epoch, offset, first, slice_of(frame.rest, frame.rest_size))

    cdef void hold(self, int slot, const Frame* frame) noexcept:
        """Keep a frame until all topics have arrived."""
        cdef const uint8_t* start = frame.topic.data - FRAME_HEAD
        cdef size_t size = <size_t> (frame.rest + frame.rest_size - start)
        cdef bint is_history = frame.type == FRAME_HANDOVER
        if len(self.held_frames) < HELD_FRAMES and self.held_bytes + size <= <size_t> (
                CACHE_BYTES if is_history else HELD_BYTES):
            try:
                self.held_frames.append((slot, (<const char*> start)[:size]))
                self.held_bytes += size
                return
            except MemoryError:
                pass
        if frame.type in (FRAME_PUBLISH, FRAME_SUBSCRIBE, FRAME_HISTORY, FRAME_INTEREST):
            self.answer_refuse(slot, frame.token, ERROR_UNAVAILABLE, MOVING, RETRY_MS)

    cdef void take_answer(self, Frame* frame) noexcept:
        cdef bint ok = True
        cdef uint64_t epoch = take_number(frame, 8, &ok)
        cdef uint64_t offset = take_number(frame, 8, &ok)
        cdef uint64_t left = take_number(frame, 8, &ok)
        cdef uint8_t text[EPOCH_SIZE]
        if not ok:
            return
        epoch_text(epoch, text)
        try:
            self.answered[(<const char*> frame.rest)[:frame.rest_size]] = (
                self.now_ms + min(left, <uint64_t> self.settings.cache_ttl_ms),
                (<const char*> text)[:EPOCH_SIZE], offset)
        except MemoryError:
            pass

    # --- asked by another worker

    cdef void asked_to_publish(self, int slot, Frame* frame) noexcept:
        cdef bint ok = True, reached = False
        cdef Slice key = take_slice(frame, <size_t> take_number(frame, 2, &ok), &ok)
        cdef Body body
        cdef Position position
        cdef int authority, outcome
        cdef bytes name
        cdef Topic* topic
        cdef Waiting* waiting
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
            name = (<const char*> key.data)[:key.size]
            if authority >= AUTHORITY_WORKER:
                # It was sent before its sender heard of the new home.
                waiting = self.relay_waiting(slot, frame, authority)
                if waiting == NULL or relay_bytes(self, authority, waiting, frame, name) < 0:
                    self.answer_refuse(slot, frame.token, ERROR_UNAVAILABLE, MOVING, RETRY_MS)
                return
            if authority == AUTHORITY_UPSTREAM:
                waiting = self.relay_waiting(slot, frame, authority)
                if waiting == NULL:
                    self.answer_refuse(slot, frame.token, ERROR_UNAVAILABLE, LATE, RETRY_MS)
                    return
                self.upward.append(("publish", (<const char*> frame.topic.data)[:frame.topic.size], waiting.token,
                                    (<const char*> frame.rest)[:frame.rest_size], name))
                return
            self.origin_instance = body.instance
            self.origin_serial = body.excluded
            if frame.kind == TOPIC_INBOX:
                outcome = publish_inbox(self, slice_of(frame.topic.data + 1, frame.topic.size - 1), body.sender,
                                        body.payload, body.encoding, name, &position, &reached)
            else:
                outcome = publish_keyed(self, frame.topic, frame.kind, body.sender, body.payload, body.encoding, name,
                                        &position)
            self.origin_serial = 0
        except MemoryError:
            outcome = -1
        if outcome < 0:
            self.answer_refuse(slot, frame.token, ERROR_UNAVAILABLE, LATE, RETRY_MS)
        elif frame.token:
            self.answer_ack(slot, frame.token, epoch_number(slice_of(position.epoch, EPOCH_SIZE)), position.offset,
                            reached)

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
        if frame.kind == TOPIC_INBOX and frame.topic.size > 1:
            self.inbox(slice_of(frame.topic.data + 1, frame.topic.size - 1))
        elif frame.kind == TOPIC_ALL:
            self.everyone()
        topic = self.open_topic(frame.topic, frame.kind)
        if topic == NULL or topic.authority >= AUTHORITY_WORKER:
            self.answer_refuse(slot, frame.token, CODE_MOVED, MOVING, RETRY_MS)
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

    cdef void asked_for_inbox(self, int slot, Frame* frame) noexcept:
        cdef Topic* topic = NULL
        cdef Waiting* waiting
        if frame.topic.size > 1:
            topic = self.inbox(slice_of(frame.topic.data + 1, frame.topic.size - 1))
        if topic == NULL or topic.authority >= AUTHORITY_WORKER:
            self.answer_refuse(slot, frame.token, CODE_MOVED, MOVING, RETRY_MS)
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

    cdef void answer_ack(self, int slot, uint64_t token, uint64_t epoch, uint64_t offset, bint reached) noexcept:
        cdef Buffer* out = self.outgoing(slot)
        cdef Py_ssize_t start = frame_start(out, FRAME_ACK, 0, slice_of(NULL, 0), token, 17)
        if start >= 0:
            add_u64(out, epoch)
            add_u64(out, offset)
            add_u8(out, reached)
            frame_end(out, start)

    cdef void answer_refuse(self, int slot, uint64_t token, int code, const char* text, int64_t retry) noexcept:
        cdef Buffer* out = self.outgoing(slot)
        cdef size_t size = strlen(text)
        cdef Py_ssize_t start
        if token == 0:
            return
        start = frame_start(out, FRAME_REFUSE, 0, slice_of(NULL, 0), token, 5 + size)
        if start >= 0:
            add_u8(out, <uint8_t> code)
            add_u32(out, <uint32_t> <int32_t> retry)
            buffer_append(out, text, size)
            frame_end(out, start)

    cdef void answer_stored(self, int slot, int type, uint64_t token, Topic* topic, bint recovered, uint64_t first,
                            uint64_t last) noexcept:
        self.write_stored(slot, type, slice_of(NULL, 0), token, topic, recovered, first, last)

    cdef void write_stored(self, int slot, int type, Slice name, uint64_t token, Topic* topic, bint recovered,
                           uint64_t first, uint64_t last) noexcept:
        cdef Buffer* out = self.outgoing(slot)
        cdef Message* message
        cdef size_t at
        cdef Py_ssize_t start = frame_start(out, type, topic.kind, name, token, 25)
        if start < 0:
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
                out.size = <size_t> start
                return
            put_u32(out.data + at, <uint32_t> (out.size - at - 4))
            first += 1
        frame_end(out, start)

    cdef void answer_bodies(self, int slot, int type, uint64_t token, uint64_t epoch, uint64_t offset, bint recovered,
                            uint64_t first, Slice bodies) noexcept:
        cdef Buffer* out = self.outgoing(slot)
        cdef Py_ssize_t start = frame_start(out, type, 0, slice_of(NULL, 0), token, 25 + bodies.size)
        if start >= 0:
            add_u64(out, epoch)
            add_u64(out, offset)
            add_u8(out, recovered)
            add_u64(out, first)
            buffer_append(out, bodies.data, bodies.size)
            frame_end(out, start)

    # --- the feed

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
        topic_append(&self.store, topic, message, kept_entries(self), CACHE_BYTES)
        outbox_publish(&self.outbox, topic, message)
        if topic.interest:
            self.feed(topic, message, body.instance, body.excluded)
        topic.members -= 1
        message_drop(&self.store.messages, message)

    # --- answers

    cdef void drop_waiting(self, Waiting* waiting) noexcept:
        """Take it out; a request over HTTP must have been answered."""
        cdef Topic* topic
        cdef Later later
        if waiting.kind in (WAIT_SUBSCRIBED, WAIT_PAGE, WAIT_SYNC, WAIT_GIVEN, WAIT_MOVED) or (
                waiting.kind == WAIT_RELAY and waiting.asked == FRAME_SUBSCRIBE):
            topic = topic_find(&self.store, waiting_topic(waiting))
            if topic != NULL and topic.asking:
                topic.asking -= 1
                topic_release(&self.store, topic)
        if waiting.later != NULL:
            later = <Later> waiting.later
            waiting.later = NULL
            Py_DECREF(later)
        waiting_remove(&self.peers, waiting)

    cdef void acked(self, Waiting* waiting, uint64_t epoch, uint64_t offset, bint reached) noexcept:
        cdef Request request
        cdef uint8_t text[EPOCH_SIZE]
        cdef Session* session = waiting.session
        cdef Group* group = waiting.group
        cdef Later later = <Later> waiting.later if waiting.later != NULL else None
        request_of(waiting, &request)
        if waiting.kind == WAIT_RELAY:
            self.answer_ack(waiting.peer, waiting.peer_token, epoch, offset, reached)
        elif waiting.kind == WAIT_TARGET:
            group.reached[waiting.target] = reached
            group_answered(self, session, group, &request, later)
        elif waiting.kind == WAIT_WELCOME:
            if session != NULL:
                self.let_out(session)
        elif waiting.kind == WAIT_ACK:
            epoch_text(epoch, text)
            if later is not None:
                later.settle({"epoch": (<const char*> text)[:EPOCH_SIZE].decode(), "offset": offset}, None)
            elif session != NULL and request.id_kind and write_ack(
                    reply_buffer(self), variant_encoding(session.variant), &request, request.topic,
                    slice_of(text, EPOCH_SIZE), offset) == 0:
                outbox_reply(&self.outbox, session, False)
        else:
            return
        self.drop_waiting(waiting)

    cdef void refused(self, Waiting* waiting, int code, Slice text, int64_t retry) noexcept:
        cdef Request request
        cdef Session* session = waiting.session
        cdef Group* group = waiting.group
        cdef Later later = <Later> waiting.later if waiting.later != NULL else None
        cdef int kind = waiting.kind
        cdef bytes message = (<const char*> text.data)[:text.size] + b"\0"
        cdef str why
        cdef Topic* topic
        if kind == WAIT_MOVED and self.place_refused(waiting):
            return
        if kind == WAIT_WELCOME:
            self.welcome_refused(waiting, code)
            return
        request_of(waiting, &request)
        if code == CODE_MOVED and session != NULL and kind in (WAIT_SUBSCRIBED, WAIT_PAGE, WAIT_PRESENCE):
            # Handled again in a moment, when this worker has heard of the new home too.
            session.flags &= ~<uint32_t> FLAG_ASKED
            self.wait(session)
            self.unsynced = True
            self.drop_waiting(waiting)
            return
        if code == CODE_MOVED:
            code = ERROR_UNAVAILABLE
        if kind == WAIT_RELAY:
            self.answer_refuse(waiting.peer, waiting.peer_token, code, <const char*> message, retry)
        elif kind == WAIT_TARGET:
            group.code = code
            group_answered(self, session, group, &request, later)
        elif kind == WAIT_SYNC:
            topic = topic_find(&self.store, waiting_topic(waiting))
            if topic != NULL and topic.asking:
                topic.asking -= 1
                topic_release(&self.store, topic)
            waiting.kind = 0
            waiting_remove(&self.peers, waiting)
            self.unsynced = True     # asked again with the next tick
            return
        elif later is not None:
            why = (<const char*> text.data)[:text.size].decode()
            later.settle(None, RequestError(error_name(code).decode(), why, max(retry, 0)))
        elif session != NULL and kind != WAIT_GIVEN:
            self.error(session, &request, code, <const char*> message, retry, NULL)
            if kind in (WAIT_SUBSCRIBED, WAIT_PAGE, WAIT_PRESENCE):
                session.flags &= ~<uint32_t> FLAG_ASKED
                buffer_free(&session.parked)
                self.go_on(session)
        self.drop_waiting(waiting)

    cdef void welcome_refused(self, Waiting* waiting, int code) noexcept:
        if code == CODE_MOVED and waiting.session != NULL and waiting.session.flags & FLAG_WITHHELD:
            waiting.authority = AUTHORITY_NOBODY  # with the next tick this worker has heard of the new home too
            self.unsynced = True
            return
        if waiting.session != NULL:
            self.let_out(waiting.session)  # it is served all the same, as far as this worker can
        self.drop_waiting(waiting)

    cdef void ask_welcomes_again(self) noexcept:
        cdef Waiting* waiting = self.peers.oldest
        cdef Waiting* following
        while waiting != NULL:
            following = waiting.next
            if waiting.kind == WAIT_WELCOME and waiting.authority == AUTHORITY_NOBODY:
                if waiting.session != NULL and waiting.session.flags & FLAG_WITHHELD and not (
                        ask_welcome(self, waiting.session)):
                    self.let_out(waiting.session)
                self.drop_waiting(waiting)
            waiting = following

    cdef void place_answered(self, Waiting* waiting, Topic* topic, bint recovered, Frame* bodies,
                             uint64_t first) noexcept:
        pass

    cdef bint place_refused(self, Waiting* waiting) noexcept:
        return False

    cdef void end_place(self, Waiting* waiting) noexcept:
        self.drop_waiting(waiting)

    cdef bint resume_parked(self, Session* session) noexcept:
        session.flags &= ~<uint32_t> FLAG_ASKED
        return session.state == SESSION_OPEN and envelope_parse(
            &self.inbound.scratch, session.encoding, session.parked.data, session.parked.size, 0,
            &self.inbound.request) == 0

    cdef void subscribe_settled(self, Waiting* waiting, uint64_t epoch, uint64_t offset, bint recovered, uint64_t first,
                                Slice bodies) noexcept:
        cdef Topic* topic = topic_find(&self.store, waiting_topic(waiting))
        cdef Session* session = waiting.session
        cdef Frame rest
        cdef Body body
        memset(&rest, 0, sizeof(Frame))
        rest.rest = bodies.data
        rest.rest_size = bodies.size
        if topic == NULL or waiting.kind not in (
                WAIT_SUBSCRIBED, WAIT_SYNC, WAIT_RELAY, WAIT_GIVEN, WAIT_MOVED, WAIT_WELCOME):
            self.drop_waiting(waiting)
            return
        if waiting.authority != topic.authority and topic.authority != AUTHORITY_ARRIVING:
            # The topic has moved since: whoever answers does not feed this worker any more.
            self.refused(waiting, CODE_MOVED, slice_of(MOVING, strlen(MOVING)), RETRY_MS)
            return
        if not topic.synced:
            if waiting.kind == WAIT_SYNC and recovered and topic.epoch == epoch:
                # Those who are subscribed already get what they have missed as if nothing had happened.
                while next_body(&rest, &body):
                    if first == topic.offset + 1:
                        self.deliver(topic, first, &body)
                    first += 1
            if topic.epoch != epoch or topic.offset != offset:
                if topic.offset or (topic.kind == TOPIC_PLAIN and is_used(self, topic)):
                    self.reset(topic, epoch, offset)
                else:
                    topic_reset(&self.store, topic, epoch, offset)
            topic.synced = True
            topic.foreign = True
        elif topic.epoch != epoch:
            self.reset(topic, epoch, offset)
        if waiting.kind == WAIT_RELAY and waiting.asked == FRAME_INTEREST:
            self.answer_ack(waiting.peer, waiting.peer_token, epoch, offset, True)
        elif waiting.kind == WAIT_RELAY:
            self.gain_interest(waiting.peer, topic)
            self.answer_bodies(waiting.peer, FRAME_SUBSCRIBED, waiting.peer_token, epoch, offset, recovered, first,
                               bodies)
        elif waiting.kind == WAIT_WELCOME and session != NULL:
            self.let_out(session)
        elif waiting.kind == WAIT_GIVEN and session != NULL:
            given_answered(self, session, topic_name(topic))
        elif waiting.kind == WAIT_SUBSCRIBED and session != NULL:
            if self.resume_parked(session) and not self.answer_subscribe(waiting, topic, recovered, &rest, first):
                session.flags |= FLAG_ASKED
                self.drop_waiting(waiting)
                return
            buffer_free(&session.parked)
            self.go_on(session)
        elif waiting.kind == WAIT_MOVED:
            self.place_answered(waiting, topic, recovered, &rest, first)
        if not is_used(self, topic):
            end_feed(self, topic)
        if waiting.kind == WAIT_MOVED:
            self.end_place(waiting)
        else:
            self.drop_waiting(waiting)

    cdef bint answer_subscribe(self, Waiting* waiting, Topic* topic, bint recovered, Frame* bodies,
                               uint64_t first) noexcept:
        """The request that was parked. False when its authority has to be asked once more."""
        cdef const Request* request = &self.inbound.request
        cdef int outcome
        if is_covered(topic, request.has_position, epoch_number(request.epoch), request.offset, request.history):
            subscribe_answered(self, waiting.session, request, topic, recovered, NULL, first)
        elif waiting.asked:      # the mirror has let go of it since
            outcome = ask_subscribe(self, waiting.session, request, topic)
            if outcome == OUTCOME_ASKED:
                return False
            no_memory(self, waiting.session, request)
        else:
            subscribe_answered(self, waiting.session, request, topic, recovered, bodies, first)
        return True

    cdef void history_settled(self, Waiting* waiting, uint64_t epoch, uint64_t offset, uint64_t first,
                              Slice bodies) noexcept:
        cdef Session* session = waiting.session
        cdef Frame rest
        memset(&rest, 0, sizeof(Frame))
        rest.rest = bodies.data
        rest.rest_size = bodies.size
        if waiting.kind == WAIT_RELAY:
            self.answer_bodies(waiting.peer, FRAME_PAGE, waiting.peer_token, epoch, offset, False, first, bodies)
        elif waiting.kind == WAIT_PAGE and session != NULL:
            if self.resume_parked(session):
                history_answered(self, session, &self.inbound.request, epoch, offset, &rest, first)
            buffer_free(&session.parked)
            self.go_on(session)
        self.drop_waiting(waiting)

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
        while True:
            topic = <Topic*> table_next(&self.store.topics, &cursor)
            if topic == NULL:
                break
            if topic.authority != AUTHORITY_HERE and not topic.synced and not topic.asking:
                self.ask_again(topic)

    @property
    def holding(self):
        """Whether topics that have their home here now may still arrive from the workers they were at home at."""
        return self.peers.holding

    # --- hooks of the core

    cdef void user_seen(self, Slice user, bint here) noexcept:
        user_here(self, user, here)

    cdef void unused(self, Topic* topic) noexcept:
        if not self.peers.spread or topic.authority == AUTHORITY_HERE or topic.kind != TOPIC_PLAIN or (
                is_used(self, topic)):
            return
        end_feed(self, topic)

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
        """The bytes that wait for a worker."""
        cdef Buffer* out = self.outgoing(slot)
        taken = (<const char*> out.data)[:out.size]
        out.size = 0
        return taken

    def receive_from_peer(self, int slot, bytes data not None):
        """What a worker sent; how many bytes of it were whole frames, -1 when they are none."""
        self.home.refresh()
        used = <Py_ssize_t> self.receive_peer(slot, <const uint8_t*> data, len(data))
        self.home.wake()
        return used
