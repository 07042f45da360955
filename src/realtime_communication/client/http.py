"""Publishing from programs that do not run asyncio: scripts, Django, Flask, task queues.

::

    from realtime_communication.client.http import Publisher

    publisher = Publisher("http://localhost:8081", api_key=os.environ["RTC_API_KEY"])  # one for the process
    publisher.publish("room:42", {"text": "hello"})
    publisher.send("alice", {"text": "your report is ready"})

A ``Publisher`` speaks the HTTP API over connections that it keeps open. It may be used by many threads and over a fork.
Every publication carries an idempotency key, so that what is sent again after a failure has its effect once.
"""

from __future__ import annotations

import os
import ssl
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Self
from urllib.parse import quote, urlencode

import msgspec

from realtime_communication.client.backoff import Backoff
from realtime_communication.client.errors import (
    AuthenticationFailed,
    ClientClosed,
    ClientError,
    ConnectionLost,
    ProtocolViolation,
    RequestError,
)
from realtime_communication.client.events import (
    Delivery,
    HistoryMessage,
    HistoryPage,
    Member,
    Payload,
    Position,
    PresenceState,
)
from realtime_communication.client.http_pool import Answer, Endpoint, HttpPool

__all__ = ["Publication", "Publisher", "Sending"]

MAX_ENTRIES: Final = 1000
"""Entries that the server takes in one request; a longer batch goes out as several."""

MAX_BATCH_BYTES: Final = 256 * 1024
"""Bytes from which on a batch goes out as several requests; the server's own bound is `websocket.max_message_size`."""

_PASSING: Final = frozenset({429, 500, 502, 503, 504})
_DENIED: Final = 401


class Publication(msgspec.Struct, frozen=True):
    """An entry of ``Publisher.batch``: ``payload`` for whoever is subscribed to ``topic``."""

    topic: str
    payload: Payload
    idempotency_key: str | None = None


class Sending(msgspec.Struct, frozen=True):
    """An entry of ``Publisher.batch``: ``payload`` for one user or several."""

    to: str | list[str]
    payload: Payload
    idempotency_key: str | None = None


class _Problem(msgspec.Struct):
    code: str
    message: str = ""
    retry_after_ms: int | None = None
    field: str | None = None
    scope: str | None = None


class _Refusal(msgspec.Struct):
    error: _Problem


class _Presence(msgspec.Struct):
    topic: str
    count: int
    members: list[Member] = []


class _History(msgspec.Struct):
    topic: str
    epoch: str
    offset: int
    messages: list[HistoryMessage] = []


