"""Connections in memory; `memory_driver.pxd` is the contract."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint64_t

from realtime_communication._core.base.memory cimport Buffer, slice_of
from realtime_communication._core.hub.driver cimport Driver
from realtime_communication._core.hub.hub cimport Hub
from realtime_communication._core.hub.mailbox cimport mailbox_hold_spans
from realtime_communication._core.hub.session cimport FLAG_BLOCKED, SESSION_LINGER, Session
from realtime_communication._core.hub.stream cimport move_bytes


cdef class Connection:
    """One peer. Made by `MemoryDriver.connect`."""

    def __cinit__(self):
        self.session = NULL
        self.stalled = False
        self.reading = True
        self.handed_over = None
        self.out = bytearray()

    @property
    def open(self):
        """Whether the hub still knows the connection."""
        return self.session != NULL

    @property
    def lingering(self):
        """Whether all is said: once the bytes are taken, the sending side may be shut down."""
        return self.session != NULL and self.session.state == SESSION_LINGER

    def feed(self, bytes data not None):
        """The peer sent `data`."""
        # The parser unmasks in place, so it gets bytes of its own.
        cdef bytearray own = bytearray(data)
        if self.session == NULL or not own:
            return
        self.driver.hub.receive(self.session, <uint8_t*> <char*> own, len(own))
        self.driver.end_turn()

    def end(self):
        """The peer's stream ended."""
        if self.session != NULL:
            self.driver.hub.finish(self.session)
            self.driver.end_turn()

    def drain(self):
        """Take what waits for the peer."""
        taken = bytes(self.out)
        self.out.clear()
        return taken

    def stall(self):
        """From now on the peer reads nothing."""
        self.stalled = True

    def resume(self, int limit=-1):
        """The peer reads again: all that waits, or `limit` bytes of it before it stalls again."""
        self.stalled = False
        if self.session != NULL:
            move_bytes(&self.driver.hub.outbox, self.session, self.out, limit)
            self.stalled = limit >= 0
            self.driver.hub.flush(self.session)
            self.driver.end_turn()


cdef class MemoryDriver(Driver):
    """Opens sessions of a hub for peers in memory; `address` is what they are logged as."""

    def __cinit__(self, Hub hub not None, str address="memory"):
        self.hub = hub
        self.connections = {}
        self.address = address
        self.passed = []
        self.arriving = None

    def connect(self, bytes peer not None=b""):
        """A fresh connection, before its request head, of a peer at that address (4 or 16 bytes, or none). Raises
        MemoryError."""
        cdef Connection made = Connection()
        made.driver = self
        made.session = self.hub.open(self, -1)
        if made.session == NULL:
            raise MemoryError
        self.connections[made.session.serial] = made
        self.hub.came_from(made.session, slice_of(<const uint8_t*> peer, len(peer)))
        return made

    def advance(self, uint64_t milliseconds):
        """Let time pass; what is due is done."""
        self.hub.set_time(self.hub.now_ms + milliseconds, self.hub.wall_ms + milliseconds)
        self.hub.tick()
        self.end_turn()

    def set_time(self, uint64_t now_ms, uint64_t wall_ms):
        """Set the clocks: monotonic, and since the epoch."""
        self.hub.set_time(now_ms, wall_ms)

    def turn_over_at(self, uint64_t now_ms):
        """From that time on, each connection has one request handled at a time; 0: never."""
        self.hub.over_ms = now_ms

    def flush(self):
        """End the turn, after calls that came over HTTP."""
        self.end_turn()

    def take_passed(self):
        """The sessions that went to other workers since the last call: (slot, bytes queued for it before, frame,
        connection)."""
        taken, self.passed = self.passed, []
        return taken

    def arrive(self, int slot, bytes frame not None, Connection connection):
        """A session comes from the worker in `slot`, None: without its connection. Whether the hub keeps it.

        The hub's own driver is this one from now on.
        """
        cdef bint kept
        self.hub.home = self
        self.arriving = connection
        kept = self.hub.descriptor_received(slot, -1 if connection is None else -2, <const uint8_t*> frame, len(frame))
        self.end_turn()
        return kept

    cdef int end_turn(self) except -1:
        while True:
            self.hub.end_turn()
            if not self.hub.resume_some():
                self.hub.end_turn()
                return 0

    cdef int write(self, Session* session) noexcept:
        cdef Connection connection = self.connections.get(session.serial)
        if connection is None:
            return -1
        if connection.stalled:
            mailbox_hold_spans(&session.mailbox)
            session.flags |= FLAG_BLOCKED
            return 0
        try:
            move_bytes(&self.hub.outbox, session, connection.out, -1)
        except Exception:
            return -1
        return 0

    cdef void reading(self, Session* session, bint on) noexcept:
        cdef Connection connection = self.connections.get(session.serial)
        if connection is not None:
            connection.reading = on

    cdef void finish(self, Session* session) noexcept:
        cdef Connection connection = self.connections.pop(session.serial, None)
        if connection is not None:
            connection.session = NULL

    cdef void hand_over(self, Session* session, const uint8_t* data, size_t size) noexcept:
        cdef Connection connection = self.connections.pop(session.serial, None)
        if connection is not None:
            connection.handed_over = (<const char*> data)[:size]
            connection.session = NULL

    cdef bint pass_on(self, Session* session, int slot, bytes frame) noexcept:
        cdef Buffer* out = self.hub.outgoing(slot)
        cdef Connection connection
        if out == NULL:
            return False
        connection = self.connections.pop(session.serial, None)
        if connection is None:
            return False
        self.passed.append((slot, out.size, frame, connection))
        connection.session = NULL
        return True

    cdef int adopt(self, Session* session) noexcept:
        cdef Connection connection = self.arriving
        connection.driver = self
        connection.session = session
        connection.reading = True
        self.connections[session.serial] = connection
        return 0

    cdef str peer(self, Session* session):
        return self.address
