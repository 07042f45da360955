"""Requests at regular intervals beside a load, and how long their answers took."""

import http.client
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import msgspec

PATIENCE_SECS = 30.0
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Protocol": "rtc.v1.json",
}
"""Of a client that wants a connection; without a token it would be refused for that."""


class Answers(msgspec.Struct, frozen=True):
    """Of one prober. Milliseconds."""

    what: str
    statuses: dict[int, int]
    failures: int
    """Without an answer within PATIENCE_SECS, or without any."""
    p50_ms: float
    p99_ms: float
    max_ms: float


class Prober(threading.Thread):
    """Asks for `path` on a port every `interval` seconds until `stop`; `times` are the answers' in milliseconds.

    A `fresh` one makes a connection for each request, as a load balancer or a client that comes does; the time has that
    in it.
    """

    def __init__(
        self, port: int, path: str, interval: float, *, headers: Mapping[str, str] | None = None, fresh: bool = False
    ) -> None:
        super().__init__(daemon=True)
        self.times: list[float] = []
        self.statuses: Counter[int] = Counter()
        self.unanswered = 0
        self._port, self._path, self._interval = port, path, interval
        self._headers, self._fresh = dict(headers or {}), fresh
        self._over = threading.Event()

    @property
    def failures(self) -> int:
        """What was not answered with 200."""
        return self.unanswered + sum(self.statuses.values()) - self.statuses[200]

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_SECS)
        while not self._over.wait(self._interval):
            started = time.perf_counter()
            try:
                connection.request("GET", self._path, headers=self._headers)
                answer = connection.getresponse()
                if answer.status != 101:
                    answer.read()
            except (OSError, http.client.HTTPException):
                self.unanswered += 1
                connection.close()
                continue
            self.times.append((time.perf_counter() - started) * 1000)
            self.statuses[answer.status] += 1
            if self._fresh or answer.status == 101:
                connection.close()
        connection.close()

    def stop(self) -> None:
        self._over.set()
        self.join()

    def answers(self, what: str) -> Answers:
        """Of all that was asked so far."""
        ordered = sorted(self.times)
        return Answers(
            what,
            dict(self.statuses),
            self.unanswered,
            quantile(ordered, 0.5),
            quantile(ordered, 0.99),
            ordered[-1] if ordered else 0.0,
        )


@contextmanager
def probing(
    port: int, path: str, interval: float, *, headers: Mapping[str, str] | None = None, fresh: bool = False
) -> Iterator[Prober]:
    prober = Prober(port, path, interval, headers=headers, fresh=fresh)
    prober.start()
    try:
        yield prober
    finally:
        prober.stop()


def quantile(ordered: Sequence[float], share: float) -> float:
    """0 of nothing."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def table(found: Sequence[Answers]) -> str:
    """For people."""
    lines = ["| request | answers | without one | p50 ms | p99 ms | max ms |", "| --- | --- | --- | --- | --- | --- |"]
    for each in found:
        statuses = ", ".join(f"{count:,} × {status}" for status, count in sorted(each.statuses.items())) or "none"
        lines.append(
            f"| {each.what} | {statuses} | {each.failures} "
            f"| {each.p50_ms:,.1f} | {each.p99_ms:,.1f} | {each.max_ms:,.1f} |"
        )
    return "\n".join(lines)
