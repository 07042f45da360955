"""Sessions on sockets; `socket_driver.pxd` is the contract."""

from libc.errno cimport EAGAIN, EINTR, ENOBUFS, ENOMEM
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from realtime_communication._core.base.memory cimport Slice, slice_of
from realtime_communication._core.hub.driver cimport Driver
from realtime_communication._core.hub.mailbox cimport mailbox_hold_spans
from realtime_communication._core.hub.session cimport (
    FLAG_BLOCKED,
    FLAG_READ_OFF,
    FLAG_SHUT,
    FLAG_WRITE_ARMED,
    SESSION_LINGER,
    Session,
)

cdef extern from "<sys/epoll.h>" nogil:
    enum: EPOLLIN, EPOLLOUT, EPOLL_CTL_MOD, EPOLL_CTL_DEL
    union epoll_data:
        void* ptr
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data data
    int epoll_ctl(int epoll, int operation, int fd, epoll_event* event)

cdef extern from "<sys/socket.h>" nogil:
    enum: AF_INET, AF_INET6, SHUT_WR
    ctypedef unsigned int socklen_t
    struct sockaddr:
        pass
    struct sockaddr_storage:
        unsigned short ss_family
    int getpeername(int fd, sockaddr* address, socklen_t* size)
    int shutdown(int fd, int how)

cdef extern from "<netinet/in.h>" nogil:
    struct in_addr:
        pass
    struct in6_addr:
        pass
    struct sockaddr_in:
        unsigned short sin_port
        in_addr sin_addr
    struct sockaddr_in6:
        unsigned short sin6_port
        in6_addr sin6_addr

cdef extern from "<arpa/inet.h>" nogil:
    enum: INET6_ADDRSTRLEN
    const char* inet_ntop(int family, const void* address, char* text, socklen_t size)
    unsigned short ntohs(unsigned short number)


cdef Slice address_of(const void* address) noexcept nogil:
    if (<const sockaddr_storage*> address).ss_family == AF_INET:
        return slice_of(&(<const sockaddr_in*> address).sin_addr, 4)
    if (<const sockaddr_storage*> address).ss_family == AF_INET6:
        return slice_of(&(<const sockaddr_in6*> address).sin6_addr, 16)
    return slice_of(NULL, 0)


cdef class SocketDriver(Driver):

    cdef bint passes(self, int error) noexcept:
        if error == EAGAIN or error == EINTR:
            return True
        if error != ENOMEM and error != ENOBUFS:
            return False
        self.starved += 1
        return self.starved <= STARVED_MOST

    cdef void watch(self, Session* session) noexcept:
        cdef epoll_event event
        event.events = 0
        if not session.flags & FLAG_READ_OFF:
            event.events |= EPOLLIN
        if session.flags & FLAG_WRITE_ARMED:
            event.events |= EPOLLOUT
        event.data.u64 = <uint64_t> <size_t> session
        epoll_ctl(self.epoll, EPOLL_CTL_MOD, session.fd, &event)

    cdef void reading(self, Session* session, bint on) noexcept:
        if on:
            session.flags &= ~<uint32_t> FLAG_READ_OFF
        else:
            session.flags |= FLAG_READ_OFF
        self.watch(session)

    cdef int blocked(self, Session* session) noexcept:
        if mailbox_hold_spans(&session.mailbox) < 0:
            return -1
        session.flags |= FLAG_BLOCKED
        if not session.flags & FLAG_WRITE_ARMED:
            session.flags |= FLAG_WRITE_ARMED
            self.watch(session)
        return 0

    cdef int written(self, Session* session) noexcept:
        if session.flags & FLAG_WRITE_ARMED:
            session.flags &= ~<uint32_t> FLAG_WRITE_ARMED
            self.watch(session)
        if session.state == SESSION_LINGER and not session.flags & FLAG_SHUT:
            session.flags |= FLAG_SHUT
            shutdown(session.fd, SHUT_WR)
        return 0

    cdef void hand_over(self, Session* session, const uint8_t* data, size_t size) noexcept:
        self.give(session, data, size, None)

    cdef void give(self, Session* session, const uint8_t* data, size_t size, object stream) noexcept:
        cdef str address = self.peer(session)
        cdef int fd = session.fd
        epoll_ctl(self.epoll, EPOLL_CTL_DEL, fd, NULL)
        session.fd = -1
        try:
            self.take_over(fd, (<const char*> data)[:size], address, stream)
        except Exception as error:
            self.loop.call_exception_handler({"message": "a connection could not be handed over", "exception": error})

    cdef void report(self, Session* session, str reason) noexcept:
        self.tls_failures += 1
        if self.on_tls_failure is None:
            return
        try:
            self.on_tls_failure(self.peer(session), reason)
        except Exception as error:
            self.loop.call_exception_handler({"message": "a TLS failure could not be told", "exception": error})

    cdef str peer(self, Session* session):
        """`host:port`, `[host]:port`, or "" for a Unix socket."""
        cdef sockaddr_storage address
        cdef socklen_t size = sizeof(address)
        cdef char text[INET6_ADDRSTRLEN]
        if getpeername(session.fd, <sockaddr*> &address, &size) < 0:
            return ""
        if address.ss_family == AF_INET:
            inet_ntop(AF_INET, &(<sockaddr_in*> &address).sin_addr, text, sizeof(text))
            return f"{text.decode()}:{ntohs((<sockaddr_in*> &address).sin_port)}"
        if address.ss_family == AF_INET6:
            inet_ntop(AF_INET6, &(<sockaddr_in6*> &address).sin6_addr, text, sizeof(text))
            return f"[{text.decode()}]:{ntohs((<sockaddr_in6*> &address).sin6_port)}"
        return ""
