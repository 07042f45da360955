"""The hub's side of the bus; `bus_user.pxd` is the contract. This user has nothing to say and drops what it is told.

`BusRecorder` lets tests reach the bus from Python.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from realtime_communication._core.base.memory cimport Buffer, buffer_append, buffer_free, buffer_init


cdef class BusUser:
    cdef size_t receive_peer(self, int slot, const uint8_t* data, size_t size) noexcept:
        cdef size_t used = 0
        cdef uint32_t length = 0
        while size - used >= sizeof(length):
            memcpy(&length, data + used, sizeof(length))
            if length == 0 or size - used - sizeof(length) < length:
                break            # no frame is empty: the bus ends the link over it
            used += sizeof(length) + length
        return used

    cdef bint descriptor_received(self, int slot, int fd, const uint8_t* frame, size_t size) noexcept:
        return False

    cdef Buffer* outgoing(self, int slot) noexcept:
        return NULL

    cdef void peer_joined(self, int slot, uint64_t incarnation) noexcept:
        pass

    cdef void peer_left(self, int slot) noexcept:
        pass


cdef class BusRecorder(BusUser):
    """Keeps what it is told, and the descriptors. `events` has ("joined", slot, incarnation), ("left", slot) and
    ("descriptor", slot, fd, frame, how many bytes of `received` came before it)."""

    def __cinit__(self):
        cdef int slot
        self.events = []
        self.incoming = {}
        for slot in range(BUS_SLOTS):
            buffer_init(&self.queued[slot])

    def __dealloc__(self):
        cdef int slot
        for slot in range(BUS_SLOTS):
            buffer_free(&self.queued[slot])

    def queue(self, int slot, bytes frames not None):
        """Queue frames, or anything else, for a peer. Raises IndexError, MemoryError."""
        if not 0 <= slot < BUS_SLOTS:
            raise IndexError(slot)
        if buffer_append(&self.queued[slot], <const char*> frames, len(frames)) < 0:
            raise MemoryError

    def waiting(self, int slot):
        """Bytes in the peer's buffer, and what that buffer has allocated. Raises IndexError."""
        if not 0 <= slot < BUS_SLOTS:
            raise IndexError(slot)
        return self.queued[slot].size, self.queued[slot].capacity

    def received(self, int slot):
        """Every whole frame that came from that peer, one behind the other."""
        return bytes(self.incoming.get(slot, b""))

    def fail(self, bint on):
        """From now on `outgoing` has nothing, as without memory; or has again."""
        self.failing = on

    def refuse(self, bint on):
        """From now on whatever comes makes no sense; or does again."""
        self.refusing = on

    cdef size_t receive_peer(self, int slot, const uint8_t* data, size_t size) noexcept:
        cdef size_t used
        if self.refusing:
            return <size_t> BUS_NONSENSE
        used = BusUser.receive_peer(self, slot, data, size)
        self.incoming.setdefault(slot, bytearray()).extend((<const char*> data)[:used])
        return used

    cdef bint descriptor_received(self, int slot, int fd, const uint8_t* frame, size_t size) noexcept:
        self.events.append(("descriptor", slot, fd, (<const char*> frame)[:size], len(self.received(slot))))
        return True

    cdef Buffer* outgoing(self, int slot) noexcept:
        return NULL if self.failing else &self.queued[slot]

    cdef void peer_joined(self, int slot, uint64_t incarnation) noexcept:
        self.events.append(("joined", slot, incarnation))

    cdef void peer_left(self, int slot) noexcept:
        buffer_free(&self.queued[slot])
        self.events.append(("left", slot))
