"""Where each HTTP/1.1 request of a connection begins and ends, strictly (RFC 9112).

aiohttp parses requests; this guard reads the same bytes before it and lets nothing through on which two parsers could
disagree. Whatever is ambiguous ends the connection instead of being repaired, so a proxy in front and the parser
behind always see the same requests.

Rules: sans-I/O, no clock. `feed` takes the bytes as they come, in pieces of any size, and says how many of them may be
passed on. After a violation nothing more may.

States: HEAD → (LENGTH | CHUNK_SIZE → CHUNK_DATA → CHUNK_END → …) → HEAD, and OVER, in which bytes are thrown away:
behind a violation, and behind a request to upgrade, which is the last one a connection may send. LEAVING: behind other
requests one for a WebSocket has come. It is not passed on: `rest` keeps it, and what follows, for whom the connection
goes to.
"""

from __future__ import annotations

import enum
import re
from typing import Final, NamedTuple

MAX_HEAD_BYTES: Final = 16_384
MAX_HEADERS: Final = 100
MAX_CONTENT_LENGTH_DIGITS: Final = 15
MAX_CHUNK_LINE_BYTES: Final = 10  # eight digits and the line's end
MAX_EARLY_BYTES: Final = 65_536  # behind a request for a WebSocket, before that is answered

