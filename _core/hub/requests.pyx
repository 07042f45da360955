"""Requests; `requests.pxd` is the contract."""

from realtime_communication._core.hub.authentication cimport check_credential
from realtime_communication._core.hub.core cimport Core
from realtime_communication._core.hub.direct_messages cimport direct_message
from realtime_communication._core.hub.history cimport history
from realtime_communication._core.hub.outcome cimport NO_RETRY, OUTCOME_DONE, OUTCOME_UNAUTHORIZED, reply, start
from realtime_communication._core.hub.presence cimport presence
from realtime_communication._core.hub.publications cimport broadcast
from realtime_communication._core.hub.session cimport SESSION_ANONYMOUS, Session
from realtime_communication._core.hub.subscriptions cimport subscribe, unsubscribe
from realtime_communication._core.hub.variants cimport variant_encoding
from realtime_communication._core.wire.envelope cimport (
    ERROR_BAD_REQUEST,
    ERROR_UNAUTHORIZED,
    REQUEST_AUTHENTICATE,
    REQUEST_BROADCAST,
    REQUEST_DIRECT_MESSAGE,
    REQUEST_HISTORY,
    REQUEST_PING,
    REQUEST_PRESENCE,
    REQUEST_REFRESH,
    REQUEST_SUBSCRIBE,
    REQUEST_UNSUBSCRIBE,
    Request,
)
from realtime_communication._core.wire.outbound cimport write_pong


cdef int handle_request(Core core, Session* session, const Request* request) noexcept:
    cdef int type = request.type
    if session.state == SESSION_ANONYMOUS and type != REQUEST_AUTHENTICATE:
        core.error(session, request, ERROR_UNAUTHORIZED, b"type: the first message must be Authenticate",
                   NO_RETRY, NULL)
        return OUTCOME_UNAUTHORIZED
    if session.state == SESSION_ANONYMOUS or type == REQUEST_REFRESH:
        return check_credential(core, session, request)
    if type == REQUEST_BROADCAST:
        return broadcast(core, session, request)
    if type == REQUEST_DIRECT_MESSAGE:
        return direct_message(core, session, request)
    if type == REQUEST_PING:
        if write_pong(start(core), variant_encoding(session.variant), request, core.wall_ms) == 0:
            reply(core, session, request, False)
    elif type == REQUEST_SUBSCRIBE:
        return subscribe(core, session, request)
    elif type == REQUEST_UNSUBSCRIBE:
        unsubscribe(core, session, request)
    elif type == REQUEST_PRESENCE:
        return presence(core, session, request)
    elif type == REQUEST_HISTORY:
        return history(core, session, request)
    else:
        core.error(session, request, ERROR_BAD_REQUEST, b"type: already authenticated; Refresh takes a new token",
                   NO_RETRY, NULL)
    return OUTCOME_DONE
