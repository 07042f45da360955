"""Sessions of other workers; `attendees.pxd` is the contract."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from realtime_communication._core.base.memory cimport Slice, slice_of
from realtime_communication._core.base.table cimport (
    Table,
    TableCursor,
    table_add,
    table_find,
    table_free,
    table_init,
    table_next,
    table_remove,
    table_start,
)
from realtime_communication._core.base.timer_wheel cimport TimerWheel, wheel_init
from realtime_communication._core.hub.session cimport Info
from realtime_communication._core.hub.topics cimport (
    TOPIC_PLAIN,
    Topic,
    TopicStore,
    store_free,
    store_init,
    topic_open,
    topic_release,
)
from realtime_communication._core.hub.users cimport (
    User,
    UserStore,
    user_id,
    user_open,
    user_release,
    users_free,
    users_init,
)

cdef enum:
    KEY_BYTES = 24               # a pointer and a session's id


cdef Attendee* attendee_find(const Table* attendees, Topic* topic, uint64_t id_high, uint64_t id_low) noexcept nogil:
    cdef uint64_t key[3]
    key[0] = <uint64_t> topic
    key[1] = id_high
    key[2] = id_low
    return <Attendee*> table_find(attendees, <const uint8_t*> key, KEY_BYTES)


cdef Attendee* attendee_add(Table* attendees, Topic* topic, User* user, uint64_t id_high,
                            uint64_t id_low) noexcept nogil:
    cdef Attendee* made = <Attendee*> calloc(1, sizeof(Attendee))
    if made == NULL:
        return NULL
    made.topic = topic
    made.id_high = id_high
    made.id_low = id_low
    made.user = user
    if table_add(attendees, &made.entry, <const uint8_t*> &made.topic, KEY_BYTES) < 0:
        free(made)
        return NULL
    made.next = <Attendee*> topic.attendees
    if made.next != NULL:
        made.next.previous = made
    topic.attendees = made
    topic.members += 1
    user.members += 1
    return made


cdef void attendee_describe(Attendee* attendee, Slice info) noexcept nogil:
    free(attendee.info)
    attendee.info = NULL
    if info.size == 0:
        return
    attendee.info = <Info*> malloc(sizeof(Info) + info.size)
    if attendee.info != NULL:
        attendee.info.size = <uint32_t> info.size
        memcpy(attendee.info.data, info.data, info.size)


cdef void attendee_remove(Table* attendees, Attendee* attendee) noexcept nogil:
    table_remove(attendees, &attendee.entry)
    if attendee.previous != NULL:
        attendee.previous.next = attendee.next
    else:
        attendee.topic.attendees = attendee.next
    if attendee.next != NULL:
        attendee.next.previous = attendee.previous
    attendee.topic.members -= 1
    attendee.user.members -= 1
    free(attendee.info)
    free(attendee)


cdef void attendees_free(Table* attendees) noexcept nogil:
    cdef TableCursor cursor
    cdef Attendee* attendee
    table_start(&cursor)
    while True:
        attendee = <Attendee*> table_next(attendees, &cursor)
        if attendee == NULL:
            break
        table_remove(attendees, &attendee.entry)
        free(attendee.info)
        free(attendee)
    table_free(attendees)


cdef class AttendeeProbe:
    """Attendees held by Python, so that tests see what they keep."""

    cdef Table table
    cdef TopicStore store
    cdef UserStore users

    def __cinit__(self):
        table_init(&self.table)
        store_init(&self.store, 0, 1)
        users_init(&self.users)

    def __dealloc__(self):
        attendees_free(&self.table)
        users_free(&self.users)
        store_free(&self.store)

    def add(self, bytes topic not None, bytes user not None, uint64_t number, bytes info=b""):
        """A session of that number, which is not there yet. Raises MemoryError."""
        cdef Topic* on = topic_open(&self.store, slice_of(<const uint8_t*> topic, len(topic)), TOPIC_PLAIN)
        cdef User* of = user_open(&self.users, slice_of(<const uint8_t*> user, len(user)))
        cdef Attendee* made = attendee_add(&self.table, on, of, 7, number)
        if made == NULL:
            raise MemoryError
        attendee_describe(made, slice_of(<const uint8_t*> info, len(info)))

    def remove(self, bytes topic not None, uint64_t number):
        """End it, and what nobody needs any more. Raises KeyError."""
        cdef Topic* on = topic_open(&self.store, slice_of(<const uint8_t*> topic, len(topic)), TOPIC_PLAIN)
        cdef Attendee* found = attendee_find(&self.table, on, 7, number)
        cdef User* of
        if found != NULL:
            of = found.user
            attendee_remove(&self.table, found)
            user_release(&self.users, of)
        topic_release(&self.store, on)
        if found == NULL:
            raise KeyError(number)

    def of(self, bytes topic not None):
        """Those on a topic, the newest first: (user, number, info)."""
        cdef Topic* on = topic_open(&self.store, slice_of(<const uint8_t*> topic, len(topic)), TOPIC_PLAIN)
        cdef Attendee* each = <Attendee*> on.attendees
        cdef Slice name, info
        made = []
        while each != NULL:
            name = user_id(each.user)
            info = attendee_info(each)
            made.append(((<const char*> name.data)[:name.size], each.id_low, (<const char*> info.data)[:info.size]))
            each = each.next
        topic_release(&self.store, on)
        return made

    @property
    def counts(self):
        """Topics, users and attendees there are."""
        return self.store.topics.count, self.users.users.count, self.table.count
