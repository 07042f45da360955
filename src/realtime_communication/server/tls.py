"""TLS on the main port: the context of its connections, its replacement while they live, and what is told of failures.

A reactor gets the context with its listeners and tells `Tls.failed` of each connection that TLS ended.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable

from realtime_communication.config.certificates import expires_at, make_context, problems
from realtime_communication.config.protection import Tls
from realtime_communication.errors import EnvironmentFault
from realtime_communication.observability.fault_log import FaultLog
from realtime_communication.observability.logs import get_logger

_log = get_logger(__name__)


def server_context(tls: Tls) -> ssl.SSLContext | None:
    """The context for new connections, None when TLS is off.

    Raises EnvironmentFault that names the key and says what is wrong with its file: it may have changed since the
    configuration was checked.
    """
    if not tls.enabled:
        return None
    found = [f"security.tls.{name} {message}" for name, message in problems(tls)]
    if found:
        raise EnvironmentFault("; ".join(found))
    try:
        return make_context(tls)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise EnvironmentFault(f"security.tls: the certificate cannot be used: {_reason(error)}") from None


def certificate_end(tls: Tls) -> float | None:
    """When the certificate that `server_context` loads expires (seconds since the epoch), None when TLS is off."""
    return expires_at(tls) if tls.enabled else None


class FailureLog:
    """Writes a line for a connection that TLS ended: no more than some in a second, and how many were left out.

    `count` is how many there were. `clock` gives seconds, as time.monotonic does.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.count = 0
        self._faults = FaultLog(_log, "TLS ended a connection", clock)

    def failed(self, peer: str, reason: str) -> None:
        """TLS ended the connection of `peer`, for a reason that OpenSSL gives."""
        self.count += 1
        self._faults.tell(peer=peer, reason=reason)


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    return reason.replace("_", " ").lower() if reason else str(error)
