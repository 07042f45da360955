"""The bus between the workers of a node; `bus.pxd` is the contract."""

import errno
import fcntl
import os
import socket

from libc.errno cimport errno as c_errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc

from realtime_communication._core.base.memory cimport Buffer, buffer_append, buffer_free
from realtime_communication._core.hub.bus_user cimport BUS_BYTES, BUS_SLOTS, MAX_BUS_FRAME, BusUser
from realtime_communication._core.io.bus_link cimport (
    LINK_BLOCKED,
    LINK_FAULT,
    LINK_FREE,
    LINK_GONE,
    LINK_GREETING,
    LINK_LATER,
    LINK_OK,
    LINK_SHARED_BYTES,
    LINK_UP,
    LINK_WAITING,
    BusLink,
    link_carry,
    link_end,
    link_greet,
    link_init,
    link_is_own,
    link_listen,
    link_read_hello,
    link_receive,
    link_send,
)

cdef extern from "<sys/epoll.h>" nogil:
    enum: EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP, EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CLOEXEC
    union epoll_data:
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data data
    int epoll_create1(int flags)
    int epoll_ctl(int epoll, int operation, int fd, epoll_event* event)
    int epoll_wait(int epoll, epoll_event* events, int most, int timeout)

cdef extern from "<unistd.h>" nogil:
    int close(int fd)

cdef enum:
    EVENTS = 4                   # handled by one poll: of so many peers one read each, before clients have their turn
    ACCEPTS = 16                 # connections taken at a time
    RETRY_MS = 100               # between attempts to make a link that is missing
    GREETING_MS = 2000           # for the answer to a hello
    LISTENER_EVENT = 0           # event data of the listening socket; links have serial * 128 + index


