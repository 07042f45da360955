# One connection: bytes in, requests out.
#
# A session knows the inbound order (head, frames, envelope) and nothing of topics or other sessions: it turns bytes
# into requests, the hub acts on them. It answers control frames itself, through its own mailbox. It owns no socket: a
# driver (reactor, TLS transport, test) feeds it and writes what its mailbox gathers.
#
# States only ever move forward, in the order of SessionState.

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from realtime_communication._core.base.counters cimport Counters
from realtime_communication._core.base.memory cimport Buffer, Slice
from realtime_communication._core.base.timer_wheel cimport Timer
from realtime_communication._core.hub.mailbox cimport Mailbox
from realtime_communication._core.hub.settings cimport Settings
from realtime_communication._core.hub.token_bucket cimport TokenBucket
from realtime_communication._core.wire.envelope cimport EnvelopeScratch, Request
from realtime_communication._core.wire.frames cimport FrameEvent, FrameParser


cdef enum:
    LOGIN_BYTES = 255            # of a token's session_id; the control plane lets 128 through


cdef enum SessionState:
    SESSION_HEAD = 0             # the HTTP head is not complete
    SESSION_ANONYMOUS = 1        # open; the first message must be Authenticate
    SESSION_OPEN = 2
    SESSION_CLOSING = 3          # our close frame is queued; waits for the peer's
    SESSION_LINGER = 4           # all is said; what still comes is thrown away until the peer ends the stream
    SESSION_DEAD = 5             # out of all lists; freed at the end of the turn


cdef enum SessionFlag:
    FLAG_DIRTY = 1               # in the list of sessions to write
    FLAG_BLOCKED = 2             # the socket is full: data goes to the queue
    FLAG_PAUSED = 4              # not read until the mailbox or a consumer has room
    FLAG_RESUME = 8              # in the list of sessions with input left over
    FLAG_ECHO = 16               # /debug/echo: messages come back as they are
    FLAG_DEFLATE = 32            # permessage-deflate negotiated
    FLAG_PINGED = 64             # a ping went out and nothing came since
    FLAG_EXPIRY_TOLD = 128       # TokenExpiring was sent
    FLAG_FULL = 256              # the mailbox is full: overflow `block` holds publishers, `backpressure` refuses them
    FLAG_WRITE_ARMED = 512       # the driver waits for the socket to take bytes
    FLAG_SHUT = 1024             # the driver shut its sending side down
    FLAG_WAITING = 2048          # in the list of publishers that wait for a full consumer
    FLAG_COUNTED = 4096          # counted as a connection of the server
    FLAG_READ_OFF = 8192         # the driver does not poll for input
    FLAG_OVERRUN = 32768         # more is told to it than it reads: closed as a slow consumer at the end of the turn
    FLAG_STARVED = 1048576       # no memory for what it had to be told: closed at the end of the turn
    FLAG_TARDY = 16384           # some of its subscriptions wait to be told of a gap or to be caught up
    FLAG_PENDING = 65536         # not read until somebody says whether its credential is good, see pending.pxd
    FLAG_ARRIVING = 262144       # came from another worker, and has not found its place in all topics, see places.pxd
    FLAG_ASKED = 131072          # not read until the topic's authority has answered its parked request, see relay.pxd
    FLAG_WITHHELD = 524288       # nothing is written, Connected first, until its inbox is fed, see `withhold`


cdef enum Permission:
    PERMISSION_READ = 1
    PERMISSION_WRITE = 2
    PERMISSION_SUBSCRIBE = 4
    PERMISSION_ADMIN = 8


cdef enum SessionEvent:
    EVENT_NEED_MORE = 0          # the input is used up
    EVENT_REQUEST = 1            # `inbound.request` holds a valid request
    EVENT_INVALID = 2            # `inbound.request.error` says what is wrong
    EVENT_ECHO = 3               # `inbound.frame` holds the message to send back
    EVENT_CLOSED = 4             # the peer closes, or broke the protocol: leave everything, then session_answer_close


cdef struct Patterns:            # topics a token is narrowed to; one block of memory
    uint32_t count
    Slice items[1]               # a trailing '*' matches any rest


cdef struct Info:                # what is shown with the user's presence
    uint32_t size                # bytes
    uint8_t data[1]              # a JSON object


cdef struct Narrowing:           # what few tokens say; one made for a session that has any of it
    Patterns* subscribe_patterns  # NULL: all topics
    Patterns* publish_patterns
    Info* info                   # NULL: none


cdef struct Login:               # the token's session_id
    uint8_t size                 # bytes of `text`
    uint8_t packed               # 32 lower-case hexadecimal digits are kept as 16 bytes
    uint8_t text[1]


