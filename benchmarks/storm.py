"""Thousands of clients that lose their connection at one moment and all come back at once, with what they missed.

The clients are the load generator's (`--mode=reconnect`), as in `restarts.py`: each has a token and a subscription of
its own, some publish, and the generator proves that every subscriber got every acknowledged message once and in order.
"""

import signal
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from statistics import median

import msgspec

from . import probes
from .candidates import Candidate
from .deployments import peak_rss_bytes, sized
from .driver import Driver, Row
from .generator import Comeback, GeneratorError, Report
from .probes import Answers, probing
from .restarts import (
    AFTER_SECS,
    BACK_WITHIN_SECS,
    BEFORE_SECS,
    MIB,
    alone,
    clients_of,
    end,
    tell_problems,
    violations_of,
    with_redis,
)
from .servers import free_port, run_time_ns, running

PROBE_SECS = 0.05
SPARE = 50
"""Connections that the server has room for beside the clients."""


class Storm(msgspec.Struct, frozen=True):
    """One of them. Times in seconds since the connections were cut or the server was killed, memory in bytes."""

    clients: int
    half_back: float
    back: float
    """When the last one was subscribed, with what it had missed."""
    rate: float
    """Connections a second, from the first that was signed on again to the last."""
    cpu: float
    """Seconds of the server until all were back."""
    comeback: Comeback
    violations: int
    usual_rss: int
    peak_rss: int
    health: Answers
    """Until all were back, a connection for each; a server that is killed answers nothing until it is there again."""


def storm(driver: Driver, candidate: Candidate, core: int, clients: int, how: signal.Signals | None) -> Storm:
    """All connections are reset by the clients, or the server ends by a signal and starts again on its port.

    Raises GeneratorError, StartError.
    """
    candidate, port = sized(candidate, connections=clients + SPARE), free_port()
    with ExitStack() as stack:
        server = stack.enter_context(running(candidate, core, port))
        held = stack.enter_context(clients_of(driver, port, clients))
        time.sleep(BEFORE_SECS)
        usual_rss = server.rss_bytes()
        health = stack.enter_context(probing(port, "/health", PROBE_SECS, fresh=True))
        used = sum(map(run_time_ns, server.pids()))
        cut_ns = time.monotonic_ns()
        if how is None:
            held.cut()
        else:
            end(server, how)
            used = 0
            server = stack.enter_context(running(candidate, core, port))
        held.wait_for("back", BACK_WITHIN_SECS)
        used = sum(map(run_time_ns, server.pids())) - used
        answers = health.answers("`/health`, a connection each")
        time.sleep(AFTER_SECS)
        report = held.end()
        peak_rss = sum(map(peak_rss_bytes, server.pids()))
    return storm_of(report, clients, cut_ns, used / 1e9, (usual_rss, peak_rss), answers)


def storm_of(report: Report, clients: int, cut_ns: int, cpu: float, rss: tuple[int, int], health: Answers) -> Storm:
    """Raises GeneratorError when no connection was lost."""
    comeback = report.comeback
    tell_problems(report)
    if comeback is None or not comeback.lost:
        raise GeneratorError(f"no connection was lost: {report.problems}")
    coming = (comeback.connected.last_ns - comeback.connected.first_ns) / 1e9
    return Storm(
        clients=clients,
        half_back=(comeback.subscribed.half_ns - cut_ns) / 1e9,
        back=(comeback.subscribed.last_ns - cut_ns) / 1e9,
        rate=(clients - comeback.never_back) / coming if coming > 0 else 0.0,
        cpu=cpu,
        comeback=comeback,
        violations=violations_of(report),
        usual_rss=rss[0],
        peak_rss=rss[1],
        health=health,
    )


KINDS: Sequence[tuple[str, signal.Signals | None]] = (("cut", None), ("killed", signal.SIGKILL))


def storms(driver: Driver, cores: tuple[int, int], kind: str, rounds: int, clients: int) -> list[Storm]:
    """Some of one kind: `cut` with nothing beside the server, `killed` with its cache in Redis.

    Raises GeneratorError, StartError, Unavailable.
    """
    how = dict(KINDS)[kind]
    deployment = alone if how is None else with_redis
    found = []
    for _ in range(rounds):
        driver.new_tokens()
        with deployment(cores[1]) as candidate:
            found.append(storm(driver, candidate, cores[0], clients, how))
    return found


def broken(title: str, found: Sequence[Storm]) -> list[str]:
    """What of it was not as promised."""
    words = []
    for each in found:
        comeback = each.comeback
        if each.violations or comeback.unseen:
            words.append(f"{title}: {each.violations} violations, {comeback.unseen} messages unseen")
        if comeback.never_back or comeback.recovered != comeback.lost or comeback.reset:
            words.append(
                f"{title}: of {comeback.lost:,} that were lost {comeback.recovered:,} recovered, "
                f"{comeback.reset:,} were told of a gap, {comeback.never_back:,} never came back"
            )
    return words


def rows_of(title: str, found: Sequence[Storm]) -> list[Row]:
    """One figure each, over the rounds."""

    def values(of: Callable[[Storm], float]) -> list[float]:
        return [float(of(each)) for each in found]

    why = next((each.comeback.why for each in found if each.comeback.why), "")
    return [
        Row(f"{title}: half are back, subscribed and recovered, s", values(lambda each: each.half_back)),
        Row("… all are back, s", values(lambda each: each.back)),
        Row("… connections/s, first to last", values(lambda each: each.rate), 0),
        Row("… CPU of the server until then, s", values(lambda each: each.cpu)),
        Row("… attempts that were refused", values(lambda each: each.comeback.refused), 0),
        Row(
            "… attempts that were turned away" + (f" ({why})" if why else ""),
            values(lambda each: each.comeback.turned_away),
            0,
        ),
        Row("… recovered without a gap", values(lambda each: each.comeback.recovered), 0),
        Row("… told of a gap", values(lambda each: each.comeback.reset), 0),
        Row("… never back", values(lambda each: each.comeback.never_back), 0),
        Row("… violations of order, once or completeness", values(lambda each: each.violations), 0),
        Row("… RSS before, MiB", values(lambda each: each.usual_rss / MIB), 1),
        Row("… RSS peak, MiB", values(lambda each: each.peak_rss / MIB), 1),
    ]


def answers_of(title: str, found: Sequence[Storm]) -> str:
    """The round whose slowest answer is the median, as a table."""
    slowest = [each.health.max_ms for each in found]
    typical = min(found, key=lambda each: abs(each.health.max_ms - median(slowest))).health
    return probes.table([msgspec.structs.replace(typical, what=f"{title}: {typical.what}")])
