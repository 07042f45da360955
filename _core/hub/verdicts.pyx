"""What somebody outside says users may do; `verdicts.pxd` is the contract."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from realtime_communication._core.base.memory cimport Slice, slice_of
from realtime_communication._core.base.table cimport table_add, table_find, table_free, table_init, table_remove


cdef Slice verdict_key(int act, Slice user, Slice topic, uint8_t* place) noexcept nogil:
    place[0] = <uint8_t> act
    memcpy(place + 1, user.data, user.size)
    place[1 + user.size] = 0
    memcpy(place + 2 + user.size, topic.data, topic.size)
    return slice_of(place, user.size + topic.size + 2)


cdef class Verdicts:
    """At most `most` answers, and `most_asked` questions at a time."""

    def __cinit__(self, uint32_t most, uint32_t most_asked):
        table_init(&self.table)
        self.oldest = NULL
        self.newest = NULL
        self.most = most
        self.most_asked = most_asked
        self.acts = 0
        self.ttl_ms = 0
        self.asked = {}

    def __dealloc__(self):
        self.forget_all()
        table_free(&self.table)

    def __len__(self):
        return self.table.count

    cdef int look(self, Slice key, uint64_t now_ms) noexcept:
        cdef Answer* answer = <Answer*> table_find(&self.table, key.data, key.size)
        if answer == NULL or answer.until_ms <= now_ms:
            return VERDICT_UNKNOWN
        return VERDICT_ALLOWED if answer.allowed else VERDICT_DENIED

    cdef void remember(self, Slice key, bint allowed, uint64_t until_ms) noexcept:
        cdef Answer* answer = <Answer*> table_find(&self.table, key.data, key.size)
        cdef uint8_t* text
        if answer != NULL:
            self.forget(answer)
        while self.table.count >= self.most:
            self.forget(self.oldest)
        answer = <Answer*> malloc(sizeof(Answer) + key.size)
        if answer == NULL:
            return
        text = <uint8_t*> answer + sizeof(Answer)
        memcpy(text, key.data, key.size)
        answer.until_ms = until_ms
        answer.allowed = allowed
        answer.next = NULL
        answer.previous = self.newest
        if table_add(&self.table, &answer.entry, text, key.size) < 0:
            free(answer)
            return
        if self.newest != NULL:
            self.newest.next = answer
        else:
            self.oldest = answer
        self.newest = answer

    cdef void forget(self, Answer* answer) noexcept:
        if answer.previous != NULL:
            answer.previous.next = answer.next
        else:
            self.oldest = answer.next
        if answer.next != NULL:
            answer.next.previous = answer.previous
        else:
            self.newest = answer.previous
        table_remove(&self.table, &answer.entry)
        free(answer)

    cdef void forget_all(self) noexcept:
        while self.oldest != NULL:
            self.forget(self.oldest)

    # --- for tests

    def found(self, int act, str user not None, str topic not None, uint64_t now_ms):
        """What is remembered, None when it is unknown."""
        cdef uint8_t place[VERDICT_KEY]
        cdef bytes name = user.encode(), text = topic.encode()
        cdef int verdict = self.look(
            verdict_key(act, slice_of(<const uint8_t*> name, len(name)), slice_of(<const uint8_t*> text, len(text)),
                        place), now_ms)
        return None if verdict == VERDICT_UNKNOWN else verdict == VERDICT_ALLOWED

    def note(self, int act, str user not None, str topic not None, bint allowed, uint64_t until_ms):
        """Remember an answer."""
        cdef uint8_t place[VERDICT_KEY]
        cdef bytes name = user.encode(), text = topic.encode()
        self.remember(
            verdict_key(act, slice_of(<const uint8_t*> name, len(name)), slice_of(<const uint8_t*> text, len(text)),
                        place), allowed, until_ms)
