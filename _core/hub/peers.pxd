# Who else serves topics: the other workers of this node and what stands above it, and the requests that wait for them.
#
# Rules: containers and bytes only; nothing here knows a hub, sends or acts. Every topic has one *authority*, which
# gives its offsets and keeps its history: this worker, the upstream (Redis) or another worker. Which worker a topic is
# at home at follows from its name and the members alone, so that all of them agree without asking.
#
# Theory: the ring has RING places, each of which goes to the member that scores highest for it (rendezvous hashing, D.
# Thaler and C. Ravishankar 1998). A member that leaves gives its places to the others in equal shares, and no other
# place moves.
#
# Frames between workers, little endian: u32 size of what follows, u8 type, u8 kind of topic, u16 size of the topic's
# name, u64 token, the name, then what the type says. A token names the sender's request; its answer carries it back.

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from realtime_communication._core.base.memory cimport Buffer, Slice
from realtime_communication._core.base.table cimport Table, TableEntry
from realtime_communication._core.hub.session cimport Session


cdef enum:
    MAX_WORKERS = 64
    RING = 4096
    MAX_PEER_FRAME = 33554432    # bytes of a frame; a payload has 16 MiB at most
    FRAME_HEAD = 16              # bytes in front of the topic's name, the size among them
    BODY_HEAD = 26               # bytes in front of a body's sender


cdef enum Authority:             # who gives a topic's offsets
    AUTHORITY_HERE = 0
    AUTHORITY_UPSTREAM = 1
    AUTHORITY_WORKER = 2         # + its slot
    AUTHORITY_NOBODY = 254       # asked again when it is known who it is
    AUTHORITY_ARRIVING = 255     # this worker, once the one before it has handed the topic over


cdef enum PeerFrame:
    FRAME_PUBLISH = 1            # u16 size of the idempotency key, the key, a body          -> ACK or REFUSE
    FRAME_ACK = 2                # u64 epoch, u64 offset, u8 reached
    FRAME_REFUSE = 3             # u8 ErrorCode, i32 retry_after_ms (-1 none), text
    FRAME_DELIVER = 4            # u64 epoch, u64 offset, a body
    FRAME_SUBSCRIBE = 5          # u8 has position, u64 epoch, u64 offset, i64 history       -> SUBSCRIBED or REFUSE
    FRAME_SUBSCRIBED = 6         # u64 epoch, u64 offset, u8 recovered, u64 first, bodies each behind its u32 size
    FRAME_UNSUBSCRIBE = 7
    FRAME_HISTORY = 8            # u8 has position, u64 epoch, u64 offset, i64 limit, u8 reverse  -> PAGE or REFUSE
    FRAME_PAGE = 9               # as SUBSCRIBED
    FRAME_RESET = 10             # u64 epoch, u64 offset: the topic's history was lost
    FRAME_INTEREST = 11          # deliver this inbox here                       -> ACK or REFUSE, if there is a token
    FRAME_HANDOVER = 12          # as SUBSCRIBED: the topic is yours now, with its history; the token has who mirrors it
    FRAME_REMEMBER = 13          # u64 epoch, u64 offset, u64 milliseconds left, idempotency key
    FRAME_SETTLED = 14           # u64 version of the members: all that was to be handed over has been
    FRAME_FULL = 15              # u8: 1 a consumer of the topic is full, 0 none any more; see throttle.pxd
    # Presence, see attendance.pxd. A session is u64 u64; a user and an info stand behind their u8, u16 size.
    FRAME_ENTER = 16             # session, u64 joined_at, user, info: it is on the topic, or is described anew
    FRAME_EXIT = 17              # session, u8 graceful
    FRAME_FORGET = 18            # nothing that was said of this topic's presence is good any more
    FRAME_WATCH = 19             # u8: whether Joins and Leaves are wanted                     -> SHOW of all, SHOWN
    FRAME_SHOW = 20              # u8 leave, u8 was there before, session, user, info
    FRAME_SHOWN = 21             # all who were there before have been shown
    FRAME_ASK_PRESENCE = 22      # who is on the topic? Of an inbox: who at that worker?     -> PRESENT or REFUSE
    FRAME_PRESENT = 23           # sessions as ENTER has them
    FRAME_OCCUPIED = 24          # it was told that this topic has subscribers, see notices.pxd
    FRAME_WANTED = 25            # you are taken for a mirror of this topic: UNSUBSCRIBE if you are none
    # From 32 on: connections that move, see migration.pxd.
    FRAME_MIGRATE = 32           # with a descriptor; in place of a topic the user       -> MIGRATED
    FRAME_KEEP = 34              # cache all that you publish for a while                     -> KEPT
    FRAME_KEPT = 35
    FRAME_MIGRATED = 33          # in place of a token whether the user is there, once the session has found its places


