"""One link of the bus; `bus_link.pxd` is the contract."""

import contextlib
import os
import socket
import struct

from libc.errno cimport EAGAIN, EINTR, ENOBUFS, ENOMEM, errno
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memmove, memset

from realtime_communication._core.base.memory cimport (
    Buffer,
    buffer_append,
    buffer_free,
    buffer_init,
    buffer_reserve,
)
from realtime_communication._core.hub.bus_user cimport MAX_BUS_FRAME, BusUser
from realtime_communication._core.hub.mailbox cimport iovec

cdef extern from "<errno.h>" nogil:
    enum: ETOOMANYREFS

cdef extern from "<sys/socket.h>" nogil:
    enum: MSG_NOSIGNAL, MSG_CTRUNC, MSG_CMSG_CLOEXEC, SOL_SOCKET, SCM_RIGHTS
    struct msghdr:
        iovec* msg_iov
        size_t msg_iovlen
        void* msg_control
        size_t msg_controllen
        int msg_flags
    struct cmsghdr:
        size_t cmsg_len
        int cmsg_level
        int cmsg_type
    cmsghdr* CMSG_FIRSTHDR(msghdr* message)
    uint8_t* CMSG_DATA(cmsghdr* header)
    size_t CMSG_LEN(size_t size)
    size_t CMSG_SPACE(size_t size)
    ssize_t recv(int fd, void* data, size_t size, int flags)
    ssize_t send(int fd, const void* data, size_t size, int flags)
    ssize_t recvmsg(int fd, msghdr* message, int flags)
    ssize_t sendmsg(int fd, const msghdr* message, int flags)

cdef extern from "<unistd.h>" nogil:
    int close(int fd)

cdef enum:
    VERSION = 1                  # of the hello and of how frames are cut
    SIZE_BYTES = 4               # of a frame's u32
    CONTROL_WORDS = 8            # for the ancillary data of one descriptor, aligned
    BACKLOG = 128                # of the listening socket: each peer may try once more while it is not served
    SEND_BUFFER_BYTES = 1048576  # asked of the system for each socket; it may give less
    SPARE_BYTES = 1048576        # a user's buffer that has grown beyond is given back once it is empty


cdef void link_init(BusLink* link) noexcept nogil:
    memset(link, 0, sizeof(BusLink))
    link.fd = -1
    link.slot = -1
    buffer_init(&link.kept)
    buffer_init(&link.carried)


cdef void link_end(BusLink* link) noexcept nogil:
    cdef Carried* carried = <Carried*> link.carried.data
    cdef size_t i
    for i in range(link.carried.size // sizeof(Carried)):
        close(carried[i].fd)
    if link.fd >= 0:
        close(link.fd)           # takes it out of the epoll instance as well
    buffer_free(&link.kept)
    buffer_free(&link.carried)
    link_init(link)


# --- sockets

cdef object link_listen(str path, uint64_t incarnation):
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    beside = f"{path}.{incarnation}"
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside)
        listener.bind(beside)
        os.chmod(beside, 0o600)
        listener.listen(BACKLOG)
        os.rename(beside, path)
    except OSError:
        listener.close()
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise
    return listener


cdef bint link_is_own(object peer) except -1:
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    peer.setblocking(False)
    _, user, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return user == os.geteuid()


# --- the hello

cdef int link_greet(BusLink* link, int slot, uint64_t incarnation) noexcept nogil:
    cdef uint8_t hello[HELLO_BYTES]
    cdef uint16_t version = VERSION
    cdef uint16_t own = <uint16_t> slot
    memcpy(hello, b"RTCB", 4)
    memcpy(hello + 4, &version, sizeof(version))
    memcpy(hello + 6, &own, sizeof(own))
    memcpy(hello + 8, &incarnation, sizeof(incarnation))
    # Nothing was sent before it, so a socket that does not take it whole is of no use.
    return LINK_OK if send(link.fd, hello, HELLO_BYTES, MSG_NOSIGNAL) == HELLO_BYTES else LINK_GONE


