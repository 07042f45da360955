"""Who comes in: what the data plane asks about upgrade requests and credentials, joined to the parts that answer.

Most credentials are checked at once. Where the check needs the network, such as keys of an OIDC issuer that are not
there yet, the data plane gets a `Pending`, and a task settles it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from realtime_communication._core.hub.pending import Pending
from realtime_communication.auth.chain import Headers, Refusal
from realtime_communication.auth.identity import Identity
from realtime_communication.http.answers import limit_headers
from realtime_communication.http.forwarding import client_of, trusted_proxies
from realtime_communication.http.security import refuse_upgrade
from realtime_communication.http.services import Services
from realtime_communication.observability.logs import get_logger
from realtime_communication.server.traced import traced_upgrade

_log = get_logger(__name__)
_FAILED_UPGRADE: Refusal = (500, "internal", "authentication failed", [])
_FAILED_MESSAGE = ("internal", "authentication failed")


class Admission:
    """The callbacks of the data plane. `close` ends the checks that are under way."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._checking: set[asyncio.Task[None]] = set()

        def authenticate(headers: Headers, query: bytes, peer: str, secure: bool) -> Any:
            # The chain is looked up for each request: a reload makes another one.
            return services.chain.authenticate_upgrade(headers, query, peer, secure)

        metrics = services.metrics
        self._metrics = metrics
        timed = authenticate if metrics is None else metrics.timed_authentication(authenticate)
        self._authenticate = traced_upgrade(services.tracer, timed)
        self._is_plain = not services.tracer.enabled  # a span is about the request, not its token alone

    def upgrade(self, headers: Headers, query: bytes, peer: str, secure: bool) -> Any:
        """Whether an upgrade is let in: an Identity, None for one that authenticates later, a refusal, Pending.

        Never raises.
        """
        services = self._services
        client = client_of(peer, headers, secure, trusted_proxies(services.config.security.trusted_proxies))
        refusal = refuse_upgrade(services, client)
        if refusal is not None:
            return refusal
        answer = self._authenticate(headers, query, client.address, client.secure)
        if isinstance(answer, Identity):
            return answer
        if isinstance(answer, Awaitable):
            return self._later(answer, _FAILED_UPGRADE, lambda found: self._judged(found, client.address))
        return self._judged(answer, client.address)

    def token(self, token: str) -> Identity | None:
        """Whether the bearer token of an upgrade without a query lets it in at once; None: ask `upgrade`.

        What that says of such a request, only sooner: no list of headers is made and no address read where neither
        decides. Never raises.
        """
        services, metrics = self._services, self._metrics
        if not self._is_plain or services.config.security.enforce_tls or not services.attempts.all_free:
            return None
        if metrics is None:
            return services.chain.accept_token(token)
        started = time.perf_counter()
        identity = services.chain.accept_token(token)
        if identity is not None:
            metrics.observe_authentication(True, time.perf_counter() - started)
        return identity

    def echo(self, headers: Headers, query: bytes, peer: str, secure: bool) -> Refusal | None:
        """Whether an upgrade for the echo endpoint, which knows no credentials, is refused. Never raises."""
        services = self._services
        client = client_of(peer, headers, secure, trusted_proxies(services.config.security.trusted_proxies))
        return refuse_upgrade(services, client)

    def message(self, token: str | None, api_key: str | None, peer: str) -> Any:
        """Whether the credential of an `Authenticate` or a `Refresh` is good: an Identity, (code, message), Pending.

        Never raises.
        """
        answer = self._services.chain.authenticate_message(token, api_key, peer)
        return self._later(answer, _FAILED_MESSAGE) if isinstance(answer, Awaitable) else answer

    def close(self) -> None:
        """Cancel what is under way: nobody waits any more."""
        for task in self._checking:
            task.cancel()

    def _judged(self, answer: Identity | Refusal | None, address: str) -> Identity | Refusal | None:
        """`answer`; wrong credentials are counted, and told how many more may be."""
        if not isinstance(answer, tuple) or answer[0] != 401:
            return answer
        services = self._services
        services.attempts.fail(address)
        left = limit_headers(services.config.rate_limiting.headers, services.attempts_left(address))
        return (*answer[:3], [*answer[3], *left.items()])

    def _later(self, waiting: Awaitable[Any], failed: Any, then: Callable[[Any], Any] = lambda found: found) -> Pending:
        pending = Pending()
        task = asyncio.get_running_loop().create_task(self._settle(pending, waiting, failed, then), name="credentials")
        self._checking.add(task)
        task.add_done_callback(self._checking.discard)
        return pending

    async def _settle(self, pending: Pending, waiting: Awaitable[Any], failed: Any, then: Callable[[Any], Any]) -> None:
        answer, started = failed, time.perf_counter()
        try:
            answer = then(await waiting)
        except Exception:
            _log.exception("authentication failed by an error of its own")
        finally:
            pending.settle(answer)
        if self._metrics is not None:
            self._metrics.observe_authentication(isinstance(answer, Identity), time.perf_counter() - started)
