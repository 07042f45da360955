"""What the HTTP handlers work with."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import msgspec
from aiohttp import web

from realtime_communication.auth.chain import AuthenticationChain
from realtime_communication.auth.identity import Identity
from realtime_communication.auth.tokens import TokenIssuer
from realtime_communication.config.schema import Config
from realtime_communication.resilience.breaker import Breakers


class Check(msgspec.Struct, frozen=True):
    """How a part of the server is: for `/health`. While a `required` one is not ok, the server is not ready."""

    ok: bool
    detail: dict[str, object]
    required: bool = False


class HubApi(Protocol):
    """The part of the compiled hub that HTTP uses."""

    def publish_request(self, body: bytes, identity: Identity) -> dict[str, Any]: ...
    def send_request(self, body: bytes, identity: Identity) -> dict[str, Any]: ...
    def user_limit(self, user_id: str) -> tuple[int, int, int] | None: ...
    def connection_count(self) -> int: ...
    def stats(self) -> dict[str, int]: ...
    def connections(self, limit: int = 1000) -> list[dict[str, Any]]: ...


@dataclasses.dataclass(slots=True)
class Services:
    """One worker's parts. `config` is replaced as a whole by a reload; handlers read it afresh for each request."""

    hub: HubApi
    chain: AuthenticationChain
    config: Config
    profile: str
    node_id: str
    issuer: TokenIssuer | None = None  # only where a token may be given away: the demo of the dev profile
    port: int | None = None  # the real one; None on a Unix socket
    workers: int = 1
    draining: bool = False
    checks: Mapping[str, Callable[[], Awaitable[Check]]] = dataclasses.field(default_factory=dict)
    breakers: Breakers | None = None
    required: set[str] = dataclasses.field(default_factory=set)  # the checks whose last answer said so
    clock: Callable[[], float] = time.time
    started_at: float = dataclasses.field(default_factory=time.monotonic)

    @property
    def uptime_secs(self) -> float:
        """Seconds since this worker began."""
        return time.monotonic() - self.started_at


SERVICES: web.AppKey[Services] = web.AppKey("services", Services)