cdef enum WaitingKind:
    WAIT_ACK = 1                 # of a Broadcast
    WAIT_TARGET = 2              # of one inbox of a DirectMessage; `group` has the others
    WAIT_SUBSCRIBED = 3          # the session's parked Subscribe
    WAIT_PAGE = 4                # the session's parked History
    WAIT_SYNC = 5                # nobody's: the topic's new authority tells where it stands
    WAIT_RELAY = 6               # a worker's request, passed on
    WAIT_GIVEN = 7               # a subscription that the session did not ask for
    WAIT_PRESENCE = 8            # the session's parked Presence
    WAIT_ROSTER = 9              # nobody's: who is present upstream
    WAIT_WELCOME = 10            # the session's Connected, until its inbox is fed
    WAIT_VERDICT = 11            # the session's parked request, see authorization.pxd
    WAIT_MOVED = 16              # a place of a session that came from another worker, in place of a request's id


cdef struct Group:               # a DirectMessage to inboxes of which some are elsewhere
    uint32_t left                # answers to come
    uint32_t count
    int code                     # ErrorCode of one that was refused, 0
    int32_t retry_after_ms
    Slice* targets               # in this block
    uint8_t* reached             # for each: 0 offline, 1 delivered


cdef struct Waiting:             # a request without an answer yet
    TableEntry entry             # keyed by `token`
    uint64_t token
    Waiting* next                # by age
    Waiting* previous
    uint64_t since_ms            # monotonic
    Session* session             # NULL: it has gone, or the request came over HTTP
    Waiting* next_of_session
    Waiting* previous_of_session
    void* later                  # Later, with a reference: the request came over HTTP
    Group* group
    Buffer gathered              # WAIT_PRESENCE of an inbox: the sessions of the workers that have answered
    uint32_t target              # WAIT_TARGET: its place in the group; WAIT_PAGE over HTTP: whether it is reversed
    uint8_t kind                 # WaitingKind
    uint8_t authority            # who answers
    uint8_t peer                 # WAIT_RELAY: the worker that asked
    uint8_t asked                # WAIT_RELAY: the FrameType; WAIT_SUBSCRIBED: 1 where only the offset is wanted
    uint8_t topic_kind
    uint8_t id_kind              # of the request, for the reply
    uint8_t encoding
    uint16_t id_size
    uint16_t topic_size
    uint64_t peer_token          # WAIT_RELAY
    uint8_t data[1]              # the request's id, then the topic's name


cdef struct Peer:
    Buffer out                   # frames that wait to be sent
    size_t began                 # where in it the frame begins that is being written
    bint linked
    bint starved                 # a frame had no memory: the link ends, so that both sides begin anew


cdef struct Peers:
    bint spread                  # there is somebody else; False: every topic is at home here
    bint upstream                # topics at home here have their authority upstream
    uint8_t me                   # slot of this worker
    uint64_t instance            # random, names this process in bodies
    uint64_t members             # a bit for each slot that is home of topics
    uint64_t tokens              # the newest one given
    uint8_t ring[RING]           # slot of each place
    uint8_t before[RING]         # the same of the members before, good while `holding`
    uint64_t version             # of the members, grows with each change
    uint64_t settled[MAX_WORKERS]    # version up to which each worker has handed over
    bint holding                 # some worker may still hand topics over that are at home here now
    Peer workers[MAX_WORKERS]
    Table waiting
    Waiting* oldest
    Waiting* newest


cdef struct Frame:               # one that has come; its slices point into the input
    uint8_t type
    uint8_t kind                 # of the topic
    uint64_t token
    Slice topic
    const uint8_t* rest
    size_t rest_size


cdef struct Body:                # a publication as it travels
    uint64_t ts                  # milliseconds since the epoch
    uint64_t instance            # of the process whose session is left out
    uint64_t excluded            # serial of that session, 0 for none
    uint8_t encoding
    Slice sender
    Slice payload


cdef void peers_init(Peers* peers) noexcept nogil
# Frees everything; what waits is dropped without an answer (`later` and `group` must have been let go).
cdef void peers_free(Peers* peers) noexcept nogil
# Takes new members over, a bit for each slot; `me` may be none of them.
cdef void peers_set(Peers* peers, int me, uint64_t members) noexcept nogil
# Finds out anew whether there is somebody else.
cdef void peers_look(Peers* peers) noexcept nogil
# The slot a topic is at home at, and was at before.
cdef int peers_home(const Peers* peers, Slice topic) noexcept nogil
cdef int peers_home_before(const Peers* peers, Slice topic) noexcept nogil