cdef struct Session:             # 480 bytes
    Timer timer                  # kind is free for the hub
    int32_t fd                   # -1 when a driver without descriptors owns the session
    uint8_t state                # SessionState
    uint8_t variant              # what its data frames look like, see variants.pxd
    uint8_t encoding             # JSON_TEXT or MSGPACK
    uint8_t compression          # form of message compression, 0 for none
    uint8_t window_bits          # of permessage-deflate
    uint8_t permissions          # Permission bits
    uint16_t close_code          # sent in our close frame
    uint32_t flags               # SessionFlag bits
    uint64_t serial              # unique in this hub, from 1
    uint64_t id_high             # session id: 32 hexadecimal digits
    uint64_t id_low
    FrameParser parser
    Mailbox mailbox
    Buffer stash                 # input not handled yet: the head, or requests behind a batch's bound
    Buffer parked                # overflow `block`: a request that waits until its consumers have room
    uint64_t received_ms         # monotonic time of the last byte
    uint64_t since_ms            # when the state, or FLAG_FULL, began
    uint64_t opened_ms
    uint32_t stash_at            # bytes of the stash already searched for the head's end; past the head: handled
    uint32_t moved_ms            # when it came here from another worker, low part, never 0; 0: it did not
    uint32_t work                # times it was read or written of late, see choice.pxd
    uint32_t subscription_count  # of the client, inboxes not counted
    uint32_t strikes             # requests refused by a limit in this window
    uint32_t strikes_ms          # when the window began, low part
    TokenBucket bucket
    TokenBucket* custom          # one for each custom limit, made with the first request
    int64_t expires_at           # seconds since the epoch, -1 never
    int64_t refresh_at           # seconds since the epoch, -1 unknown
    Narrowing* narrowing         # NULL: all topics, no info
    uint64_t roles               # bits of those that topic rules name, see topic_rules.pxd
    Login* login                 # NULL when the token has none
    void* user                   # User*, NULL until authenticated
    void* subscriptions          # first Subscription*
    void* pending                # Pending, with a reference, while FLAG_PENDING is set
    void* asks                   # first Waiting*, see peers.pxd
    void* newcomer               # Newcomer*, NULL once the peer has authenticated, see newcomers.pxd
    Session* next_of_user
    Session* previous_of_user
    Session* next                # in the list of all sessions; of a dead one, in that of the dead
    Session* previous
    Session* next_dirty
    Session* next_resume
    Session* next_waiting
    void* driver                 # what the driver needs to find its own


cdef class Inbound:
    # What one turn of parsing needs, shared by all sessions of a worker.
    cdef EnvelopeScratch scratch
    cdef Request request
    cdef FrameEvent frame
    cdef Slice message           # with EVENT_REQUEST: the envelope's bytes, as `request` was read from them
    cdef int close_code          # with EVENT_CLOSED: what to answer with, 1005 for an empty close frame
    cdef const char* close_reason    # constant text
    cdef object inflated         # keeps decompressed bytes alive that `request` points into


# A session in SESSION_HEAD, or NULL without memory.
cdef void session_init(Session* session, int fd, uint64_t serial, uint64_t now_ms) noexcept nogil
# Frees what the session holds, not the session itself. The mailbox's queue must be empty.
cdef void session_free(Session* session) noexcept nogil

# Handles input of a session that is past its head, until the first event. Sets `consumed`; to be called again with the
# rest until EVENT_NEED_MORE. Raises nothing but MemoryError out of the decompressors.
cdef int session_receive(Session* session, Inbound inbound, const Settings* settings, Counters* counters,
                         uint8_t* data, size_t size, size_t* consumed) except -1

# Ends what EVENT_CLOSED told: queues the answer, unless a close frame went out before, and moves to SESSION_LINGER.
cdef void session_answer_close(Session* session, Inbound inbound, uint64_t now_ms) noexcept

# Queues a close frame behind all data that can still leave and moves to SESSION_CLOSING; nothing when that has happened
# already. The session must have left its topics, so that no data follows.
cdef void session_close(Session* session, int code, const char* reason, uint64_t now_ms) noexcept nogil

# Writes the 32 digits of the session id.
cdef void session_id(const Session* session, uint8_t* out) noexcept nogil

# Makes a Narrowing of two sequences of str and of bytes, each of which may be None; NULL for three times None. Raises
# as `patterns_new` and `info_new`.
cdef Narrowing* narrowing_new(object subscribe_patterns, object publish_patterns, object info) except? NULL
cdef void narrowing_free(Narrowing* narrowing) noexcept nogil

# Makes a Login of a str of at most LOGIN_BYTES of UTF-8, NULL for None. Raises MemoryError, ValueError.
cdef Login* login_new(object text) except? NULL
# The text, None for NULL.
cdef str login_text(const Login* login)

# Makes Patterns of a sequence of str, NULL for None. Raises MemoryError.
cdef Patterns* patterns_new(object patterns) except? NULL
cdef bint patterns_match(const Patterns* patterns, Slice topic) noexcept nogil
# Whether a topic is the pattern, or begins with it up to its trailing '*'.
cdef bint pattern_matches(Slice pattern, Slice topic) noexcept nogil

# Makes Info of bytes, NULL for None. Raises MemoryError, and ValueError for more than INFO_BYTES or no JSON object.
cdef Info* info_new(object info) except? NULL

# Empty when there is none.
cdef inline Slice session_info(const Session* session) noexcept nogil:
    cdef Slice out
    out.data = NULL
    out.size = 0
    if session.narrowing != NULL and session.narrowing.info != NULL:
        out.data = session.narrowing.info.data
        out.size = session.narrowing.info.size
    return out


# NULL: all topics.
cdef inline const Patterns* subscribe_patterns(const Session* session) noexcept nogil:
    return session.narrowing.subscribe_patterns if session.narrowing != NULL else NULL


cdef inline const Patterns* publish_patterns(const Session* session) noexcept nogil:
    return session.narrowing.publish_patterns if session.narrowing != NULL else NULL
