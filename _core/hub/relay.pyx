"""The asking side; `relay.pxd` is the contract."""

from cpython.ref cimport Py_INCREF
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memset

from realtime_communication._core.base.memory cimport (
    Buffer,
    Slice,
    buffer_append,
    buffer_free,
    buffer_init,
    bytes_of,
    slice_of,
)
from realtime_communication._core.hub.core cimport Core, inbox_name
from realtime_communication._core.hub.outbox cimport outbox_flush_topic
from realtime_communication._core.hub.outcome cimport OUTCOME_ASKED, OUTCOME_DONE
from realtime_communication._core.hub.peers cimport (
    AUTHORITY_ARRIVING,
    AUTHORITY_UPSTREAM,
    AUTHORITY_WORKER,
    FRAME_HISTORY,
    FRAME_INTEREST,
    FRAME_PUBLISH,
    FRAME_SUBSCRIBE,
    FRAME_UNSUBSCRIBE,
    WAIT_ACK,
    WAIT_GIVEN,
    WAIT_PAGE,
    WAIT_SUBSCRIBED,
    WAIT_SYNC,
    WAIT_WELCOME,
    Frame,
    Waiting,
    add_body,
    add_u64,
    add_u8,
    frame_bare,
    frame_done,
    frame_to,
    peers_authority,
    put_u16,
    waiting_add,
    waiting_id,
    waiting_remove,
    waiting_topic,
)
from realtime_communication._core.hub.session cimport Session
from realtime_communication._core.hub.topic_rules cimport TopicRule, rule_of
from realtime_communication._core.hub.topics cimport (
    EPOCH_SIZE,
    TOPIC_ALL,
    TOPIC_INBOX,
    TOPIC_PLAIN,
    Topic,
    store_fresh_epoch,
    topic_find,
    topic_name,
    topic_release,
    topic_reset,
)
from realtime_communication._core.hub.users cimport User, user_find, user_id
from realtime_communication._core.wire.envelope cimport Request

cdef enum:
    PEER_BACKLOG = 16777216      # bytes that may wait for one worker before publications for it are refused
    UPSTREAM_BACKLOG = 100000    # items that may wait for the upstream likewise
    OUTCOME_NO_MEMORY = -1


cdef class Later:
    """The answer to a request over HTTP that another worker, or Redis, gives later."""

    def __cinit__(self):
        self.settled = False
        self.value = None
        self.error = None
        self.callback = None

    def then(self, callback not None):
        """Call `callback(value, error)` once, when the answer is there, or at once; one of the two is None."""
        if self.settled:
            callback(self.value, self.error)
        else:
            self.callback = callback

    cpdef settle(self, object value, object error):
        """Answer; only the first answer counts."""
        if self.settled:
            return
        self.settled = True
        self.value = value
        self.error = error
        if self.callback is not None:
            try:
                self.callback(value, error)
            except Exception:
                pass             # whoever asked has gone


cdef uint64_t epoch_number(Slice text) noexcept nogil:
    cdef uint64_t value = 0
    cdef size_t i
    cdef uint8_t digit
    if text.size != EPOCH_SIZE:
        return 0
    for i in range(EPOCH_SIZE):
        digit = text.data[i]
        if 48 <= digit <= 57:
            digit -= 48
        elif 97 <= digit <= 102:
            digit -= 87
        else:
            return 0
        value = value << 4 | digit
    return value


cdef void request_of(const Waiting* waiting, Request* out) noexcept nogil:
    memset(out, 0, sizeof(Request))
    out.id_kind = waiting.id_kind
    out.id = waiting_id(waiting)
    out.encoding = waiting.encoding
    out.topic = waiting_topic(waiting)


# --- publications

