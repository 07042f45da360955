"""The reactor; `reactor.pxd` is the contract."""

from cpython.bytearray cimport PyByteArray_AS_STRING
from libc.errno cimport EAGAIN, ECONNABORTED, EINTR, EMFILE, ENFILE, ENOBUFS, ENOMEM, errno
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from realtime_communication._core.base.memory cimport Slice
from realtime_communication._core.hub.driver cimport Driver
from realtime_communication._core.hub.dispatch cimport TURN_DELIVERIES
from realtime_communication._core.hub.hub cimport Hub
from realtime_communication._core.hub.mailbox cimport MAILBOX_VECTORS, iovec, mailbox_advance, mailbox_gather
from realtime_communication._core.hub.outbox cimport outbox_refill
from realtime_communication._core.hub.session cimport (
    FLAG_BLOCKED,
    FLAG_RESUME,
    FLAG_WRITE_ARMED,
    SESSION_DEAD,
    Session,
)
from realtime_communication._core.io.bus cimport Bus
from realtime_communication._core.io.polling cimport Polling
from realtime_communication._core.io.socket_driver cimport RECEIVE_BYTES, WRITES, SocketDriver, address_of
from realtime_communication._core.io.tls_connection cimport (
    TLS_OPEN,
    TlsConnection,
    TlsStream,
    tls_connection,
    tls_connection_again,
)

cdef extern from "<sys/epoll.h>" nogil:
    enum: EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, EPOLL_CLOEXEC
    union epoll_data:
        void* ptr
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data data
    int epoll_create1(int flags)
    int epoll_ctl(int epoll, int operation, int fd, epoll_event* event)
    int epoll_wait(int epoll, epoll_event* events, int most, int timeout)

cdef extern from "<sys/socket.h>" nogil:
    enum: MSG_NOSIGNAL, SOCK_NONBLOCK, SOCK_CLOEXEC
    struct sockaddr:
        pass
    struct sockaddr_storage:
        unsigned short ss_family
    struct msghdr:
        iovec* msg_iov
        size_t msg_iovlen
    int accept4(int fd, sockaddr* address, unsigned int* size, int flags)
    int getpeername(int fd, sockaddr* address, unsigned int* size)
    ssize_t recv(int fd, void* data, size_t size, int flags)
    ssize_t send(int fd, const void* data, size_t size, int flags)
    ssize_t sendmsg(int fd, const msghdr* message, int flags)
    int setsockopt(int fd, int level, int name, const void* value, unsigned int size)

cdef extern from "<netinet/in.h>" nogil:
    enum: IPPROTO_TCP

cdef extern from "<netinet/tcp.h>" nogil:
    enum: TCP_NODELAY, TCP_NOTSENT_LOWAT

cdef extern from "<unistd.h>" nogil:
    int close(int fd)
    ssize_t read(int fd, void* data, size_t size)

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    struct itimerspec:
        timespec it_interval
        timespec it_value
    enum: CLOCK_MONOTONIC, CLOCK_REALTIME
    int clock_gettime(int clock, timespec* out)

cdef extern from "<sys/timerfd.h>" nogil:
    enum: TFD_NONBLOCK, TFD_CLOEXEC, TFD_TIMER_ABSTIME
    int timerfd_create(int clock, int flags)
    int timerfd_settime(int fd, int flags, const itimerspec* value, itimerspec* old)

cdef enum:
    EVENTS = 512                 # taken from epoll at a time
    ACCEPTS = 4096               # connections taken from a listener at a time: as many as wait in a backlog as a rule
    TLS_ACCEPTS = 64             # of those that speak TLS, whose state takes time to make
    ACCEPT_AFTER = 64            # events, while connections come in a round: a full backlog costs clients a second
    SHARE_NS = 4000000           # after so long the event loop gets its share
    HANDLING_MS = 10             # of a turn, for all connections; then each gets one request handled
    HANDSHAKES_NS = 4000000      # spent on TLS handshakes in a round, before those who are through have their turn
    TOGETHER = 64                # sockets received from before what they sent is handled
    RECEIVE_LEAST = 65536        # bytes of the shared buffer for each, else what came is handled first
    UNSENT_BYTES = 131072        # of a connection that the kernel holds before it sends them; more waits in the mailbox
    RETRY_MS = 100               # between attempts to accept when the system has no descriptor left
    TIMER_EVENT = 1              # event data of the timer; listeners have 2 * index + 5, sessions their address
    BUS_EVENT = 3                # of the bus' own epoll instance


