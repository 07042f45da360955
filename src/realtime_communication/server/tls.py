"""TLS on the main port: the context of its connections, its replacement while they live, and what is told of failures.

A reactor gets the context with its listeners and tells `Tls.failed` of each connection that TLS ended.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from typing import Final

from realtime_communication.config.certificates import expires_at, make_context, problems
from realtime_communication.config.protection import Tls
from realtime_communication.errors import EnvironmentFault
from realtime_communication.observability.logs import get_logger

LOGGED_EACH_SECOND: Final = 10  # failures with a line of their own; the others are counted

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

    `clock` gives seconds, as time.monotonic does.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._second = 0
        self._lines = 0
        self._left_out = 0

    def failed(self, peer: str, reason: str) -> None:
        """TLS ended the connection of `peer`, for a reason that OpenSSL gives."""
        second = int(self._clock())
        if second != self._second:
            self._second, self._lines = second, 0
        if self._lines >= LOGGED_EACH_SECOND:
            self._left_out += 1
            return
        self._lines += 1
        left_out, self._left_out = self._left_out, 0
        _log.info("TLS ended a connection", peer=peer, reason=reason, **({"not_logged": left_out} if left_out else {}))


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    return reason.replace("_", " ").lower() if reason else str(error)