cdef class Bus:
    """The links of the worker in `slot` to the others of its node, for `user`.

    `incarnation` grows with each worker that takes a slot. The socket goes into `directory`, which only the own user
    may enter, in place of one that is there. Raises ValueError for a slot nobody can have, and OSError.
    """

    def __cinit__(self, BusUser user not None, int slot, uint64_t incarnation, str directory not None):
        cdef int i
        cdef epoll_event event
        for i in range(BUS_SLOTS + BUS_GUESTS):
            link_init(&self.links[i])
        self.epoll = -1
        if not 0 <= slot < BUS_SLOTS:
            raise ValueError(f"slot must be from 0 to {BUS_SLOTS - 1}, not {slot}")
        self.user = user
        self.slot = slot
        self.incarnation = incarnation
        self.path = os.path.join(directory, f"{slot}.sock")
        self.shared = <uint8_t*> malloc(LINK_SHARED_BYTES)
        if self.shared == NULL:
            raise MemoryError
        self.epoll = epoll_create1(EPOLL_CLOEXEC)
        if self.epoll < 0:
            raise OSError(c_errno, "no descriptor for the bus")
        self.listener = link_listen(self.path, incarnation)
        event.events = EPOLLIN
        event.data.u64 = LISTENER_EVENT
        if epoll_ctl(self.epoll, EPOLL_CTL_ADD, self.listener.fileno(), &event) < 0:
            raise OSError(c_errno, "the socket of the bus cannot be polled")

    def __dealloc__(self):
        cdef int i
        for i in range(BUS_SLOTS + BUS_GUESTS):
            link_end(&self.links[i])
        if self.epoll >= 0:
            close(self.epoll)
        free(self.shared)

    def set_members(self, dict members not None):
        """Be linked with these workers, incarnations by slot; the own slot may be among them.

        Links to others end. Raises ValueError for what nobody can have; nothing has changed then.
        """
        cdef int slot
        cdef int index
        cdef uint64_t before
        cdef BusLink* link
        for named, incarnation in members.items():
            if not 0 <= named < BUS_SLOTS:
                raise ValueError(f"a member's slot must be from 0 to {BUS_SLOTS - 1}, not {named}")
            if not 0 <= incarnation < 1 << 64:
                raise ValueError(f"a member's incarnation must be from 0 to 2^64 - 1, not {incarnation}")
        if self.listener is None:
            return
        if self.home is not None:
            self.home.refresh()
        for slot in range(BUS_SLOTS):
            self.wanted[slot] = slot in members and slot != self.slot
            before = self.members[slot]
            self.members[slot] = members.get(slot, 0)
            link = &self.links[slot]
            if not self.wanted[slot] or (link.state == LINK_UP and link.incarnation < self.members[slot]):
                self.cut(link)
            elif link.state == LINK_GREETING and before != self.members[slot]:
                self.cut(link)   # whoever was asked may not be there to answer
        for index in range(BUS_SLOTS, BUS_SLOTS + BUS_GUESTS):
            if self.links[index].state == LINK_WAITING:
                self.admit(&self.links[index])
        self.retry_ms = 1
        if self.home is not None:
            self.home.wake()

    def send_descriptor(self, int slot, int fd, bytes frame not None):
        """Send a frame with a descriptor to that peer, behind what is queued for it.

        Whether it is on its way: the descriptor is the bus' own then and will be closed here; otherwise it stays the
        caller's, there being no link, no memory, or too many of them waiting. Raises ValueError for what is no frame
        and OSError for what is no descriptor.
        """
        cdef BusLink* link
        cdef Buffer* out
        if not 5 <= len(frame) <= MAX_BUS_FRAME + 4 or int.from_bytes(frame[:4], "little") != len(frame) - 4:
            raise ValueError(f"a frame is a u32 and that many bytes, from 1 to {MAX_BUS_FRAME}")
        fcntl.fcntl(fd, fcntl.F_GETFD)
        if not 0 <= slot < BUS_SLOTS or self.links[slot].state != LINK_UP:
            return False
        link = &self.links[slot]
        out = self.user.outgoing(slot)
        if out == NULL or buffer_append(out, <const char*> frame, len(frame)) < 0:
            return False
        if link_carry(link, out, fd) < 0:
            out.size -= len(frame)
            return False
        if self.home is not None:
            self.home.wake()
        return True

    def close(self):
        """Write what the sockets take at once, end all links and listen no more. The file of the socket stays: it
        may be a successor's by now."""
        cdef int i
        if self.listener is None:
            return
        self.flush()
        for i in range(BUS_SLOTS):
            self.wanted[i] = False
        for i in range(BUS_SLOTS + BUS_GUESTS):
            self.cut(&self.links[i])
        self.retry_ms = 0
        self.listener.close()
        self.listener = None
        close(self.epoll)        # takes it out of the reactor's as well
        self.epoll = -1

    def links_up(self):
        """Incarnations of the peers that are linked, by slot."""
        cdef int i
        return {self.joined[i]: self.links[self.joined[i]].incarnation for i in range(self.joined_count)}

    def stats(self):
        """Counters since the start, and `links`, the peers linked now."""
        return {
            "links": self.joined_count,
            "bus_bytes_sent": self.counters.bytes_sent,
            "bus_bytes_received": self.counters.bytes_received,
            "bus_writes": self.counters.writes,
            "bus_reads": self.counters.reads,
            "bus_overflows": self.counters.overflows,
            "bus_faults": self.counters.faults,
            "bus_refused": self.counters.refused,
            "bus_descriptors_lost": self.counters.descriptors_lost,
        }

    # --- driven by the reactor

    cdef void poll(self) noexcept:
        cdef epoll_event events[EVENTS]
        cdef uint64_t what
        cdef BusLink* link
        cdef int i
        for i in range(epoll_wait(self.epoll, events, EVENTS, 0)):
            what = events[i].data.u64
            if what == LISTENER_EVENT:
                self.accept()
                continue
            link = &self.links[what & 127]
            if link.serial != what >> 7:
                continue         # it ended within this poll
            if events[i].events & EPOLLOUT:
                link.blocked = False
                self.watch(link, EPOLL_CTL_MOD)
            if events[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP):
                self.receive(link)

    cdef bint flush(self) noexcept:
        cdef bint ended = False
        cdef int i
        # From behind, because a link that ends gives its place to the last one.
        for i in range(self.joined_count - 1, -1, -1):
            if not self.send(&self.links[self.joined[i]]):
                ended = True
        return ended

    cdef void tick(self, uint64_t now_ms) noexcept:
        cdef bint missing = False
        cdef int slot
        cdef BusLink* link
        self.now_ms = now_ms
        if self.retry_ms == 0 or now_ms < self.retry_ms:
            return
        self.stuck = False
        if self.deaf:
            self.listen(True)
        for slot in range(self.slot + 1, BUS_SLOTS):
            if not self.wanted[slot]:
                continue
            link = &self.links[slot]
            if link.state == LINK_GREETING and now_ms >= link.since_ms + GREETING_MS:
                self.cut(link)
            if link.state == LINK_FREE:
                self.dial(slot)
            missing |= link.state != LINK_UP
        self.retry_ms = now_ms + RETRY_MS if missing or self.stuck or self.deaf else 0

    # --- making links

    cdef void accept(self) noexcept:
        cdef BusLink* oldest
        cdef int i
        for _ in range(ACCEPTS):
            try:
                peer, _ = self.listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self.listen(False)
                    self.retry_later()
                return
            if not link_is_own(peer):
                self.counters.refused += 1
                peer.close()
                continue
            oldest = &self.links[BUS_SLOTS]
            for i in range(BUS_SLOTS, BUS_SLOTS + BUS_GUESTS):
                if self.links[i].serial < oldest.serial:
                    oldest = &self.links[i]
            self.cut(oldest)
            self.open_link(<int> (oldest - self.links), peer.detach())

    cdef void dial(self, int slot) noexcept:
        """Connects to that slot's worker and says hello, if somebody listens."""
        cdef BusLink* link
        peer = None
        try:
            peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            peer.connect(os.path.join(os.path.dirname(self.path), f"{slot}.sock"))
            if not link_is_own(peer):
                self.counters.refused += 1
                raise PermissionError
            link = self.open_link(slot, peer.detach())
        except OSError:
            if peer is not None:
                peer.close()
            return
        if link == NULL:
            return
        link.slot = slot
        link.since_ms = self.now_ms
        if link_greet(link, self.slot, self.incarnation) != LINK_OK:
            self.cut(link)

    cdef BusLink* open_link(self, int index, int fd) noexcept:
        """The descriptor is the link's from here on; NULL when it could not be watched."""
        cdef BusLink* link = &self.links[index]
        self.serial += 1
        link.serial = self.serial
        link.fd = fd
        link.state = LINK_GREETING
        if self.watch(link, EPOLL_CTL_ADD) < 0:
            self.cut(link)
            return NULL
        return link

    cdef int watch(self, BusLink* link, int operation) noexcept:
        cdef epoll_event event
        event.events = EPOLLIN | EPOLLOUT if link.blocked else EPOLLIN
        event.data.u64 = link.serial << 7 | <uint64_t> (link - self.links)
        return epoll_ctl(self.epoll, operation, link.fd, &event)

    cdef void listen(self, bint on) noexcept:
        cdef epoll_event event
        event.events = EPOLLIN if on else 0
        event.data.u64 = LISTENER_EVENT
        epoll_ctl(self.epoll, EPOLL_CTL_MOD, self.listener.fileno(), &event)
        self.deaf = not on

    cdef void greet(self, BusLink* link) noexcept:
        """The peer's hello, or a part of it."""
        cdef int slot = -1
        cdef uint64_t incarnation = 0
        cdef int outcome = link_read_hello(link, &slot, &incarnation)
        if outcome == LINK_LATER:
            return
        if outcome == LINK_GONE:
            self.cut(link)
            return
        link.incarnation = incarnation
        if outcome == LINK_OK and link.slot < 0 and slot < self.slot:
            link.slot = slot
            self.admit(link)
        elif outcome == LINK_OK and link.slot == slot and incarnation >= self.members[slot]:
            self.join(link)
        else:
            self.refuse(link)

    cdef void admit(self, BusLink* guest) noexcept:
        """Takes a guest whose hello came for its slot's link, lets it wait on, or refuses it."""
        cdef BusLink* link = &self.links[guest.slot]
        if not self.wanted[guest.slot]:
            guest.state = LINK_WAITING
        elif guest.incarnation < max(self.members[guest.slot], link.incarnation):
            self.refuse(guest)
        else:
            self.cut(link)
            link[0] = guest[0]
            link_init(guest)
            if self.watch(link, EPOLL_CTL_MOD) < 0 or link_greet(link, self.slot, self.incarnation) != LINK_OK:
                self.cut(link)
            else:
                self.join(link)

    cdef void join(self, BusLink* link) noexcept:
        link.state = LINK_UP
        self.joined[self.joined_count] = link.slot
        self.joined_count += 1
        self.user.peer_joined(link.slot, link.incarnation)

    cdef void refuse(self, BusLink* link) noexcept:
        self.counters.refused += 1
        self.cut(link)

    # --- links that stand

    cdef void receive(self, BusLink* link) noexcept:
        cdef int outcome
        if link.state == LINK_GREETING:
            self.greet(link)
            return
        # Before our own hello nothing comes from a guest but its end.
        outcome = LINK_GONE
        if link.state == LINK_UP:
            outcome = link_receive(link, self.user, self.shared, &self.counters)
        if outcome == LINK_FAULT:
            self.counters.faults += 1
        if outcome != LINK_OK:
            self.cut(link)

    cdef bint send(self, BusLink* link) noexcept:
        """Whether the link still stands."""
        cdef Buffer* out = self.user.outgoing(link.slot)
        cdef int outcome = LINK_BLOCKED if link.blocked else LINK_OK
        if out == NULL or out.size < link.sent:
            outcome = LINK_GONE
        elif out.size > link.sent:
            if not link.blocked:
                outcome = link_send(link, out, &self.counters)
            if outcome >= 0 and out.size - link.sent > BUS_BYTES:
                self.counters.overflows += 1
                outcome = LINK_GONE
        if outcome == LINK_BLOCKED and not link.blocked:
            link.blocked = True
            if self.watch(link, EPOLL_CTL_MOD) < 0:
                outcome = LINK_GONE
        elif outcome == LINK_LATER:
            self.stuck = True
            self.retry_later()
        if outcome < 0:
            self.cut(link)
            return False
        return True

    cdef void cut(self, BusLink* link) noexcept:
        """Ends a link in any state; one that is up is told to be gone."""
        cdef int slot = link.slot
        cdef bint up = link.state == LINK_UP
        cdef Buffer* out
        cdef int i
        link_end(link)
        if not up:
            return
        self.joined_count -= 1
        for i in range(self.joined_count):
            if self.joined[i] == slot:
                self.joined[i] = self.joined[self.joined_count]
                break
        out = self.user.outgoing(slot)
        if out != NULL:
            buffer_free(out)
        self.user.peer_left(slot)
        if self.wanted[slot] and slot > self.slot:
            self.retry_later()

    cdef void retry_later(self) noexcept:
        if self.retry_ms == 0:
            self.retry_ms = self.now_ms + RETRY_MS
