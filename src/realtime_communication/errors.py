"""Every error of the control plane, and every code a client can see.

The tree answers first *whose* mistake it was, because that decides what the caller does next::

    RealtimeError                       code "error"
    ├── MisuseError                     code "misuse"           you misused us: change the call or the configuration
    │   └── ConfigurationError          code "configuration"    holds every problem at once; exit status 78
    ├── EnvironmentFault                code "environment"      the machine refuses: port in use …; exit status 71
    ├── PeerError                       code "peer"             the other end misbehaved or refused
    │   ├── RequestRefused              code from ERROR_CODES   one request failed, the connection goes on
    │   │   ├── AuthenticationFailed    code "unauthorized"     the credentials were refused
    │   │   │   ├── AuthenticationMissing  code "unauthorized"  there were none
    │   │   │   └── AuthenticationUnavailable  code "unavailable"  they cannot be checked now: who could is out of reach
    │   │   └── RateLimited             code "rate_limited"     wait `retry_after_ms`, then send again
    │   ├── ConnectionClosed            code "closed"           the connection ended with a code from CLOSE_CODES
    │   └── CircuitOpen                 code "unavailable"      a service that kept failing is left alone for a while
    └── InternalError                   code "internal"         our bug: report it; peers only learn that it happened
        ├── ControlError                code "control"          another process of this server failed to answer a call
        │   └── ControlClosed           code "control_closed"   it is gone, or was cut off
        └── RestartLimitReached         code "restart_limit"    services crashed too often; exit status 70

`ERROR_CODES` and `CLOSE_CODES` are the two numbered tables of the wire (rtc.v1). A number or a name is never
given a second meaning; new rows go to the end. `HTTP_ERROR_CODES` are those that only HTTP has beside them.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import ClassVar

import msgspec

EXIT_CONFIG = 78
"""Exit status for a configuration that cannot be used (EX_CONFIG of sysexits.h)."""

EXIT_OS = 71
"""Exit status when the machine refuses what the configuration asks for (EX_OSERR of sysexits.h)."""


EXIT_SOFTWARE = 70
"""Exit status after a fault of this program, such as too many crashes of its services (EX_SOFTWARE)."""


class Retry(enum.Enum):
    """What a client does after an error or a close."""

    NEVER = "the same request fails again: change it"
    LATER = "the same request may succeed after retry_after_ms, or after a jittered back-off"
    AUTHENTICATE = "get a new token first, then send it again"
    RECONNECT = "connect again after a jittered back-off and recover by epoch and offset"
    STOP = "do not connect again by itself: a person or a program has to act"


class ErrorCode(msgspec.Struct, frozen=True):
    """One row of the table of error codes.

    `number` is stable and for tables and metrics; `name` is what travels in `Error.code` and in HTTP error
    bodies; `status` is the HTTP status that goes with it.
    """

    number: int
    name: str
    status: int
    retry: Retry
    meaning: str


class CloseCode(msgspec.Struct, frozen=True):
    """One row of the table of WebSocket close codes (RFC 6455 section 7.4; 4000 and above are the server's own)."""

    number: int
    name: str
    retry: Retry
    meaning: str


ERROR_CODES: tuple[ErrorCode, ...] = (
    ErrorCode(1, "bad_request", 400, Retry.NEVER, "a field is missing, of the wrong type or out of its range"),
    ErrorCode(2, "unauthorized", 401, Retry.AUTHENTICATE, "no credentials, or credentials that were refused"),
    ErrorCode(3, "forbidden", 403, Retry.NEVER, "the identity may not do this"),
    ErrorCode(4, "token_expired", 401, Retry.AUTHENTICATE, "the token was good and is over"),
    ErrorCode(5, "topic_invalid", 400, Retry.NEVER, "the topic's name breaks the rules for names"),
    ErrorCode(6, "not_subscribed", 400, Retry.NEVER, "the connection has no such subscription"),
    ErrorCode(7, "rate_limited", 429, Retry.LATER, "a token bucket is empty; `scope` says which"),
    ErrorCode(8, "backpressure", 503, Retry.LATER, "the receiver's mailbox is full"),
    ErrorCode(9, "too_many_targets", 400, Retry.NEVER, "more receivers than max_targets_per_message"),
    ErrorCode(10, "too_large", 413, Retry.NEVER, "the message or the body is over its bound"),
    ErrorCode(11, "unsupported", 400, Retry.NEVER, "the server does not have what the client asks for"),
    ErrorCode(12, "unavailable", 503, Retry.LATER, "full, draining, or a service behind it is down"),
    ErrorCode(13, "internal", 500, Retry.LATER, "a fault of the server"),
)

HTTP_ERROR_CODES: tuple[ErrorCode, ...] = (
    ErrorCode(101, "not_found", 404, Retry.NEVER, "there is nothing at this path"),
    ErrorCode(102, "method_not_allowed", 405, Retry.NEVER, "this path does not support the method"),
    ErrorCode(103, "timed_out", 408, Retry.LATER, "the body of the request did not come in time"),
    ErrorCode(104, "unsupported_media_type", 415, Retry.NEVER, "the body is not of the type that is asked for"),
    ErrorCode(105, "expectation_failed", 417, Retry.NEVER, "an `Expect` other than 100-continue"),
    ErrorCode(106, "conflict", 409, Retry.LATER, "something of which there can be one is under way already"),
)

CLOSE_CODES: tuple[CloseCode, ...] = (
    CloseCode(1000, "normal", Retry.STOP, "the connection is no longer needed"),
    CloseCode(1001, "going_away", Retry.RECONNECT, "the server is shutting down"),
    CloseCode(1002, "protocol_error", Retry.NEVER, "a frame breaks RFC 6455"),
    CloseCode(1003, "unsupported_data", Retry.NEVER, "a frame type that this encoding does not use"),
    CloseCode(1007, "invalid_payload", Retry.NEVER, "text that is not UTF-8, or data that does not inflate"),
    CloseCode(1008, "policy_violation", Retry.NEVER, "too many fragments, or another bound of the connection"),
    CloseCode(1009, "too_big", Retry.NEVER, "a frame over max_frame_size or a message over max_message_size"),
    CloseCode(1011, "internal", Retry.RECONNECT, "a fault of the server"),
    CloseCode(1012, "restart", Retry.RECONNECT, "the worker is restarted"),
    CloseCode(1013, "overloaded", Retry.RECONNECT, "the server is overloaded: later"),
    CloseCode(4401, "unauthorized", Retry.AUTHENTICATE, "not authenticated, or the token expired"),
    CloseCode(4403, "disconnected", Retry.STOP, "an administrator ended the connection"),
    CloseCode(4408, "timed_out", Retry.RECONNECT, "no authentication, or no sign of life, in time"),
    CloseCode(4429, "rate_limit_abuse", Retry.RECONNECT, "the connection went on breaking its limits"),
    CloseCode(4490, "slow_consumer", Retry.RECONNECT, "the connection did not read what was sent to it"),
)

UNSENT_ERROR_CODES = frozenset({"not_subscribed"})
"""Those of the tables that clients have to understand and this server never sends."""

UNSENT_CLOSE_CODES = frozenset({1008})
"""The same of the close codes."""

ERROR_CODE_BY_NAME: dict[str, ErrorCode] = {row.name: row for row in (*ERROR_CODES, *HTTP_ERROR_CODES)}
CLOSE_CODE_BY_NUMBER: dict[int, CloseCode] = {row.number: row for row in CLOSE_CODES}


class RealtimeError(Exception):
    """Root of the tree. `code` is stable: programs compare it, people read the text."""

    code: str = "error"
    exit_status: ClassVar[int] = EXIT_SOFTWARE
    """What a command that ends by this error exits with (EX_SOFTWARE unless a subclass knows better)."""


class MisuseError(RealtimeError):
    """A caller or an operator asked for something that cannot be: trying again changes nothing."""

    code = "misuse"
    exit_status = 64


class ConfigurationProblem(msgspec.Struct, frozen=True):
    """One thing wrong with the configuration.

    `key` is the dotted path, `value` the value as shown to people (secrets already redacted, empty when there is
    none), `origin` the file and line, variable or option it came from, `message` says what is allowed.
    """

    key: str
    value: str
    origin: str
    message: str

    def __str__(self) -> str:
        subject = f"{self.key} = {self.value}" if self.value else self.key
        return ": ".join(part for part in (self.origin, subject, self.message) if part)


class ConfigurationError(MisuseError):
    """The configuration cannot be used. `problems` holds all of them, in the order of the layers; never empty."""

    code = "configuration"
    exit_status = EXIT_CONFIG

    def __init__(self, problems: Sequence[ConfigurationProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class EnvironmentFault(RealtimeError):
    """The machine refuses what a good configuration asks for, such as a port that is in use."""

    code = "environment"
    exit_status = EXIT_OS


class PeerError(RealtimeError):
    """The other end of a connection misbehaved, or refused what was asked."""

    code = "peer"


class RequestRefused(PeerError):
    """One request failed; the connection goes on. `code` is a name of ERROR_CODES.

    `retry_after_ms` is how long to wait before sending it again, None when waiting does not help; `scope` names the
    bucket that was empty (`connection`, `user`, `global` or a custom limit).
    """

    def __init__(self, code: str, message: str, *, retry_after_ms: int | None = None, scope: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after_ms = retry_after_ms
        self.scope = scope

    @property
    def retry(self) -> Retry:
        """What to do next. A code of a newer server that is not in the table counts as `NEVER`."""
        row = ERROR_CODE_BY_NAME.get(self.code)
        return row.retry if row is not None else Retry.NEVER


class AuthenticationFailed(RequestRefused):
    """The credentials were refused: `unauthorized`, or `token_expired` when they once were good."""

    def __init__(self, message: str, *, code: str = "unauthorized") -> None:
        super().__init__(code, message)


class AuthenticationMissing(AuthenticationFailed):
    """There were no credentials where some are needed."""

    def __init__(self) -> None:
        super().__init__("this needs a token or an API key")


class AuthenticationUnavailable(AuthenticationFailed):
    """The credentials cannot be checked right now, good or not: try again after `retry_after_ms`."""

    def __init__(self, message: str, *, retry_after_ms: int) -> None:
        super().__init__(message, code="unavailable")
        self.retry_after_ms = retry_after_ms


class RateLimited(RequestRefused):
    """A token bucket is empty: wait `retry_after_ms`, then send again."""

    def __init__(self, message: str, *, retry_after_ms: int | None = None, scope: str | None = None) -> None:
        super().__init__("rate_limited", message, retry_after_ms=retry_after_ms, scope=scope)


class ConnectionClosed(PeerError):
    """The connection ended, with a `close_code` of CLOSE_CODES or of RFC 6455 and the peer's `reason`."""

    code = "closed"

    def __init__(self, close_code: int, reason: str = "") -> None:
        super().__init__(f"connection closed with {close_code}" + (f": {reason}" if reason else ""))
        self.close_code = close_code
        self.reason = reason

    @property
    def retry(self) -> Retry:
        """What to do next. An unknown code counts as a lost connection: `RECONNECT`."""
        row = CLOSE_CODE_BY_NUMBER.get(self.close_code)
        return row.retry if row is not None else Retry.RECONNECT


class CircuitOpen(PeerError):
    """The call was not made: `service` kept failing, and its circuit breaker leaves it alone for a while.

    `retry_after_secs` is how long until a call may be let through, never under 0.
    """

    code = "unavailable"

    def __init__(self, service: str, retry_after_secs: float) -> None:
        super().__init__(f"{service} is left alone after its failures; next trial in {retry_after_secs:.1f} s")
        self.service = service
        self.retry_after_secs = retry_after_secs


class InternalError(RealtimeError):
    """A fault of this program. Its text is for the log; a peer only learns the code."""

    code = "internal"


class RestartLimitReached(InternalError):
    """The services of this process crashed more often than `actor_system.max_restarts` allows: it ends."""

    code = "restart_limit"


class ControlError(InternalError):
    """A call to another process of this server failed: its handler raised, or the call could not be made.

    `kind` names the type of what the handler raised, empty when no handler was reached.
    """

    code = "control"

    def __init__(self, message: str, kind: str = "") -> None:
        super().__init__(message)
        self.kind = kind


class ControlClosed(ControlError):
    """The other process of this server is gone, or did not read what it was sent. Nothing more can be asked of it."""

    code = "control_closed"
