"""From the first byte to an open session; `gate.pxd` is the contract."""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint8_t

from realtime_communication._core.base.memory cimport Buffer, Slice, buffer_append, buffer_free, buffer_init, slice_is
from realtime_communication._core.base.timer_wheel cimport wheel_cancel
from realtime_communication._core.hub.driver cimport Driver
from realtime_communication._core.hub.outbox cimport outbox_touch
from realtime_communication._core.hub.requests cimport welcome
from realtime_communication._core.hub.session cimport (
    FLAG_COUNTED,
    FLAG_DEFLATE,
    FLAG_ECHO,
    SESSION_ANONYMOUS,
    SESSION_CLOSING,
    SESSION_LINGER,
    SESSION_OPEN,
    Session,
)
from realtime_communication._core.hub.sessions cimport Sessions
from realtime_communication._core.hub.variants cimport variant_of
from realtime_communication._core.wire.deflate cimport DeflateOffer, deflate_negotiate, deflate_response
from realtime_communication._core.wire.frames cimport frame_parser_init
from realtime_communication._core.wire.handshake cimport (
    choose_subprotocol,
    handshake_check,
    origin_allowed,
    refusal,
    upgrade_response,
)
from realtime_communication._core.wire.http_head cimport head_count, head_fields, head_find_end, head_get, head_parse

cdef enum:
    DEFAULT_RETRY_SECS = 5       # Retry-After of a 503


cdef bint is_extensions(Slice name) noexcept nogil:
    cdef const char* wanted = b"sec-websocket-extensions"
    cdef size_t i
    if name.size != 24:
        return False
    for i in range(24):
        if (name.data[i] | 0x20) != (<uint8_t> wanted[i] | 0x20):
            return False
    return True


