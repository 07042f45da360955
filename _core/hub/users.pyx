"""Users and members; `users.pxd` is the contract."""

from libc.stdint cimport uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from realtime_communication._core.base.memory cimport Slice, slice_of
from realtime_communication._core.base.table cimport (
    Table,
    TableCursor,
    TableEntry,
    table_add,
    table_find,
    table_free,
    table_init,
    table_next,
    table_remove,
    table_start,
)
from realtime_communication._core.base.timer_wheel cimport Timer, TimerWheel, timer_init, wheel_cancel
from realtime_communication._core.hub.session cimport Session
from realtime_communication._core.hub.topics cimport Topic


cdef void users_init(UserStore* store) noexcept nogil:
    table_init(&store.users)
    table_init(&store.members)


cdef void users_free(UserStore* store) noexcept nogil:
    free_with_entries(&store.members)
    free_with_entries(&store.users)


cdef void free_with_entries(Table* table) noexcept nogil:
    cdef TableCursor cursor
    cdef TableEntry* entry
    table_start(&cursor)
    while True:
        entry = table_next(table, &cursor)
        if entry == NULL:
            break
        table_remove(table, entry)
        free(entry)
    table_free(table)


cdef Member* member_of_timer(Timer* timer) noexcept nogil:
    return <Member*> (<char*> timer - (sizeof(TableEntry) + 2 * sizeof(void*)))


cdef User* user_find(const UserStore* store, Slice name) noexcept nogil:
    return <User*> table_find(&store.users, name.data, name.size)


cdef User* user_open(UserStore* store, Slice name) noexcept nogil:
    cdef User* user = user_find(store, name)
    cdef uint8_t* key
    if user != NULL:
        return user
    user = <User*> calloc(1, sizeof(User) + name.size)
    if user == NULL:
        return NULL
    key = <uint8_t*> user + sizeof(User)
    memcpy(key, name.data, name.size)
    timer_init(&user.timer, TIMER_USER)
    if table_add(&store.users, &user.entry, key, name.size) < 0:
        free(user)
        return NULL
    return user


cdef void user_attach(User* user, Session* session) noexcept nogil:
    session.user = user
    session.previous_of_user = NULL
    session.next_of_user = user.sessions
    if user.sessions != NULL:
        user.sessions.previous_of_user = session
    user.sessions = session
    user.session_count += 1


cdef void user_detach(User* user, Session* session) noexcept nogil:
    if session.previous_of_user != NULL:
        session.previous_of_user.next_of_user = session.next_of_user
    else:
        user.sessions = session.next_of_user
    if session.next_of_user != NULL:
        session.next_of_user.previous_of_user = session.previous_of_user
    session.user = NULL
    user.session_count -= 1


cdef bint user_release(UserStore* store, User* user) noexcept nogil:
    if user.session_count or user.members:
        return False
    table_remove(&store.users, &user.entry)
    free(user)
    return True


cdef Member* member_find(const UserStore* store, User* user, Topic* topic) noexcept nogil:
    cdef void* key[2]
    key[0] = user
    key[1] = topic
    return <Member*> table_find(&store.members, <const uint8_t*> key, sizeof(key))


cdef Member* member_add(UserStore* store, User* user, Topic* topic) noexcept nogil:
    cdef Member* member = <Member*> calloc(1, sizeof(Member))
    if member == NULL:
        return NULL
    member.user = user
    member.topic = topic
    timer_init(&member.timer, TIMER_MEMBER)
    if table_add(&store.members, &member.entry, <const uint8_t*> &member.user, 2 * sizeof(void*)) < 0:
        free(member)
        return NULL
    user.members += 1
    topic.members += 1
    member.next_of_topic = <Member*> topic.first_member
    if member.next_of_topic != NULL:
        member.next_of_topic.previous_of_topic = member
    topic.first_member = member
    return member


cdef void member_remove(UserStore* store, TimerWheel* wheel, Member* member) noexcept nogil:
    wheel_cancel(wheel, &member.timer)
    table_remove(&store.members, &member.entry)
    member.user.members -= 1
    member.topic.members -= 1
    if member.previous_of_topic != NULL:
        member.previous_of_topic.next_of_topic = member.next_of_topic
    else:
        member.topic.first_member = member.next_of_topic
    if member.next_of_topic != NULL:
        member.next_of_topic.previous_of_topic = member.previous_of_topic
    free(member)


cdef class UserProbe:
    """Users and members held by Python, by name, so that tests see how long they live."""

    cdef UserStore store

    def __cinit__(self):
        users_init(&self.store)

    def __dealloc__(self):
        users_free(&self.store)

    def open(self, bytes name not None):
        """Make the user, or find it; raises MemoryError."""
        if user_open(&self.store, slice_of(<const uint8_t*> name, len(name))) == NULL:
            raise MemoryError

    def release(self, bytes name not None):
        """Free the user if nothing needs it; whether it did. Raises KeyError."""
        cdef User* user = user_find(&self.store, slice_of(<const uint8_t*> name, len(name)))
        if user == NULL:
            raise KeyError(name)
        return user_release(&self.store, user)

    @property
    def count(self):
        """Users there are."""
        return self.store.users.count
