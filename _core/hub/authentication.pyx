"""Authenticate and Refresh; `authentication.pxd` is the contract."""

from libc.stdint cimport uint8_t

from realtime_communication._core.base.memory cimport Slice, slice_of
from realtime_communication._core.hub.core cimport Core
from realtime_communication._core.hub.outbox cimport outbox_reply
from realtime_communication._core.hub.outcome cimport (
    NO_RETRY,
    OUTCOME_DONE,
    OUTCOME_PENDING,
    OUTCOME_UNAUTHORIZED,
    reply,
    start,
)
from realtime_communication._core.hub.pending cimport Pending, pending_bind
from realtime_communication._core.hub.relay cimport ask_welcome
from realtime_communication._core.hub.session cimport SESSION_ANONYMOUS, Session, session_id
from realtime_communication._core.hub.users cimport User, user_id
from realtime_communication._core.hub.variants cimport variant_encoding
from realtime_communication._core.wire.envelope cimport ERROR_UNAUTHORIZED, ERROR_UNAVAILABLE, Request, error_code_of
from realtime_communication._core.wire.outbound cimport write_connected, write_refreshed


cdef object verify(Core core, Session* session, const Request* request):
    """The identity of the request's credential, or (code, message), or a Pending that is not settled."""
    cdef str token = None
    cdef str api_key = None
    try:
        if request.token.data != NULL:
            token = (<const char*> request.token.data)[:request.token.size].decode()
        if request.api_key.data != NULL:
            api_key = (<const char*> request.api_key.data)[:request.api_key.size].decode()
        answer = core.authenticate(token, api_key, core.peer_of(session))
        if isinstance(answer, Pending) and (<Pending> answer).settled:
            return (<Pending> answer).answer
        return answer
    except Exception:
        return ("internal", "the credential could not be checked")


cdef void send_failure(Core core, Session* session, const Request* request, object failure) noexcept:
    cdef bytes code = str(failure[0]).encode()
    cdef bytes message = str(failure[1]).encode()
    cdef int number = error_code_of(slice_of(<const uint8_t*> code, len(code)))
    core.error(session, request, number if number else ERROR_UNAUTHORIZED, message, NO_RETRY, NULL)


cdef int check_credential(Core core, Session* session, const Request* request) noexcept:
    answer = verify(core, session, request)
    if isinstance(answer, Pending):
        try:
            pending_bind(answer, core, session, request, None)
            return OUTCOME_PENDING
        except Exception:
            answer = ("internal", "the credential could not be checked")
    return take_credential(core, session, request, answer)


cdef int take_credential(Core core, Session* session, const Request* request, object answer) noexcept:
    if isinstance(answer, tuple):
        if len(answer) != 2:
            answer = ("internal", "the credential could not be checked")
        core.counters.auth_failures += 1
        send_failure(core, session, request, answer)
        return OUTCOME_UNAUTHORIZED if session.state == SESSION_ANONYMOUS else OUTCOME_DONE
    if session.state == SESSION_ANONYMOUS:
        return authenticate(core, session, request, answer)
    refresh(core, session, request, answer)
    return OUTCOME_DONE


cdef int authenticate(Core core, Session* session, const Request* request, object identity) noexcept:
    try:
        core.attach(session, identity)
    except Exception:
        core.error(session, request, ERROR_UNAVAILABLE, b"the session could not be opened", NO_RETRY, NULL)
        return OUTCOME_UNAUTHORIZED
    core.renew(session)
    welcome(core, session, request)
    return OUTCOME_DONE


cdef void welcome(Core core, Session* session, const Request* request) noexcept:
    cdef uint8_t digits[32]
    cdef Slice node = slice_of(<const uint8_t*> core.node_id, len(core.node_id))
    session_id(session, digits)
    if write_connected(start(core), variant_encoding(session.variant), request, slice_of(digits, 32),
                       user_id(<User*> session.user), node, core.settings.heartbeat_ms / 1000.0, session.expires_at,
                       session.refresh_at) == 0:
        outbox_reply(&core.outbox, session, False)
    # Whoever has seen Connected may send to this user, and the session gets it live.
    if core.peers.spread and ask_welcome(core, session):
        core.withhold(session)


cdef void refresh(Core core, Session* session, const Request* request, object identity) noexcept:
    cdef bytes name
    cdef Slice user = user_id(<User*> session.user)
    try:
        name = (<str> identity.user_id).encode()
        if name != (<const char*> user.data)[:user.size]:
            core.error(session, request, ERROR_UNAUTHORIZED, b"token: belongs to another user", NO_RETRY, NULL)
            return
        core.grant(session, identity)
    except Exception:
        core.error(session, request, ERROR_UNAVAILABLE, b"the token could not be taken over", NO_RETRY, NULL)
        return
    core.renew(session)
    if core.peers.spread:
        core.described(session)
    if write_refreshed(start(core), variant_encoding(session.variant), request, session.expires_at,
                       session.refresh_at) == 0:
        reply(core, session, request, False)
