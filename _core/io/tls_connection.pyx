"""TLS connections; `tls_connection.pxd` is the contract."""

import ssl

from cpython.buffer cimport PyBUF_READ, PyBUF_WRITE
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.errno cimport EAGAIN, EINTR, ENOBUFS, ENOMEM, errno
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy

from realtime_communication._core.hub.driver cimport Driver
from realtime_communication._core.hub.hub cimport Hub
from realtime_communication._core.hub.mailbox cimport MAILBOX_VECTORS, iovec, mailbox_advance, mailbox_gather
from realtime_communication._core.hub.outbox cimport outbox_refill
from realtime_communication._core.hub.session cimport (
    FLAG_BLOCKED,
    FLAG_RESUME,
    FLAG_WRITE_ARMED,
    SESSION_DEAD,
    SESSION_LINGER,
    Session,
)
from realtime_communication._core.io.socket_driver cimport WRITES, SocketDriver

cdef extern from "<sys/socket.h>" nogil:
    enum: MSG_NOSIGNAL
    ssize_t recv(int fd, void* data, size_t size, int flags)
    ssize_t send(int fd, const void* data, size_t size, int flags)

cdef enum:
    RECORD_BYTES = 16384         # most that one TLS record carries (RFC 8446 section 5.1)
    # Received at a time. It bounds how long one peer can hold up the others: new keys (RFC 8446 section 4.6.3) are
    # asked for in 27 bytes and cost some 14 µs.
    TAKE_BYTES = 16384
    PIECE_BYTES = 8192           # fed to the incoming BIO at a time: a BIO never gives back what it once grew to
    # Bytes are received behind so much room and decrypted to the buffer's start. More than a record that had been
    # received in part before, so the one never reaches the other.
    ROOM_BYTES = 20480
    HANDSHAKE_BYTES = 65536      # most that a peer may send before it is through
    # Most that TLS says by itself after the handshake: answers to some 150 updates of keys. One is due after millions
    # of records; a peer that asks for so many wants to keep the server busy.
    REPLY_BYTES = 4096

cdef object MemoryBIO = ssl.MemoryBIO
cdef object SSLWantReadError = ssl.SSLWantReadError
cdef object SSLZeroReturnError = ssl.SSLZeroReturnError


cdef class TlsStream:
    """A TLS connection without its socket. Whoever gets it feeds `incoming` and sends what comes out of `outgoing`."""

    def __cinit__(self, ssl_object, incoming, outgoing, bytes unsent not None=b""):
        self.ssl_object = ssl_object
        self.incoming = incoming
        self.outgoing = outgoing
        self.unsent = unsent


cdef TlsConnection tls_connection(SocketDriver sockets, object context):
    cdef TlsConnection made = TlsConnection.__new__(TlsConnection)
    made.sockets = sockets
    made.context = context
    made.secure = True
    return made


cdef TlsConnection tls_connection_again(SocketDriver sockets, TlsStream stream):
    cdef TlsConnection made = tls_connection(sockets, None)
    made.ssl_object = stream.ssl_object
    made.raw = made.ssl_object._sslobj
    made.incoming = stream.incoming
    made.outgoing = stream.outgoing
    made.unsent = stream.unsent or None
    made.state = TLS_OPEN
    return made


cdef str reason_of(error):
    """What went wrong, in OpenSSL's words or ours: constant texts, none of which the peer can choose."""
    cdef object reason = getattr(error, "verify_message", None) or getattr(error, "reason", None)
    if reason:
        return str(reason).replace("_", " ").lower()
    return str(error) if isinstance(error, ssl.SSLError) else type(error).__name__


