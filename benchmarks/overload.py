"""A server that is offered a multiple of what it can do, open loop, and how it was before, meanwhile and afterwards.

The clients are the load generator's (`--mode=overload`), which keeps the account: every subscriber gets every message
once and in order, or `Lagged` says how many are missing. `overload_figures.py` prints what came out.
"""

import contextlib
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Literal

import msgspec

from .candidates import SECRET, Candidate
from .deployments import peak_rss_bytes, product, sized
from .driver import Driver
from .generator import GeneratorError, Moment, Report, Shedding, token
from .probes import UPGRADE, Answers, Prober, probing
from .servers import Running, free_port, running

Policy = Literal["limits", "backpressure", "drop_oldest", "drop_newest", "block"]
POLICIES: tuple[Policy, ...] = ("limits", "backpressure", "drop_oldest", "drop_newest", "block")

IN_FLIGHT = 64
CAPACITY_ROUNDS = 3
MAILBOX = 1000
"""As it is unless configured."""
LIMITED_TO = 0.9
"""Of the capacity, by the global limit of policy `limits`."""
USUAL = 0.3
"""Of the capacity: what is published before and afterwards."""
PROBE_SECS = 0.1
MOMENT_MS = 250
RETRY_MS = 500
SOON_BACK = 4
"""So many moments in a row must be as they were before."""
TOPIC = "overload"
MARGIN = 1.25
"""Above the slowest moment of before, a moment still counts as one of those."""


class Plan(msgspec.Struct, frozen=True):
    """How much is done."""

    subscribers: int = 1000
    slow: int = 50
    """More of them, who read nothing meanwhile."""
    publishers: int = 50
    multiple: float = 3.0
    before: float = 10.0
    seconds: float = 60.0
    after: float = 30.0
    payload: int = 100

    @property
    def clients(self) -> int:
        return self.subscribers + self.slow + self.publishers


class Capacity(msgspec.Struct, frozen=True):
    """What the server does when nobody asks for more than it can: the median of some runs."""

    publications: float
    """A second."""
    deliveries: float


class Outcome(msgspec.Struct, frozen=True):
    """Of one policy."""

    policy: Policy
    capacity: Capacity
    offered: float
    """Publications a second that were due, as a multiple of the capacity."""
    goodput: float
    """Deliveries a second, as a multiple of the capacity."""
    before: Moment
    """The median moment of before; its `at` means nothing."""
    meanwhile: Moment
    p50_back_secs: float | None
    """After the load was back to what it was; None: not until the end."""
    p99_back_secs: float | None
    usual_rss: int
    peak_rss: int
    cpu: float
    """Of the server, in cores."""
    answers: list[Answers]
    shedding: Shedding
    violations: int
    problems: str
    moments: list[Moment]


def server_of(policy: Policy, plan: Plan, capacity: Capacity, metrics_port: int) -> Candidate:
    """This build, as it is configured for production but for the limits, which policy `limits` has."""
    tables: dict[str, dict[str, object]] = {
        "message_routing": {},  # its cache as it comes
        "monitoring.prometheus": {"enabled": True, "port": metrics_port},
    }
    made = sized(product(**tables), connections=plan.clients, mailbox=MAILBOX)
    text = made.configuration
    if policy == "limits":
        rate = max(1.0, LIMITED_TO * capacity.publications)
        text = text.replace("[rate_limiting]\nenabled = false\n", "[rate_limiting]\nenabled = true\n")
        text += f"[rate_limiting.global]\nrequests_per_second = {rate:.1f}\nburst_size = {max(1, round(rate / 10))}\n"
    else:
        text = text.replace("[actor_system]\n", f'[actor_system]\noverflow_strategy = "{policy}"\n')
    return msgspec.structs.replace(made, configuration=text)


def capacity_of(driver: Driver, core: int, plan: Plan, rounds: int = CAPACITY_ROUNDS) -> Capacity:
    """Of one server, with as many in flight as make it busy all the time. Raises Unsound, GeneratorError."""
    with running(sized(product(), connections=plan.clients), core) as server:
        runs = [
            driver.run(
                "fanout", server.port, server.pids(), connections=plan.subscribers, in_flight=IN_FLIGHT,
                payload=plan.payload,
            )
            for _ in range(rounds)
        ]  # fmt: skip
    return Capacity(median(run.publications / run.seconds for run in runs), median(run.rate for run in runs))


