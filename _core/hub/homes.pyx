"""Topics that change their home; `homes.pxd` is the contract."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint64_t

from realtime_communication._core.base.memory cimport Buffer, Slice, buffer_append, slice_of
from realtime_communication._core.base.table cimport TableCursor, table_start
from realtime_communication._core.hub.asked cimport Asked
from realtime_communication._core.hub.feed cimport MOVING, RETRY_MS
from realtime_communication._core.hub.message cimport Message, message_drop, message_new
from realtime_communication._core.hub.outbox cimport outbox_flush_topic
from realtime_communication._core.hub.peers cimport (
    AUTHORITY_ARRIVING,
    AUTHORITY_HERE,
    AUTHORITY_UPSTREAM,
    AUTHORITY_WORKER,
    FRAME_HANDOVER,
    FRAME_HEAD,
    FRAME_HISTORY,
    FRAME_INTEREST,
    FRAME_PUBLISH,
    FRAME_REMEMBER,
    FRAME_SETTLED,
    FRAME_SUBSCRIBE,
    FRAME_UNSUBSCRIBE,
    FRAME_WANTED,
    MAX_WORKERS,
    Body,
    Frame,
    Peers,
    add_u64,
    frame_bare,
    frame_done,
    frame_to,
    peers_authority,
    peers_home,
    peers_set,
    take_number,
)
from realtime_communication._core.hub.relay cimport ask_sync, end_feed, epoch_number, forget_inbox, is_used, user_here
from realtime_communication._core.hub.session cimport Session
from realtime_communication._core.hub.settings cimport CACHE_BYTES
from realtime_communication._core.hub.stored_messages cimport next_body
from realtime_communication._core.hub.throttle cimport throttle_moved
from realtime_communication._core.hub.topics cimport (
    EPOCH_SIZE,
    TOPIC_ALL,
    TOPIC_INBOX,
    TOPIC_PLAIN,
    Topic,
    epoch_text,
    next_topic,
    store_fresh_epoch,
    topic_find,
    topic_first,
    topic_message,
    topic_name,
    topic_release,
    topic_reset,
)
from realtime_communication._core.hub.users cimport User, user_id
from realtime_communication._core.wire.envelope cimport ERROR_UNAVAILABLE

cdef enum:
    HOLD_MS = 3000               # after which topics are no longer waited for that should arrive
    HANDOVER_BYTES = 16777216    # of one topic's history
    HELD_FRAMES = 100000         # of other workers that wait for topics to arrive
    HELD_BYTES = 67108864        # of them; histories that come too early may have as much as the cache


cdef bint is_ahead(const Peers* peers, int slot, Slice topic) noexcept nogil:
    """Whether a worker that hands the topic over knows of newer members than this one: it said so, or had
    handed over for the same ones, and takes this worker for the home of a topic that is at home with itself."""
    return peers.settled[slot] > peers.version or (
        peers.settled[slot] == peers.version and peers_authority(peers, topic) == AUTHORITY_WORKER + slot)


cdef class Homes(Asked):

    def __cinit__(self, str node_id not None):
        self.held_frames = []
        self.held_bytes = 0
        self.next_members = []

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
        topic = next_topic(&self.store, &cursor)
        while topic != NULL:
            if topic.kind == TOPIC_ALL and self.peers.spread:
                topic.interest = self.others()
            self.move_topic(topic, peers_authority(&self.peers, topic_name(topic)))
            topic = next_topic(&self.store, &cursor)
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

    cdef void hear_settled(self, int slot, Frame* frame) noexcept:
        cdef bint ok = True
        self.peers.settled[slot] = take_number(frame, 8, &ok)
        if self.peers.holding and not self.awaits_somebody():
            self.stop_holding()

    cdef void tell_settled(self, int slot) noexcept:
        cdef Buffer* out = frame_to(&self.peers, slot, FRAME_SETTLED, 0, slice_of(NULL, 0), 0, 8)
        if out != NULL:
            add_u64(out, self.peers.version)
            frame_done(&self.peers, slot)

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

    @property
    def holding(self):
        """Whether topics that have their home here now may still arrive from the workers they were at home at."""
        return self.peers.holding

    # --- topics that leave

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
            if topic.kind == TOPIC_INBOX and not is_used(self, topic):
                forget_inbox(self, topic)
        self.ask_again(topic)

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
        store_fresh_epoch(&self.store)  # that one goes on elsewhere: a topic that begins here must not have it again

    cdef void hand_answers_over(self) noexcept:
        """Idempotency keys go to the homes of their topics."""
        cdef Buffer* out
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
                out = frame_to(&self.peers, slot, FRAME_REMEMBER, 0, slice_of(NULL, 0), 0, 24 + len(key))
                if out == NULL:
                    return
                add_u64(out, epoch_number(slice_of(<const uint8_t*> epoch, len(epoch))))
                add_u64(out, offset)
                add_u64(out, until - self.now_ms)
                buffer_append(out, <const char*> key, len(key))
                frame_done(&self.peers, slot)
                del self.answered[key]
        except MemoryError:
            pass                 # a repeated request is published once more then

    cdef void ask_again(self, Topic* topic) noexcept:
        if topic.authority not in (AUTHORITY_HERE, AUTHORITY_ARRIVING) and topic.kind == TOPIC_PLAIN and (
                is_used(self, topic)):
            ask_sync(self, topic)

    # --- topics that arrive

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
        topic.arrived = topic.kind == TOPIC_PLAIN and topic.interest != 0
        throttle_moved(self, topic)
        topic_release(&self.store, topic)

    cdef void ask_mirrors(self, Topic* topic) noexcept:
        cdef int slot
        topic.arrived = False
        for slot in range(MAX_WORKERS):
            if topic.interest >> slot & 1:
                frame_bare(&self.peers, slot, FRAME_WANTED, topic.kind, topic_name(topic), 0)

    cdef void asked_whether_wanted(self, int slot, Frame* frame) noexcept:
        cdef Topic* topic = topic_find(&self.store, frame.topic)
        if topic == NULL or (
                topic.authority == AUTHORITY_WORKER + slot and not topic.asking and not is_used(self, topic)):
            frame_bare(&self.peers, slot, FRAME_UNSUBSCRIBE, frame.kind, frame.topic, 0)

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
        self.store_message(topic, message)
        topic.members -= 1
        message_drop(&self.store.messages, message)

    cdef void remember(self, Frame* frame) noexcept:
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

    cdef void take_held(self) noexcept:
        """Take the frames that were held back; some may have to be held back again."""
        cdef list frames = self.held_frames
        self.held_frames = []
        self.held_bytes = 0
        for slot, data in frames:
            self.receive_peer(slot, <const uint8_t*> <const char*> (<bytes> data), len(<bytes> data))

    cdef void stop_holding(self) noexcept:
        """All has arrived that will; what nobody handed over begins here."""
        cdef TableCursor cursor
        cdef Topic* topic
        self.peers.holding = False
        table_start(&cursor)
        topic = next_topic(&self.store, &cursor)
        while topic != NULL:
            if topic.authority == AUTHORITY_ARRIVING:
                topic.authority = AUTHORITY_HERE
                topic.synced = False
                throttle_moved(self, topic)
                if topic.foreign:
                    self.localize(topic)
                topic_release(&self.store, topic)
            elif topic.arrived:
                self.ask_mirrors(topic)
            topic = next_topic(&self.store, &cursor)
        self.take_held()
        self.outbox.relieved = True
        while self.next_members and not self.peers.holding:
            me, mask, version = self.next_members.pop(0)
            self.change_members(me, mask, version)
