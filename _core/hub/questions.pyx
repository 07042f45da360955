"""Questions about topics; `questions.pxd` is the contract."""

from cpython.ref cimport Py_INCREF
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport strlen

from realtime_communication._core.base.memory cimport (
    Buffer,
    Slice,
    buffer_append,
    buffer_free,
    buffer_init,
    bytes_of,
    slice_of,
)
from realtime_communication._core.hub.answers cimport frame_of
from realtime_communication._core.hub.attendees cimport Attendee, attendee_info
from realtime_communication._core.hub.feed cimport CODE_MOVED, MOVING, RETRY_MS
from realtime_communication._core.hub.history cimport page_range
from realtime_communication._core.hub.message cimport Message, message_payload, message_sender
from realtime_communication._core.hub.notices cimport Notices
from realtime_communication._core.hub.outbox cimport outbox_flush_topic
from realtime_communication._core.hub.outcome cimport OUTCOME_ASKED, OUTCOME_DONE, OUTCOME_PARKED, no_memory
from realtime_communication._core.hub.peers cimport (
    AUTHORITY_ARRIVING,
    AUTHORITY_HERE,
    AUTHORITY_UPSTREAM,
    AUTHORITY_WORKER,
    FRAME_ASK_PRESENCE,
    FRAME_PRESENT,
    MAX_PEER_FRAME,
    MAX_WORKERS,
    WAIT_PAGE,
    WAIT_PRESENCE,
    WAIT_RELAY,
    WAIT_ROSTER,
    Body,
    Frame,
    Waiting,
    add_u64,
    frame_bare,
    frame_done,
    frame_to,
    peers_authority,
    put_u16,
    waiting_add,
    waiting_find,
    waiting_remove,
    waiting_topic,
)
from realtime_communication._core.hub.permissions cimport is_reserved
from realtime_communication._core.hub.presence cimport Present, next_present, presence_answered
from realtime_communication._core.hub.relay cimport Later, epoch_number, relay_history
from realtime_communication._core.hub.session cimport Session, session_id, session_info
from realtime_communication._core.hub.settings cimport INFO_BYTES, REPLY_BYTES
from realtime_communication._core.hub.stored_messages cimport next_body
from realtime_communication._core.hub.topics cimport (
    EPOCH_SIZE,
    TOPIC_INBOX,
    TOPIC_PLAIN,
    Subscription,
    Topic,
    epoch_text,
    topic_find,
    topic_message,
    topic_name,
    topic_release,
)
from realtime_communication._core.hub.users cimport User, user_find, user_id
from realtime_communication._core.hub.watchers cimport is_worker
from realtime_communication._core.wire.envelope cimport ERROR_UNAVAILABLE, JSON_TEXT, Request, topic_valid
from realtime_communication._core.wire.outbound cimport write_presence_member, write_stored_message
from realtime_communication._core.hub.outcome import RequestError

cdef enum:
    LIST_BYTES = MAX_PEER_FRAME - 65536  # of all sessions on a topic
    SESSION_DIGITS = 32

cdef const char* TOO_MANY = b"topic: more sessions than can be listed"


cdef int add_present(Buffer* out, uint64_t id_high, uint64_t id_low, uint64_t joined_at, Slice user, Slice info,
                     size_t* shown) noexcept nogil:
    """0, or -1 without memory or beyond LIST_BYTES. Everybody is named, but not everybody described."""
    cdef uint8_t length = <uint8_t> user.size
    cdef uint8_t size[2]
    shown[0] += info.size
    if shown[0] > REPLY_BYTES:
        info.size = 0
    put_u16(size, <int> info.size)
    if out.size > LIST_BYTES or add_u64(out, id_high) < 0 or add_u64(out, id_low) < 0 or add_u64(out, joined_at) < 0:
        return -1
    if buffer_append(out, &length, 1) < 0 or buffer_append(out, user.data, user.size) < 0:
        return -1
    return -1 if buffer_append(out, size, 2) < 0 or buffer_append(out, info.data, info.size) < 0 else 0


cdef bytes array_of(const Buffer* items):
    return b"[%b]" % (<const char*> items.data)[:items.size] if items.size else b"[]"


cdef str text_of(Slice text):
    return bytes_of(text).decode()