cdef int link_read_hello(BusLink* link, int* slot, uint64_t* incarnation) noexcept nogil:
    cdef uint16_t version = 0
    cdef uint16_t named = 0
    # No byte more: what follows is frames.
    cdef ssize_t size = recv(link.fd, link.hello + link.greeted, HELLO_BYTES - link.greeted, 0)
    if size <= 0:
        return LINK_LATER if size < 0 and (errno == EAGAIN or errno == EINTR) else LINK_GONE
    link.greeted += <uint8_t> size
    if link.greeted < HELLO_BYTES:
        return LINK_LATER
    memcpy(&version, link.hello + 4, sizeof(version))
    memcpy(&named, link.hello + 6, sizeof(named))
    if memcmp(link.hello, b"RTCB", 4) != 0 or version != VERSION:
        return LINK_FAULT
    slot[0] = named
    memcpy(incarnation, link.hello + 8, sizeof(uint64_t))
    return LINK_OK


# --- receiving

cdef int64_t frame_size(const uint8_t* data, size_t size) noexcept nogil:
    """Bytes of the frame in front, its u32 included; 0 when it is not whole, -1 when no frame is like that."""
    cdef uint32_t follows = 0
    if size < SIZE_BYTES:
        return 0
    memcpy(&follows, data, SIZE_BYTES)
    if follows == 0 or follows > MAX_BUS_FRAME:
        return -1
    if size - SIZE_BYTES < follows:
        return 0
    return <int64_t> follows + SIZE_BYTES