_REQUEST_LINE: Final = re.compile(
    rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32} (?:(?:/|https?://)[\x21-\x7e]*|\*) HTTP/1\.([01])"
)
_HEADER: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([\x20-\x7e\t]*)")
_HOST: Final = re.compile(rb"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
_BARE_LINE_FEED: Final = re.compile(rb"(?<!\r)\n")
_DIGITS: Final = re.compile(rb"[0-9]+")
_CHUNK_SIZE: Final = re.compile(rb"[0-9A-Fa-f]{1,8}")
_WEBSOCKET: Final = re.compile(rb"GET (?:https?://[^/? ]*)?/(?:ws|debug/echo)(?:\?\S*)? HTTP/1\.1")


class State(enum.Enum):
    """What the next byte belongs to."""

    HEAD = enum.auto()
    LENGTH = enum.auto()
    CHUNK_SIZE = enum.auto()
    CHUNK_DATA = enum.auto()
    CHUNK_END = enum.auto()
    LEAVING = enum.auto()
    OVER = enum.auto()


_BETWEEN: Final = (State.HEAD, State.LEAVING)  # no request has begun and is not complete


class Violation(NamedTuple):
    """Why a connection ends: the HTTP status, the error code of the protocol and a text for people."""

    status: int
    code: str
    message: str
    in_body: bool  # the request before it has begun and will not be completed


class RequestGuard:
    """Follows the requests of one connection.

    `max_body` bounds every body in bytes, `max_waiting` how many requests may have arrived without an answer.
    """

    __slots__ = (
        "_head", "_last", "_left", "_max_body", "_max_waiting", "_total", "requests", "rest", "state", "violation"
    )  # fmt: skip

    def __init__(self, max_body: int, max_waiting: int) -> None:
        self._max_body = max_body
        self._max_waiting = max_waiting
        self._head = bytearray()  # what has come of the head, or of a chunk's line; at most their bound
        self._last = False  # this request is the last of the connection
        self._left = 0  # bytes still to come of the body or the chunk
        self._total = 0  # bytes of a chunked body so far
        self.state = State.HEAD
        self.requests = 0  # whole heads passed on
        self.rest = bytearray()  # a head that asks for a WebSocket, and what came behind it
        self.violation: Violation | None = None

    def feed(self, data: bytes, answered: int) -> bytes:
        """The part of `data` that may be passed on; `answered` is how many requests have been answered so far.

        Heads are passed on only once they are complete and found good. Afterwards `violation` says whether the
        connection has to end.
        """
        passed = bytearray()
        at = 0
        while at < len(data) and self.state is not State.OVER:
            if self.state is State.HEAD:
                at = self._feed_head(data, at, answered, passed)
            elif self.state is State.LEAVING:
                at = self._keep(data, at)
            elif self.state in (State.LENGTH, State.CHUNK_DATA):
                at = self._feed_body(data, at, passed)
            else:
                at = self._feed_line(data, at, passed)
        return bytes(passed)

    def _refuse(self, status: int, code: str, message: str) -> State:
        """End the connection. Returns the state it is in then, so that a check can end with it."""
        self.violation = Violation(status, code, message, in_body=self.state not in _BETWEEN)
        self.state = State.OVER
        return State.OVER

    def _feed_head(self, data: bytes, at: int, answered: int, passed: bytearray) -> int:
        head = self._head
        searched = max(0, len(head) - 3)
        taken = min(len(data), at + MAX_HEAD_BYTES + 1 - len(head))
        head += data[at:taken]
        end = head.find(b"\r\n\r\n", searched)
        if end < 0:
            if len(head) > MAX_HEAD_BYTES:
                self._refuse(431, "too_large", f"the request head is larger than {MAX_HEAD_BYTES} bytes")
            elif _BARE_LINE_FEED.search(head, searched):
                self._refuse(400, "bad_request", "lines must end with CR LF")
            return taken
        at = taken - (len(head) - (end + 4))
        del head[end + 4 :]
        if self.requests - answered >= self._max_waiting:
            self._refuse(429, "rate_limited", f"more than {self._max_waiting} requests are waiting for their answer")
            return at
        # RFC 9112 section 2.2: one empty line before a request is ignored; some clients end a body with one.
        blank = 2 if head.startswith(b"\r\n") else 0
        self.state = self._check_head(bytes(head[blank:-4]))
        if self.state is State.LEAVING:
            self.rest += head[blank:]
        elif self.violation is None:
            self.requests += 1
            passed += head
        head.clear()
        return at

    def _keep(self, data: bytes, at: int) -> int:
        """What follows a request for a WebSocket, which no client sends before it has the answer (RFC 6455, 4.1)."""
        self.rest += data[at:]
        if len(self.rest) > MAX_HEAD_BYTES + MAX_EARLY_BYTES:
            self.rest.clear()
            self._refuse(413, "too_large", f"more than {MAX_EARLY_BYTES} bytes before the WebSocket was open")
        return len(data)

    def _check_head(self, head: bytes) -> State:
        """The state behind a head; behind a bad one OVER, with the violation set."""
        request_line, *lines = head.split(b"\r\n")
        request = _REQUEST_LINE.fullmatch(request_line)
        if request is None:
            return self._refuse(400, "bad_request", "the request line is malformed")
        if len(lines) > MAX_HEADERS:
            return self._refuse(431, "too_large", f"the request has more than {MAX_HEADERS} headers")
        single: dict[bytes, bytes] = {}
        for line in lines:
            header = _HEADER.fullmatch(line)
            if header is None:
                return self._refuse(400, "bad_request", "a header line is malformed")
            name = header[1].lower()
            if name in (b"host", b"content-length", b"transfer-encoding", b"upgrade"):
                if name in single:
                    return self._refuse(400, "bad_request", f"the header {name.decode()} is there twice")
                single[name] = header[2].strip(b" \t")
        if self.requests and b"upgrade" in single and _WEBSOCKET.fullmatch(request_line):
            return State.LEAVING
        return self._check_meaning(http_1_0=request[1] == b"0", single=single)

    def _check_meaning(self, *, http_1_0: bool, single: dict[bytes, bytes]) -> State:
        host = single.get(b"host")
        if (host is None and not http_1_0) or (host is not None and not _HOST.fullmatch(host)):
            return self._refuse(400, "bad_request", "the header host is missing or malformed")
        self._last = b"upgrade" in single
        length, coding = single.get(b"content-length"), single.get(b"transfer-encoding")
        if coding is not None:
            if length is not None or http_1_0 or coding.lower() != b"chunked":
                return self._refuse(400, "bad_request", "transfer-encoding may only be `chunked`, and stands alone")
            self._total = 0
            return State.CHUNK_SIZE
        if length is not None:
            if not _DIGITS.fullmatch(length) or len(length) > MAX_CONTENT_LENGTH_DIGITS:
                return self._refuse(400, "bad_request", "content-length is no number")
            self._left = int(length)
            if self._left > self._max_body:
                return self._refuse(413, "too_large", f"the body is larger than {self._max_body} bytes")
            if self._left:
                return State.LENGTH
        return self._behind_request()

    def _behind_request(self) -> State:
        return State.OVER if self._last else State.HEAD

    def _feed_body(self, data: bytes, at: int, passed: bytearray) -> int:
        end = min(len(data), at + self._left)
        passed += data[at:end]
        self._left -= end - at
        if self._left == 0:
            self.state = self._behind_request() if self.state is State.LENGTH else State.CHUNK_END
        return end

    def _feed_line(self, data: bytes, at: int, passed: bytearray) -> int:
        """A chunk's size, or the end of its data. Extensions and trailers are refused (RFC 9112 section 7.1)."""
        line = self._head
        end = data.find(b"\n", at, at + MAX_CHUNK_LINE_BYTES)
        taken = len(data) if end < 0 else end + 1
        line += data[at:taken]
        if end < 0:
            if len(line) > MAX_CHUNK_LINE_BYTES:
                self._refuse(400, "bad_request", "a chunk's line is malformed")
            return taken
        if self.state is State.CHUNK_END:
            if line != b"\r\n":
                self._refuse(400, "bad_request", "a chunk is longer than its size, or a trailer follows")
            else:
                self.state = State.CHUNK_SIZE if self._total >= 0 else self._behind_request()
        elif not line.endswith(b"\r\n") or not _CHUNK_SIZE.fullmatch(line[:-2]):
            self._refuse(400, "bad_request", "a chunk's size is malformed, or carries an extension")
        else:
            self._begin_chunk(int(line[:-2], 16))
        if self.violation is None:
            passed += line
        line.clear()
        return taken

    def _begin_chunk(self, size: int) -> None:
        if size == 0:
            self._total = -1  # the last one: only the empty line may follow
            self.state = State.CHUNK_END
            return
        self._total += size
        if self._total > self._max_body:
            self._refuse(413, "too_large", f"the body is larger than {self._max_body} bytes")
            return
        self._left = size
        self.state = State.CHUNK_DATA