cdef dict presence_dict(Slice topic, Slice members):
    """A PresenceState as Python has it; `members` is a JSON array. Raises MemoryError."""
    cdef Frame rest = frame_of(members)
    cdef Present each
    cdef Session named
    cdef uint8_t digits[SESSION_DIGITS]
    cdef uint32_t count = 0
    cdef Buffer out
    buffer_init(&out)
    try:
        while next_present(&rest, &each):
            named.id_high = each.id_high
            named.id_low = each.id_low
            session_id(&named, digits)
            if write_presence_member(&out, JSON_TEXT, count == 0, each.user, slice_of(digits, SESSION_DIGITS),
                                     each.joined_at, each.info) < 0:
                raise MemoryError
            count += 1
        return {"topic": text_of(topic), "count": count, "members": array_of(&out)}
    finally:
        buffer_free(&out)


cdef dict page_dict(Slice topic, uint64_t epoch, uint64_t offset, uint64_t first, Slice bodies, bint reverse,
                    bint transcoding):
    """A HistoryPage as Python has it; `messages` is a JSON array. Raises MemoryError."""
    cdef Frame rest = frame_of(bodies)
    cdef Body body
    cdef Buffer out
    cdef uint8_t text[EPOCH_SIZE]
    cdef list messages = []
    epoch_text(epoch, text)
    buffer_init(&out)
    try:
        while next_body(&rest, &body):
            if transcoding or body.encoding == JSON_TEXT:
                out.size = 0
                if write_stored_message(&out, JSON_TEXT, True, first, body.ts, body.sender, body.payload,
                                        body.encoding) < 0:
                    raise MemoryError
                messages.append((<const char*> out.data)[:out.size])
            first += 1
    finally:
        buffer_free(&out)
    if reverse:
        messages.reverse()
    return {"topic": text_of(topic), "epoch": (<const char*> text)[:EPOCH_SIZE].decode(), "offset": offset,
            "messages": b"[%b]" % b",".join(messages)}


cdef object too_busy(const char* message):
    return RequestError("unavailable", message.decode(), RETRY_MS)


