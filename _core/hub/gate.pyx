"""From the first byte to an open session; `gate.pxd` is the contract."""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t, uint8_t

from realtime_communication._core.base.memory cimport (
    Buffer,
    Slice,
    buffer_append,
    buffer_free,
    buffer_init,
    bytes_of,
    slice_is,
)
from realtime_communication._core.base.shared cimport shared_connect, shared_connections, shared_disconnect
from realtime_communication._core.base.timer_wheel cimport wheel_cancel
from realtime_communication._core.hub.authentication cimport take_credential, welcome
from realtime_communication._core.hub.driver cimport Driver
from realtime_communication._core.hub.newcomers cimport BOUND_NO, BOUND_UNKNOWN, BOUND_YES, Newcomer, newcomer_add
from realtime_communication._core.hub.outbox cimport outbox_touch
from realtime_communication._core.hub.outcome cimport OUTCOME_UNAUTHORIZED
from realtime_communication._core.hub.pending cimport Pending, pending_bind, pending_release
from realtime_communication._core.hub.session cimport (
    FLAG_COUNTED,
    FLAG_DEFLATE,
    FLAG_ECHO,
    FLAG_PENDING,
    SESSION_ANONYMOUS,
    SESSION_CLOSING,
    SESSION_DEAD,
    SESSION_HEAD,
    SESSION_LINGER,
    SESSION_OPEN,
    Session,
)
from realtime_communication._core.hub.sessions cimport Sessions
from realtime_communication._core.hub.settings cimport ANONYMOUS_BYTES
from realtime_communication._core.hub.variants cimport variant_of
from realtime_communication._core.wire.deflate cimport DeflateOffer, deflate_negotiate, deflate_response
from realtime_communication._core.wire.frames cimport frame_parser_init
from realtime_communication._core.wire.handshake cimport (
    bearer_token,
    choose_subprotocol,
    handshake_check,
    origin_allowed,
    refusal,
    upgrade_response,
)
from realtime_communication._core.wire.http_head cimport (
    HEAD_LIMIT,
    head_count,
    head_fields,
    head_find_end,
    head_get,
    head_parse,
    slice_is_lower,
)

cdef enum:
    DEFAULT_RETRY_SECS = 5       # Retry-After of a 503