cdef class Gate(Sessions):

    cdef void receive_head(self, Session* session, uint8_t* data, size_t size) noexcept:
        cdef Buffer taken
        cdef Py_ssize_t end
        cdef const char* reason = NULL
        cdef int status
        cdef bint echo
        buffer_init(&taken)
        if session.stash.size:
            if buffer_append(&session.stash, data, size) < 0:
                self.finish(session)
                return
            data = session.stash.data
            size = session.stash.size
        end = head_find_end(data, size, &session.stash_at)
        if end == 0:
            if session.stash.size == 0 and buffer_append(&session.stash, data, size) < 0:
                self.finish(session)
            return
        if end < 0:
            self.reject(session, <int> -end, "too_large" if end == -431 else "bad_request",
                        "request head: larger than 16384 bytes" if end == -431 else "request head: not HTTP/1.1", None)
            return
        status = head_parse(data, size, &self.head, &reason)
        if status:
            self.reject(session, status, "too_large" if status == 431 else "bad_request", reason, None)
            return
        echo = self.settings.debug_echo and slice_is(self.head.path, b"/debug/echo", 11)
        if not echo and not slice_is(self.head.path, b"/ws", 3):
            self.counters.handed_over += 1
            wheel_cancel(&self.wheel, &session.timer)
            (<Driver> session.driver).hand_over(session, data, size)
            self.bury(session)
            return
        # From here on the stash is for frames; the head's bytes live in `taken` until its rest is handled.
        taken = session.stash
        buffer_init(&session.stash)
        session.stash_at = 0
        self.upgrade(session, echo)
        if SESSION_ANONYMOUS <= session.state < SESSION_CLOSING and size > self.head.size:
            self.receive_frames(session, data + self.head.size, size - self.head.size)
        buffer_free(&taken)

    cdef void reject(self, Session* session, int status, object code, object message, list headers) noexcept:
        """Answer the request with an HTTP error and end the connection."""
        cdef bytes response
        self.counters.refused += 1
        session.state = SESSION_LINGER
        session.since_ms = self.now_ms
        self.renew(session)
        try:
            response = refusal(status, code, message, headers)
        except Exception:
            self.finish(session)
            return
        if buffer_append(&session.mailbox.priority, <const char*> response, len(response)) < 0:
            self.finish(session)
            return
        outbox_touch(&self.outbox, session)

    cdef void upgrade(self, Session* session, bint echo) noexcept:
        """Answer a request on a WebSocket path, whose head is in `self.head`."""
        cdef const char* code = NULL
        cdef const char* reason = NULL
        cdef int encoding = 0, compression = 0
        cdef Slice chosen
        cdef const Slice* origin
        cdef int status = handshake_check(&self.head, &code, &reason)
        cdef object identity = None
        if status:
            self.reject(session, status, code, reason, None)
            return
        try:
            origin = head_get(&self.head, b"origin", 6)
            if self.settings.origin_check and origin != NULL and (
                    head_count(&self.head, b"origin", 6) != 1 or not origin_allowed(origin[0], self.origins)):
                self.reject(session, 403, "forbidden", "Origin: not among security.cors.allowed_origins", None)
                return
            if choose_subprotocol(&self.head, self.settings.compression, &encoding, &compression, &chosen):
                self.reject(session, 400, "unsupported", "Sec-WebSocket-Protocol: none of the list is supported", None)
                return
            if self.draining:
                self.reject(session, 503, "unavailable", "the server is shutting down",
                            [("Retry-After", str(DEFAULT_RETRY_SECS))])
                return
            if self.counters.connections >= self.settings.max_connections:
                self.reject(session, 503, "unavailable", "websocket.max_connections is reached",
                            [("Retry-After", str(DEFAULT_RETRY_SECS))])
                return
            if not echo and self.admission is not None:
                identity = self.admission(head_fields(&self.head), self.query(), self.peer_of(session))
                if isinstance(identity, tuple):
                    self.reject(session, identity[0], identity[1], identity[2],
                                identity[3] if len(identity) > 3 else None)
                    return
            session.encoding = <uint8_t> encoding
            session.compression = <uint8_t> compression
            if self.accept(session, chosen) and self.open_upgraded(session, identity) and echo:
                session.flags |= FLAG_ECHO
                session.state = SESSION_OPEN
        except Exception:
            self.reject(session, 500, "internal", "the request could not be answered", None)

    cdef bytes query(self):
        return (<const char*> self.head.query.data)[:self.head.query.size] if self.head.query.data != NULL else b""

    cdef bint accept(self, Session* session, Slice subprotocol) except -1:
        """Queue the 101 answer."""
        cdef DeflateOffer offer
        cdef uint32_t i
        cdef bytes extensions = b""
        cdef bytes response
        offer.accepted = False
        if self.settings.compression and not session.compression:
            for i in range(self.head.count):
                if not offer.accepted and is_extensions(self.head.fields[i].name):
                    deflate_negotiate(self.head.fields[i].value, &offer)
        if offer.accepted:
            extensions = deflate_response(&offer)
            session.flags |= FLAG_DEFLATE
            session.window_bits = offer.server_window_bits
        session.variant = variant_of(session.encoding, session.compression,
                                     offer.server_window_bits if offer.accepted else 0)
        response = upgrade_response(head_get(&self.head, b"sec-websocket-key", 17)[0], subprotocol, extensions)
        if buffer_append(&session.mailbox.priority, <const char*> response, len(response)) < 0:
            raise MemoryError
        frame_parser_init(&session.parser, offer.accepted)
        outbox_touch(&self.outbox, session)
        return True

    cdef bint open_upgraded(self, Session* session, object identity) noexcept:
        """Count the connection in; with an identity it is open at once. False when that failed."""
        session.state = SESSION_ANONYMOUS
        session.since_ms = self.now_ms
        session.flags |= FLAG_COUNTED
        self.counters.connections += 1
        self.counters.upgraded += 1
        self.name_session(session)
        if identity is not None:
            try:
                self.attach(session, identity)
            except Exception:
                self.close(session, 1011, b"internal error")
                return False
            welcome(self, session, NULL)
        self.renew(session)
        return True

    cdef void receive_frames(self, Session* session, uint8_t* data, size_t size) noexcept:
        pass