cdef ssize_t read_some(int fd, uint8_t* data, size_t size, int* carried, bint* marked) noexcept nogil:
    """recvmsg. `marked` when a descriptor came with the last byte; it is -1 when the system could not give it."""
    cdef msghdr message
    cdef iovec vector
    cdef size_t control[CONTROL_WORDS]
    cdef cmsghdr* header
    cdef ssize_t got
    cdef size_t i
    cdef int one = -1
    memset(&message, 0, sizeof(message))
    vector.iov_base = data
    vector.iov_len = size
    message.msg_iov = &vector
    message.msg_iovlen = 1
    message.msg_control = control
    message.msg_controllen = CMSG_SPACE(sizeof(int))
    carried[0] = -1
    marked[0] = False
    got = recvmsg(fd, &message, MSG_CMSG_CLOEXEC)
    if got < 0:
        return got
    header = CMSG_FIRSTHDR(&message)
    if header != NULL and header.cmsg_level == SOL_SOCKET and header.cmsg_type == SCM_RIGHTS:
        # There is room for two where only one was asked for.
        for i in range((header.cmsg_len - CMSG_LEN(0)) // sizeof(int)):
            memcpy(&one, CMSG_DATA(header) + i * sizeof(int), sizeof(int))
            if carried[0] < 0:
                carried[0] = one
            else:
                close(one)
        marked[0] = True
    elif message.msg_flags & MSG_CTRUNC:
        marked[0] = True
    return got


cdef int64_t feed(BusLink* link, BusUser user, const uint8_t* data, size_t size) noexcept:
    """Gives the user all whole frames. Bytes used, or -1."""
    cdef size_t used = 0
    cdef size_t taken
    cdef int64_t whole
    while True:
        whole = frame_size(data + used, size - used)
        if whole < 0:
            return -1
        if whole == 0:
            return <int64_t> used
        taken = user.receive_peer(link.slot, data + used, size - used)
        if taken < <size_t> whole or taken > size - used:
            return -1
        used += taken


cdef int feed_carried(BusLink* link, BusUser user, const uint8_t* data, size_t size, int fd) noexcept:
    """Gives the user all frames, the last one with the descriptor. 0; -1 when they do not end there: it is closed."""
    cdef size_t at = 0
    cdef int64_t whole
    while True:
        whole = frame_size(data + at, size - at)
        if whole <= 0 or at + <size_t> whole == size:
            break
        at += <size_t> whole
    if whole > 0 and feed(link, user, data, at) == <int64_t> at:
        if not user.descriptor_received(link.slot, fd, data + at, size - at) and fd >= 0:
            close(fd)
        return 0
    if fd >= 0:
        close(fd)
    return -1


cdef int link_receive(BusLink* link, BusUser user, uint8_t* shared, BusCounters* counters) noexcept:
    cdef size_t before = link.kept.size
    cdef uint8_t* data = shared
    cdef int fd = -1
    cdef bint marked = False
    cdef ssize_t got
    cdef int64_t used
    if before > LINK_HEAD_BYTES:
        if buffer_reserve(&link.kept, LINK_READ_BYTES) < 0:
            return LINK_GONE
        data = link.kept.data
    elif before:
        memcpy(shared, link.kept.data, before)
    got = read_some(link.fd, data + before, LINK_READ_BYTES, &fd, &marked)
    if got <= 0:
        return LINK_OK if got < 0 and (errno == EAGAIN or errno == EINTR) else LINK_GONE
    counters.reads += 1
    counters.bytes_received += <uint64_t> got
    if marked:
        counters.descriptors_lost += fd < 0
        used = feed_carried(link, user, data, before + <size_t> got, fd)
        if used == 0:
            used = <int64_t> before + got
    else:
        used = feed(link, user, data, before + <size_t> got)
    if used < 0:
        return LINK_FAULT
    return keep(link, data, <size_t> used, before + <size_t> got)


cdef int keep(BusLink* link, const uint8_t* data, size_t used, size_t size) noexcept nogil:
    """What is left between `used` and `size` waits for what follows. LINK_OK or LINK_GONE."""
    if data == link.kept.data:
        if used:
            memmove(link.kept.data, data + used, size - used)
        link.kept.size = size - used
    else:
        link.kept.size = 0
        if buffer_append(&link.kept, data + used, size - used) < 0:
            return LINK_GONE
    if link.kept.size == 0 and link.kept.capacity > LINK_HEAD_BYTES:
        buffer_free(&link.kept)
    return LINK_OK


# --- sending

cdef ssize_t send_carried(int fd, const uint8_t* data, int carried) noexcept nogil:
    """Sends one byte with a descriptor."""
    cdef msghdr message
    cdef iovec vector
    cdef size_t control[CONTROL_WORDS]
    cdef cmsghdr* header
    memset(&message, 0, sizeof(message))
    memset(control, 0, sizeof(control))
    vector.iov_base = <void*> data
    vector.iov_len = 1
    message.msg_iov = &vector
    message.msg_iovlen = 1
    message.msg_control = control
    message.msg_controllen = CMSG_SPACE(sizeof(int))
    header = CMSG_FIRSTHDR(&message)
    header.cmsg_level = SOL_SOCKET
    header.cmsg_type = SCM_RIGHTS
    header.cmsg_len = CMSG_LEN(sizeof(int))
    memcpy(CMSG_DATA(header), &carried, sizeof(int))
    return sendmsg(fd, &message, MSG_NOSIGNAL)


cdef int link_send(BusLink* link, Buffer* out, BusCounters* counters) noexcept nogil:
    cdef int outcome = LINK_OK
    cdef Carried* carried
    cdef size_t end
    cdef ssize_t sent
    cdef bint with_carried
    while link.sent < out.size:
        end = out.size
        with_carried = False
        carried = <Carried*> link.carried.data
        if link.carried.size:
            with_carried = link.sent == carried.end - 1
            end = carried.end - 1
        if with_carried:
            sent = send_carried(link.fd, out.data + link.sent, carried.fd)
        else:
            sent = send(link.fd, out.data + link.sent, end - link.sent, MSG_NOSIGNAL)
        if sent < 0:
            if errno == EINTR:
                continue
            if errno == EAGAIN:
                outcome = LINK_BLOCKED
            elif errno == ENOBUFS or errno == ENOMEM or errno == ETOOMANYREFS:
                outcome = LINK_LATER
            else:
                return LINK_GONE
            break
        counters.writes += 1
        counters.bytes_sent += <uint64_t> sent
        link.sent += <size_t> sent
        if with_carried:
            close(carried.fd)
            link.carried.size -= sizeof(Carried)
            memmove(carried, carried + 1, link.carried.size)
        elif link.sent < end:
            outcome = LINK_BLOCKED
            break
    take_out(link, out)
    return outcome


cdef void take_out(BusLink* link, Buffer* out) noexcept nogil:
    """Takes what has left out of the front, once that is as much as is left to move."""
    cdef Carried* carried = <Carried*> link.carried.data
    cdef size_t rest = out.size - link.sent
    cdef size_t i
    if rest > link.sent:
        return
    if rest:
        memmove(out.data, out.data + link.sent, rest)
    for i in range(link.carried.size // sizeof(Carried)):
        carried[i].end -= link.sent
    out.size = rest
    link.sent = 0
    if rest == 0 and out.capacity > SPARE_BYTES:
        buffer_free(out)


cdef int link_carry(BusLink* link, const Buffer* out, int fd) noexcept nogil:
    cdef Carried carried
    if link.carried.size >= LINK_DESCRIPTORS * sizeof(Carried):
        return -1
    carried.end = out.size
    carried.fd = fd
    return buffer_append(&link.carried, &carried, sizeof(carried))
