"""What a request comes to; `outcome.pxd` is the contract."""

from realtime_communication._core.hub.core cimport Core
from realtime_communication._core.hub.outbox cimport outbox_reply
from realtime_communication._core.hub.session cimport Session
from realtime_communication._core.wire.envelope cimport ERROR_UNAVAILABLE, Request


class RequestError(Exception):
    """A request over HTTP that is refused: `code` as in the protocol's list, a `message` for people, and
    `retry_after_ms` (milliseconds) when trying again later makes sense."""

    def __init__(self, str code, str message, retry_after_ms=None):
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after_ms = retry_after_ms


class UndecidedError(RequestError):
    """Whether the sender may do that is not known: ask, and make the request again, `counted`."""

    def __init__(self, str action, str topic):
        super().__init__("unavailable", "topic: whether you are allowed that is not known yet; try again")
        self.action = action
        self.topic = topic


cdef void no_memory(Core core, Session* session, const Request* request) noexcept:
    core.error(session, request, ERROR_UNAVAILABLE, b"out of memory; try again later", BACKPRESSURE_RETRY_MS, NULL)


cdef void reply(Core core, Session* session, const Request* request, bint in_order) noexcept:
    """Send what was written, if the request asked for a reply by an id."""
    if request.id_kind:
        outbox_reply(&core.outbox, session, in_order)
