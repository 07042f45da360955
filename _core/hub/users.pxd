# Users: who is connected, with which sessions, under which shared limit; and who is present on which topic.
#
# Rules: containers only. A user lives while a session of it is open, a topic remembers it as a member, or its bucket
# still differs from a new one. A *member* is a user on a topic: it is made with the user's first session there and goes
# with the last one, at once or after a grace period that lets a reconnect pass unseen. Where others decide who is
# present (attendance.pxd), a member may also stand for a user without a session here.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from realtime_communication._core.base.memory cimport Slice
from realtime_communication._core.base.shared cimport SharedUser
from realtime_communication._core.base.table cimport Table, TableEntry, entry_key
from realtime_communication._core.base.timer_wheel cimport Timer, TimerWheel
from realtime_communication._core.hub.session cimport Session
from realtime_communication._core.hub.token_bucket cimport TokenBucket
from realtime_communication._core.hub.topics cimport Topic


cdef enum TimerKind:             # of the timers in a hub's wheel; each is its struct's first member or behind `entry`
    TIMER_SESSION = 1
    TIMER_USER = 2
    TIMER_MEMBER = 3


cdef struct User:
    TableEntry entry             # keyed by the user id, which follows the struct
    Timer timer                  # forgets an idle user
    Session* sessions            # by next_of_user
    uint32_t session_count
    uint32_t members             # topics that remember the user
    TokenBucket bucket           # this worker's; of no account while all workers share one
    uint64_t shared_key          # of the shared one, 0: not known yet
    SharedUser* shared           # where it was used last, or NULL


cdef struct Member:
    TableEntry entry             # keyed by the two pointers below
    User* user
    Topic* topic
    Timer timer                  # set: the last session has gone, Leave is due when it fires
    uint32_t sessions            # of the user on the topic
    uint8_t shown                # to the watchers: they were told of a Join, or it was here before them
    uint8_t doubtful             # shown, but nobody has said so since its truth moved
    uint8_t parting              # the session below is still to be taken out upstream
    uint8_t absent               # left while it was being asked who is present
    uint64_t id_high             # session that came or went last
    uint64_t id_low
    Member* next_of_topic
    Member* previous_of_topic


cdef struct UserStore:
    Table users
    Table members


cdef void users_init(UserStore* store) noexcept nogil
cdef void users_free(UserStore* store) noexcept nogil

cdef inline Slice user_id(const User* user) noexcept nogil:
    cdef Slice out
    out.data = entry_key(&user.entry)
    out.size = user.entry.key_size
    return out

cdef inline User* user_of_timer(Timer* timer) noexcept nogil:
    return <User*> (<char*> timer - sizeof(TableEntry))

cdef Member* member_of_timer(Timer* timer) noexcept nogil

cdef User* user_find(const UserStore* store, Slice name) noexcept nogil
# The user of that id, made when it is not there (`bucket` still to be initialised: `session_count` is 0 and
# bucket.refilled_ms 0); NULL without memory.
cdef User* user_open(UserStore* store, Slice name) noexcept nogil
cdef void user_attach(User* user, Session* session) noexcept nogil
cdef void user_detach(User* user, Session* session) noexcept nogil
# Frees the user when nothing needs it; the caller has cancelled its timer. Says whether it did.
cdef bint user_release(UserStore* store, User* user) noexcept nogil

cdef Member* member_find(const UserStore* store, User* user, Topic* topic) noexcept nogil
# A member without sessions; NULL without memory. The topic and the user count it.
cdef Member* member_add(UserStore* store, User* user, Topic* topic) noexcept nogil
# Frees the member; neither user nor topic is released.
cdef void member_remove(UserStore* store, TimerWheel* wheel, Member* member) noexcept nogil
