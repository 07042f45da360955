"""The upstream's door; `upstream.pxd` is the contract."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset, strlen

from realtime_communication._core.base.memory cimport Buffer, Slice, buffer_free, buffer_init, slice_of
from realtime_communication._core.base.table cimport TableCursor, table_start
from realtime_communication._core.hub.exchange cimport LOST, Exchange
from realtime_communication._core.hub.feed cimport RETRY_MS
from realtime_communication._core.hub.message cimport Message, message_payload, message_sender
from realtime_communication._core.hub.peers cimport (
    AUTHORITY_HERE,
    AUTHORITY_UPSTREAM,
    Body,
    Frame,
    Waiting,
    add_body,
    add_u32,
    peers_authority,
    peers_set,
    put_u32,
    waiting_find,
    waiting_topic,
)
from realtime_communication._core.hub.relay cimport ask_sync, is_used, tell_upstream_of_user
from realtime_communication._core.hub.stored_messages cimport next_body
from realtime_communication._core.hub.topics cimport (
    TOPIC_ALL,
    TOPIC_INBOX,
    TOPIC_PLAIN,
    Topic,
    next_topic,
    topic_find,
    topic_first,
    topic_message,
    topic_name,
    topic_release,
)
from realtime_communication._core.wire.envelope cimport ERROR_UNAVAILABLE, error_code_of

cdef enum:
    KEPT_ITEMS = 100000          # publications that wait for an upstream that is away and takes none


cdef class Upstream(Exchange):

    def __cinit__(self, str node_id not None):
        self.upward_notify = None
        self.upward_told = False
        self.held = {}

    cdef void notify_upstream(self) noexcept:
        if self.upward_told or not self.upward:
            return
        self.upward_told = True
        if self.upward_notify is not None:
            try:
                self.upward_notify()
            except Exception:
                pass             # it finds the items with the next notice

    cdef void kept_for_upstream(self, Topic* topic, const Message* message) noexcept:
        cdef Buffer body
        cdef Slice name = topic_name(topic)
        if len(self.upward) >= KEPT_ITEMS:
            self.counters.upstream_dropped += 1
            return
        buffer_init(&body)
        try:
            if add_body(&body, message.ts, 0, 0, message.encoding, message_sender(message),
                        message_payload(message)) == 0:
                self.upward.append(("publish", (<const char*> name.data)[:name.size], 0,
                                    (<const char*> body.data)[:body.size], self.keyed or b""))
        except MemoryError:
            self.counters.upstream_dropped += 1
        finally:
            buffer_free(&body)

    def set_upstream(self, notify):
        """Join this node to others: `notify()` is called when `take_upstream` has something, at most once until it has
        been called. None: there are no others any more. Until `upstream_back` is called all is served here."""
        self.upward_notify = notify
        self.keeps_upstream = notify is not None
        self.upward_told = False
        if notify is None:
            self.upstream_lost()
            self.keeps_upstream = False
            self.upward = []

    def take_upstream(self):
        """What is for the upstream: tuples, in order: what is asked, and its fields, as the
        methods of `broker.upstream.UpstreamHub` answer them."""
        taken = self.upward
        self.upward = []
        self.upward_told = False
        return taken

    def upstream_lost(self):
        """The upstream is away: topics at home here go on here, and those that somebody publishes on begin an epoch of
        their own. Publications come out of `take_upstream` with the token 0, to be published there later."""
        cdef TableCursor cursor
        cdef Topic* topic
        self.home.refresh()
        self.peers.upstream = False
        peers_set(&self.peers, self.peers.me, self.peers.members)
        self.keeps_upstream = self.upward_notify is not None
        self.upward = []
        self.held = {}
        cdef Waiting* waiting = self.peers.oldest
        cdef Waiting* following
        while waiting != NULL:
            following = waiting.next
            if waiting.authority == AUTHORITY_UPSTREAM:
                self.refused(waiting, ERROR_UNAVAILABLE, slice_of(LOST, strlen(LOST)), RETRY_MS)
            waiting = following
        table_start(&cursor)
        while True:
            topic = next_topic(&self.store, &cursor)
            if topic == NULL:
                break
            if topic.authority == AUTHORITY_UPSTREAM:
                topic.authority = AUTHORITY_HERE
                topic.synced = False
                topic_release(&self.store, topic)
        self.home.wake()

    def upstream_back(self):
        """The upstream is there: it gives the offsets of all topics at home here from now on, and is asked about those
        in use."""
        cdef TableCursor cursor
        cdef Topic* topic
        self.home.refresh()
        self.peers.upstream = True
        self.keeps_upstream = False
        peers_set(&self.peers, self.peers.me, self.peers.members)
        self.open_topic(slice_of(b"*", 1), TOPIC_ALL)
        table_start(&cursor)
        while True:
            topic = next_topic(&self.store, &cursor)
            if topic == NULL:
                break
            if peers_authority(&self.peers, topic_name(topic)) != AUTHORITY_UPSTREAM:
                continue
            topic.authority = AUTHORITY_UPSTREAM
            topic.synced = False
            if topic.kind == TOPIC_INBOX:
                if topic.interest:
                    tell_upstream_of_user(self, topic, True)
            elif is_used(self, topic):
                ask_sync(self, topic)
        self.tell_homes_of_users()
        self.home.wake()

    def published(self, uint64_t token, uint64_t epoch, uint64_t offset, bint reached=False):
        """The upstream has taken a publication."""
        cdef Waiting* waiting = waiting_find(&self.peers, token)
        if waiting != NULL:
            self.home.refresh()
            self.acked(waiting, epoch, offset, reached)
            self.home.wake()

    def refuse_waiting(self, uint64_t token, str code not None, str message not None, retry_ms=None):
        """The upstream refuses a request, with a code of the protocol's list."""
        cdef Waiting* waiting = waiting_find(&self.peers, token)
        cdef bytes name = code.encode()
        cdef bytes text = message.encode()
        cdef int number = error_code_of(slice_of(<const uint8_t*> name, len(name)))
        if waiting != NULL:
            self.home.refresh()
            self.refused(waiting, number if number else ERROR_UNAVAILABLE,
                         slice_of(<const uint8_t*> text, len(text)), -1 if retry_ms is None else retry_ms)
            self.home.wake()

    def subscribed(self, uint64_t token, uint64_t epoch, uint64_t offset, bint recovered, uint64_t first,
                   bytes bodies not None):
        """The upstream's answer to a `subscribe`; `bodies` are messages behind their u32 sizes, the first one's offset
        is `first`. It waits until the feed has come to `offset`."""
        cdef Waiting* waiting = waiting_find(&self.peers, token)
        cdef Topic* topic
        if waiting == NULL:
            return
        self.home.refresh()
        topic = topic_find(&self.store, waiting_topic(waiting))
        if topic != NULL and topic.synced and topic.epoch == epoch and topic.offset != offset:
            if topic.offset < offset:
                name = (<const char*> waiting_topic(waiting).data)[:waiting.topic_size]
                self.held.setdefault(name, []).append((token, epoch, offset, recovered, first, bodies))
                return
            bodies += self.stored_after(topic, offset)
            if topic_first(topic) > offset + 1:
                recovered = False
                bodies = b""
            offset = topic.offset
        self.subscribe_settled(waiting, epoch, offset, recovered, first,
                               slice_of(<const uint8_t*> bodies, len(bodies)))
        self.home.wake()

    cdef bytes stored_after(self, Topic* topic, uint64_t offset):
        """The cached messages behind `offset`, as bodies."""
        cdef Buffer out
        cdef Message* message
        cdef size_t at
        buffer_init(&out)
        try:
            while offset < topic.offset:
                offset += 1
                message = topic_message(topic, offset)
                if message == NULL:
                    continue
                at = out.size
                if add_u32(&out, 0) < 0 or add_body(&out, message.ts, 0, 0, message.encoding, message_sender(message),
                                                    message_payload(message)) < 0:
                    raise MemoryError
                put_u32(out.data + at, <uint32_t> (out.size - at - 4))
            return (<const char*> out.data)[:out.size]
        finally:
            buffer_free(&out)

    def history_page(self, uint64_t token, uint64_t epoch, uint64_t offset, uint64_t first, bytes bodies not None):
        """The upstream's answer to a `history`, oldest first."""
        cdef Waiting* waiting = waiting_find(&self.peers, token)
        if waiting != NULL:
            self.home.refresh()
            self.history_settled(waiting, epoch, offset, first, slice_of(<const uint8_t*> bodies, len(bodies)))
            self.home.wake()

    def deliver_upstream(self, bytes topic not None, uint64_t epoch, uint64_t first, bytes bodies not None):
        """Messages of a topic's feed, in order; what is known already is passed over."""
        cdef Slice name = slice_of(<const uint8_t*> topic, len(topic))
        cdef Frame rest
        cdef Body body
        cdef int kind = TOPIC_PLAIN
        memset(&rest, 0, sizeof(Frame))
        rest.rest = <const uint8_t*> bodies
        rest.rest_size = len(bodies)
        if name.size and name.data[0] == b"@":
            kind = TOPIC_INBOX
        elif name.size == 1 and name.data[0] == b"*":
            kind = TOPIC_ALL
        if not self.peers.upstream:
            return
        self.home.refresh()
        while next_body(&rest, &body):
            self.delivered(name, kind, epoch, first, &body)
            first += 1
        if self.held:
            for answer in self.held.pop(topic, ()):
                self.subscribed(*answer)
        self.home.wake()

    def reset_topic(self, bytes topic not None, uint64_t epoch, uint64_t offset):
        """The history of a topic was lost: it goes on behind `offset` of `epoch`, and its subscribers are told."""
        cdef Topic* found = topic_find(&self.store, slice_of(<const uint8_t*> topic, len(topic)))
        if found != NULL and found.authority == AUTHORITY_UPSTREAM and found.synced:
            self.home.refresh()
            self.reset(found, epoch, offset)
            self.home.wake()
