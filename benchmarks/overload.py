"""Three times what a server takes: whether it answers, and is soon well again; and thousands who come back at once.

The load is the compiled generator's; beside it `/health` and `/admin/stats` are asked over a connection of their own.
"""

import hashlib
import http.client
import secrets
import signal
import statistics
import threading
import time
from collections.abc import Sequence

import msgspec

from . import restarts
from .candidates import Candidate
from .driver import Driver, Row
from .generator import Report
from .restarts import Outcome, alone
from .servers import Running

SUBSCRIBERS = 200
IN_FLIGHT = 16
ASK_SECS = 0.1
CALM_MS = 20.0
"""An answer as quick as that, several times in a row, says that the server is well again."""
CALM_ANSWERS = 5
LONGEST_RECOVERY_SECS = 60.0
MULTIPLE = 3.0
PATHS = ("/health", "/admin/stats")
ADMIN_KEY = f"rtc_{secrets.token_hex(24)}"
ADMIN = {"X-API-Key": ADMIN_KEY}
ADMINISTERED = f"""
[[auth.providers]]
type = "jwt"

[[auth.providers]]
type = "api_key"
priority = 2
keys = [{{ key = "sha256:{hashlib.sha256(ADMIN_KEY.encode()).hexdigest()}", user = "benchmark", roles = ["admin"] }}]
"""
"""More of the configuration: an administrator's key."""


class Asked(msgspec.Struct, frozen=True):
    """One answer: when it came (monotonic seconds), its status (0: none came), and how long it took."""

    at: float
    status: int
    ms: float


class Asking(threading.Thread):
    """Asks for the paths in turn until `over`."""

    def __init__(self, port: int, headers: dict[str, str]) -> None:
        super().__init__(daemon=True)
        self.over = threading.Event()
        self.asked: list[Asked] = []
        self._port = port
        self._headers = headers

    def run(self) -> None:
        turn = 0
        while not self.over.wait(ASK_SECS):
            self.asked.append(ask(self._port, PATHS[turn % len(PATHS)], self._headers))
            turn += 1


def ask(port: int, path: str, headers: dict[str, str]) -> Asked:
    began = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        answer.read()
        status = answer.status
    except OSError:
        status = 0
    finally:
        connection.close()
    now = time.monotonic()
    return Asked(now, status, (now - began) * 1000)


class Overload(msgspec.Struct, frozen=True):
    """What happened under `offered` publications a second, where `capacity` were taken before."""

    capacity: float
    offered: float
    taken: float
    answers: int
    failed: int
    """Answers that were not 200."""
    p50_ms: float
    worst_ms: float
    recovered_secs: float
    """From the end of the load until answers were quick again."""
    rss_growth: int


def overload(driver: Driver, server: Running, headers: dict[str, str]) -> Overload:
    """One run; the generator's own connections are gone afterwards."""
    full = driver.run("fanout", server.port, server.pids(), connections=SUBSCRIBERS, in_flight=IN_FLIGHT)
    capacity = full.publications / full.seconds
    server.settle()
    before = server.rss_bytes()
    asking = Asking(server.port, headers)
    asking.start()
    try:
        report = flooded(driver, server, capacity * MULTIPLE)
        ended = time.monotonic()
        during = [each for each in asking.asked if each.at <= ended]
        recovered = until_calm(asking, ended)
    finally:
        asking.over.set()
        asking.join()
    took = [each.ms for each in during]
    return Overload(
        capacity=capacity,
        offered=capacity * MULTIPLE,
        taken=report.publications / report.seconds if report.seconds else 0.0,
        answers=len(during),
        failed=sum(each.status != 200 for each in asking.asked),
        p50_ms=statistics.median(took) if took else 0.0,
        worst_ms=max(took, default=0.0),
        recovered_secs=recovered,
        rss_growth=server.rss_bytes() - before,
    )


def flooded(driver: Driver, server: Running, rate: float) -> Report:
    """Publications at that rate, whether or not they are taken. Raises Unsound when any is lost or out of order."""
    return driver.run("latency", server.port, server.pids(), connections=SUBSCRIBERS, rate=rate)


def until_calm(asking: Asking, ended: float) -> float:
    """Seconds from `ended` to the first of CALM_ANSWERS quick answers in a row."""
    deadline = ended + LONGEST_RECOVERY_SECS
    while time.monotonic() < deadline:
        after = [each for each in asking.asked if each.at > ended]
        for first in range(len(after) - CALM_ANSWERS + 1):
            row = after[first : first + CALM_ANSWERS]
            if all(each.status == 200 and each.ms < CALM_MS for each in row):
                return max(0.0, row[0].at - ended)
        time.sleep(ASK_SECS)
    return LONGEST_RECOVERY_SECS


def overload_rows(found: Sequence[Overload]) -> list[Row]:
    def values(name: str) -> list[float]:
        return [float(getattr(each, name)) for each in found]

    return [
        Row(f"{MULTIPLE:.0f} × capacity: publications a second that were taken before", values("capacity"), 0),
        Row("… that were offered", values("offered"), 0),
        Row("… that were taken of them", values("taken"), 0),
        Row("… answers of /health and /admin/stats meanwhile", values("answers"), 0),
        Row("… of them not 200", values("failed"), 0),
        Row("… their median, ms", values("p50_ms")),
        Row("… the slowest, ms", values("worst_ms")),
        Row("… quick again after the load, s", values("recovered_secs")),
        Row("… growth of resident memory, MiB", [each / restarts.MIB for each in values("rss_growth")], 1),
    ]


def storm(driver: Driver, core: int, clients: int) -> Outcome:
    """The server is killed under so many clients, and all come back to the new one at once."""
    with alone(core) as candidate:
        return restarts.restart(driver, with_room(candidate, clients), core, clients, signal.SIGKILL)


def with_room(candidate: Candidate, clients: int) -> Candidate:
    """The same server, for more connections."""
    text = candidate.configuration.replace("max_connections = 15000", f"max_connections = {clients + 100}")
    return msgspec.structs.replace(candidate, configuration=text)
