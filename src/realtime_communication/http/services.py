"""What the HTTP handlers work with."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import msgspec
from aiohttp import web

from realtime_communication._core.hub.relay import Later
from realtime_communication.auth.authority import TokenAuthority
from realtime_communication.auth.authorizer import Authorizer
from realtime_communication.auth.chain import AuthenticationChain
from realtime_communication.auth.identity import Identity
from realtime_communication.auth.mock_issuer import MockIssuer
from realtime_communication.auth.revocation import RevocationStore
from realtime_communication.auth.tokens import TokenIssuer
from realtime_communication.config.schema import Config
from realtime_communication.http.attempts import Attempts
from realtime_communication.http.fleet import Fleet
from realtime_communication.http.nodes import Nodes
from realtime_communication.http.orders import Orders
from realtime_communication.observability.fault_log import FaultLog
from realtime_communication.observability.logs import get_logger
from realtime_communication.observability.metrics import Metrics
from realtime_communication.observability.publication_window import PublicationWindow
from realtime_communication.observability.recent_troubles import RecentTroubles
from realtime_communication.observability.spans import NO_TRACER, Tracer
from realtime_communication.resilience.breaker import Breakers

_log = get_logger(__name__)


class Check(msgspec.Struct, frozen=True):
    """How a part of the server is: for `/health`. While a `required` one is not ok, the server is not ready."""

    ok: bool
    detail: dict[str, object]
    required: bool = False


class HubApi(Protocol):
    """The part of the compiled hub that HTTP uses."""

    def publish_request(self, body: bytes, identity: Identity, *, counted: bool = False) -> dict[str, Any] | Later: ...
    def send_request(self, body: bytes, identity: Identity) -> dict[str, Any] | Later: ...
    def subscribe_user(self, user_id: str, topic: str, order: int = 0) -> int: ...
    def unsubscribe_user(self, user_id: str, topic: str, order: int = 0) -> int: ...
    def presence_request(self, topic: str) -> dict[str, Any] | Later: ...
    def history_request(
        self, topic: str, epoch: str | None = None, offset: int = 0, limit: int = 100, reverse: bool = False
    ) -> dict[str, Any] | Later: ...
    def reading_refused(self, identity: Identity, topic: str, *, history: bool) -> str | None: ...
    def count_request(self, user_id: str) -> None: ...
    def user_limit(self, user_id: str) -> tuple[int, int, int] | None: ...
    def connection_count(self) -> int: ...
    def queued(self) -> int: ...
    def stats(self) -> dict[str, int]: ...
    def connections(self, limit: int = 1000) -> list[dict[str, Any]]: ...
    def connections_of(self, user_id: str, limit: int = 1000) -> tuple[int, list[dict[str, Any]]]: ...
    def topics(self, limit: int = 1000) -> list[dict[str, Any]]: ...
    def connection(self, session_id: str, limit: int = 1000) -> dict[str, Any] | None: ...
    def mailboxes(self, limit: int) -> tuple[list[int], list[dict[str, Any]]]: ...
    def topic(self, name: str) -> dict[str, Any] | None: ...
    def topic_counts(self, limit: int) -> list[tuple[str, int, int]]: ...
    def disconnect(
        self,
        *,
        session_id: str | None = None,
        user_id: str | None = None,
        login: str | None = None,
        reason: str = "",
    ) -> int: ...


class StreamApi(Protocol):
    """A connection of the hub without a socket, as `_core.hub.stream.Stream` is one."""

    @property
    def open(self) -> bool: ...
    def begin(self, identity: Identity) -> None: ...
    def ask(self, envelope: bytes) -> None: ...
    def take(self) -> list[tuple[int, bytes]]: ...
    def end(self) -> None: ...


class OpenStream(Protocol):
    """Makes a stream for the client at `address`; `on_ready` is called as `Stream` says."""

    def __call__(self, address: str, on_ready: Callable[[], None], *, secure: bool) -> StreamApi: ...


class ConfigControl(Protocol):
    """The configuration of the running server, of all its workers."""

    def change(self, changes: Mapping[str, object], origin: str) -> None:
        """Put values, by the dotted paths of their keys, in force: all of them or none.

        `origin` says who wanted it, and is told in the log. `Services.config` holds them afterwards. Raises
        ConfigurationError, whose problems name the keys at fault.
        """

    def effective(self) -> dict[str, object]:
        """{"profile", "files", "keys": {path: {"value", "origin"}}} as it is in force, secrets redacted."""


def _refusal_log() -> FaultLog:
    return FaultLog(_log, "HTTP request refused")


@dataclasses.dataclass(slots=True)
class Services:
    """One worker's parts. `config` is replaced as a whole by a reload; handlers read it afresh for each request."""

    hub: HubApi
    chain: AuthenticationChain
    config: Config
    profile: str
    node_id: str
    issuer: TokenIssuer | None = None  # only where a token may be given away: the demo of the dev profile
    authority: TokenAuthority | None = None  # issues, refreshes and revokes tokens: /auth/*
    revocations: RevocationStore | None = None
    mock_issuer: MockIssuer | None = None  # only with development.mock_external_services
    port: int | None = None  # the real one; None on a Unix socket
    streams: OpenStream | None = None  # None: there is no /sse
    open_streams: int = 0  # of /sse, now
    crowded_out: int = 0  # HTTP connections that were ended to make room: they had not authenticated
    metrics: Metrics | None = None  # None while they are off
    metrics_port: int | None = None
    workers: int = 1
    draining: bool = False
    drain: Callable[[int], int] | None = None  # begins the end of one of so many workers: how many clients are told
    slot: int = 0  # which worker this is
    fleet: Fleet | None = None  # all workers; None: this is the only one
    tracer: Tracer = NO_TRACER
    checks: Mapping[str, Callable[[], Awaitable[Check]]] = dataclasses.field(default_factory=dict)
    breakers: Breakers | None = None
    authorizer: Authorizer | None = None  # None: nobody is asked what users may do
    required: set[str] = dataclasses.field(default_factory=set)  # the checks whose last answer said so
    control: ConfigControl | None = None  # None: the configuration cannot be changed while the server runs
    window: PublicationWindow | None = None  # what is sampled of publications while somebody looks
    nodes: Nodes | None = None  # the others, where there are any
    orders: Orders | None = None  # what the others are told to do to sessions
    troubles: RecentTroubles | None = None  # the latest warnings in the log
    attempts: Attempts = dataclasses.field(default_factory=Attempts)
    refusals: FaultLog = dataclasses.field(default_factory=_refusal_log)  # requests over HTTP that were refused
    clock: Callable[[], float] = time.time
    started_at: float = dataclasses.field(default_factory=time.monotonic)

    @property
    def uptime_secs(self) -> float:
        """Seconds since this worker began."""
        return time.monotonic() - self.started_at

    def attempts_left(self, address: str) -> tuple[int, int, int] | None:
        """The limit that wrong credentials of `address` are under, as `Attempts.state`; None without one."""
        return self.attempts.state(address) if self.config.rate_limiting.enabled else None

    def check_attempts(self, address: str) -> None:
        """To be called before credentials are looked at. Raises RateLimited when too many of `address` were wrong."""
        if self.config.rate_limiting.enabled:
            self.attempts.check(address)


SERVICES: web.AppKey[Services] = web.AppKey("services", Services)
FLEET: web.AppKey[Fleet] = web.AppKey("fleet", Fleet)
# In a request: asks for the state of the limit that it turned out to be under, None where that is off.
LIMIT: web.RequestKey[Callable[[], tuple[int, int, int] | None]] = web.RequestKey("limit")
# In a request: when its answer began, by the loop's clock, if that goes on for as long as somebody listens.
BEGUN: web.RequestKey[float] = web.RequestKey("begun")