cdef class Gate(Sessions):

    cdef void came_from(self, Session* session, Slice address) noexcept:
        cdef Newcomer* newcomer = newcomer_add(&self.newcomers, session, address)
        if newcomer == NULL:
            return               # without memory it is bounded by its time only
        if newcomer.site != NULL and newcomer.site.line.count > self.settings.max_newcomers_of_site and (
                self.is_bounded(newcomer, address)):
            self.crowd_out(newcomer.site.line.oldest, b"websocket.max_unauthenticated_per_address is reached")
        if self.newcomers.line.count > self.settings.max_newcomers:
            self.crowd_out(self.newcomers.line.oldest, b"websocket.max_unauthenticated is reached")

    cdef bint is_bounded(self, const Newcomer* newcomer, Slice address) noexcept:
        if newcomer.site.bound == BOUND_UNKNOWN:
            newcomer.site.bound = BOUND_YES
            try:
                if self.proxies is not None and self.proxies(bytes_of(address)):
                    newcomer.site.bound = BOUND_NO
            except Exception:
                pass             # nobody who could not be asked about is trusted
        return newcomer.site.bound == BOUND_YES

    cdef void crowd_out(self, Newcomer* newcomer, const char* reason) noexcept:
        cdef Session* session = newcomer.session
        self.counters.crowded_out += 1
        if session.state == SESSION_ANONYMOUS:
            self.close(session, 1013, reason)
            self.flush(session)
        else:
            self.tell(session, 503, reason)
        self.finish(session)

    cdef void receive_head(self, Session* session, uint8_t* data, size_t size) noexcept:
        cdef Buffer taken
        cdef Py_ssize_t end
        cdef const char* reason = NULL
        cdef int status
        cdef size_t at
        cdef bint echo
        buffer_init(&taken)
        if session.flags & FLAG_PENDING:
            self.keep(session, data, size)
            return
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
                        "request head: larger than 16384 bytes" if end == -431 or size >= HEAD_LIMIT else
                        "request head: not HTTP/1.1", None)
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
        at = self.head.size
        self.upgrade(session, echo)
        if size > at and session.flags & FLAG_PENDING:
            self.keep(session, data + at, size - at)
        elif size > at and SESSION_ANONYMOUS <= session.state < SESSION_CLOSING:
            self.receive_frames(session, data + at, size - at)
        buffer_free(&taken)

    cdef void reject(self, Session* session, int status, object code, object message, list headers) noexcept:
        """Answer the request with an HTTP error and end the connection."""
        cdef bytes response
        cdef list always = self.secure_headers if (<Driver> session.driver).secure else self.refusal_headers
        self.counters.refused += 1
        self.tell(session, status, message)
        session.state = SESSION_LINGER
        session.since_ms = self.now_ms
        self.renew(session)
        try:
            response = refusal(status, code, message, [*(headers or ()), *always])
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
        cdef object ask = self.echo_admission if echo else self.admission
        cdef object answer = None
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
            if self.refuse_when_full(session):
                return
            if not echo and self.token_admission is not None:
                answer = self.admit_token()
            if answer is None and ask is not None:
                answer = ask(head_fields(&self.head), self.query(), self.peer_of(session),
                             (<Driver> session.driver).secure)
                if isinstance(answer, Pending):
                    if not (<Pending> answer).settled:
                        pending_bind(answer, self, session, NULL, self.agree(session, encoding, compression, chosen))
                        self.await_answer(session)
                        return
                    answer = (<Pending> answer).answer
            self.answer_upgrade(session, self.agree(session, encoding, compression, chosen), answer)
            if echo and session.state == SESSION_ANONYMOUS:
                session.flags |= FLAG_ECHO
                session.state = SESSION_OPEN
        except Exception:
            self.reject(session, 500, "internal", "the request could not be answered", None)

    cdef object admit_token(self):
        """The identity of a bearer token in a request without a query; None: that is for `admission` to find out."""
        cdef const Slice* given = head_get(&self.head, b"authorization", 13)
        cdef Slice token
        if given == NULL or self.head.query.size or not bearer_token(given[0], &token):
            return None
        return self.token_admission((<const char*> token.data)[:token.size].decode("ascii"))

    cdef bint refuse_when_full(self, Session* session):
        cdef uint64_t connections = self.counters.connections
        if self.shared != NULL:
            connections = shared_connections(self.shared)
        if self.draining:
            self.reject_unavailable(session, "the server is shutting down")
        elif connections >= self.settings.max_connections:
            self.reject_unavailable(session, "websocket.max_connections is reached")
        else:
            return False
        return True

    cdef void reject_unavailable(self, Session* session, object message) noexcept:
        self.reject(session, 503, "unavailable", message, [("Retry-After", str(DEFAULT_RETRY_SECS))])

    cdef int answer_upgrade(self, Session* session, bytes response, object answer) except -1:
        if isinstance(answer, tuple):
            if not 3 <= len(answer) <= 4:
                raise ValueError("a refusal is (status, code, message) or (status, code, message, headers)")
            self.counters.auth_failures += 1
            self.reject(session, answer[0], answer[1], answer[2], answer[3] if len(answer) > 3 else None)
            return 0
        if self.shared != NULL and not shared_connect(self.shared, self.share, self.settings.max_connections):
            self.reject_unavailable(session, "websocket.max_connections is reached")  # by others, since it was asked
            return 0
        if buffer_append(&session.mailbox.priority, <const char*> response, len(response)) < 0:
            if self.shared != NULL:
                shared_disconnect(self.share)
            raise MemoryError
        frame_parser_init(&session.parser, session.flags & FLAG_DEFLATE != 0)
        outbox_touch(&self.outbox, session)
        self.open_upgraded(session, answer)
        return 0

    cdef void settled(self, Session* session, object pending, object answer) noexcept:
        cdef Pending waiting = pending
        self.home.refresh()
        pending_release(session)
        if session.state == SESSION_HEAD:
            try:
                if not self.refuse_when_full(session):
                    self.answer_upgrade(session, waiting.response, answer)
            except Exception:
                self.reject(session, 500, "internal", "the request could not be answered", None)
            if session.state >= SESSION_LINGER:
                buffer_free(&session.stash)  # what stands behind a refused request is not read
        elif take_credential(self, session, &waiting.request, answer) == OUTCOME_UNAUTHORIZED:
            self.close(session, 4401, b"unauthorized")
        if session.state < SESSION_DEAD:
            self.go_on(session)
        self.home.wake()

    cdef bint keep(self, Session* session, const uint8_t* data, size_t size) noexcept:
        if session.state < SESSION_OPEN and session.stash.size + size > ANONYMOUS_BYTES:
            if session.state == SESSION_HEAD:
                pending_release(session)
                buffer_free(&session.stash)
                self.reject(session, 413, "too_large", "more than 65536 bytes before the credential was checked", None)
                self.go_on(session)
            else:
                self.close(session, 1009, b"more than 65536 bytes before the credential was checked")
            return False
        if buffer_append(&session.stash, data, size) < 0:
            if session.state == SESSION_HEAD:
                self.finish(session)
            else:
                self.close(session, 1011, b"internal error")
            return False
        return True

    cdef bytes query(self):
        return (<const char*> self.head.query.data)[:self.head.query.size] if self.head.query.data != NULL else b""

    cdef bytes agree(self, Session* session, int encoding, int compression, Slice subprotocol):
        cdef DeflateOffer offer
        cdef uint32_t i
        cdef bytes extensions = b""
        session.encoding = <uint8_t> encoding
        session.compression = <uint8_t> compression
        offer.accepted = False
        if self.settings.compression and not session.compression:
            for i in range(self.head.count):
                if not offer.accepted and slice_is_lower(
                        self.head.fields[i].name, b"sec-websocket-extensions", 24):
                    deflate_negotiate(self.head.fields[i].value, &offer)
        if offer.accepted:
            extensions = deflate_response(&offer)
            session.flags |= FLAG_DEFLATE
            session.window_bits = offer.server_window_bits
        session.variant = variant_of(session.encoding, session.compression,
                                     offer.server_window_bits if offer.accepted else 0)
        return upgrade_response(head_get(&self.head, b"sec-websocket-key", 17)[0], subprotocol, extensions)

    cdef void open_upgraded(self, Session* session, object identity) noexcept:
        """Count the connection in; with an identity it is open at once."""
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
                return
            welcome(self, session, NULL)
        self.renew(session)

    cdef void receive_frames(self, Session* session, uint8_t* data, size_t size) noexcept:
        pass