cdef int relay_publish(Core core, int authority, Slice topic, int kind, Slice sender, Slice payload, int encoding,
                       uint64_t excluded, bytes key, uint64_t token) noexcept:
    cdef uint64_t instance = core.peers.instance if excluded else 0
    cdef int slot = authority - AUTHORITY_WORKER
    cdef Buffer* out
    cdef Buffer body
    if authority == AUTHORITY_ARRIVING:
        return -1
    if authority == AUTHORITY_UPSTREAM:
        buffer_init(&body)
        try:
            if len(core.upward) >= UPSTREAM_BACKLOG or add_body(
                    &body, core.wall_ms, instance, excluded, encoding, sender, payload) < 0:
                return -1
            core.upward.append(
                ("publish", bytes_of(topic), token, (<const char*> body.data)[:body.size], key))
        except MemoryError:
            return -1
        finally:
            buffer_free(&body)
        return 0
    if core.peers.workers[slot].out.size > PEER_BACKLOG:
        return -1
    out = frame_to(&core.peers, slot, FRAME_PUBLISH, kind, topic, token, 2 + len(key) + 32 + sender.size + payload.size)
    if out == NULL:
        return -1
    put_u16(out.data + out.size, len(key))
    out.size += 2
    buffer_append(out, <const char*> key, len(key))
    add_body(out, core.wall_ms, instance, excluded, encoding, sender, payload)
    frame_done(&core.peers, slot)
    return 0


cdef int relay_bytes(Core core, int authority, const Waiting* waiting, const Frame* frame, bytes key) noexcept:
    cdef int slot = authority - AUTHORITY_WORKER
    cdef Buffer* out
    if authority == AUTHORITY_ARRIVING:
        return -1
    out = frame_to(&core.peers, slot, FRAME_PUBLISH, frame.kind, frame.topic, waiting.token,
                   2 + len(key) + frame.rest_size)
    if out == NULL:
        return -1
    put_u16(out.data + out.size, len(key))
    out.size += 2
    buffer_append(out, <const char*> key, len(key))
    buffer_append(out, frame.rest, frame.rest_size)
    frame_done(&core.peers, slot)
    return 0


cdef int relay_broadcast(Core core, Session* session, const Request* request, int authority, bytes key) noexcept:
    cdef Waiting* waiting = waiting_add(
        &core.peers, WAIT_ACK, authority, session, request.id_kind, request.encoding, request.id, request.topic,
        TOPIC_ALL if request.topic_is_all else TOPIC_PLAIN, core.now_ms)
    if waiting == NULL:
        return OUTCOME_NO_MEMORY
    if relay_publish(core, authority, request.topic, waiting.topic_kind, user_id(<User*> session.user),
                     request.payload, request.encoding, session.serial if request.exclude_self else 0, key,
                     waiting.token) < 0:
        waiting_remove(&core.peers, waiting)
        return OUTCOME_NO_MEMORY
    return OUTCOME_DONE


cdef Later relay_body(Core core, Slice sender, const Request* request, int authority, bytes key):
    cdef Later later = Later()
    cdef Slice none = slice_of(NULL, 0)
    cdef Waiting* waiting = waiting_add(
        &core.peers, WAIT_ACK, authority, NULL, 0, 0, none, request.topic,
        TOPIC_ALL if request.topic_is_all else TOPIC_PLAIN, core.now_ms)
    if waiting == NULL:
        return None
    if relay_publish(core, authority, request.topic, waiting.topic_kind, sender, request.payload, request.encoding, 0,
                     key, waiting.token) < 0:
        waiting_remove(&core.peers, waiting)
        return None
    Py_INCREF(later)
    waiting.later = <void*> later
    return later


# --- subscriptions and history

cdef object position_of(bint has_position, uint64_t epoch, uint64_t offset):
    return (epoch, offset) if has_position and epoch else None


cdef int relay_subscribe(Core core, Waiting* waiting, bint has_position, uint64_t epoch, uint64_t offset,
                         int64_t history) noexcept:
    cdef int slot = waiting.authority - AUTHORITY_WORKER
    cdef Buffer* out
    if waiting.authority == AUTHORITY_UPSTREAM:
        try:
            core.upward.append(("subscribe", bytes_of(waiting_topic(waiting)), waiting.token,
                                position_of(has_position, epoch, offset), max(history, 0)))
        except MemoryError:
            return -1
        return 0
    out = frame_to(&core.peers, slot, FRAME_SUBSCRIBE, waiting.topic_kind, waiting_topic(waiting), waiting.token, 32)
    if out == NULL:
        return -1
    add_u8(out, has_position and epoch != 0)
    add_u64(out, epoch)
    add_u64(out, offset)
    add_u64(out, <uint64_t> history)
    frame_done(&core.peers, slot)
    return 0