cdef class Questions(Notices):

    cdef int list_present(self, Topic* topic, Buffer* out) noexcept:
        cdef Attendee* attendee
        cdef Subscription* subscription
        cdef Session* session
        cdef size_t shown = 0
        cdef uint32_t i, j
        if topic == NULL:
            return 0
        for i in range(topic.group_count):
            for j in range(topic.groups[i].count):
                subscription = topic.groups[i].items[j].subscription
                session = subscription.session
                if add_present(out, session.id_high, session.id_low, subscription.joined_at,
                               user_id(<User*> session.user), session_info(session), &shown) < 0:
                    return -1
        attendee = <Attendee*> topic.attendees
        while attendee != NULL:
            if add_present(out, attendee.id_high, attendee.id_low, attendee.joined_at, user_id(attendee.user),
                           attendee_info(attendee), &shown) < 0:
                return -1
            attendee = attendee.next
        return 0

    cdef int list_inbox(self, Slice topic, Buffer* out) noexcept:
        cdef Slice user = slice_of(topic.data + 1, topic.size - 1)
        cdef Topic* found
        cdef int listed
        if user_find(&self.users, user) == NULL:
            return 0
        found = self.inbox(user)
        if found == NULL:
            return -1
        listed = self.list_present(found, out)
        topic_release(&self.store, found)
        return listed

    cdef int presence_authority(self, Slice topic) noexcept:
        cdef int authority
        if topic.data[0] == b"@":
            return self.linked_from(0)
        authority = peers_authority(&self.peers, topic)
        if authority == AUTHORITY_ARRIVING or is_worker(authority):
            return authority
        return AUTHORITY_UPSTREAM if self.peers.upstream else AUTHORITY_HERE

    cdef int linked_from(self, int slot) noexcept nogil:
        while slot < MAX_WORKERS:
            if self.peers.workers[slot].linked:
                return AUTHORITY_WORKER + slot
            slot += 1
        return AUTHORITY_HERE

    cdef bint gather(self, Waiting* waiting, Slice members) noexcept:
        cdef int following = self.linked_from(waiting.authority - AUTHORITY_WORKER + 1)
        if waiting.gathered.size + members.size <= LIST_BYTES and (
                buffer_append(&waiting.gathered, members.data, members.size) == 0):
            if following == AUTHORITY_HERE:
                return False
            waiting.authority = <uint8_t> following
            if self.send_question(waiting) == 0:
                return True
        self.refused(waiting, ERROR_UNAVAILABLE, slice_of(TOO_MANY, strlen(TOO_MANY)), -1)
        return True

    cdef int send_question(self, Waiting* waiting) noexcept:
        cdef Slice topic = waiting_topic(waiting)
        if waiting.authority == AUTHORITY_UPSTREAM:
            try:
                self.upward.append(("presence", bytes_of(topic), waiting.token))
            except Exception:
                return -1
            return 0
        return frame_bare(&self.peers, waiting.authority - AUTHORITY_WORKER, FRAME_ASK_PRESENCE, waiting.topic_kind,
                          topic, waiting.token)

    cdef int ask_presence(self, Session* session, const Request* request) noexcept:
        cdef int authority = self.presence_authority(request.topic)
        cdef bint of_inbox = request.topic.data[0] == b"@"
        cdef Waiting* waiting
        cdef Buffer members
        cdef Frame rest
        if authority == AUTHORITY_ARRIVING:
            return OUTCOME_PARKED
        if authority != AUTHORITY_HERE:
            waiting = waiting_add(
                &self.peers, WAIT_PRESENCE, authority, session, request.id_kind, request.encoding, request.id,
                request.topic, TOPIC_INBOX if of_inbox else TOPIC_PLAIN, self.now_ms)
            if waiting != NULL and (not of_inbox or self.list_inbox(request.topic, &waiting.gathered) == 0) and (
                    self.send_question(waiting) == 0):
                return OUTCOME_ASKED
            if waiting != NULL:
                waiting_remove(&self.peers, waiting)
            no_memory(self, session, request)
            return OUTCOME_DONE
        buffer_init(&members)
        if (self.list_inbox(request.topic, &members) if of_inbox
                else self.list_present(topic_find(&self.store, request.topic), &members)) < 0:
            self.error(session, request, ERROR_UNAVAILABLE, TOO_MANY, -1, NULL)
        else:
            rest = frame_of(slice_of(members.data, members.size))
            presence_answered(self, session, request, &rest)
        buffer_free(&members)
        return OUTCOME_DONE

    # --- other workers

    cdef void take_frame(self, int slot, Frame* frame) noexcept:
        cdef Waiting* waiting
        if frame.type == FRAME_ASK_PRESENCE and self.peers.holding and frame.kind != TOPIC_INBOX:
            self.hold(slot, frame)  # until all workers have told of their sessions
        elif frame.type == FRAME_ASK_PRESENCE:
            self.asked_for_presence(slot, frame)
        elif frame.type == FRAME_PRESENT:
            waiting = waiting_find(&self.peers, frame.token)
            if waiting != NULL and waiting.authority == AUTHORITY_WORKER + slot and waiting.kind == WAIT_PRESENCE:
                self.present_settled(waiting, slice_of(frame.rest, frame.rest_size))
        else:
            Notices.take_frame(self, slot, frame)

    cdef void asked_for_presence(self, int slot, Frame* frame) noexcept:
        cdef bint of_inbox = frame.kind == TOPIC_INBOX
        cdef int authority = AUTHORITY_HERE if of_inbox else peers_authority(&self.peers, frame.topic)
        cdef Waiting* waiting
        cdef Buffer members
        if is_worker(authority):
            self.answer_refuse(slot, frame.token, CODE_MOVED, MOVING, RETRY_MS)
            return
        if self.peers.upstream and not of_inbox:
            waiting = self.relay_waiting(slot, frame, AUTHORITY_UPSTREAM)
            if waiting != NULL and self.send_question(waiting) == 0:
                return
            if waiting != NULL:
                waiting_remove(&self.peers, waiting)
            self.answer_refuse(slot, frame.token, ERROR_UNAVAILABLE, TOO_MANY, RETRY_MS)
            return
        buffer_init(&members)
        if (self.list_inbox(frame.topic, &members) if of_inbox
                else self.list_present(topic_find(&self.store, frame.topic), &members)) < 0:
            self.answer_refuse(slot, frame.token, ERROR_UNAVAILABLE, TOO_MANY, -1)
        else:
            self.answer_present(slot, frame.token, slice_of(members.data, members.size))
        buffer_free(&members)

    cdef void answer_present(self, int slot, uint64_t token, Slice members) noexcept:
        cdef Buffer* out = frame_to(&self.peers, slot, FRAME_PRESENT, TOPIC_PLAIN, slice_of(NULL, 0), token,
                                    members.size)
        if out != NULL:
            buffer_append(out, members.data, members.size)
            frame_done(&self.peers, slot)

    # --- answers

    cdef void present_settled(self, Waiting* waiting, Slice members) noexcept:
        cdef Session* session = waiting.session
        cdef Later later = <Later> waiting.later if waiting.later != NULL else None
        cdef Frame rest
        if waiting.topic_kind == TOPIC_INBOX:
            if self.gather(waiting, members):
                return
            members = slice_of(waiting.gathered.data, waiting.gathered.size)
        rest = frame_of(members)
        if waiting.kind == WAIT_RELAY:
            self.answer_present(waiting.peer, waiting.peer_token, members)
        elif later is not None:
            try:
                later.settle(presence_dict(waiting_topic(waiting), members), None)
            except Exception:
                later.settle(None, too_busy(TOO_MANY))
        elif session != NULL:
            if self.resume_parked(session):
                presence_answered(self, session, &self.inbound.request, &rest)
            buffer_free(&session.parked)
            self.go_on(session)
        self.drop_waiting(waiting)

    cdef void history_settled(self, Waiting* waiting, uint64_t epoch, uint64_t offset, uint64_t first,
                              Slice bodies) noexcept:
        cdef Later later = <Later> waiting.later if waiting.later != NULL else None
        if waiting.kind == WAIT_PAGE and later is not None:
            try:
                later.settle(page_dict(waiting_topic(waiting), epoch, offset, first, bodies, waiting.target != 0,
                                       self.settings.transcoding), None)
            except Exception:
                later.settle(None, too_busy(TOO_MANY))
        Notices.history_settled(self, waiting, epoch, offset, first, bodies)

    def presence_state(self, uint64_t token, members):
        """The upstream's answer to a `presence`: (user, session id, joined_at, info) of each session on any node."""
        cdef Waiting* waiting = waiting_find(&self.peers, token)
        cdef Buffer list
        cdef size_t shown = 0
        cdef bytes user, session, info
        cdef const uint8_t* digits
        if waiting == NULL:
            return
        self.home.refresh()
        if waiting.kind == WAIT_ROSTER:
            self.roster_answered(waiting, members)
            self.drop_waiting(waiting)
            self.home.wake()
            return
        buffer_init(&list)
        try:
            for user, session, joined_at, info in members:
                if len(session) != SESSION_DIGITS or not 0 < len(user) < 255 or len(info) > INFO_BYTES:
                    continue
                digits = <const uint8_t*> <const char*> session
                if add_present(&list, epoch_number(slice_of(digits, 16)), epoch_number(slice_of(digits + 16, 16)),
                               joined_at, slice_of(<const uint8_t*> user, len(user)),
                               slice_of(<const uint8_t*> info, len(info)), &shown) < 0:
                    self.refused(waiting, ERROR_UNAVAILABLE, slice_of(TOO_MANY, strlen(TOO_MANY)), -1)
                    break
            else:
                self.present_settled(waiting, slice_of(list.data, list.size))
        finally:
            buffer_free(&list)
        self.home.wake()

    # --- over HTTP

    def presence_request(self, str topic not None):
        """Who is on a topic, over all workers and nodes: {"topic", "count", "members"}, the last a JSON array as bytes;
        or a Later of that. Raises RequestError."""
        cdef bytes name = checked_name(topic)
        cdef Slice wanted = slice_of(<const uint8_t*> name, len(name))
        cdef bint of_inbox = wanted.data[0] == b"@"
        cdef int authority = self.presence_authority(wanted)
        cdef Waiting* waiting
        cdef Buffer members
        self.home.refresh()
        if authority == AUTHORITY_ARRIVING:
            raise too_busy(MOVING)
        if authority != AUTHORITY_HERE and (of_inbox or not is_reserved(wanted)):
            waiting = waiting_add(
                &self.peers, WAIT_PRESENCE, authority, NULL, 0, 0, slice_of(NULL, 0), wanted,
                TOPIC_INBOX if of_inbox else TOPIC_PLAIN, self.now_ms)
            if waiting == NULL or (of_inbox and self.list_inbox(wanted, &waiting.gathered) < 0) or (
                    self.send_question(waiting) < 0):
                if waiting != NULL:
                    waiting_remove(&self.peers, waiting)
                raise too_busy(TOO_MANY)
            return self.later_of(waiting)
        buffer_init(&members)
        try:
            if (self.list_inbox(wanted, &members) if of_inbox
                    else self.list_present(topic_find(&self.store, wanted), &members)) < 0:
                raise too_busy(TOO_MANY)
            return presence_dict(wanted, slice_of(members.data, members.size))
        finally:
            buffer_free(&members)

    cdef Later later_of(self, Waiting* waiting):
        cdef Later later = Later()
        Py_INCREF(later)
        waiting.later = <void*> later
        self.home.wake()
        return later

    def history_request(self, str topic not None, str epoch=None, uint64_t offset=0, int limit=100,
                        bint reverse=False):
        """The messages after `offset` of `epoch`, or before it in reverse, at most `limit`, without an epoch the oldest
        or newest ones: {"topic", "epoch", "offset", "messages"}, the last a JSON array as bytes; or a Later of that.
        Raises RequestError."""
        cdef bytes name = checked_name(topic)
        cdef bytes digits = epoch.encode() if epoch is not None else b""
        cdef uint64_t number = epoch_number(slice_of(<const uint8_t*> digits, len(digits)))
        cdef Slice wanted = slice_of(<const uint8_t*> name, len(name))
        cdef Topic* found
        cdef Waiting* waiting
        self.home.refresh()
        if name.startswith(b"@"):
            found = self.inbox(slice_of(wanted.data + 1, wanted.size - 1))
        else:
            found = self.open_topic(wanted, TOPIC_PLAIN)
        if found == NULL:
            raise MemoryError
        try:
            if found.authority == AUTHORITY_ARRIVING:
                raise too_busy(MOVING)
            if found.authority >= AUTHORITY_UPSTREAM:
                waiting = waiting_add(&self.peers, WAIT_PAGE, found.authority, NULL, 0, 0, slice_of(NULL, 0), wanted,
                                      found.kind, self.now_ms)
                if waiting == NULL:
                    raise MemoryError
                waiting.target = reverse
                if relay_history(self, waiting, epoch is not None, number, offset, max(limit, 0), reverse) < 0:
                    waiting_remove(&self.peers, waiting)
                    raise MemoryError
                found.asking += 1
                return self.later_of(waiting)
            return self.page_here(found, epoch is not None, number, offset, max(limit, 0), reverse)
        finally:
            topic_release(&self.store, found)

    cdef dict page_here(self, Topic* topic, bint has_position, uint64_t epoch, uint64_t offset, int limit,
                        bint reverse):
        cdef uint64_t first = 0, last = 0, step
        cdef uint8_t text[EPOCH_SIZE]
        cdef Message* message
        cdef Buffer out
        outbox_flush_topic(&self.outbox, topic)
        page_range(topic, has_position, epoch, offset, <uint64_t> limit, reverse, &first, &last)
        epoch_text(topic.epoch, text)
        buffer_init(&out)
        try:
            for step in range(last + 1 - first):
                message = topic_message(topic, last - step if reverse else first + step)
                if not self.settings.transcoding and message.encoding != JSON_TEXT:
                    continue
                if write_stored_message(&out, JSON_TEXT, out.size == 0, message.offset, message.ts,
                                        message_sender(message), message_payload(message), message.encoding) < 0:
                    raise MemoryError
            return {"topic": text_of(topic_name(topic)), "epoch": (<const char*> text)[:EPOCH_SIZE].decode(),
                    "offset": topic.offset, "messages": array_of(&out)}
        finally:
            buffer_free(&out)


cdef bytes checked_name(str topic):
    """The bytes of a topic's name. Raises RequestError."""
    cdef bytes name
    try:
        name = topic.encode()
    except UnicodeEncodeError:
        name = b""
    if not topic_valid(slice_of(<const uint8_t*> name, len(name))):
        raise RequestError("topic_invalid", "topic: must have 1 to 255 bytes, without control characters and *")
    return name
