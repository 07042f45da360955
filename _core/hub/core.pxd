# The state of one worker's hub and the acts on it: publish, send, subscribe, leave.
#
# Rules: no parsing, no replies to requests (requests.pyx), no loop, no sockets, no clock (hub.pyx is told the time).
# Every act leaves all containers consistent, also without memory.

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from realtime_communication._core.base.counters cimport Counters
from realtime_communication._core.base.memory cimport Slice
from realtime_communication._core.base.shared cimport SharedMap, SharedSlot
from realtime_communication._core.base.timer_wheel cimport TimerWheel
from realtime_communication._core.hub.bus_user cimport BusUser
from realtime_communication._core.hub.driver cimport Driver
from realtime_communication._core.hub.message cimport Message
from realtime_communication._core.hub.newcomers cimport Newcomers
from realtime_communication._core.hub.outbox cimport Outbox
from realtime_communication._core.hub.peers cimport Peers
from realtime_communication._core.hub.samples cimport Samples
from realtime_communication._core.hub.session cimport Session
from realtime_communication._core.hub.settings cimport Settings
from realtime_communication._core.hub.token_bucket cimport TokenBucket
from realtime_communication._core.hub.topic_rules cimport TopicRule, TopicRules
from realtime_communication._core.hub.topics cimport EPOCH_SIZE, Subscription, Topic, TopicStore
from realtime_communication._core.hub.users cimport Member, User, UserStore
from realtime_communication._core.hub.verdicts cimport Verdicts
from realtime_communication._core.wire.envelope cimport Request


cdef struct Position:            # where a publication went
    uint64_t offset
    uint8_t epoch[EPOCH_SIZE]


cdef Slice inbox_name(Slice user, uint8_t* place) noexcept nogil  # `@user`, written into `place` (256 bytes)