cdef int relay_history(Core core, Waiting* waiting, bint has_position, uint64_t epoch, uint64_t offset, int64_t limit,
                       bint reverse) noexcept:
    cdef int slot = waiting.authority - AUTHORITY_WORKER
    cdef Buffer* out
    cdef const TopicRule* rule = rule_of(core.rules, waiting_topic(waiting))
    if waiting.authority == AUTHORITY_UPSTREAM:
        try:
            core.upward.append(("history", bytes_of(waiting_topic(waiting)), waiting.token,
                                position_of(has_position, epoch, offset), limit, bool(reverse),
                                rule.history_size if rule != NULL else 0, rule.history_ms if rule != NULL else 0))
        except MemoryError:
            return -1
        return 0
    out = frame_to(&core.peers, slot, FRAME_HISTORY, waiting.topic_kind, waiting_topic(waiting), waiting.token, 32)
    if out == NULL:
        return -1
    add_u8(out, has_position and epoch != 0)
    add_u64(out, epoch)
    add_u64(out, offset)
    add_u64(out, <uint64_t> limit)
    add_u8(out, reverse)
    frame_done(&core.peers, slot)
    return 0


cdef int ask_subscribe(Core core, Session* session, const Request* request, Topic* topic) noexcept:
    cdef Waiting* waiting = waiting_add(
        &core.peers, WAIT_SUBSCRIBED, topic.authority, session, request.id_kind, request.encoding, request.id,
        request.topic, TOPIC_PLAIN, core.now_ms)
    if waiting == NULL:
        return OUTCOME_NO_MEMORY
    if relay_subscribe(core, waiting, request.has_position, epoch_number(request.epoch), request.offset,
                       request.history) < 0:
        waiting_remove(&core.peers, waiting)
        return OUTCOME_NO_MEMORY
    topic.asking += 1
    return OUTCOME_ASKED


cdef int ask_given(Core core, Session* session, Topic* topic) noexcept:
    cdef Waiting* waiting = waiting_add(&core.peers, WAIT_GIVEN, topic.authority, session, 0, 0, slice_of(NULL, 0),
                                        topic_name(topic), TOPIC_PLAIN, core.now_ms)
    if waiting == NULL:
        return -1
    if relay_subscribe(core, waiting, False, 0, 0, 0) < 0:
        waiting_remove(&core.peers, waiting)
        return -1
    topic.asking += 1
    return 0


cdef int ask_history(Core core, Session* session, const Request* request, Topic* topic, int64_t limit) noexcept:
    cdef Waiting* waiting = waiting_add(
        &core.peers, WAIT_PAGE, topic.authority, session, request.id_kind, request.encoding, request.id,
        request.topic, topic.kind, core.now_ms)
    if waiting == NULL:
        return OUTCOME_NO_MEMORY
    if relay_history(core, waiting, request.has_position, epoch_number(request.epoch), request.offset, limit,
                     request.reverse) < 0:
        waiting_remove(&core.peers, waiting)
        return OUTCOME_NO_MEMORY
    topic.asking += 1
    return OUTCOME_ASKED


cdef void ask_sync(Core core, Topic* topic) noexcept:
    cdef Slice none = slice_of(NULL, 0)
    cdef Waiting* waiting = waiting_add(
        &core.peers, WAIT_SYNC, topic.authority, NULL, 0, 0, none, topic_name(topic), topic.kind, core.now_ms)
    if waiting != NULL and relay_subscribe(core, waiting, topic.foreign, topic.epoch, topic.offset, 0) == 0:
        topic.asking += 1
        return
    if waiting != NULL:
        waiting_remove(&core.peers, waiting)
    core.unsynced = True         # there may be memory with the next tick


# --- feeds

