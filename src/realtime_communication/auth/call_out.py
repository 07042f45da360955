"""A question to a service of the operator, over HTTP: whether a user may do something. See `docs/authorization.md`.

The service is trusted with its answer and with nothing else: no redirect is followed, no cookie kept, and no more of an
answer read than MAX_ANSWER_BYTES. Its URL comes from the configuration alone, and may hold credentials for nobody else.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import aiohttp
import msgspec

from realtime_communication.resilience.webhooks import signature

MAX_ANSWER_BYTES: Final = 4096
CONNECTIONS: Final = 100  # at the same time, and kept for the next questions

_READ_BUFFER: Final = 1 << 12


class UnusableAnswer(Exception):
    """The service answered, and not with what it may answer. The text is for the log."""


class Answer(msgspec.Struct):
    """The body of an answer; what else is in it is ignored."""

    allowed: bool


_answer: Final = msgspec.json.Decoder(Answer)


class CallOut:
    """Asks at one URL. `secret` is the key of the signature. `close` ends its connections."""

    def __init__(self, url: str, secret: bytes, node_id: str, *, now: Callable[[], float] = time.time) -> None:
        self._url = url
        self._secret = secret
        self._node_id = node_id
        self._now = now
        self._session: aiohttp.ClientSession | None = None

    async def ask(self, action: str, user: str, topic: str) -> bool:
        """Whether the user may. Raises UnusableAnswer, aiohttp.ClientError, OSError."""
        question = {"action": action, "user_id": user, "topic": topic, "node_id": self._node_id}
        body = msgspec.json.encode(question)
        timestamp = str(int(self._now()))
        headers = {
            "Content-Type": "application/json",
            "X-RTC-Timestamp": timestamp,
            "X-RTC-Signature": signature(self._secret, timestamp, body),
        }
        session = self._opened()
        async with session.post(self._url, data=body, headers=headers, allow_redirects=False) as answer:
            if answer.status == 403:
                return False
            if answer.status != 200:
                raise UnusableAnswer(f"HTTP {answer.status}")
            return _read(await _bounded(answer.content))

    async def close(self) -> None:
        """End what is under way."""
        if self._session is not None:
            await self._session.close()

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=CONNECTIONS),
                timeout=aiohttp.ClientTimeout(total=None),  # who asks knows how long to wait
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": "realtime_communication", "Accept-Encoding": "identity"},
                auto_decompress=False,
                read_bufsize=_READ_BUFFER,
            )
        return self._session


async def _bounded(content: aiohttp.StreamReader) -> bytes:
    found = bytearray()
    while chunk := await content.read(MAX_ANSWER_BYTES + 1 - len(found)):
        found += chunk
        if len(found) > MAX_ANSWER_BYTES:
            raise UnusableAnswer(f"more than {MAX_ANSWER_BYTES} bytes")
    return bytes(found)


def _read(body: bytes) -> bool:
    try:
        return _answer.decode(body).allowed
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise UnusableAnswer('no JSON object with "allowed": true or false') from None
