"""How far sessions that move have come in their topics; `places.pxd` is the contract."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from realtime_communication._core.base.memory cimport Buffer, Slice, buffer_append, bytes_of, slice_of
from realtime_communication._core.hub.backlog cimport backlog_count_full
from realtime_communication._core.hub.beliefs cimport Beliefs
from realtime_communication._core.hub.message cimport Message, message_drop, message_new
from realtime_communication._core.hub.outbox cimport outbox_flush_topic, outbox_reply
from realtime_communication._core.hub.peers cimport (
    AUTHORITY_ARRIVING,
    AUTHORITY_HERE,
    AUTHORITY_NOBODY,
    AUTHORITY_WORKER,
    WAIT_MOVED,
    Body,
    Frame,
    Waiting,
    add_u8,
    add_u64,
    is_name_of,
    put_u16,
    take_number,
    take_slice,
    waiting_add,
    waiting_id,
    waiting_topic,
)
from realtime_communication._core.hub.relay cimport ask_sync, relay_subscribe
from realtime_communication._core.hub.stored_messages cimport next_body
from realtime_communication._core.hub.session cimport FLAG_ARRIVING, FLAG_ASKED, FLAG_FULL, SESSION_OPEN, Session
from realtime_communication._core.hub.topics cimport (
    EPOCH_SIZE,
    TOPIC_INBOX,
    TOPIC_PLAIN,
    Subscription,
    Topic,
    epoch_text,
    subscription_add,
    subscription_find,
    topic_find,
    topic_first,
    topic_message,
    topic_name,
    topic_release,
)
from realtime_communication._core.hub.users cimport User, user_id
from realtime_communication._core.hub.variants cimport message_envelope, variant_encoding
from realtime_communication._core.wire.outbound cimport write_lagged

cdef enum:
    SETTLE_MS = 10000            # for a place to be settled, before its gap is told; no more than any request waits


cdef Place place_of(const Waiting* waiting) noexcept nogil:
    cdef Place place
    cdef Slice kept = waiting_id(waiting)
    memset(&place, 0, sizeof(Place))
    if kept.size == sizeof(Place):
        memcpy(&place, kept.data, sizeof(Place))
    return place

cdef class Places(Beliefs):

    def __cinit__(self, str node_id not None):
        self.arriving = {}

    # --- packed

    cdef int pack_places(self, Buffer* out, Session* session) except -1:
        cdef Subscription* subscription = <Subscription*> session.subscriptions
        cdef Slice name
        cdef uint8_t size[2]
        while subscription != NULL:
            name = topic_name(subscription.topic)
            put_u16(size, <uint16_t> name.size)
            buffer_append(out, size, 2)
            buffer_append(out, name.data, name.size)
            add_u8(out, subscription.topic.kind)
            add_u64(out, subscription.topic.epoch)
            add_u64(out, subscription.topic.offset)
            add_u64(out, subscription.joined_at)
            if add_u8(out, subscription.watching != 0) < 0:
                raise MemoryError
            if subscription.watching:
                self.pack_roster(out, subscription.topic)
            subscription = subscription.next_of_session
        return 0

    cdef int unpack_places(self, Session* session, Frame* frame) except -1:
        cdef bint ok = True
        cdef Slice name
        cdef Place place
        cdef Topic* topic
        cdef int kind
        while frame.rest_size:
            name = take_slice(frame, <size_t> take_number(frame, 2, &ok), &ok)
            kind = <int> take_number(frame, 1, &ok)
            memset(&place, 0, sizeof(Place))
            place.serial = session.serial
            place.epoch = take_number(frame, 8, &ok)
            place.offset = take_number(frame, 8, &ok)
            place.joined_at = take_number(frame, 8, &ok)
            place.watching = <uint8_t> take_number(frame, 1, &ok)
            if not ok or name.size == 0 or not is_name_of(name, kind):
                raise ValueError("not a session")
            if place.watching:
                (<list> self.arriving[session.serial])[3][bytes_of(name)] = self.unpack_roster(frame)
            topic = self.open_topic(name, kind)
            if topic == NULL:
                raise MemoryError
            self.resume_place(session, topic, &place)
            topic_release(&self.store, topic)
        return 0

    # --- given

    cdef bint has_places(self, Session* session) noexcept:
        cdef Topic* inbox = self.inbox(user_id(<User*> session.user))
        cdef Topic* everyone = self.everyone()
        cdef Subscription* subscription = <Subscription*> session.subscriptions
        cdef bint ready = inbox != NULL and everyone != NULL
        while subscription != NULL:
            if not self.has_place(subscription.topic):
                ready = False
            subscription = subscription.next_of_session
        return ready

    cdef bint has_place(self, Topic* topic) noexcept:
        if topic.authority == AUTHORITY_HERE or topic.synced:
            return True
        if topic.authority != AUTHORITY_ARRIVING and not topic.asking:
            ask_sync(self, topic)
        return False

    # --- settled

    cdef void place_ended(self, Session* session, uint64_t serial) noexcept:
        cdef list entry = self.arriving.get(serial)
        if entry is None:
            return
        entry[2] -= 1
        if entry[2] == 0:
            del self.arriving[serial]
            if session != NULL and session.state == SESSION_OPEN:
                session.flags &= ~<uint32_t> FLAG_ARRIVING
                self.arrived(session, entry)
                if session.flags & FLAG_ASKED:
                    session.flags &= ~<uint32_t> FLAG_ASKED
                    self.go_on(session)
            self.tell_migrated(entry[0], slice_of(<const uint8_t*> <bytes> entry[1], len(<bytes> entry[1])))

    cdef void arrived(self, Session* session, list entry) noexcept:
        pass

    cdef void tell_migrated(self, int slot, Slice user) noexcept:
        pass

    cdef void resume_place(self, Session* session, Topic* topic, const Place* place) noexcept:
        cdef Waiting* waiting
        cdef list entry = self.arriving.get(session.serial)
        if self.resumed_here(session, topic, place):
            return
        waiting = waiting_add(&self.peers, WAIT_MOVED, AUTHORITY_NOBODY, session, 0, 0,
                              slice_of(<const uint8_t*> place, sizeof(Place)), topic_name(topic), topic.kind,
                              self.now_ms)
        if waiting == NULL:
            self.rejoin_lost(session, topic, place)
            return
        topic.asking += 1
        if entry is not None:
            entry[2] += 1
        self.ask_place(waiting, topic)

    cdef bint resumed_here(self, Session* session, Topic* topic, const Place* place) noexcept:
        cdef Message* message
        cdef uint64_t offset = place.offset
        if topic.authority != AUTHORITY_HERE and (not topic.synced or topic.authority == AUTHORITY_ARRIVING):
            return False
        if topic.epoch != place.epoch or place.offset > topic.offset:
            if topic.authority != AUTHORITY_HERE:
                return False
            self.rejoin_lost(session, topic, place)
            return True
        if place.offset + 1 < topic_first(topic):
            if topic.authority != AUTHORITY_HERE:
                return False
            self.rejoin_lost(session, topic, place)
            return True
        outbox_flush_topic(&self.outbox, topic)
        while offset < topic.offset:
            offset += 1
            message = topic_message(topic, offset)
            if message.excluded != session.serial:
                self.give_message(session, topic, message)
        self.rejoin(session, topic, place)
        return True

    cdef void give_message(self, Session* session, Topic* topic, const Message* message) noexcept:
        """One message of the gap, in its place before those that are to come."""
        cdef int encoding = variant_encoding(session.variant)
        if not self.settings.transcoding and encoding != message.encoding:
            self.counters.untranscoded += 1
            return
        self.outbox.text.size = 0
        if message_envelope(&self.outbox.text, &self.outbox.piece, encoding, topic.kind == TOPIC_INBOX,
                            topic_name(topic), message) == 0:
            outbox_reply(&self.outbox, session, True)
            self.counters.deliveries += 1

    cdef void ask_place(self, Waiting* waiting, Topic* topic) noexcept:
        cdef Place place = place_of(waiting)
        if self.peers.holding or topic.authority == AUTHORITY_ARRIVING:
            waiting.authority = AUTHORITY_NOBODY
            self.unsynced = True
            return
        waiting.authority = topic.authority
        if relay_subscribe(self, waiting, True, place.epoch, place.offset, 0) < 0:
            waiting.authority = AUTHORITY_NOBODY
            self.unsynced = True

    cdef void expire_asked(self) noexcept:
        cdef Waiting* waiting
        cdef Waiting* following
        cdef Topic* topic
        cdef Place place
        cdef bint again = self.unsynced
        Beliefs.expire_asked(self)
        waiting = self.peers.oldest
        while again and waiting != NULL:
            following = waiting.next
            if waiting.kind == WAIT_MOVED and waiting.authority == AUTHORITY_NOBODY:
                topic = topic_find(&self.store, waiting_topic(waiting))
                place = place_of(waiting)
                if topic == NULL or waiting.session == NULL:
                    self.end_place(waiting)
                elif self.resumed_here(waiting.session, topic, &place):
                    self.end_place(waiting)
                else:
                    self.ask_place(waiting, topic)
            waiting = following

    cdef void place_answered(self, Waiting* waiting, Topic* topic, bint recovered, Frame* bodies,
                             uint64_t first) noexcept:
        cdef Session* session = waiting.session
        cdef Place place = place_of(waiting)
        cdef Body body
        cdef Message* message
        if session == NULL or session.state != SESSION_OPEN:
            return
        if not recovered or topic.epoch != place.epoch:
            self.rejoin_lost(session, topic, &place)
            return
        outbox_flush_topic(&self.outbox, topic)
        while next_body(bodies, &body):
            message = message_new(&self.store.messages, body.sender, body.payload, body.encoding)
            if message == NULL:
                self.rejoin_lost(session, topic, &place)
                return
            message.ts = body.ts
            message.offset = first
            if first > place.offset:
                self.give_message(session, topic, message)
                place.offset = first
            message_drop(&self.store.messages, message)
            first += 1
        self.rejoin(session, topic, &place)

    cdef bint place_refused(self, Waiting* waiting) noexcept:
        cdef Topic* topic = topic_find(&self.store, waiting_topic(waiting))
        cdef Place place = place_of(waiting)
        if waiting.session != NULL and topic != NULL:
            if waiting.since_ms + SETTLE_MS > self.now_ms:
                waiting.authority = AUTHORITY_NOBODY
                self.unsynced = True  # asked again with the next tick, of its home by then
                return True
            self.rejoin_lost(waiting.session, topic, &place)
        self.end_place(waiting)
        return True

    cdef Subscription* rejoin(self, Session* session, Topic* topic, const Place* place) noexcept:
        cdef Subscription* made = subscription_find(&self.store, session, topic)
        if made != NULL:
            return made
        outbox_flush_topic(&self.outbox, topic)
        made = subscription_add(&self.store, session, topic, place.joined_at)
        if made == NULL:
            self.close(session, 1013, b"out of memory")
            return NULL
        if session.flags & FLAG_FULL:
            backlog_count_full(&self.outbox, topic, 1)
        if topic.kind == TOPIC_PLAIN:
            self.counters.subscriptions = self.store.subscription_count
            # Presence: the user was here a moment ago, at another worker.
            if AUTHORITY_WORKER <= topic.authority < AUTHORITY_NOBODY:
                self.send_enter(topic.authority - AUTHORITY_WORKER, topic, session, place.joined_at)
            else:
                self.enter(session, topic)
            entry = self.arriving.get(session.serial)
            if place.watching and entry is not None:
                entry[2] += 1
                self.resume_watch(made, entry[3].pop(bytes_of(topic_name(topic)), {}))
        return made

    cdef void rejoin_lost(self, Session* session, Topic* topic, const Place* place) noexcept:
        cdef uint8_t epoch[EPOCH_SIZE]
        cdef uint64_t missed = 0
        outbox_flush_topic(&self.outbox, topic)
        if topic.epoch == place.epoch and topic.offset > place.offset:
            missed = topic.offset - place.offset
        epoch_text(topic.epoch, epoch)
        self.outbox.text.size = 0
        if write_lagged(&self.outbox.text, variant_encoding(session.variant), topic_name(topic), missed,
                        slice_of(epoch, EPOCH_SIZE), topic.offset, False) == 0:
            outbox_reply(&self.outbox, session, True)
        self.rejoin(session, topic, place)

    cdef void end_place(self, Waiting* waiting) noexcept:
        cdef Session* session = waiting.session
        cdef Place place = place_of(waiting)
        self.drop_waiting(waiting)
        self.place_ended(session, place.serial)

    cdef void watch_resumed(self, Session* session, uint64_t serial) noexcept:
        self.place_ended(session, serial)