cdef bint is_used(Core core, const Topic* topic) noexcept nogil:
    cdef Slice name = topic_name(topic)
    cdef User* user
    if topic.subscribers or topic.interest or topic.kind == TOPIC_ALL:
        return True
    if topic.kind != TOPIC_INBOX:
        return False
    user = user_find(&core.users, slice_of(name.data + 1, name.size - 1))
    return user != NULL and user.session_count != 0


cdef void end_feed(Core core, Topic* topic) noexcept:
    topic.synced = False
    if topic.authority == AUTHORITY_UPSTREAM:
        try:
            core.upward.append(("unsubscribe", bytes_of(topic_name(topic))))
        except MemoryError:
            pass                 # what comes for it is thrown away
    elif AUTHORITY_WORKER <= topic.authority < AUTHORITY_ARRIVING:
        frame_bare(&core.peers, topic.authority - AUTHORITY_WORKER, FRAME_UNSUBSCRIBE, topic.kind, topic_name(topic), 0)


cdef void tell_upstream_of_user(Core core, Topic* inbox, bint here) noexcept:
    cdef Slice name = topic_name(inbox)
    try:
        core.upward.append(("user_here" if here else "user_gone", bytes_of(slice_of(name.data + 1, name.size - 1))))
    except MemoryError:
        pass
    if here:
        if not inbox.synced and not inbox.asking:
            ask_sync(core, inbox)
    else:
        if inbox.synced:
            end_feed(core, inbox)
        forget_inbox(core, inbox)


cdef void forget_inbox(Core core, Topic* inbox) noexcept:
    outbox_flush_topic(&core.outbox, inbox)
    topic_reset(&core.store, inbox, store_fresh_epoch(&core.store), 0)
    inbox.synced = False
    inbox.foreign = False


cdef bint ask_welcome(Core core, Session* session) noexcept:
    cdef uint8_t place[256]
    cdef User* user = <User*> session.user
    cdef Slice name = inbox_name(user_id(user), place)
    cdef int authority = peers_authority(&core.peers, name)
    cdef bint is_other = AUTHORITY_WORKER <= authority < AUTHORITY_ARRIVING
    cdef bint can_ask = is_other and core.peers.workers[authority - AUTHORITY_WORKER].linked
    cdef Topic* inbox
    cdef Waiting* waiting
    cdef int asked
    if not can_ask and user.session_count == 1:
        user_here(core, user_id(user), True)
    if authority == AUTHORITY_UPSTREAM:
        inbox = topic_find(&core.store, name)
        can_ask = inbox != NULL and not inbox.synced
    if not can_ask:
        return False
    waiting = waiting_add(&core.peers, WAIT_WELCOME, authority, session, 0, 0, slice_of(NULL, 0), name, TOPIC_INBOX,
                          core.now_ms)
    if is_other:
        asked = frame_bare(&core.peers, authority - AUTHORITY_WORKER, FRAME_INTEREST, TOPIC_INBOX, name,
                           waiting.token if waiting != NULL else 0)
    else:
        asked = relay_subscribe(core, waiting, False, 0, 0, 0) if waiting != NULL else -1
    if asked < 0 and waiting != NULL:
        waiting_remove(&core.peers, waiting)
    return asked == 0 and waiting != NULL


cdef void user_here(Core core, Slice user, bint here) noexcept:
    cdef uint8_t place[256]
    cdef Slice name = inbox_name(user, place)
    cdef int authority = peers_authority(&core.peers, name)
    cdef Topic* topic
    if authority == AUTHORITY_ARRIVING:
        return                   # its home will be here, where the user is known
    if authority >= AUTHORITY_WORKER:
        frame_bare(&core.peers, authority - AUTHORITY_WORKER, FRAME_INTEREST if here else FRAME_UNSUBSCRIBE,
                   TOPIC_INBOX, name, 0)
        if not here:
            topic = topic_find(&core.store, name)
            if topic != NULL:
                forget_inbox(core, topic)
                topic_release(&core.store, topic)
    elif authority == AUTHORITY_UPSTREAM:
        topic = core.inbox(user)
        if topic == NULL:
            return
        if not topic.interest:
            tell_upstream_of_user(core, topic, here)
        topic_release(&core.store, topic)
