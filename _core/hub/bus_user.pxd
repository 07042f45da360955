# Who speaks over the bus between the workers of a node: the hub's side of it. The bus (io/bus.pxd) moves frames and
# knows none of their meaning; its user makes and reads them and knows no socket.
#
# Rules: the bus calls these, in the worker's thread, within a turn of the reactor; when the control plane changes who
# is a member, peers are said to have joined and left outside one. None of them may call back into the bus. Peers are
# named by their slot, 0 to BUS_SLOTS - 1. Whatever is queued within a turn leaves at its end; what is queued outside
# one needs `Driver.wake`, but for what is queued within these calls.
#
# A frame is a u32, little endian, of how many bytes follow, which is 1 to MAX_BUS_FRAME, and these bytes: a u8 of the
# user's type, and its fields. Frames of one link arrive as they were queued, whole, once, in order. A link that ends
# takes what was under way with it, in both directions; `peer_left` says so, and a `peer_joined` that follows starts
# with nothing under way.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from realtime_communication._core.base.memory cimport Buffer


cdef enum:
    BUS_SLOTS = 64               # workers of a node
    BUS_BYTES = 67108864         # bytes that wait for one peer; more of them end the link
    MAX_BUS_FRAME = 33554432     # bytes behind a frame's u32; a larger one ends the link

# What `receive_peer` returns when what came makes no sense: the link ends.
cdef enum:
    BUS_NONSENSE = -1


cdef class BusUser:
    # Bytes of a peer, from the start of a frame on: uses whole frames and returns how many bytes they are. What is
    # left comes again, in front of what follows; while a whole frame is in it, at once. The bytes are only good within
    # the call. 0 with a whole frame there, or <size_t> BUS_NONSENSE, ends the link. The bus looks at the first size in
    # what it gives only; an empty frame behind others is the user's to stop at.
    cdef size_t receive_peer(self, int slot, const uint8_t* data, size_t size) noexcept
    # A frame with a descriptor, in its place between the others; `size` has the frame's u32 in it. Whether the user
    # keeps the descriptor: the bus closes it otherwise. It is -1 when this process had none left to take it.
    cdef bint descriptor_received(self, int slot, int fd, const uint8_t* frame, size_t size) noexcept
    # Where frames for that peer are queued, owned by the user and the same for as long as the link lasts. The user only
    # ever appends whole frames; the bus takes out what has left, frees it when the link ends, and may leave bytes in
    # front that have left already. NULL ends the link, so that a frame that could not be queued leaves no gap unseen;
    # the buffer is the user's to empty then.
    cdef Buffer* outgoing(self, int slot) noexcept
    # The link to that worker stands: frames can be queued, and come. Its incarnation tells it from those before it in
    # the same slot. A link only joins after the one before it has left.
    cdef void peer_joined(self, int slot, uint64_t incarnation) noexcept
    # The link has ended. Nothing comes from that peer any more and what was queued for it is gone.
    cdef void peer_left(self, int slot) noexcept


cdef class BusRecorder(BusUser):
    cdef readonly list events    # tuples of what the bus told, in order
    cdef object incoming         # dict of bytearrays of what came, by slot
    cdef Buffer queued[BUS_SLOTS]
    cdef bint failing            # `outgoing` says NULL
    cdef bint refusing           # `receive_peer` says BUS_NONSENSE