cdef inline int peers_authority(const Peers* peers, Slice topic) noexcept nogil:
    cdef int slot
    if not peers.spread:
        return AUTHORITY_HERE
    slot = peers_home(peers, topic)
    if slot != peers.me:
        return AUTHORITY_WORKER + slot
    if peers.holding and peers_home_before(peers, topic) != slot:
        return AUTHORITY_ARRIVING
    return AUTHORITY_UPSTREAM if peers.upstream else AUTHORITY_HERE

# Whether a topic of that kind can have the name; the empty one stands for none.
cdef bint is_name_of(Slice name, int kind) noexcept nogil
# Frames. `frame_start` writes the head and returns where it begins, -1 without memory; `frame_end` fills the size in.
cdef Py_ssize_t frame_start(Buffer* out, int type, int kind, Slice topic, uint64_t token, size_t more) noexcept nogil
cdef void frame_end(Buffer* out, Py_ssize_t start) noexcept nogil
# The same for a worker: where the fields go, `more` bytes of which have room, and then `frame_done`. NULL without
# memory; whatever the frame was for, that worker is lost then, and hears of everything anew when it is met again.
cdef Buffer* frame_to(
    Peers* peers, int slot, int type, int kind, Slice topic, uint64_t token, size_t more
) noexcept nogil
cdef void frame_done(Peers* peers, int slot) noexcept nogil
# In place of `frame_done`: there was no memory for what goes beyond `more`.
cdef void frame_failed(Peers* peers, int slot) noexcept nogil
# A frame without fields: 0, or -1 without memory.
cdef int frame_bare(Peers* peers, int slot, int type, int kind, Slice topic, uint64_t token) noexcept nogil
# The first frame of the input: its bytes, 0 when it is not whole, -1 when it is none: among these, one whose topic is
# not of its kind, so that nobody after this has to look.
cdef Py_ssize_t frame_read(const uint8_t* data, size_t size, Frame* out) noexcept nogil

cdef inline void put_u16(uint8_t* at, uint16_t value) noexcept nogil:
    at[0] = <uint8_t> value
    at[1] = <uint8_t> (value >> 8)

cdef void put_u32(uint8_t* at, uint32_t value) noexcept nogil
cdef void put_u64(uint8_t* at, uint64_t value) noexcept nogil
cdef int add_u8(Buffer* out, uint8_t value) noexcept nogil
cdef int add_u32(Buffer* out, uint32_t value) noexcept nogil
cdef int add_u64(Buffer* out, uint64_t value) noexcept nogil
cdef int add_body(Buffer* out, uint64_t ts, uint64_t instance, uint64_t excluded, int encoding, Slice sender,
                  Slice payload) noexcept nogil
# What is left of a frame, taken from the front; `ok` turns False when it is too short, and stays so.
cdef uint64_t take_number(Frame* frame, int bytes, bint* ok) noexcept nogil
cdef Slice take_slice(Frame* frame, size_t size, bint* ok) noexcept nogil
# Whether the bytes are a body.
cdef bint body_read(Slice bytes, Body* out) noexcept nogil

# A request that waits; `request_id` and `topic` are copied. NULL without memory.
cdef Waiting* waiting_add(Peers* peers, int kind, int authority, Session* session, int id_kind, int encoding,
                          Slice request_id, Slice topic, int topic_kind, uint64_t now_ms) noexcept nogil
cdef Waiting* waiting_find(const Peers* peers, uint64_t token) noexcept nogil
# Out of all lists, and freed.
cdef void waiting_remove(Peers* peers, Waiting* waiting) noexcept nogil
# The session goes: nobody is to be told any more.
cdef void waiting_forget_session(Session* session) noexcept nogil

cdef inline Slice waiting_topic(const Waiting* waiting) noexcept nogil:
    cdef Slice out
    out.data = &waiting.data[0] + waiting.id_size
    out.size = waiting.topic_size
    return out

cdef inline Slice waiting_id(const Waiting* waiting) noexcept nogil:
    cdef Slice out
    out.data = &waiting.data[0]
    out.size = waiting.id_size
    return out

# A group of `count` targets with a copy of their names; NULL without memory.
cdef Group* group_new(const Slice* targets, uint32_t count) noexcept nogil