class Publisher:
    """The server's HTTP API as blocking calls.

    Args:
        url: ``http(s)://host:port``, with a prefix where a proxy adds one; the WebSocket's URL is understood as well.
        token: access token.
        token_provider: gives one; asked at the first request, and once more when the server refuses the token.
        api_key: sent in the ``X-API-Key`` header, instead of a token.
        timeout: seconds for a call as a whole, what is tried again included.
        retries: further attempts after a lost connection, and when the server is overloaded or a limit is used up.
        max_idle: connections kept open while nobody uses them.

    Every call raises RequestError when the server refuses it (``code``, ``field``, ``retry_after``, ``status``),
    AuthenticationFailed for the credentials, ConnectionLost, RequestTimeout, ProtocolViolation for an answer that is no
    server's of this kind, and ClientClosed after ``close``. Raises ValueError here for contradictory arguments.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        token_provider: Callable[[], str] | None = None,
        api_key: str | None = None,
        timeout: float = 10.0,
        retries: int = 2,
        backoff: Callable[[], Backoff] = lambda: Backoff(0.1, 2.0),
        max_idle: int = 8,
        headers: Mapping[str, str] | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        if sum(credential is not None for credential in (token, token_provider, api_key)) > 1:
            raise ValueError("give one of token, token_provider and api_key")
        if timeout <= 0 or retries < 0 or max_idle < 0:
            raise ValueError("timeout must be above 0, retries and max_idle not below 0")
        self._pool = HttpPool(Endpoint.of(url), max_idle=max_idle, ssl_context=ssl_context)
        self._tokens = _Tokens(token, token_provider, api_key)
        self._timeout = timeout
        self._retries = retries
        self._backoff = backoff
        self._headers = {"Accept": "application/json", **(headers or {})}
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. May be repeated."""
        self._closed = True
        self._pool.close()

    @property
    def url(self) -> str:
        """Where the requests go."""
        return self._pool.endpoint.url

    def publish(
        self, topic: str, payload: Payload, *, idempotency_key: str | None = None, timeout: float | None = None
    ) -> Position:
        """Publish ``payload``; returns its position. Raises TypeError for what JSON cannot express."""
        body = _body({"topic": topic, "payload": payload}, idempotency_key)
        position: Position = self._ask("POST", "/api/publish", Position, body=body, timeout=timeout)
        return position

    def send(
        self,
        to: str | Sequence[str],
        payload: Payload,
        *,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> Delivery:
        """Send ``payload`` to one user or several; returns who has a live session. See ``publish``."""
        body = _body({"to": to if isinstance(to, str) else list(to), "payload": payload}, idempotency_key)
        delivery: Delivery = self._ask("POST", "/api/send", Delivery, body=body, timeout=timeout)
        return delivery

    def batch(
        self, entries: Sequence[Publication | Sending], *, timeout: float | None = None
    ) -> list[Position | Delivery | RequestError]:
        """Publish and send many at once; returns the outcomes in the same order.

        An entry that is refused keeps no other back: its outcome is the RequestError. When this raises, some may
        have had their effect; with keys of your own in the entries, calling it again is safe.
        """
        outcomes: list[Position | Delivery | RequestError] = []
        for part in _parts(entries):
            data = b"[" + b",".join(text for _, text in part) + b"]"
            rows: list[msgspec.Raw] = self._ask("POST", "/api/batch", list[msgspec.Raw], body=data, timeout=timeout)
            if len(rows) != len(part):
                raise ProtocolViolation(f"{len(part)} entries were answered with {len(rows)}")
            outcomes += [_outcome(row, shape) for row, (shape, _) in zip(rows, part, strict=True)]
        return outcomes

    def presence(self, topic: str, *, timeout: float | None = None) -> PresenceState:
        """Who is on ``topic``."""
        found: _Presence = self._ask("GET", f"/api/topics/{quote(topic, safe='')}/presence", _Presence, timeout=timeout)
        return PresenceState(found.topic, found.count, found.members)

    def history(
        self,
        topic: str,
        *,
        after: Position | None = None,
        limit: int | None = None,
        reverse: bool = False,
        timeout: float | None = None,
    ) -> HistoryPage:
        """A page of the topic's cache: ``limit`` messages (100, at most 1000) after a position, or from the end."""
        query: dict[str, str | int] = {}
        if after is not None:
            query |= {"epoch": after.epoch, "offset": after.offset}
        if limit is not None:
            query["limit"] = limit
        if reverse:
            query["reverse"] = "true"
        path = f"/api/topics/{quote(topic, safe='')}/history"
        found: _History = self._ask("GET", path, _History, query=query, timeout=timeout)
        return HistoryPage(found.topic, Position(found.epoch, found.offset), found.messages)

    def request(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        query: Mapping[str, str | int] | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Any other endpoint: its JSON answer. ``body`` is sent as JSON. Only a ``GET`` is tried again."""
        data = msgspec.json.encode(body) if body is not None else None
        return self._ask(method, path, Any, body=data, query=query, timeout=timeout, again=method == "GET")

    def _ask(
        self,
        method: str,
        path: str,
        shape: Any,
        *,
        body: bytes | None = None,
        query: Mapping[str, str | int] | None = None,
        timeout: float | None = None,
        again: bool = True,
    ) -> Any:
        whole = path + (f"?{urlencode(query)}" if query else "")
        deadline = time.monotonic() + (self._timeout if timeout is None else timeout)
        answer = self._persist(method, whole, body, deadline, again)
        try:
            return msgspec.json.decode(answer.body, type=shape)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise ProtocolViolation(f"{self.url}{path} answered with something else than this API's JSON") from error

    def _persist(self, method: str, path: str, body: bytes | None, deadline: float, again: bool) -> Answer:
        """The answer to the attempt that succeeds. Raises what ended the last one."""
        backoff, left, renewed = self._backoff(), self._retries if again else 0, False
        while True:
            if self._closed:
                raise ClientClosed("the publisher was closed")
            failure: ClientError
            try:
                token, headers = self._tokens.headers()
                if body is not None:
                    headers["Content-Type"] = "application/json"
                answer = self._pool.exchange(method, path, self._headers | headers, body, deadline)
                if answer.status < 300:
                    return answer
                failure = _refused(answer, self.url)
            except ConnectionLost as error:
                failure = error
            if isinstance(failure, AuthenticationFailed) and not renewed and self._tokens.drop(token):
                renewed = True
                continue
            if left == 0 or not _is_passing(failure):
                raise failure
            wait = backoff.next_delay((isinstance(failure, RequestError) and failure.retry_after) or 0.0)
            if wait >= deadline - time.monotonic():
                raise failure
            time.sleep(wait)
            left -= 1


class _Tokens:
    """What the requests carry, for all threads."""

    def __init__(self, token: str | None, provider: Callable[[], str] | None, api_key: str | None) -> None:
        self._token = token
        self._provider = provider
        self._api_key = api_key
        self._lock = threading.Lock()
        _all_tokens.add(self)

    def headers(self) -> tuple[str | None, dict[str, str]]:
        """The token in use and the headers that carry what there is. Raises AuthenticationFailed and ConnectionLost."""
        if self._api_key is not None:
            return None, {"X-API-Key": self._api_key}
        token = self._token
        if token is None and self._provider is not None:
            with self._lock:
                if self._token is None:
                    self._token = self._new(self._provider)
                token = self._token
        return token, {} if token is None else {"Authorization": f"Bearer {token}"}

    def drop(self, token: str | None) -> bool:
        """The server refused ``token``. Returns whether another one can be had."""
        if self._provider is None:
            return False
        with self._lock:
            if self._token == token:
                self._token = None
        return True

    @staticmethod
    def _new(provider: Callable[[], str]) -> str:
        try:
            return provider()
        except ClientError:
            raise
        except Exception as error:
            raise ConnectionLost(f"the token provider failed: {error!r}") from error


def _body(fields: dict[str, Any], idempotency_key: str | None) -> bytes:
    return msgspec.json.encode(fields | {"idempotency_key": idempotency_key or uuid.uuid4().hex})


def _parts(entries: Sequence[Publication | Sending]) -> Iterator[list[tuple[type[Position | Delivery], bytes]]]:
    """The entries as JSON, each with the shape of its outcome, in portions for one request."""
    part: list[tuple[type[Position | Delivery], bytes]] = []
    size = 0
    for entry in entries:
        shape: type[Position | Delivery]
        if isinstance(entry, Publication):
            shape, kind, fields = Position, b"publish", {"topic": entry.topic, "payload": entry.payload}
        else:
            shape, kind, fields = Delivery, b"send", {"to": entry.to, "payload": entry.payload}
        text = b'{"%b":%b}' % (kind, _body(fields, entry.idempotency_key))
        if part and (len(part) == MAX_ENTRIES or size + len(text) > MAX_BATCH_BYTES):
            yield part
            part, size = [], 0
        part.append((shape, text))
        size += len(text)
    if part:
        yield part


def _outcome(row: msgspec.Raw, shape: type[Position | Delivery]) -> Position | Delivery | RequestError:
    try:
        return msgspec.json.decode(row, type=shape)
    except msgspec.ValidationError:
        pass
    try:
        return _error_of(msgspec.json.decode(row, type=_Refusal).error, None)
    except msgspec.ValidationError as error:
        raise ProtocolViolation(f"an entry was answered with neither a result nor an error: {error}") from error


def _refused(answer: Answer, url: str) -> ClientError:
    try:
        problem = msgspec.json.decode(answer.body, type=_Refusal).error
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        if answer.status == _DENIED:
            return AuthenticationFailed(f"{url} refused the credentials (401)")
        if answer.status not in _PASSING:
            return ProtocolViolation(f"{url} answered with status {answer.status} and no JSON of this API")
        problem = _Problem("unavailable", f"{url} answered with status {answer.status}")
    if answer.status == _DENIED:
        return AuthenticationFailed(f"the server refused the credentials: {problem.message}", code=problem.code)
    if problem.retry_after_ms is None:
        problem.retry_after_ms = _retry_after_ms(answer.headers)
    return _error_of(problem, answer.status)


def _error_of(problem: _Problem, status: int | None) -> RequestError:
    return RequestError(
        problem.code,
        problem.message,
        retry_after_ms=problem.retry_after_ms,
        scope=problem.scope,
        field=problem.field,
        status=status,
    )


def _retry_after_ms(headers: Mapping[str, str]) -> int | None:
    text = headers.get("retry-after", "")  # RFC 9110 section 10.2.3: a date otherwise, which this server never sends
    return int(text) * 1000 if text.isascii() and text.isdigit() and len(text) < 10 else None


def _is_passing(failure: ClientError) -> bool:
    if isinstance(failure, RequestError):
        return failure.status in _PASSING
    return isinstance(failure, ConnectionLost) and not isinstance(failure.__cause__, ssl.SSLCertVerificationError)


_all_tokens: weakref.WeakSet[_Tokens] = weakref.WeakSet()


def _after_fork() -> None:
    for tokens in list(_all_tokens):
        tokens._lock = threading.Lock()  # a thread of the parent may have held it


os.register_at_fork(after_in_child=_after_fork)
