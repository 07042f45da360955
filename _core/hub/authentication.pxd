# Authenticate and Refresh: a credential is checked by the control plane, and the session takes over what it says.
#
# Rules: of an anonymous session a credential that is refused is the last request. Nothing of it is kept here.

from realtime_communication._core.hub.core cimport Core
from realtime_communication._core.hub.session cimport Session
from realtime_communication._core.wire.envelope cimport Request


# Asks about the credential of an Authenticate or Refresh. Returns an Outcome.
cdef int check_credential(Core core, Session* session, const Request* request) noexcept
# Goes on with one whose credential has been answered for: an identity, or (code, message). Of `request` only the id is
# looked at. Returns an Outcome.
cdef int take_credential(Core core, Session* session, const Request* request, object answer) noexcept
# Sends Connected, in reply to `request` or, when it is NULL, unasked; it leaves once the session's inbox is fed.
cdef void welcome(Core core, Session* session, const Request* request) noexcept
