"""Connections without a socket; `stream.pxd` is the contract."""

from libc.stddef cimport size_t

from realtime_communication._core.hub.backlog cimport Outbox
from realtime_communication._core.hub.driver cimport Driver
from realtime_communication._core.hub.hub cimport Hub
from realtime_communication._core.hub.mailbox cimport (
    MAILBOX_VECTORS,
    iovec,
    mailbox_advance,
    mailbox_gather,
    mailbox_hold_spans,
)
from realtime_communication._core.hub.outbox cimport outbox_refill
from realtime_communication._core.hub.session cimport FLAG_BLOCKED, SESSION_OPEN, Session
from realtime_communication._core.wire.frames cimport OP_PING, OP_PONG, OP_TEXT
from realtime_communication._core.hub.outcome import RequestError


cdef class Stream(Driver):
    """A connection whose peer the caller speaks for.

    `address` is the client's; `on_ready` is called once when there is something to `take`, and again when there is
    after that, or when the hub has ended the connection.
    """

    def __cinit__(self, Hub hub not None, str address not None, on_ready not None, *, bint secure=False):
        self.hub = hub
        self.session = NULL
        self.address = address
        self.on_ready = on_ready
        self.secure = secure
        self.stays = True
        self.out = bytearray()
        self.cut = bytearray()
        self.told = False

    @property
    def open(self):
        """Whether the hub knows the connection: from `begin` until `end`, or until the hub ends it."""
        return self.session != NULL

    def begin(self, identity not None):
        """Open the session of `identity`, once. Raises RequestError (`unavailable`) when the server takes none."""
        cdef Hub hub = self.hub
        if self.session != NULL:
            raise RuntimeError("the connection is open already")
        hub.home.refresh()
        self.session = hub.open(self, -1)
        if self.session == NULL:
            raise MemoryError
        hub.counters.accepted -= 1   # no listener gave it
        try:
            if not hub.refuse_when_full(self.session):
                hub.answer_upgrade(self.session, b"", identity)
            if self.session.state != SESSION_OPEN:
                raise RequestError(
                    "unavailable",
                    "the server is shutting down" if hub.draining else "websocket.max_connections is reached")
        except BaseException:
            hub.finish(self.session)
            raise
        finally:
            hub.home.wake()

    def ask(self, bytes envelope not None):
        """The peer wants this: a request in JSON. Nothing happens once the connection is over."""
        self.feed(OP_TEXT, envelope)

    def take(self):
        """What there is for the peer, in order: (opcode, payload) of each whole frame. Close frames are among them,
        and pings, which are answered: the caller has delivered what it took before."""
        cdef Py_ssize_t at = 0, head, size
        cdef const unsigned char* data
        cdef bint pinged = False
        self.told = False
        self.cut += self.out
        self.out.clear()
        made = []
        data = <const unsigned char*> <char*> self.cut
        while len(self.cut) - at >= 2:
            size = data[at + 1]
            head = 2 if size < 126 else 4 if size == 126 else 10
            if len(self.cut) - at < head:
                break
            if head > 2:
                size = int.from_bytes(self.cut[at + 2:at + head], "big")
            if len(self.cut) - at - head < size:
                break
            pinged = pinged or data[at] & 15 == OP_PING
            made.append((data[at] & 15, bytes(self.cut[at + head:at + head + size])))
            at += head + size
        del self.cut[:at]
        if pinged:
            self.feed(OP_PONG, b"")
        if self.session != NULL and self.session.flags & FLAG_BLOCKED:
            self.hub.home.refresh()
            self.hub.flush(self.session)
            self.hub.home.wake()
        return made

    def end(self):
        """The peer is gone, or is told no more."""
        if self.session != NULL:
            self.hub.home.refresh()
            self.hub.finish(self.session)
            self.hub.home.wake()

    cdef int feed(self, int opcode, bytes payload) except -1:
        # RFC 6455 section 5.3: with a key of zeros the payload stays as it is. The parser unmasks in place, so the
        # bytes are its own.
        cdef Py_ssize_t size = len(payload)
        cdef bytearray frame = bytearray((0x80 | opcode,))
        if self.session == NULL:
            return 0
        if size < 126:
            frame.append(0x80 | size)
        elif size < 65536:
            frame += b"\xfe" + size.to_bytes(2, "big")
        else:
            frame += b"\xff" + size.to_bytes(8, "big")
        frame += b"\0\0\0\0"
        frame += payload
        self.hub.home.refresh()
        self.hub.receive(self.session, <unsigned char*> <char*> frame, len(frame))
        self.hub.home.wake()
        return 0

    cdef void tell(self) noexcept:
        if not self.told:
            self.told = True
            self.on_ready()

    # --- the driver

    cdef int write(self, Session* session) noexcept:
        try:
            move_bytes(&self.hub.outbox, session, self.out, STREAM_BYTES - len(self.out))
        except Exception:
            return -1
        if self.out:
            self.tell()
        return 0

    cdef void finish(self, Session* session) noexcept:
        self.session = NULL
        self.told = False            # the end is told in any case
        self.tell()

    cdef str peer(self, Session* session):
        return self.address

    cdef str transport(self):
        return "sse"

    cdef void wake(self) noexcept:
        self.hub.home.wake()

    cdef void refresh(self) noexcept:
        self.hub.home.refresh()


cdef int move_bytes(Outbox* outbox, Session* session, bytearray out, Py_ssize_t limit) except -1:
    cdef iovec vectors[MAILBOX_VECTORS]
    cdef int count, i
    cdef size_t wanted, moved
    while True:
        if limit == 0:
            if mailbox_hold_spans(&session.mailbox) < 0:
                raise MemoryError
            session.flags |= FLAG_BLOCKED
            return 0
        count = mailbox_gather(&session.mailbox, vectors)
        if count == 0:
            if session.flags & FLAG_BLOCKED and outbox_refill(outbox, session):
                continue
            return 0
        moved = 0
        for i in range(count):
            wanted = vectors[i].iov_len
            if limit >= 0 and wanted > <size_t> limit - moved:
                wanted = <size_t> limit - moved
            out += (<const char*> vectors[i].iov_base)[:wanted]
            moved += wanted
            if wanted < vectors[i].iov_len:
                break
        if mailbox_advance(&session.mailbox, moved) < 0:
            raise MemoryError
        if limit >= 0:
            limit -= moved
