"""Who is asked whether a user may subscribe or publish: a function of the operator, or a service of his over HTTP.

Theory of operation. The data plane calls `ask` when it does not know an answer, once for all who want the same, and
gets it at once from a plain function; else it comes by `Hub.decided`, and those who wait go on. HTTP requests wait in
`decide`. Either way the hub remembers what was said. What takes time goes through a circuit breaker and is given up
after `timeout_ms`. What fails is answered as `on_failure` says, for FAILURE_MS.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from realtime_communication.auth.call_out import CallOut, UnusableAnswer
from realtime_communication.config.authorization import Authorization
from realtime_communication.errors import RequestRefused
from realtime_communication.observability.logs import get_logger
from realtime_communication.resilience.breaker import CircuitBreaker

FAILURE_MS: Final = 1000
"""For so long a failure counts as an answer: whoever is down is not asked again for each request."""

RETRY_MS: Final = 1000
MOST_REASON: Final = 200  # characters of an error that are told

Question = tuple[str, str, str]
"""Action, user and topic."""

Function = Callable[[str, str, str], bool | Awaitable[bool]]

_log = get_logger(__name__)


class DecisionStore(Protocol):
    """The part of the hub that remembers answers."""

    def ask_about(
        self,
        actions: tuple[str, ...],
        ask: Callable[[str, str, str], bool | None],
        most: int,
        pending: int,
        ttl_ms: int,
    ) -> None: ...
    def verdict(self, action: str, user: str, topic: str) -> bool | None: ...
    def decided(self, action: str, user: str, topic: str, allowed: bool, ttl_ms: int) -> None: ...


class Authorizer:
    """Asks as `config` says: `function` where there is one, else its URL.

    `failures` counts questions that got no answer that could be used. `close` ends what is under way.
    """

    def __init__(
        self,
        config: Authorization,
        hub: DecisionStore,
        breaker: CircuitBreaker,
        *,
        function: Function | None = None,
        call_out: CallOut | None = None,
    ) -> None:
        self.failures = 0
        self._config = config
        self._hub = hub
        self._breaker = breaker
        self._call_out = call_out
        self._function: Function = function if call_out is None and function is not None else self._call
        self._is_quick = call_out is None and not inspect.iscoroutinefunction(function)
        self._under_way: dict[Question, asyncio.Task[bool]] = {}
        self._told_at = -1.0  # a line a second at most, however many questions fail
        ttl_ms = int(config.cache_ttl_secs * 1000)
        hub.ask_about(config.actions, self.ask, config.cache_size, config.max_pending, ttl_ms)

    def ask(self, action: str, user: str, topic: str) -> bool | None:
        """The answer; None when it comes later, by `decided`. Never raises."""
        if self._is_quick:
            return self._asked_at_once(action, user, topic)
        self._begin((action, user, topic))
        return None

    async def decide(self, action: str, user: str, topic: str) -> bool:
        """Whether a user may do something over HTTP. Raises RequestRefused (`unavailable`) when too many are asked
        about."""
        if action not in self._config.actions:
            return True
        known = self._hub.verdict(action, user, topic)
        if known is not None:
            return known
        if self._is_quick:
            allowed = self._asked_at_once(action, user, topic)
            self._hub.decided(action, user, topic, allowed, self._ttl_ms())
            return allowed
        question = (action, user, topic)
        if question not in self._under_way and len(self._under_way) >= self._config.max_pending:
            message = "topic: too many requests wait for leave to go on; try again"
            raise RequestRefused("unavailable", message, retry_after_ms=RETRY_MS)
        return await asyncio.shield(self._begin(question))

    async def close(self) -> None:
        """Nobody waits any more."""
        for task in list(self._under_way.values()):
            task.cancel()
        if self._call_out is not None:
            await self._call_out.close()

    def _ttl_ms(self) -> int:
        return int(self._config.cache_ttl_secs * 1000)

    def _asked_at_once(self, action: str, user: str, topic: str) -> bool:
        try:
            return _checked(self._function(action, user, topic))
        except BaseException as error:  # `sys.exit()` in the operator's code decides one question and no more
            return self._failed(error)

    def _begin(self, question: Question) -> asyncio.Task[bool]:
        task = self._under_way.get(question)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._find_out(question), name="authorization")
            self._under_way[question] = task
            task.add_done_callback(lambda done: self._under_way.pop(question, None))
        return task

    async def _find_out(self, question: Question) -> bool:
        ttl_ms = self._ttl_ms()
        try:
            allowed = await self._breaker.call(lambda: self._answered(question))
        except asyncio.CancelledError:
            raise
        except Exception as error:
            allowed, ttl_ms = self._failed(error), FAILURE_MS
        self._hub.decided(*question, allowed, ttl_ms)
        return allowed

    async def _answered(self, question: Question) -> bool:
        async with asyncio.timeout(self._config.timeout_ms / 1000):
            answer: Any = self._function(*question)
            return _checked(await answer)

    async def _call(self, action: str, user: str, topic: str) -> bool:
        assert self._call_out is not None
        return await self._call_out.ask(action, user, topic)

    def _failed(self, error: BaseException) -> bool:
        self.failures += 1
        now = time.monotonic()
        if now - self._told_at >= 1:
            self._told_at = now
            # Errors of the HTTP client may quote the URL, and what is in it.
            reason = str(error) if isinstance(error, (UnusableAnswer, TypeError)) else type(error).__name__
            _log.warning(
                "whether users are allowed something could not be found out",
                reason=reason[:MOST_REASON],
                counts_as=self._config.on_failure,
                failures=self.failures,
            )
        return self._config.on_failure == "allow"


def _checked(answer: object) -> bool:
    if not isinstance(answer, bool):
        raise TypeError(f"the answer must be true or false, not {type(answer).__name__}")
    return answer