cdef extern from "<sys/resource.h>" nogil:
    struct rusage:
        long ru_nivcsw
    enum: RUSAGE_THREAD
    int getrusage(int who, rusage* out)


cdef uint64_t clock_ns(int clock) noexcept nogil:
    cdef timespec now
    clock_gettime(clock, &now)
    return <uint64_t> now.tv_sec * 1000000000 + <uint64_t> now.tv_nsec


cdef uint64_t clock_ms(int clock) noexcept nogil:
    cdef timespec now
    clock_gettime(clock, &now)
    return <uint64_t> now.tv_sec * 1000 + <uint64_t> now.tv_nsec // 1000000


cdef class Reactor(SocketDriver):
    """Serves the WebSocket connections of listening sockets for a hub, inside the event loop `loop`.

    `authenticate_upgrade` and `authenticate_message` check credentials (see `Hub.set_callbacks`). `hand_over(fd, data,
    peer, stream)` gets each connection whose request is no WebSocket upgrade; the descriptor is its own from then on.
    `data` is what was read of the request, `stream` the TlsStream that goes on behind it, None on a plain connection.
    When a later request is one, `take_back` has the connection again.
    `on_tls_failure(peer, reason)` is told of each connection that TLS ended. Raises OSError when the system has no
    descriptors left.
    """

    def __cinit__(self, Hub hub not None, loop, authenticate_upgrade, authenticate_message, hand_over,
                  on_tls_failure=None):
        cdef epoll_event event
        self.hub = hub
        self.loop = loop
        self.take_over = hand_over
        self.on_tls_failure = on_tls_failure
        self.listeners = []
        self.contexts = []
        self.polling = Polling()
        self.epoll = epoll_create1(EPOLL_CLOEXEC)
        self.timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)
        self.buffer = <uint8_t*> malloc(RECEIVE_BYTES)
        if self.epoll < 0 or self.timer < 0:
            raise OSError(errno, "no descriptor for the reactor")
        if self.buffer == NULL:
            raise MemoryError
        event.events = EPOLLIN
        event.data.u64 = TIMER_EVENT
        epoll_ctl(self.epoll, EPOLL_CTL_ADD, self.timer, &event)
        hub.set_callbacks(authenticate_upgrade, authenticate_message)
        hub.home = self
        self.refresh()

    def __dealloc__(self):
        if self.epoll >= 0:
            close(self.epoll)
        if self.timer >= 0:
            close(self.timer)
        free(self.buffer)

    def listen(self, sock, context=None):
        """Accept connections from a bound, listening, non-blocking socket, which the reactor keeps. Raises OSError.

        With an ssl.SSLContext for servers they speak TLS.
        """
        cdef epoll_event event
        cdef int on = 1
        cdef int unsent = UNSENT_BYTES
        # Linux hands these on to what is accepted; a Unix socket has no such options.
        setsockopt(sock.fileno(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on))
        setsockopt(sock.fileno(), IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof(unsent))
        self.listeners.append(sock)
        self.contexts.append(context)
        event.events = EPOLLIN
        event.data.u64 = 2 * (len(self.listeners) - 1) + 5
        if epoll_ctl(self.epoll, EPOLL_CTL_ADD, sock.fileno(), &event) < 0:
            raise OSError(errno, "the listening socket cannot be polled")

    def set_context(self, context not None):
        """Use another ssl.SSLContext for new connections of the listeners that speak TLS; live ones keep theirs."""
        self.contexts = [None if old is None else context for old in self.contexts]

    def attach_bus(self, Bus bus not None):
        """Drive the worker's bus from now on; `stop` closes it. Once only, in the loop's thread. Raises OSError."""
        cdef epoll_event event
        if self.bus is not None:
            raise RuntimeError("the reactor has a bus already")
        event.events = EPOLLIN
        event.data.u64 = BUS_EVENT
        if epoll_ctl(self.epoll, EPOLL_CTL_ADD, bus.epoll, &event) < 0:
            raise OSError(errno, "the bus cannot be polled")
        bus.home = self
        self.bus = bus
        self.wake()

    def start(self):
        """Let the event loop poll the reactor."""
        if not self.running:
            self.running = True
            self.loop.add_reader(self.epoll, self.turn)
            self.arm()
            if self.bus is not None:
                self.wake()

    def stop_accepting(self):
        """Close the listening sockets; connections go on."""
        for sock in self.listeners:
            # Another process may hold the same socket: closing this descriptor would not end the polling (epoll(7)).
            epoll_ctl(self.epoll, EPOLL_CTL_DEL, sock.fileno(), NULL)
            sock.close()
        self.listeners.clear()
        self.contexts.clear()

    def stop(self):
        """Close the listening sockets and every connection at once; the event loop polls the reactor no more."""
        self.stop_accepting()
        if self.running:
            self.running = False
            self.loop.remove_reader(self.epoll)
        while self.hub.sessions != NULL:
            self.hub.finish(self.hub.sessions)
        self.end_turn()
        if self.bus is not None:
            self.bus.close()

    def asked_turn(self):
        """The turn that `wake` has asked for. One at a time: with each that there is no need of, whatever else the loop
        has to do would wait for one turn more."""
        self.woken = False
        self.turn()

    def turn(self):
        """Handle all that is ready. Called by the event loop."""
        cdef int ready = 0
        cdef bint more = False
        cdef uint64_t until
        cdef uint64_t now = clock_ns(CLOCK_MONOTONIC)
        cdef uint64_t share = now + SHARE_NS
        cdef rusage usage
        self.in_turn = True
        if self.polling.begin(now) and getrusage(RUSAGE_THREAD, &usage) == 0:
            self.polling.switched(now, usage.ru_nivcsw)
        while self.running:
            self.refresh()
            until = self.hub.now_ms + self.hub.settings.window_ms
            self.hub.over_ms = self.hub.now_ms + HANDLING_MS
            while True:
                self.round(&ready)
                more = self.hub.resume_some()
                if not more and ready < EVENTS:
                    break
                self.refresh()
                if self.hub.now_ms >= until or self.hub.due >= TURN_DELIVERIES:
                    break
            self.end_turn()
            now = clock_ns(CLOCK_MONOTONIC)
            if now >= share:
                break
            if not self.polling.go_on(now, ready != 0 or more or self.hub.has_more_to_say()):
                break
        self.refresh()
        self.hub.tick()
        if self.bus is not None:
            self.bus.tick(self.hub.now_ms)
        if self.retry_ms and self.hub.now_ms >= self.retry_ms:
            self.retry_ms = 0
            self.watch_listeners(True)
        self.end_turn()
        self.hub.over_ms = 0
        self.in_turn = False
        self.arm()
        if more or self.hub.resume != NULL or self.hub.has_more_to_say():
            self.wake()
        self.polling.end(now)

    cdef void end_turn(self) noexcept:
        if self.bus is not None:
            # Before clients are answered: what one of them does next at another worker should find there what this
            # turn has said of it, above all that it is connected.
            self.bus.flush()
        self.hub.end_turn()
        if self.bus is not None:
            # The hub tells its clients of workers that were lost over it; each lap loses one at least.
            while self.bus.flush():
                self.hub.end_turn()

    cdef void round(self, int* ready) noexcept:
        """One look at what is ready."""
        cdef epoll_event events[EVENTS]
        cdef Received received[TOGETHER]
        cdef Session* session
        cdef uint64_t what
        cdef uint64_t expirations = 0
        cdef int i, count = 0
        cdef size_t used = 0         # of the shared buffer, by what is not handled yet
        cdef bint crowded = False
        self.shaken_ns = 0
        ready[0] = epoll_wait(self.epoll, events, EVENTS, 0)
        for i in range(ready[0]):
            what = events[i].data.u64
            if what == TIMER_EVENT:
                read(self.timer, &expirations, sizeof(expirations))
                self.armed_ms = 0
            elif what == BUS_EVENT:
                self.handle(received, &count, &used)     # of a session that moves on, nothing may be left here
                self.bus.poll()
            elif what & 1:
                self.accept_from(<int> ((what - 5) // 2))
                crowded = True
            else:
                session = <Session*> what
                if session.state == SESSION_DEAD:
                    continue
                if events[i].events & EPOLLOUT:
                    self.hub.flush(session)
                if session.state != SESSION_DEAD and events[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP):
                    if session.driver != <void*> self:
                        self.handle(received, &count, &used)
                        self.receive_sealed(session)
                    elif not session.flags & FLAG_RESUME:        # else its older input comes first, in this turn still
                        self.receive_from(session, &received[count], &used)
                        count += 1
                        if count == TOGETHER or RECEIVE_BYTES - used < RECEIVE_LEAST:
                            self.handle(received, &count, &used)
            if crowded and i % ACCEPT_AFTER == 0 and self.retry_ms == 0:
                self.accept_from_all()
        self.handle(received, &count, &used)

    # --- accepting

    cdef void accept_from(self, int listener) noexcept:
        cdef int fd, source
        cdef sockaddr_storage peer
        cdef unsigned int size
        if listener >= len(self.listeners):
            return
        source = self.listeners[listener].fileno()
        for _ in range(ACCEPTS if self.contexts[listener] is None else TLS_ACCEPTS):
            size = sizeof(peer)
            fd = accept4(source, <sockaddr*> &peer, &size, SOCK_NONBLOCK | SOCK_CLOEXEC)
            if fd >= 0:
                self.admit_socket(fd, self.contexts[listener], address_of(&peer))
            elif errno == EMFILE or errno == ENFILE or errno == ENOBUFS or errno == ENOMEM:
                self.accept_failed()
                return
            elif errno != EINTR and errno != ECONNABORTED:
                return

    cdef void accept_from_all(self) noexcept:
        cdef int i
        for i in range(len(self.listeners)):
            self.accept_from(i)

    cdef void admit_socket(self, int fd, object context, Slice address) noexcept:
        cdef Driver driver = self
        cdef Session* session = NULL
        try:
            if context is not None:
                driver = tls_connection(self, context)
            session = self.hub.open(driver, fd)
        except MemoryError:
            pass
        if session == NULL:
            close(fd)
        elif self.enroll(session) < 0:
            self.hub.finish(session)
        else:
            self.hub.came_from(session, address)

    cdef int enroll(self, Session* session) noexcept:
        cdef epoll_event event
        event.events = EPOLLIN
        event.data.u64 = <uint64_t> <size_t> session
        return epoll_ctl(self.epoll, EPOLL_CTL_ADD, session.fd, &event)

    def take_back(self, int fd, bytearray data not None, TlsStream stream=None):
        """Serve a connection that was handed over: `data` was read from it, beginning with a request's head.

        The non-blocking socket `fd` is the reactor's own again, and `data` is written to. `stream` is what a
        connection over TLS goes on with. To be called in the loop's thread, outside of `hand_over`. Raises MemoryError,
        with the socket closed.
        """
        cdef Driver driver = self
        cdef Session* session = NULL
        cdef sockaddr_storage peer
        cdef unsigned int size = sizeof(peer)
        if not self.running:
            close(fd)
            return
        self.refresh()
        try:
            if stream is not None:
                driver = tls_connection_again(self, stream)
            session = self.hub.open(driver, fd)
            if session == NULL:
                raise MemoryError
        except MemoryError:
            close(fd)
            raise
        self.hub.counters.accepted -= 1  # it was counted when it came
        if getpeername(fd, <sockaddr*> &peer, &size) < 0 or self.enroll(session) < 0:
            self.hub.finish(session)
        else:
            self.hub.came_from(session, address_of(&peer))
            self.hub.receive(session, <uint8_t*> PyByteArray_AS_STRING(data), <size_t> len(data))
        self.wake()

    cdef void accept_failed(self) noexcept:
        """No descriptor is left: those who wait stay in the backlog, and the others are served on."""
        self.hub.counters.accept_failures += 1
        self.retry_ms = self.hub.now_ms + RETRY_MS
        self.watch_listeners(False)

    cdef void watch_listeners(self, bint on) noexcept:
        cdef epoll_event event
        cdef int i
        for i in range(len(self.listeners)):
            event.events = EPOLLIN if on else 0
            event.data.u64 = 2 * i + 5
            epoll_ctl(self.epoll, EPOLL_CTL_MOD, self.listeners[i].fileno(), &event)

    # --- receiving

    cdef void receive_from(self, Session* session, Received* received, size_t* used) noexcept:
        received.session = session
        received.data = self.buffer + used[0]
        received.size = recv(session.fd, received.data, RECEIVE_BYTES - used[0], 0)
        received.error = errno
        if received.size > 0:
            used[0] += (<size_t> received.size + 63) & ~<size_t> 63      # in cache lines of its own, close to the last

    cdef void handle(self, Received* received, int* count, size_t* used) noexcept:
        """What sockets had for their sessions, one after the other. None is left."""
        cdef int i
        for i in range(count[0]):
            if received[i].session.state != SESSION_DEAD:
                self.take(&received[i])
        count[0] = 0
        used[0] = 0

    cdef void take(self, const Received* received) noexcept:
        cdef Session* session = received.session
        if received.size > 0:
            self.starved = 0
            self.hub.receive(session, received.data, <size_t> received.size)
        elif received.size == 0:
            # A peer may end its stream right behind its last request, and still read.
            self.hub.let_out(session)
            if not session.flags & FLAG_WRITE_ARMED:
                self.hub.flush(session)
            self.hub.finish(session)
        elif not self.passes(received.error):
            self.hub.finish(session)

    cdef void receive_sealed(self, Session* session) noexcept:
        """A TLS handshake costs a millisecond: many at once are spread over rounds, so that the others are served."""
        cdef TlsConnection connection = <TlsConnection> session.driver
        cdef uint64_t began
        if connection.state >= TLS_OPEN:
            connection.receive(session)
        elif self.shaken_ns < HANDSHAKES_NS:
            began = clock_ns(CLOCK_MONOTONIC)
            connection.receive(session)
            self.shaken_ns += clock_ns(CLOCK_MONOTONIC) - began

    # --- writing

    cdef int write(self, Session* session) noexcept:
        cdef iovec vectors[MAILBOX_VECTORS]
        cdef msghdr message
        cdef int count, i, writes = 0
        cdef size_t total
        cdef ssize_t sent
        while True:
            count = mailbox_gather(&session.mailbox, vectors)
            if count == 0:
                if session.flags & FLAG_BLOCKED and outbox_refill(&self.hub.outbox, session):
                    continue
                return self.written(session)
            if writes == WRITES:
                return self.blocked(session)
            writes += 1
            if count == 1:
                total = vectors[0].iov_len
                sent = send(session.fd, vectors[0].iov_base, total, MSG_NOSIGNAL)
            else:
                total = 0
                for i in range(count):
                    total += vectors[i].iov_len
                memset(&message, 0, sizeof(message))
                message.msg_iov = vectors
                message.msg_iovlen = count
                sent = sendmsg(session.fd, &message, MSG_NOSIGNAL)
            if sent < 0:
                if errno == EINTR:
                    continue
                if errno != EAGAIN and errno != ENOBUFS and errno != ENOMEM:
                    return -1
                sent = 0
            self.hub.counters.writes += 1
            self.hub.counters.bytes_sent += <uint64_t> sent
            if mailbox_advance(&session.mailbox, <size_t> sent) < 0:
                return -1
            if <size_t> sent < total:
                self.hub.counters.blocked_writes += 1
                return self.blocked(session)

    cdef void finish(self, Session* session) noexcept:
        close(session.fd)        # takes it out of the epoll instance as well
        session.fd = -1
        if self.retry_ms:
            self.retry_ms = self.hub.now_ms

    # --- sessions that move between workers

    cdef bint pass_on(self, Session* session, int slot, bytes frame) noexcept:
        cdef int fd = session.fd
        # The socket lives on elsewhere: closing this descriptor would not end the polling (epoll(7)).
        epoll_ctl(self.epoll, EPOLL_CTL_DEL, fd, NULL)
        try:
            if self.bus is not None and self.bus.send_descriptor(slot, fd, frame):
                session.fd = -1
                if self.retry_ms:
                    self.retry_ms = self.hub.now_ms
                return True
        except Exception:
            pass
        if self.adopt(session) < 0:
            self.hub.finish(session)
        return False

    cdef int adopt(self, Session* session) noexcept:
        return self.enroll(session)

    # --- time

    cdef void refresh(self) noexcept:
        self.hub.set_time(clock_ms(CLOCK_MONOTONIC), clock_ms(CLOCK_REALTIME))
        if self.hub.samples.below:
            self.hub.wall_ns = clock_ns(CLOCK_REALTIME)

    cdef void wake(self) noexcept:
        if self.running and not self.woken and not self.in_turn:
            self.woken = True
            self.loop.call_soon(self.asked_turn)

    cdef void arm(self) noexcept:
        """Set the timer to the hub's next deadline; left alone when it goes off early enough already."""
        cdef itimerspec value
        cdef int64_t wait = self.hub.next_deadline()
        cdef uint64_t at
        cdef uint64_t retry_ms = self.retry_ms
        if self.bus is not None and self.bus.retry_ms and (retry_ms == 0 or retry_ms > self.bus.retry_ms):
            retry_ms = self.bus.retry_ms
        if retry_ms and (wait < 0 or self.hub.now_ms + <uint64_t> wait > retry_ms):
            wait = <int64_t> (retry_ms - self.hub.now_ms) if retry_ms > self.hub.now_ms else 0
        if wait < 0:
            return
        at = self.hub.now_ms + <uint64_t> max(wait, 1)
        if self.armed_ms and self.armed_ms <= at:
            return
        self.armed_ms = at
        memset(&value, 0, sizeof(value))
        value.it_value.tv_sec = at // 1000
        value.it_value.tv_nsec = (at % 1000) * 1000000
        timerfd_settime(self.timer, TFD_TIMER_ABSTIME, &value, NULL)
