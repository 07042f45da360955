"""Full consumers on other workers; `throttle.pxd` is the contract."""

from libc.stdint cimport uint64_t

from realtime_communication._core.base.memory cimport Buffer, slice_of
from realtime_communication._core.hub.backlog cimport backlog_note_full
from realtime_communication._core.hub.core cimport Core
from realtime_communication._core.hub.peers cimport (
    AUTHORITY_ARRIVING,
    AUTHORITY_WORKER,
    FRAME_FULL,
    MAX_WORKERS,
    Frame,
    add_u8,
    frame_done,
    frame_to,
    take_number,
)
from realtime_communication._core.hub.settings cimport OVERFLOW_BACKPRESSURE, OVERFLOW_BLOCK
from realtime_communication._core.hub.topics cimport (
    TOPIC_ALL,
    TOPIC_INBOX,
    Topic,
    topic_find,
    topic_name,
    topic_release,
)


cdef void say(Core core, int slot, const Topic* topic, bint full) noexcept:
    cdef Buffer* out
    if not core.peers.workers[slot].linked:
        return
    out = frame_to(&core.peers, slot, FRAME_FULL, topic.kind, topic_name(topic), 0, 1)
    if out != NULL:
        add_u8(out, full)
        frame_done(&core.peers, slot)


cdef bint is_told(Core core, const Topic* topic) noexcept nogil:
    """Whether anybody waits for consumers of such a topic."""
    return core.settings.overflow == OVERFLOW_BLOCK or (
        core.settings.overflow == OVERFLOW_BACKPRESSURE and topic.kind == TOPIC_INBOX)


cdef void tell(Core core, Topic* topic) noexcept:
    cdef bint is_home = topic.authority < AUTHORITY_WORKER
    cdef bint full = topic.full != 0 or (is_home and topic.full_at != 0)
    cdef int slot
    if not is_told(core, topic):
        full = False
    if full == topic.full_told or topic.authority == AUTHORITY_ARRIVING:
        return
    topic.full_told = full
    if not is_home:
        say(core, topic.authority - AUTHORITY_WORKER, topic, full)
        return
    for slot in range(MAX_WORKERS):
        if slot != core.peers.me:
            say(core, slot, topic, full)


cdef void throttle_flush(Core core) noexcept:
    cdef Topic* topic = core.outbox.full_first
    cdef Topic* following
    core.outbox.full_first = NULL
    while topic != NULL:
        following = topic.next_full
        topic.full_listed = False
        if core.peers.spread:
            tell(core, topic)
        topic_release(&core.store, topic)
        topic = following


cdef void throttle_take(Core core, int slot, Frame* frame) noexcept:
    cdef bint ok = True
    cdef bint full = take_number(frame, 1, &ok) != 0
    cdef Topic* topic = topic_find(&core.store, frame.topic)
    if not ok or frame.topic.size == 0:
        return
    if topic == NULL and full:
        if frame.kind == TOPIC_INBOX:
            topic = core.inbox(slice_of(frame.topic.data + 1, frame.topic.size - 1))
        elif frame.kind == TOPIC_ALL:
            topic = core.everyone()
        else:
            topic = core.open_topic(frame.topic, frame.kind)
    if topic == NULL:
        return
    if topic.authority < AUTHORITY_WORKER or topic.authority == AUTHORITY_WORKER + slot:
        mark(core, topic, slot, full)
    topic_release(&core.store, topic)


cdef void mark(Core core, Topic* topic, int slot, bint full) noexcept:
    cdef uint64_t bit = <uint64_t> 1 << slot
    if (topic.full_at & bit != 0) == full:
        return
    topic.full_at ^= bit
    backlog_note_full(&core.outbox, topic)
    if not full:
        core.outbox.relieved = True


cdef void throttle_remind(Core core, int slot, const Topic* topic) noexcept:
    if topic.full_told:
        say(core, slot, topic, True)


cdef void throttle_peer_joined(Core core, int slot, Topic* topic) noexcept:
    if topic.authority < AUTHORITY_WORKER:
        throttle_remind(core, slot, topic)
    elif topic.authority == AUTHORITY_WORKER + slot:
        topic.full_told = False
        if topic.full:
            backlog_note_full(&core.outbox, topic)


cdef void throttle_peer_left(Core core, int slot, Topic* topic) noexcept:
    mark(core, topic, slot, False)
    if topic.authority == AUTHORITY_WORKER + slot:
        topic.full_told = False


cdef void throttle_moved(Core core, Topic* topic) noexcept:
    if topic.full_at:
        core.outbox.relieved = True
    if topic.full_at or topic.full:
        backlog_note_full(&core.outbox, topic)
    topic.full_at = 0
    topic.full_told = False
