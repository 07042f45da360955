# One link of the bus: a connected Unix stream socket to another worker of the node, and what is under way on it.
#
# Rules: a link knows frames by their size alone, and no other link. What is to be sent lies in the user's buffer
# (bus_user.pxd); the link remembers how much of its front has left already, so that a partial write moves no bytes.
# What came of a frame that is not whole yet is kept here and grows with what really comes, never with what its size
# announces.
#
# Descriptors travel as ancillary data of the last byte of their frame, sent on its own: the kernel ends a read behind a
# piece with a descriptor, so what a read brought ends with the frame the descriptor belongs to, and the frames before
# and after stay in order. A descriptor is closed once it is sent, or when the link ends before.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from realtime_communication._core.base.memory cimport Buffer
from realtime_communication._core.hub.bus_user cimport BusUser


cdef enum:
    HELLO_BYTES = 16             # "RTCB", u16 version, u16 slot, u64 incarnation
    LINK_READ_BYTES = 262144     # of one read
    LINK_HEAD_BYTES = 16384      # of a frame that is not whole: so many are read on to in the shared buffer
    LINK_SHARED_BYTES = 278528   # of the shared buffer: the two above
    LINK_DESCRIPTORS = 256       # that wait to be sent on one link

cdef enum LinkState:
    LINK_FREE = 0                # no link
    LINK_GREETING = 1            # connected, the peer's hello is not whole
    LINK_WAITING = 2             # its hello came; whether to link with it is not known yet
    LINK_UP = 3

# What reading and writing ends with.
cdef enum LinkOutcome:
    LINK_OK = 0
    LINK_BLOCKED = 1             # the socket is full
    LINK_LATER = 2               # the system lacks something: to be tried again
    LINK_GONE = -1               # the peer is gone, or there is no memory
    LINK_FAULT = -2              # the peer sent what makes no sense


cdef struct BusCounters:
    uint64_t bytes_sent
    uint64_t bytes_received
    uint64_t writes              # system calls that sent something
    uint64_t reads               # system calls that brought something
    uint64_t overflows           # links ended because too much waited for the peer
    uint64_t faults              # links ended for what the peer sent
    uint64_t refused             # connections refused for who they came from
    uint64_t descriptors_lost    # descriptors that came when this process had none left


cdef struct Carried:             # a descriptor on its way, owned by the link
    size_t end                   # of its frame, in the user's buffer
    int fd


cdef struct BusLink:
    int fd                       # -1 while LINK_FREE
    int slot                     # of the peer; -1 before its hello, when it was the one to connect
    uint64_t incarnation         # of the peer, from its hello
    uint64_t serial              # no other link of this bus has it
    uint64_t since_ms            # when it was dialed
    uint8_t state                # LinkState
    uint8_t greeted              # bytes of the hello that came
    bint blocked                 # waits for room in the socket
    uint8_t hello[HELLO_BYTES]
    size_t sent                  # bytes in front of the user's buffer that have left
    Buffer kept                  # what came of a frame that is not whole
    Buffer carried               # of Carried, in order


# Makes a link that is LINK_FREE, without anything to free.
cdef void link_init(BusLink* link) noexcept nogil
# Ends it: closes its socket and the descriptors on their way, and leaves it LINK_FREE.
cdef void link_end(BusLink* link) noexcept nogil

# A listening socket under that path, in place of whoever was there. Raises OSError.
cdef object link_listen(str path, uint64_t incarnation)
# Whether this user is at the other end of a socket; makes it ready for the bus. Raises OSError.
cdef bint link_is_own(object peer) except -1

# Says who is here. LINK_OK or LINK_GONE.
cdef int link_greet(BusLink* link, int slot, uint64_t incarnation) noexcept nogil
# Reads on in the peer's hello. LINK_OK when it is whole: `slot` and `incarnation` are its own then; LINK_LATER,
# LINK_GONE or LINK_FAULT.
cdef int link_read_hello(BusLink* link, int* slot, uint64_t* incarnation) noexcept nogil

# Reads once and gives the user the frames that are whole. `shared` has LINK_SHARED_BYTES, used within the call only.
# LINK_OK, LINK_GONE or LINK_FAULT.
cdef int link_receive(BusLink* link, BusUser user, uint8_t* shared, BusCounters* counters) noexcept
# Sends as much from the front of `out` as the socket takes, and takes it out. LINK_OK when all has left, LINK_BLOCKED,
# LINK_LATER or LINK_GONE.
cdef int link_send(BusLink* link, Buffer* out, BusCounters* counters) noexcept nogil
# The descriptor goes with the frame that ends where `out` ends now, and is the link's from then on. -1 without memory
# or with LINK_DESCRIPTORS of them waiting.
cdef int link_carry(BusLink* link, const Buffer* out, int fd) noexcept nogil