cdef class TlsConnection(Driver):

    # --- receiving

    cdef void receive(self, Session* session) noexcept:
        cdef ssize_t size
        if session.flags & FLAG_RESUME:
            return               # its older input comes first, in this turn still
        size = recv(session.fd, self.sockets.buffer + ROOM_BYTES, TAKE_BYTES, 0)
        if size > 0:
            self.sockets.starved = 0
            try:
                self.take(session, <size_t> size)
            except Exception as error:
                self.fail(session, error)
        elif size == 0:
            self.end(session)
        elif not self.sockets.passes(errno):
            self.sockets.hub.finish(session)

    cdef int take(self, Session* session, size_t size) except -1:
        """`size` bytes have come, and lie behind ROOM_BYTES of the shared buffer. Raises what `ssl` raises."""
        cdef Hub hub = self.sockets.hub
        cdef uint8_t* buffer = self.sockets.buffer
        cdef size_t at = 0, piece, filled = 0
        cdef bint ended = False, open = False
        cdef Py_ssize_t said
        if self.state == TLS_FRESH:
            # A TLS record starts with its type, 22 for a handshake (RFC 8446 section 5.1); HTTP with a letter.
            if 65 <= buffer[ROOM_BYTES] & 0xDF <= 90:
                self.state = TLS_PLAIN
                self.context = None
                self.secure = False
                hub.reject(session, 400, "bad_request", "this port speaks TLS: use https or wss", None)
            else:
                self.begin()
        if self.state != TLS_HANDSHAKE and self.state != TLS_OPEN:
            return 0             # thrown away until the peer ends the stream
        while at < size and not ended:
            piece = min(size - at, <size_t> PIECE_BYTES)
            self.incoming.write(PyMemoryView_FromMemory(<char*> buffer + ROOM_BYTES + at, piece, PyBUF_READ))
            at += piece
            open = self.state == TLS_OPEN
            try:
                if not open:
                    self.shaken += <uint32_t> piece
                    self.shake()
                if self.state == TLS_OPEN:
                    ended = self.decrypt(&filled, ROOM_BYTES + at)
            finally:
                said = self.collect()
            if said:
                if open:
                    self.limit_replies(<uint32_t> said)
                hub.flush(session)
                if session.state == SESSION_DEAD:
                    return 0
        if filled:
            hub.receive(session, buffer, filled)
        if ended and session.state != SESSION_DEAD:
            self.end(session)
        return 0

    cdef int begin(self) except -1:
        self.incoming = MemoryBIO()
        if self.sockets.sealed is None:
            self.sockets.sealed = MemoryBIO()
        self.outgoing = self.sockets.sealed
        self.ssl_object = self.context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        self.raw = self.ssl_object._sslobj
        self.context = None
        self.state = TLS_HANDSHAKE
        return 0

    cdef Py_ssize_t collect(self) except -1:
        """Takes what OpenSSL has written into the shared BIO; how many bytes. MemoryError: it is thrown away."""
        cdef bytes said
        if not self.outgoing.pending:
            return 0
        try:
            said = self.outgoing.read()
            if self.unsent is not None:
                self.unsent = self.unsent[self.unsent_at:] + said
            else:
                self.unsent = said
        except MemoryError:
            while self.outgoing.pending:
                self.outgoing.read(1)
            raise
        self.unsent_at = 0
        return len(said)

    cdef int shake(self) except -1:
        """Goes on with the handshake, until TLS_OPEN. Raises ssl.SSLError when it failed."""
        try:
            self.raw.do_handshake()
        except SSLWantReadError:
            if self.shaken > HANDSHAKE_BYTES:
                raise ssl.SSLError(ssl.SSL_ERROR_SSL, f"a handshake of more than {HANDSHAKE_BYTES} bytes")
            return 0
        self.state = TLS_OPEN
        return 0

    cdef int limit_replies(self, uint32_t size) except -1:
        """TLS has so many bytes to say by itself: raises ssl.SSLError when it has been asked for too many."""
        self.replied += size
        if self.replied > REPLY_BYTES:
            raise ssl.SSLError(ssl.SSL_ERROR_SSL, "too many updates of keys")
        return 0

    cdef bint decrypt(self, size_t* filled, size_t most) except -1:
        """Appends all there is to the `filled` bytes of the shared buffer; whether the peer has ended its stream."""
        cdef size_t taken
        while True:
            if filled[0] >= most:
                raise ssl.SSLError(ssl.SSL_ERROR_SSL, "more decrypted than received")
            try:
                taken = self.raw.read(<Py_ssize_t> (most - filled[0]), PyMemoryView_FromMemory(
                    <char*> self.sockets.buffer + filled[0], <Py_ssize_t> (most - filled[0]), PyBUF_WRITE))
            except SSLWantReadError:
                return False
            except SSLZeroReturnError:
                return True
            if taken == 0:
                return True      # close_notify
            filled[0] += taken
            if not self.incoming.pending:
                return False

    cdef void end(self, Session* session) noexcept:
        """The peer sends no more. It may have ended its stream right behind its last request, and still read."""
        self.sockets.hub.let_out(session)
        if not session.flags & FLAG_WRITE_ARMED:
            self.sockets.hub.flush(session)
        self.sockets.hub.finish(session)

    cdef void fail(self, Session* session, object error) noexcept:
        """The peer broke TLS, or its handshake was refused: it gets the alert that says so, and then the end."""
        cdef Hub hub = self.sockets.hub
        if session.state == SESSION_DEAD:
            return
        self.sockets.report(session, reason_of(error))
        self.state = TLS_OVER
        hub.leave(session)
        hub.stop_waiting(session)
        session.state = SESSION_LINGER
        session.since_ms = hub.now_ms
        hub.renew(session)
        hub.flush(session)

    # --- writing

    cdef int write(self, Session* session) noexcept:
        cdef int outcome, writes = 0
        if self.state == TLS_PLAIN:
            return self.sockets.write(session)
        while True:
            outcome = self.send_sealed(session)
            if outcome < 0:
                return -1
            if outcome == 0 or writes == WRITES:
                return self.sockets.blocked(session)
            if self.state == TLS_OPEN:
                outcome = self.seal(session)
                if outcome < 0:
                    return -1
                if outcome:
                    writes += 1
                    continue
                if session.flags & FLAG_BLOCKED and outbox_refill(&self.sockets.hub.outbox, session):
                    continue
                if session.state == SESSION_LINGER and not self.notified:
                    self.notify()
                    continue
            return self.sockets.written(session)

    cdef int seal(self, Session* session) noexcept:
        """Moves one record's worth from the mailbox to `unsent`. 1, 0 when there is nothing, -1 when it failed."""
        cdef iovec vectors[MAILBOX_VECTORS]
        cdef uint8_t record[RECORD_BYTES]
        cdef int i, count = mailbox_gather(&session.mailbox, vectors)
        cdef size_t piece, size
        cdef const uint8_t* data
        if count == 0:
            return 0
        data = <const uint8_t*> vectors[0].iov_base
        size = min(vectors[0].iov_len, <size_t> RECORD_BYTES)
        if count > 1 and size < RECORD_BYTES:
            size = 0
            for i in range(count):
                piece = min(vectors[i].iov_len, RECORD_BYTES - size)
                memcpy(record + size, vectors[i].iov_base, piece)
                size += piece
            data = record
        try:
            try:
                size = self.raw.write(PyMemoryView_FromMemory(<char*> data, size, PyBUF_READ))
            finally:
                self.collect()
        except Exception:
            self.state = TLS_OVER
            return -1
        self.sockets.hub.counters.bytes_sent += size
        if mailbox_advance(&session.mailbox, size) < 0:
            return -1
        return 1

    cdef int send_sealed(self, Session* session) noexcept:
        """Sends what is sealed. 1 when all of it has left, 0 when the socket is full, -1 when the peer is gone."""
        cdef Hub hub = self.sockets.hub
        cdef ssize_t sent
        cdef Py_ssize_t left
        if self.unsent is None:
            return 1
        while True:
            left = len(self.unsent) - self.unsent_at
            sent = send(session.fd, <const char*> self.unsent + self.unsent_at, left, MSG_NOSIGNAL)
            if sent < 0:
                if errno == EINTR:
                    continue
                if errno != EAGAIN and errno != ENOBUFS and errno != ENOMEM:
                    return -1
                sent = 0
            hub.counters.writes += 1
            if sent < left:
                self.unsent_at += sent
                hub.counters.blocked_writes += 1
                return 0
            self.unsent = None
            self.unsent_at = 0
            return 1

    cdef void notify(self) noexcept:
        """Seals close_notify (RFC 8446 section 6.1)."""
        self.notified = True
        try:
            try:
                self.raw.shutdown()
            finally:
                self.collect()
        except Exception:  # it complains that the peer's is not there yet
            pass

    # --- the rest of the driver

    cdef void reading(self, Session* session, bint on) noexcept:
        self.sockets.reading(session, on)

    cdef void finish(self, Session* session) noexcept:
        if self.state == TLS_OPEN and not self.notified and self.unsent is None:
            self.notify()
            self.send_sealed(session)
        self.state = TLS_OVER
        self.sockets.finish(session)

    cdef void hand_over(self, Session* session, const uint8_t* data, size_t size) noexcept:
        cdef object stream
        self.state = TLS_OVER
        try:
            stream = TlsStream(self.ssl_object, self.incoming, self.outgoing,
                               b"" if self.unsent is None else self.unsent[self.unsent_at:])
        except Exception:
            self.sockets.finish(session)
            return
        self.ssl_object = self.raw = self.incoming = self.outgoing = self.unsent = None
        self.sockets.give(session, data, size, stream)

    cdef str peer(self, Session* session):
        return self.sockets.peer(session)

    cdef void wake(self) noexcept:
        self.sockets.wake()

    cdef void refresh(self) noexcept:
        self.sockets.refresh()