cdef class Core(BusUser):
    cdef Counters counters
    cdef Settings settings
    cdef TopicStore store
    cdef UserStore users
    cdef Outbox outbox
    cdef TimerWheel wheel
    cdef uint64_t now_ms         # monotonic
    cdef uint64_t wall_ms        # since the epoch
    cdef uint64_t wall_ns        # the same, as exact as the driver's clock while samples are taken
    cdef TokenBucket global_bucket
    cdef Session* sessions       # all there are, newest first
    cdef Newcomers newcomers     # of them, those whose peers have not authenticated
    cdef uint64_t due            # deliveries of what was published since the turn began, however many are made yet
    cdef uint64_t stamp          # of the newest request that names several topics
    cdef dict answered           # idempotency key -> (monotonic ms when it is forgotten, epoch, offset)
    cdef readonly bytes node_id
    cdef object authenticate     # callback for Authenticate and Refresh
    cdef bint draining           # the server ends: no more connections, no more publications
    cdef TopicRules rules        # of topics; None when there are none
    cdef Verdicts verdicts       # who is asked about requests, and what he said; None: nobody is
    cdef list transforms         # of (pattern as bytes, function); None when there are none
    cdef Samples samples
    cdef Peers peers
    cdef uint64_t keep_until_ms  # until then messages are cached without `enable_caching` too, see migration.pxd
    cdef bint unsynced           # some topics are to be asked about again, with the next tick
    cdef bint keeps_upstream     # the upstream is away: publications are kept for it
    cdef uint64_t origin_instance    # of the publication being published for another worker
    cdef uint64_t origin_serial  # of its publisher, when it is left out; else 0
    cdef bytes keyed             # the idempotency key of the publication being published; None without one
    cdef list upward             # items that wait for the upstream to take them, see upstream.pxd
    cdef object on_fault         # callback(peer, code, reason, untold) for what `tell` is told; None without any
    cdef uint64_t told_second    # the second (monotonic) `told` is of
    cdef uint32_t told           # calls of the callback in it
    cdef uint64_t untold         # what it was not told since its last call
    cdef SharedMap* shared       # what all workers share, NULL without others; belongs to shared_owner
    cdef SharedSlot* share       # this worker's page of it
    cdef void* shared_owner      # a Shared, counted

    # The topic of that name, made when it is not there, with its authority; NULL without memory.
    cdef Topic* open_topic(self, Slice name, int kind) noexcept
    # Publishes on the topic of that name, which is at home here. 0; -1 without memory, with nothing published.
    cdef int publish(self, Slice name, int kind, Slice sender, Slice payload, int encoding, Session* excluded,
                     Position* out) noexcept
    # Numbers a message of the topic, and caches it as the topic's rule allows.
    cdef void store_message(self, Topic* topic, Message* message) noexcept
    # The topic's cache forgets what its rule does not let it keep, or hides it while connections may be on their way.
    # The topic is not released.
    cdef void trim(self, Topic* topic, const TopicRule* rule) noexcept
    # A message that has its offset goes to the other workers that mirror its topic.
    cdef void feed(self, Topic* topic, const Message* message, uint64_t instance, uint64_t excluded) noexcept
    # A publication made here while the upstream is away.
    cdef void kept_for_upstream(self, Topic* topic, const Message* message) noexcept
    # The topic's history goes on elsewhere: subscribers, here and on the workers that mirror it, are told.
    cdef void reset(self, Topic* topic, uint64_t epoch, uint64_t offset) noexcept
    # This worker gives the topic's offsets from now on, under an epoch of its own.
    cdef void localize(self, Topic* topic) noexcept
    # The inbox of a user with its live sessions subscribed; NULL without memory. `name` without "@".
    cdef Topic* inbox(self, Slice user) noexcept
    # The topic of all connections, with all subscribed; NULL without memory.
    cdef Topic* everyone(self) noexcept
    # A new subscription of a session, with presence. NULL without memory.
    cdef Subscription* join(self, Session* session, Topic* topic) noexcept
    # The end of one; `graceful`: its user may be back in a moment. The topic may be gone afterwards.
    cdef void part(self, Subscription* subscription, bint graceful) noexcept
    cdef void join_or_starve(self, Session* session, Topic* topic) noexcept
    cdef void enter(self, Session* session, Topic* topic) noexcept
    cdef void exit(self, Session* session, User* user, Topic* topic, bint graceful) noexcept
    # Counts a session of a user in, the first one is told to the watchers; NULL without memory: nobody is counted.
    cdef Member* count_in(self, User* user, Topic* topic, uint64_t id_high, uint64_t id_low, Slice info) noexcept
    # Counts one out; after the last one Leave is told, at once or after the grace period. Frees neither topic nor user.
    cdef void count_out(self, Member* member, uint64_t id_high, uint64_t id_low, bint graceful) noexcept
    # Join or Leave of a member, by the session that is noted there; a session is not told of its own Join.
    cdef void tell_watchers(self, Topic* topic, const Member* member, bint leave, Slice info) noexcept
    # The same to one session.
    cdef void tell_watcher(self, Session* session, Topic* topic, const Member* member, bint leave, Slice info) noexcept
    # Somebody may have begun or ceased to watch the topic.
    cdef void watched(self, Topic* topic) noexcept
    # What is shown of the session has changed.
    cdef void described(self, Session* session) noexcept
    # A Presence where there are other workers, or an upstream; an Outcome.
    cdef int ask_presence(self, Session* session, const Request* request) noexcept
    # Gives an open session its user, of whom others hear by `ask_welcome`. Raises MemoryError, and ValueError for a
    # name or an info nobody can have.
    cdef int attach(self, Session* session, object identity) except -1
    # Takes over what a token says, with nothing changed when it fails. Raises MemoryError, ValueError.
    cdef int grant(self, Session* session, object identity) except -1
    # The bits of the roles of an identity that topic rules name.
    cdef uint64_t roles_of(self, object identity) except? 0
    # The session leaves all topics and its user; nothing more is delivered to it.
    cdef void leave(self, Session* session) noexcept
    cdef void forget_user(self, User* user) noexcept
    # The last session of a member has been gone for the grace period.
    cdef void member_expired(self, void* member) noexcept
    # Sends an Error; `request` may be NULL.
    cdef void error(self, Session* session, const Request* request, int code, const char* message,
                    int64_t retry_after_ms, const char* scope) noexcept
    # An operator should know of a peer that was refused (`code` is an HTTP status) or closed (a close code). A flood of
    # these costs no more than FAULTS_A_SECOND calls.
    cdef void tell(self, Session* session, int code, object reason) noexcept
    # The peer's address, for logs and credentials checks.
    cdef str peer_of(self, Session* session)
    # Somebody has answered for the session's credential (`pending` is a Pending); `answer` is what the callback could
    # have returned.
    cdef void settled(self, Session* session, object pending, object answer) noexcept
    # The session's deadlines have changed.
    cdef void renew(self, Session* session) noexcept
    # Nothing is written to the session until `let_out` is called, or for WELCOME_MS.
    cdef void withhold(self, Session* session) noexcept
    # A user's first session here was opened, or the last one has gone.
    cdef void user_seen(self, Slice user, bint here) noexcept
    # The last subscriber of a topic that is fed from elsewhere has gone.
    cdef void unused(self, Topic* topic) noexcept


cdef enum:
    KEEP_MS = 20000              # for which a worker caches messages when another one asks it to


# Whether workers cache what they would not, so that connections can move.
cdef inline bint keeps_all(Core core) noexcept:
    return core.keep_until_ms > core.now_ms


# How many messages are cached.
cdef inline size_t kept_entries(Core core) noexcept:
    return core.settings.cache_entries if core.settings.caching or keeps_all(core) else 0
