"""What sessions that watch believe, and take along; `beliefs.pxd` is the contract."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from realtime_communication._core.base.memory cimport Buffer, Slice, bytes_of, slice_of
from realtime_communication._core.hub.peers cimport (
    AUTHORITY_WORKER,
    FRAME_SHOWN,
    FRAME_WATCH,
    Frame,
    add_u32,
    add_u64,
    take_number,
    take_slice,
)
from realtime_communication._core.hub.questions cimport Questions
from realtime_communication._core.hub.session cimport Session
from realtime_communication._core.hub.topics cimport (
    WATCH_FRESH,
    WATCH_NONE,
    WATCH_ON,
    Subscription,
    Topic,
    subscription_watch,
    topic_find,
    topic_name,
)
from realtime_communication._core.hub.users cimport Member, User, member_find, user_find, user_id, user_open
from realtime_communication._core.hub.watchers cimport add_user, is_worker

cdef enum:
    SETTLE_MS = 10000            # for the home to show who is there, before the session goes on without
    ENTRY_BYTES = 17             # of a roster, beside the user's name


cdef class Beliefs(Questions):

    def __cinit__(self, str node_id not None):
        self.doubting = {}
        self.described_there = {}

    # --- packed

    cdef size_t roster_size(self, Session* session) noexcept:
        cdef Subscription* subscription = <Subscription*> session.subscriptions
        cdef Member* member
        cdef size_t size = 0
        while subscription != NULL and size <= ROSTER_BYTES:
            member = <Member*> subscription.topic.first_member if subscription.watching else NULL
            while member != NULL and size <= ROSTER_BYTES:
                size += ENTRY_BYTES + user_id(member.user).size
                member = member.next_of_topic
            subscription = subscription.next_of_session
        return size

    cdef int pack_roster(self, Buffer* out, Topic* topic) except -1:
        cdef Member* member = <Member*> topic.first_member
        cdef uint32_t count = 0
        while member != NULL:
            count += member.shown
            member = member.next_of_topic
        if add_u32(out, count) < 0:
            raise MemoryError
        member = <Member*> topic.first_member
        while member != NULL:
            if member.shown:
                add_u64(out, member.id_high)
                if add_u64(out, member.id_low) < 0:
                    raise MemoryError
                add_user(out, user_id(member.user))
            member = member.next_of_topic
        return 0

    cdef dict unpack_roster(self, Frame* frame):
        cdef bint ok = True
        cdef uint64_t count = take_number(frame, 4, &ok), id_high, id_low
        cdef Slice name
        cdef dict believed = {}
        while count and ok:
            id_high = take_number(frame, 8, &ok)
            id_low = take_number(frame, 8, &ok)
            name = take_slice(frame, <size_t> take_number(frame, 1, &ok), &ok)
            if ok:
                believed[bytes_of(name)] = (id_high, id_low)
            count -= 1
        if not ok:
            raise ValueError("not a roster")
        return believed

    # --- resumed

    cdef bint is_doubting(self, Subscription* subscription) noexcept:
        if not self.doubting:
            return False
        for doubt in self.doubting.get(bytes_of(topic_name(subscription.topic)), ()):
            if doubt[0] == <size_t> subscription:
                return True
        return False

    cdef void resume_watch(self, Subscription* subscription, dict believed) noexcept:
        cdef Topic* topic = subscription.topic
        cdef Session* session = subscription.session
        cdef bytes name
        try:
            name = bytes_of(topic_name(topic))
            self.doubting.setdefault(name, []).append(
                [<size_t> subscription, session.serial, believed, self.now_ms])
            self.described_there.setdefault(name, {})
        except MemoryError:
            self.watch_resumed(session, session.serial)
            self.close(session, 1013, b"out of memory")
            return
        if is_worker(topic.authority) or self.peers.upstream:
            if topic.watch_state == WATCH_NONE:
                topic.watch_state = WATCH_FRESH
            self.unsynced = True     # looked at with each tick until it is over
            self.ask_who_is_there(topic)
        else:
            self.compare(topic, False)

    cdef void ask_who_is_there(self, Topic* topic) noexcept:
        if is_worker(topic.authority):
            self.send_plain(topic.authority - AUTHORITY_WORKER, FRAME_WATCH, topic, True)
        elif self.peers.upstream and topic.roster == 0:
            self.ask_roster(topic)

    cdef void compare(self, Topic* topic, bint late) noexcept:
        cdef bytes name = bytes_of(topic_name(topic))
        cdef list doubts = self.doubting.get(name, [])
        cdef uint64_t since
        cdef bint again = False
        topic.members += 1           # keeps it while its subscriptions may end
        for doubt in list(doubts):
            since = doubt[3]
            if late and since + SETTLE_MS > self.now_ms:
                continue
            try:
                if self.compare_one(topic, doubt, late):
                    again = True
            except Exception:
                self.close((<Subscription*> <size_t> doubt[0]).session, 1013, b"out of memory")
        if again:
            self.ask_who_is_there(topic)
        topic.members -= 1

    cdef int compare_one(self, Topic* topic, list doubt, bint late) except -1:
        """0; 1 when the home has to show once more who is there."""
        cdef Subscription* subscription = <Subscription*> <size_t> doubt[0]
        cdef Session* session = subscription.session
        cdef Member* member = <Member*> topic.first_member
        cdef dict shown = self.described_there.get(bytes_of(topic_name(topic)), {})
        cdef bint is_here = not is_worker(topic.authority) and not self.peers.upstream
        if not late and not is_here:
            while member != NULL:
                name = bytes_of(user_id(member.user))
                if member.shown and name not in doubt[2] and name not in shown:
                    return 1
                member = member.next_of_topic
        if is_here or topic.watch_state == WATCH_ON:
            self.tell_difference(session, topic, doubt[2])
        self.end_doubts(topic, subscription)
        subscription_watch(subscription, True)
        self.watched(topic)
        self.watch_resumed(session, session.serial)
        return 0

    cdef int tell_difference(self, Session* session, Topic* topic, dict believed) except -1:
        cdef Member* member = <Member*> topic.first_member
        cdef Member told
        cdef User* user
        cdef Slice info
        cdef dict shown = self.described_there.get(bytes_of(topic_name(topic)), {})
        for name, (id_high, id_low) in believed.items():
            # Whoever has gone is not among the members any more, and may be no user that this worker knows.
            user = user_find(&self.users, slice_of(<const uint8_t*> <bytes> name, len(<bytes> name)))
            member = member_find(&self.users, user, topic) if user != NULL else NULL
            if member != NULL and member.shown:
                continue
            user = user_open(&self.users, slice_of(<const uint8_t*> <bytes> name, len(<bytes> name)))
            if user == NULL:
                raise MemoryError
            memset(&told, 0, sizeof(Member))
            told.user = user
            told.id_high, told.id_low = id_high, id_low
            self.tell_watcher(session, topic, &told, True, slice_of(NULL, 0))
            self.forget_user(user)
        member = <Member*> topic.first_member
        while member != NULL:
            name = bytes_of(user_id(member.user))
            if member.shown and name not in believed:
                told = member[0]
                info = self.shown_info(topic, member)
                if name in shown:
                    told.id_high, told.id_low, text = shown[name]
                    info = slice_of(<const uint8_t*> <bytes> text, len(<bytes> text))
                self.tell_watcher(session, topic, &told, False, info)
            member = member.next_of_topic
        return 0

    cdef void end_doubts(self, Topic* topic, Subscription* subscription) noexcept:
        cdef bytes name = bytes_of(topic_name(topic))
        cdef list doubts = self.doubting.get(name, [])
        for doubt in list(doubts):
            if doubt[0] == <size_t> subscription:
                doubts.remove(doubt)
        if not doubts:
            self.doubting.pop(name, None)
            self.described_there.pop(name, None)

    cdef void watch_resumed(self, Session* session, uint64_t serial) noexcept:
        pass

    # --- hooks

    cdef void part(self, Subscription* subscription, bint graceful) noexcept:
        cdef Session* session = subscription.session
        cdef bint doubts = self.is_doubting(subscription)
        if doubts:
            self.end_doubts(subscription.topic, subscription)
        Questions.part(self, subscription, graceful)
        if doubts:
            self.watch_resumed(session, session.serial)

    cdef void watched(self, Topic* topic) noexcept:
        if not (self.doubting and topic.watch_state != WATCH_NONE and bytes_of(topic_name(topic)) in self.doubting):
            Questions.watched(self, topic)

    cdef void show_join(self, Topic* topic, User* user, uint64_t id_high, uint64_t id_low, bint before,
                        Slice info) noexcept:
        if self.doubting:
            shown = self.described_there.get(bytes_of(topic_name(topic)))
            if shown is not None:
                shown[bytes_of(user_id(user))] = (id_high, id_low, bytes_of(info))
        Questions.show_join(self, topic, user, id_high, id_low, before, info)

    cdef void shown_here(self, int slot, Frame* frame) noexcept:
        cdef Topic* topic
        Questions.shown_here(self, slot, frame)
        if frame.type == FRAME_SHOWN and self.doubting:
            topic = topic_find(&self.store, frame.topic)
            if topic != NULL and topic.authority == AUTHORITY_WORKER + slot:
                self.compare(topic, False)

    cdef void roster_settled(self, Topic* topic) noexcept:
        Questions.roster_settled(self, topic)
        if self.doubting:
            self.compare(topic, False)

    cdef void expire_asked(self) noexcept:
        cdef Topic* topic
        Questions.expire_asked(self)
        for name in list(self.doubting):
            self.unsynced = True
            topic = topic_find(&self.store, slice_of(<const uint8_t*> <bytes> name, len(<bytes> name)))
            if topic == NULL:
                self.doubting.pop(name, None)
            elif is_worker(topic.authority) or self.peers.upstream:
                if topic.watch_state == WATCH_NONE:
                    topic.watch_state = WATCH_FRESH  # its home has changed meanwhile
                    self.ask_who_is_there(topic)
                self.compare(topic, True)
            else:
                self.compare(topic, False)
