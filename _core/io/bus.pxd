# The local bus: a worker's links to the other workers of its node, over Unix sockets.
#
# Rules: the bus moves frames between the user's buffers (bus_user.pxd) and the sockets, and knows no more of a frame
# than its size. The reactor drives it: it polls the bus' epoll instance within its own, lets it write at the end of
# each turn, and tells it the time. Nothing else calls it but the control plane, which says who is a member.
#
# Theory: each worker listens on `<directory>/<slot>.sock`. Of two members the one with the lower slot connects, every
# RETRY_MS while there is no link, and says hello; the other answers with its own hello once it wants the link: it knows
# the slot as a member's, of no newer incarnation. Then both tell their user that the peer joined. Before that, a
# connection waits until the members that are told name it, so that it does not matter who learns of a worker first.
# A newer incarnation of a worker takes the place of an older one, and a new connection of the same one does too: its
# peer would not have made it while the old one stood.
#
# A link ends for whatever goes wrong with it; frames under way are lost then, and their users start afresh when the
# peer joins again. There is no gap without `peer_left`.

from libc.stdint cimport uint8_t, uint64_t

from realtime_communication._core.hub.bus_user cimport BUS_SLOTS, BusUser
from realtime_communication._core.hub.driver cimport Driver
from realtime_communication._core.io.bus_link cimport BusCounters, BusLink


cdef enum:
    BUS_GUESTS = 32              # connections without an answered hello; the oldest makes room for the next


cdef class Bus:
    cdef readonly int slot
    cdef readonly uint64_t incarnation
    cdef readonly str path       # of the listening socket
    cdef BusUser user
    cdef Driver home             # the reactor, None until it drives the bus
    cdef object listener         # socket object, None once closed
    cdef int epoll               # descriptor of the bus' own epoll instance
    cdef uint8_t* shared         # LINK_SHARED_BYTES
    cdef BusLink links[96]       # by slot, then BUS_GUESTS guests
    cdef bint wanted[BUS_SLOTS]  # the slot is a member's
    cdef uint64_t members[BUS_SLOTS]     # its incarnation
    cdef int joined[BUS_SLOTS]   # slots of the links that are up, in no order
    cdef int joined_count
    cdef uint64_t serial         # of the link made last
    cdef uint64_t now_ms         # the time of the last tick
    cdef uint64_t retry_ms       # when missing links are tried again, 0 when nothing is missing
    cdef bint stuck              # the system lacked something for sending
    cdef bint deaf               # accepts nothing until the next try, for want of descriptors
    cdef BusCounters counters

    # Handles what is ready, within a bound; what is left is ready again.
    cdef void poll(self) noexcept
    # Writes what is queued for each peer. Whether links have ended over it, and their user was told.
    cdef bint flush(self) noexcept
    # Does what is due.
    cdef void tick(self, uint64_t now_ms) noexcept

    cdef void accept(self) noexcept
    cdef void dial(self, int slot) noexcept
    cdef BusLink* open_link(self, int index, int fd) noexcept
    cdef int watch(self, BusLink* link, int operation) noexcept
    cdef void listen(self, bint on) noexcept
    cdef void greet(self, BusLink* link) noexcept
    cdef void admit(self, BusLink* guest) noexcept
    cdef void join(self, BusLink* link) noexcept
    cdef void receive(self, BusLink* link) noexcept
    cdef bint send(self, BusLink* link) noexcept
    cdef void cut(self, BusLink* link) noexcept
    cdef void refuse(self, BusLink* link) noexcept
    cdef void retry_later(self) noexcept
