"""Fan-out over several workers, publications that cross from one worker to another, and through Redis to another node.

Every process's CPU time is stated apart: where there are fewer cores than processes rates say little, CPU time per
publication or delivery still does.
"""

from collections.abc import Sequence

from . import deployments
from .deployments import Nodes, Unavailable
from .driver import Driver, Row, Unsound, not_available
from .generator import Report
from .servers import Running, StartError

IN_FLIGHT = 64
CROSSING_TOPICS = 16
CROSSING_SHARE = 0.1
"""Of the CPU time: a worker that used less of it had no part in a publication's way."""
LATENCY_LOAD = 0.5
HALF_OF_DELIVERIES = 325_000
"""Half of the 650,000 deliveries a second that one Redis is known to feed."""
FEWER_SUBSCRIBERS = 100
HALF_OF_PUBLICATIONS = 30_000
"""Half of the 60,000 publications a second that one node is to get from another."""

WORKERS_FIGURES = (
    "fan-out, 64 in flight, deliveries/s: one worker",
    "… two workers",
    "… two workers / one worker",
    "CPU per delivery, µs: one worker",
    "… two workers",
    "… two workers / one worker",
)
CROSSING_FIGURES = (
    "publication to one subscriber, CPU µs: publisher, home and subscriber on one worker",
    "… on two workers, the busier one",
    "… on two workers, the other one",
)
REDIS_FIGURES = (
    "node to node through Redis, one subscriber, publications/s",
    "… CPU per publication, µs: publisher's node",
    "… subscriber's node",
    "… Redis",
    "through Redis to local subscribers, deliveries/s",
    "… CPU per delivery at the subscribers' node, µs",
    "… p99 at half that rate, ms",
    "… p99 at 325,000 deliveries/s, ms",
    "… p99 at 325,000 deliveries/s to 100 subscribers, ms",
    "… p99 at 30,000 publications/s to one subscriber, ms",
)


def workers(driver: Driver, cores: str, rounds: int, subscribers: int) -> list[Row]:
    """Fan-out of one topic by two workers beside one worker, round by round."""
    try:
        with deployments.workers(1, cores) as one, deployments.workers(2, cores) as two:
            pairs = [(fan_out(driver, one, subscribers), fan_out(driver, two, subscribers)) for _ in range(rounds)]
    except (Unavailable, StartError) as problem:
        return not_available(WORKERS_FIGURES, problem)
    rates = [(first.rate, second.rate) for first, second in pairs]
    costs = [
        (first.server_cpu / first.deliveries * 1e6, second.server_cpu / second.deliveries * 1e6)
        for first, second in pairs
    ]
    values = [
        *([pair[0] for pair in rates], [pair[1] for pair in rates], [pair[1] / pair[0] for pair in rates]),
        *([pair[0] for pair in costs], [pair[1] for pair in costs], [pair[1] / pair[0] for pair in costs]),
    ]
    digits = (0, 0, 2, 3, 3, 2)
    return [Row(*row) for row in zip(WORKERS_FIGURES, values, digits, strict=True)]


def fan_out(driver: Driver, server: Running, subscribers: int) -> Report:
    server.settle()
    return driver.run("fanout", server.port, server.pids(), connections=subscribers, in_flight=IN_FLIGHT)


def crossing(driver: Driver, cores: str, rounds: int) -> list[Row]:
    """One publisher and one subscriber on many topics, so that their workers and the topic's home differ by chance.

    Which runs crossed shows in the CPU time: on one worker or on two.
    """
    local: list[float] = []
    busier: list[float] = []
    other: list[float] = []
    try:
        with deployments.workers(2, cores) as server:
            for number in range(rounds * CROSSING_TOPICS):
                report = driver.run(
                    "fanout", server.port, server.pids(), connections=1, in_flight=IN_FLIGHT, topic=f"crossing:{number}"
                )
                first, second, *_ = sorted(
                    (cpu * 1e6 / report.publications for cpu in report.server_cpus), reverse=True
                )
                if second < CROSSING_SHARE * (first + second):
                    local.append(first)
                else:
                    busier.append(first)
                    other.append(second)
    except (Unavailable, StartError) as problem:
        return not_available(CROSSING_FIGURES, problem)
    rows = zip(CROSSING_FIGURES, (local, busier, other), strict=True)
    return [Row(figure, values, missing="" if values else "no run was of this kind") for figure, values in rows]


def through_redis(driver: Driver, cores: str, rounds: int, subscribers: int) -> list[Row]:
    """The publisher on one node, the subscribers on the other."""
    values: list[list[float]] = [[] for _ in REDIS_FIGURES]
    try:
        with deployments.nodes(2, cores) as both:
            check_that_publications_pass(driver, both)
            for _ in range(rounds):
                one = to_the_other_node(driver, both, 1)
                many = to_the_other_node(driver, both, subscribers)
                rate = many.publications / many.seconds * LATENCY_LOAD
                paced = [
                    to_the_other_node(driver, both, subscribers, rate=rate),
                    to_the_other_node(driver, both, subscribers, rate=HALF_OF_DELIVERIES / subscribers),
                    to_the_other_node(driver, both, FEWER_SUBSCRIBERS, rate=HALF_OF_DELIVERIES / FEWER_SUBSCRIBERS),
                    to_the_other_node(driver, both, 1, rate=HALF_OF_PUBLICATIONS),
                ]
                publications = one.publications / 1e6
                found = (
                    one.publications / one.seconds,
                    *(cpu / publications for cpu in by_part(both, one)),
                    many.rate,
                    by_part(both, many)[1] * 1e6 / many.deliveries,
                    *((each.p99_us or 0.0) / 1000 for each in paced),
                )
                for row, value in zip(values, found, strict=True):
                    row.append(value)
    except (Unavailable, StartError) as problem:
        return not_available(REDIS_FIGURES, problem)
    digits = (0, 1, 1, 1, 0, 3, 2, 2, 2, 2)
    return [Row(*row) for row in zip(REDIS_FIGURES, values, digits, strict=True)]


def to_the_other_node(driver: Driver, both: Nodes, subscribers: int, *, rate: float | None = None) -> Report:
    publisher, subscriber = both.servers
    return driver.run(
        "fanout" if rate is None else "latency",
        subscriber.port,
        processes(both),
        connections=subscribers,
        in_flight=IN_FLIGHT,
        rate=rate or 1.0,
        publish_port=publisher.port,
    )


def check_that_publications_pass(driver: Driver, both: Nodes) -> None:
    """Raises Unavailable when what is published on one node does not come to the other."""
    try:
        to_the_other_node(driver, both, 1, rate=20)
    except Unsound as problem:
        raise Unavailable(f"publications do not pass between nodes ({problem})") from problem


def processes(both: Nodes) -> list[int]:
    return [*both.servers[0].pids(), *both.servers[1].pids(), both.redis_pid]


def by_part(both: Nodes, report: Report) -> Sequence[float]:
    """CPU seconds of the publisher's node, the subscriber's node and Redis."""
    border = len(both.servers[0].pids())
    cpus = report.server_cpus
    return sum(cpus[:border]), sum(cpus[border:-1]), cpus[-1]
