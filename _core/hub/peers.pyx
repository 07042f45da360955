"""Authorities, frames and waiting requests; `peers.pxd` is the contract."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from realtime_communication._core.base.memory cimport (
    Buffer,
    Slice,
    buffer_append,
    buffer_free,
    buffer_init,
    buffer_reserve,
    slice_of,
)
from realtime_communication._core.base.table cimport table_add, table_find, table_free, table_init, table_remove
from realtime_communication._core.hub.session cimport Session
from realtime_communication._core.hub.topics cimport TOPIC_ALL, TOPIC_INBOX, TOPIC_PLAIN
from realtime_communication._core.wire.envelope cimport MAX_TOPIC_SIZE


cdef uint64_t mixed(uint64_t value) noexcept nogil:
    """A permutation of 64-bit numbers in which each bit changes half of the others (splitmix64's, S. Vigna)."""
    value += <uint64_t> 0x9E3779B97F4A7C15
    value = (value ^ (value >> 30)) * <uint64_t> 0xBF58476D1CE4E5B9
    value = (value ^ (value >> 27)) * <uint64_t> 0x94D049BB133111EB
    return value ^ (value >> 31)


cdef void peers_init(Peers* peers) noexcept nogil:
    cdef int slot
    memset(peers, 0, sizeof(Peers))
    table_init(&peers.waiting)
    for slot in range(MAX_WORKERS):
        buffer_init(&peers.workers[slot].out)


cdef void peers_free(Peers* peers) noexcept nogil:
    cdef int slot
    while peers.oldest != NULL:
        waiting_remove(peers, peers.oldest)
    table_free(&peers.waiting)
    for slot in range(MAX_WORKERS):
        buffer_free(&peers.workers[slot].out)


cdef void peers_set(Peers* peers, int me, uint64_t members) noexcept nogil:
    cdef uint64_t place, score, best
    cdef int slot, chosen
    peers.me = <uint8_t> me
    peers.members = members
    memcpy(peers.before, peers.ring, RING)
    for place in range(RING):
        chosen = me
        best = 0
        for slot in range(MAX_WORKERS):
            if members >> slot & 1:
                score = mixed(place << 8 | slot)
                if score >= best:
                    best = score
                    chosen = slot
        peers.ring[place] = <uint8_t> chosen
    peers_look(peers)


cdef void peers_look(Peers* peers) noexcept nogil:
    cdef int slot
    peers.spread = peers.upstream or (peers.members & ~(<uint64_t> 1 << peers.me)) != 0
    for slot in range(MAX_WORKERS):
        if peers.workers[slot].linked:
            peers.spread = True


cdef int place_of(Slice topic) noexcept nogil:
    # FNV-1a: all workers must agree, so the hash has no key of this process. Who picks names that meet at one worker
    # only makes that worker the home of their topics.
    cdef uint64_t hash = <uint64_t> 0xCBF29CE484222325
    cdef size_t i
    for i in range(topic.size):
        hash = (hash ^ topic.data[i]) * <uint64_t> 0x100000001B3
    return <int> (mixed(hash) & (RING - 1))


cdef int peers_home(const Peers* peers, Slice topic) noexcept nogil:
    return peers.ring[place_of(topic)]


cdef int peers_home_before(const Peers* peers, Slice topic) noexcept nogil:
    return peers.before[place_of(topic)]


# --- frames

cdef Py_ssize_t frame_start(Buffer* out, int type, int kind, Slice topic, uint64_t token, size_t more) noexcept nogil:
    cdef size_t start = out.size
    cdef uint8_t* at
    if buffer_reserve(out, FRAME_HEAD + topic.size + more) < 0:
        return -1
    at = out.data + start
    memset(at, 0, 4)
    at[4] = <uint8_t> type
    at[5] = <uint8_t> kind
    put_u16(at + 6, <uint16_t> topic.size)
    put_u64(at + 8, token)
    if topic.size:
        memcpy(at + FRAME_HEAD, topic.data, topic.size)
    out.size += FRAME_HEAD + topic.size
    return <Py_ssize_t> start


cdef void frame_end(Buffer* out, Py_ssize_t start) noexcept nogil:
    put_u32(out.data + start, <uint32_t> (out.size - <size_t> start - 4))


cdef Buffer* frame_to(
    Peers* peers, int slot, int type, int kind, Slice topic, uint64_t token, size_t more
) noexcept nogil:
    cdef Peer* worker = &peers.workers[slot]
    cdef Py_ssize_t start = frame_start(&worker.out, type, kind, topic, token, more)
    if start < 0:
        worker.starved = True
        return NULL
    worker.began = <size_t> start
    return &worker.out


cdef void frame_done(Peers* peers, int slot) noexcept nogil:
    frame_end(&peers.workers[slot].out, <Py_ssize_t> peers.workers[slot].began)


cdef void frame_failed(Peers* peers, int slot) noexcept nogil:
    peers.workers[slot].out.size = <uint32_t> peers.workers[slot].began
    peers.workers[slot].starved = True


cdef int frame_bare(Peers* peers, int slot, int type, int kind, Slice topic, uint64_t token) noexcept nogil:
    if frame_to(peers, slot, type, kind, topic, token, 0) == NULL:
        return -1
    frame_done(peers, slot)
    return 0


cdef void put_u32(uint8_t* at, uint32_t value) noexcept nogil:
    cdef int i
    for i in range(4):
        at[i] = <uint8_t> (value >> (8 * i))


cdef void put_u64(uint8_t* at, uint64_t value) noexcept nogil:
    cdef int i
    for i in range(8):
        at[i] = <uint8_t> (value >> (8 * i))


cdef uint64_t number_at(const uint8_t* at, int bytes) noexcept nogil:
    cdef uint64_t value = 0
    cdef int i
    for i in range(bytes):
        value |= <uint64_t> at[i] << (8 * i)
    return value


cdef bint is_name_of(Slice name, int kind) noexcept nogil:
    if name.size > MAX_TOPIC_SIZE:
        return False
    if kind == TOPIC_INBOX:
        return name.size >= 1 and name.data[0] == c"@"
    if kind == TOPIC_ALL:
        return name.size == 1 and name.data[0] == c"*"
    return kind == TOPIC_PLAIN and (name.size == 0 or name.data[0] != c"@" and name.data[0] != c"*")


cdef bint name_fits(int type, int kind, Slice name) noexcept nogil:
    """Whether a frame can have that name: these have a user's in place of a topic's, or none and yet a kind."""
    if type in (FRAME_MIGRATE, FRAME_MIGRATED, FRAME_SUBSCRIBED, FRAME_PAGE):
        return name.size <= MAX_TOPIC_SIZE
    return is_name_of(name, kind)


cdef Py_ssize_t frame_read(const uint8_t* data, size_t size, Frame* out) noexcept nogil:
    cdef uint64_t whole
    if size < 4:
        return 0
    whole = number_at(data, 4) + 4
    if whole > MAX_PEER_FRAME or whole < FRAME_HEAD:
        return -1
    if size < whole:
        return 0
    out.type = data[4]
    out.kind = data[5]
    out.topic = slice_of(data + FRAME_HEAD, <size_t> number_at(data + 6, 2))
    out.token = number_at(data + 8, 8)
    if FRAME_HEAD + out.topic.size > whole:
        return -1
    if not name_fits(out.type, out.kind, out.topic):
        return -1
    out.rest = data + FRAME_HEAD + out.topic.size
    out.rest_size = <size_t> whole - FRAME_HEAD - out.topic.size
    return <Py_ssize_t> whole


cdef int add_u8(Buffer* out, uint8_t value) noexcept nogil:
    return buffer_append(out, &value, 1)


cdef int add_u32(Buffer* out, uint32_t value) noexcept nogil:
    cdef uint8_t bytes[4]
    put_u32(bytes, value)
    return buffer_append(out, bytes, 4)


cdef int add_u64(Buffer* out, uint64_t value) noexcept nogil:
    cdef uint8_t bytes[8]
    put_u64(bytes, value)
    return buffer_append(out, bytes, 8)


cdef int add_body(Buffer* out, uint64_t ts, uint64_t instance, uint64_t excluded, int encoding, Slice sender,
                  Slice payload) noexcept nogil:
    cdef uint8_t* at
    if buffer_reserve(out, BODY_HEAD + sender.size + payload.size) < 0:
        return -1
    at = out.data + out.size
    put_u64(at, ts)
    put_u64(at + 8, instance)
    put_u64(at + 16, excluded)
    at[24] = <uint8_t> encoding
    at[25] = <uint8_t> sender.size
    if sender.size:
        memcpy(at + BODY_HEAD, sender.data, sender.size)
    if payload.size:
        memcpy(at + BODY_HEAD + sender.size, payload.data, payload.size)
    out.size += BODY_HEAD + sender.size + payload.size
    return 0


cdef uint64_t take_number(Frame* frame, int bytes, bint* ok) noexcept nogil:
    cdef uint64_t value
    if frame.rest_size < <size_t> bytes:
        ok[0] = False
        frame.rest_size = 0
        return 0
    value = number_at(frame.rest, bytes)
    frame.rest += bytes
    frame.rest_size -= bytes
    return value


cdef Slice take_slice(Frame* frame, size_t size, bint* ok) noexcept nogil:
    cdef Slice out = slice_of(frame.rest, 0)
    if frame.rest_size < size:
        ok[0] = False
        frame.rest_size = 0
        return out
    out.size = size
    frame.rest += size
    frame.rest_size -= size
    return out


cdef bint body_read(Slice bytes, Body* out) noexcept nogil:
    if bytes.size < BODY_HEAD or bytes.size < <size_t> BODY_HEAD + bytes.data[25] or bytes.data[24] > 1:
        return False
    out.ts = number_at(bytes.data, 8)
    out.instance = number_at(bytes.data + 8, 8)
    out.excluded = number_at(bytes.data + 16, 8)
    out.encoding = bytes.data[24]
    out.sender = slice_of(bytes.data + BODY_HEAD, bytes.data[25])
    out.payload = slice_of(bytes.data + BODY_HEAD + out.sender.size, bytes.size - BODY_HEAD - out.sender.size)
    return out.payload.size > 0


# --- waiting requests

cdef Waiting* waiting_add(Peers* peers, int kind, int authority, Session* session, int id_kind, int encoding,
                          Slice request_id, Slice topic, int topic_kind, uint64_t now_ms) noexcept nogil:
    cdef Waiting* made = <Waiting*> calloc(1, sizeof(Waiting) + request_id.size + topic.size)
    if made == NULL:
        return NULL
    peers.tokens += 1
    made.token = peers.tokens
    made.since_ms = now_ms
    made.kind = <uint8_t> kind
    made.authority = <uint8_t> authority
    made.topic_kind = <uint8_t> topic_kind
    made.id_kind = <uint8_t> id_kind
    made.encoding = <uint8_t> encoding
    made.id_size = <uint16_t> request_id.size
    made.topic_size = <uint16_t> topic.size
    if request_id.size:
        memcpy(&made.data[0], request_id.data, request_id.size)
    if topic.size:
        memcpy(&made.data[0] + request_id.size, topic.data, topic.size)
    if table_add(&peers.waiting, &made.entry, <const uint8_t*> &made.token, sizeof(uint64_t)) < 0:
        free(made)
        return NULL
    made.previous = peers.newest
    if peers.newest != NULL:
        peers.newest.next = made
    else:
        peers.oldest = made
    peers.newest = made
    made.session = session
    if session != NULL:
        made.next_of_session = <Waiting*> session.asks
        if made.next_of_session != NULL:
            made.next_of_session.previous_of_session = made
        session.asks = made
    return made


cdef Waiting* waiting_find(const Peers* peers, uint64_t token) noexcept nogil:
    return <Waiting*> table_find(&peers.waiting, <const uint8_t*> &token, sizeof(uint64_t))


cdef void unlink_session(Waiting* waiting) noexcept nogil:
    if waiting.session == NULL:
        return
    if waiting.previous_of_session != NULL:
        waiting.previous_of_session.next_of_session = waiting.next_of_session
    else:
        waiting.session.asks = waiting.next_of_session
    if waiting.next_of_session != NULL:
        waiting.next_of_session.previous_of_session = waiting.previous_of_session
    waiting.next_of_session = NULL
    waiting.previous_of_session = NULL
    waiting.session = NULL


cdef void waiting_remove(Peers* peers, Waiting* waiting) noexcept nogil:
    unlink_session(waiting)
    if waiting.previous != NULL:
        waiting.previous.next = waiting.next
    else:
        peers.oldest = waiting.next
    if waiting.next != NULL:
        waiting.next.previous = waiting.previous
    else:
        peers.newest = waiting.previous
    table_remove(&peers.waiting, &waiting.entry)
    buffer_free(&waiting.gathered)
    free(waiting)


cdef void waiting_forget_session(Session* session) noexcept nogil:
    while session.asks != NULL:
        unlink_session(<Waiting*> session.asks)


cdef Group* group_new(const Slice* targets, uint32_t count) noexcept nogil:
    cdef size_t size = sizeof(Group) + count * (sizeof(Slice) + 1)
    cdef uint8_t* at
    cdef Group* made
    cdef uint32_t i
    for i in range(count):
        size += targets[i].size
    made = <Group*> malloc(size)
    if made == NULL:
        return NULL
    memset(made, 0, sizeof(Group))
    made.count = count
    made.targets = <Slice*> (<uint8_t*> made + sizeof(Group))
    made.reached = <uint8_t*> made.targets + count * sizeof(Slice)
    memset(made.reached, 0, count)
    at = made.reached + count
    for i in range(count):
        memcpy(at, targets[i].data, targets[i].size)
        made.targets[i] = slice_of(at, targets[i].size)
        at += targets[i].size
    return made


cdef class RingProbe:
    """The homes of topics among members, so that tests see how they move."""

    cdef Peers peers

    def __cinit__(self, members):
        cdef uint64_t mask = 0
        peers_init(&self.peers)
        for slot in members:
            mask |= <uint64_t> 1 << <int> slot
        peers_set(&self.peers, min(members), mask)

    def __dealloc__(self):
        peers_free(&self.peers)

    def home(self, bytes topic not None):
        """The slot of a topic."""
        return peers_home(&self.peers, slice_of(<const uint8_t*> topic, len(topic)))


def split_frames(bytes data not None):
    """The frames in `data` as (type, kind, token, topic, rest), and how many bytes they take. Raises ValueError."""
    cdef Frame frame
    cdef Py_ssize_t size
    cdef size_t at = 0
    made = []
    while True:
        size = frame_read(<const uint8_t*> data + at, len(data) - at, &frame)
        if size < 0:
            raise ValueError("no frame")
        if size == 0:
            return made, at
        made.append((frame.type, frame.kind, frame.token, (<const char*> frame.topic.data)[:frame.topic.size],
                     (<const char*> frame.rest)[:frame.rest_size]))
        at += <size_t> size