def overload(driver: Driver, core: int, policy: Policy, plan: Plan, capacity: Capacity) -> Outcome:
    """One run of one policy. Raises GeneratorError when it was not to its end."""
    metrics_port = free_port()
    usual_rss = 0
    moments: list[Moment] = []
    with running(server_of(policy, plan, capacity, metrics_port), core) as server:
        with driver.started(*arguments(plan, capacity, server)) as held, contextlib.ExitStack() as stack:
            probers: list[tuple[str, Prober]] = []
            for moment in held.moments():
                if not probers:
                    probers = [(name, stack.enter_context(each)) for name, each in probes(server.port, metrics_port)]
                if not moment.measuring and not any(each.measuring for each in moments):
                    usual_rss = server.rss_bytes()
                moments.append(moment)
            report = held.end()
            answers = [prober.answers(name) for name, prober in probers]
        peak_rss = sum(map(peak_rss_bytes, server.pids()))
    return outcome_of(policy, plan, capacity, report, moments, (usual_rss, peak_rss), answers)


def probes(port: int, metrics_port: int) -> Iterator[tuple[str, contextlib.AbstractContextManager[Prober]]]:
    """What is asked of the server meanwhile."""
    admin = {"Authorization": f"Bearer {token('operator', SECRET, roles=('admin',))}"}
    newcomer = {**UPGRADE, "Authorization": f"Bearer {token('newcomer', SECRET)}"}
    yield "`/health`", probing(port, "/health", PROBE_SECS)
    yield "`/health`, a connection each", probing(port, "/health", PROBE_SECS, fresh=True)
    yield "`/metrics`", probing(metrics_port, "/metrics", 10 * PROBE_SECS, fresh=True)
    yield "`/admin/stats`", probing(port, "/admin/stats", PROBE_SECS, headers=admin)
    yield "a client more than there is room for", probing(port, "/ws", PROBE_SECS, headers=newcomer, fresh=True)


def arguments(plan: Plan, capacity: Capacity, server: Running) -> list[str]:
    """Of the load generator."""
    return [
        "--mode=overload",
        f"--port={server.port}",
        f"--topic={TOPIC}",
        f"--connections={plan.subscribers + plan.slow}",
        f"--slow={plan.slow}",
        f"--publishers={plan.publishers}",
        f"--message-bytes={plan.payload}",
        f"--rate={USUAL * capacity.publications:.3f}",
        f"--surge={plan.multiple * capacity.publications:.3f}",
        f"--warmup={plan.before}",
        f"--seconds={plan.seconds}",
        f"--after={plan.after}",
        f"--retry-ms={RETRY_MS}",
        f"--progress-ms={MOMENT_MS}",
        *(f"--server-pid={pid}" for pid in server.pids()),
    ]


def outcome_of(
    policy: Policy,
    plan: Plan,
    capacity: Capacity,
    report: Report,
    moments: Sequence[Moment],
    rss: tuple[int, int],
    answers: list[Answers],
) -> Outcome:
    """Raises GeneratorError when the generator did not come as far as to shed anything."""
    if report.shedding is None or report.seconds == 0:
        raise GeneratorError(f"no run: {report.problems}")
    measured = [index for index, moment in enumerate(moments) if moment.measuring]
    before = moments[: measured[0]] if measured else moments
    after = moments[measured[-1] + 1 :] if measured else []
    over = moments[measured[-1]].at if measured else 0.0
    violations = report.gaps + report.duplicates + report.disorder + report.lost + report.errors + report.stalled
    return Outcome(
        policy=policy,
        capacity=capacity,
        offered=report.offered / capacity.publications,
        goodput=report.rate / capacity.deliveries,
        before=middle(before),
        meanwhile=middle([moments[index] for index in measured]),
        p50_back_secs=back([(m.at, m.p50_us) for m in after], [m.p50_us for m in before], over),
        p99_back_secs=back([(m.at, m.p99_us) for m in after], [m.p99_us for m in before], over),
        usual_rss=rss[0],
        peak_rss=rss[1],
        cpu=report.server_cpu / report.seconds,
        answers=answers,
        shedding=report.shedding,
        violations=violations,
        problems=report.problems if violations else "",
        moments=list(moments),
    )


def middle(moments: Sequence[Moment]) -> Moment:
    """The median of each figure; of no moments one without latencies."""

    def of(values: list[float]) -> float | None:
        return median(values) if values else None

    return Moment(
        at=0.0,
        measuring=any(each.measuring for each in moments),
        rate=of([each.rate for each in moments]) or 0.0,
        p50_us=of([each.p50_us for each in moments if each.p50_us is not None]),
        p99_us=of([each.p99_us for each in moments if each.p99_us is not None]),
    )


def back(after: Sequence[tuple[float, float | None]], before: Sequence[float | None], over: float) -> float | None:
    """Seconds from `over` until SOON_BACK moments in a row are no slower than the slowest of `before`, by MARGIN.

    The first of `before` are left out, in which connections have just been opened. None: not among those `after`.
    """
    known = [each for each in before[len(before) // 4 :] if each is not None]
    bound = MARGIN * max(known, default=0.0)
    good = 0
    for index, (_, figure) in enumerate(after):
        good = good + 1 if figure is not None and figure <= bound else 0
        if good == SOON_BACK:
            return round(after[index - SOON_BACK + 1][0] - over, 2)
    return None
