"""What is measured: each figure, and how the load generator is asked for it."""

import msgspec

from .candidates import Candidate

SUBSCRIBERS = 1000
PAYLOAD_BYTES = 100
ECHO_CONNECTIONS = 64
FANOUT_IN_FLIGHT = (1, 16, 64)
CLIFF_IN_FLIGHT = (256, 1024)
SPREAD_SUBSCRIBERS = (10, 100, 10_000)
CURVE_IN_FLIGHT = (1, 4, 16, 64, 256, 1024)
LATENCY_PERCENT = 20
CURVE_PERCENT = (5, 10, LATENCY_PERCENT, 40, 80, 160)
CURVE_CONNECTIONS = (1000, 2500, 5000, 10_000)
IDLE_TOPICS = 100

SAMPLE_ENVELOPE = (
    '{"type":"Message","topic":"bench","offset":100000,"ts":1767220000123,"from":"u1000","payload":"'
    + "x" * (PAYLOAD_BYTES - 2)
    + '"}'
)
"""What a subscriber gets for a payload of PAYLOAD_BYTES. Peers without envelopes relay messages of the same length, so
that they move the same number of bytes. Peers with a protocol of their own get the payload and frame it as they do."""


class Figure(msgspec.Struct, frozen=True):
    """One thing that is measured of a server.

    `kind` is what the server must be able to do, and the load generator's mode.
    """

    key: str
    kind: str
    connections: int
    in_flight: int = 1
    percent: int = 0
    """Of latency: the load, in percent of what uWebSockets takes with one in flight."""

    def arguments(self, candidate: Candidate, seconds: float, rate: float) -> list[str]:
        """The load generator's command line for this figure; `rate` is in publications a second."""
        relayed = candidate.protocol == "text" and self.kind in {"fanout", "latency"}
        size = len(SAMPLE_ENVELOPE) if relayed else PAYLOAD_BYTES
        arguments = [
            f"--mode={self.kind}",
            f"--protocol={candidate.protocol}",
            f"--connections={self.connections}",
            f"--in-flight={self.in_flight}",
            f"--message-bytes={size}",
            f"--seconds={seconds}",
            f"--rate={rate:.3f}",
        ]
        if self.kind == "connect":
            arguments.append("--topics=0")
        elif self.kind == "idle":
            arguments.append(f"--topics={IDLE_TOPICS}")
        if self.kind == "echo" and candidate.echo_path is not None:
            arguments.append(f"--path={candidate.echo_path}")
        return arguments


def fanout(in_flight: int) -> Figure:
    return Figure(f"fanout-{in_flight}", "fanout", SUBSCRIBERS, in_flight)


def spread(subscribers: int) -> Figure:
    return Figure(f"subscribers-{subscribers}", "fanout", subscribers, 16)


ECHO = Figure("echo", "echo", ECHO_CONNECTIONS)
DIRECT = Figure("direct", "direct", 2 * ECHO_CONNECTIONS)
LATENCY = Figure("latency", "latency", SUBSCRIBERS, percent=LATENCY_PERCENT)


def load(percent: int) -> Figure:
    if percent == LATENCY_PERCENT:
        return LATENCY
    return Figure(f"latency-{percent}", "latency", SUBSCRIBERS, percent=percent)


def connect(connections: int) -> Figure:
    return Figure("connect", "connect", connections)


def idle(connections: int) -> Figure:
    return Figure("idle", "idle", connections)


def held(connections: int) -> Figure:
    return Figure(f"memory-{connections}", "idle", connections)


def order(figure: Figure) -> tuple[int, int, int, int]:
    """Within a round: the fan-outs first, since loads are shares of what they reach; loads from the lowest up."""
    kinds = ("fanout", "echo", "direct", "connect", "latency", "idle")
    return kinds.index(figure.kind), figure.connections != SUBSCRIBERS, figure.in_flight, figure.percent


CURVES = {
    "inflight": tuple(fanout(count) for count in CURVE_IN_FLIGHT),
    "load": (fanout(1), *(load(percent) for percent in CURVE_PERCENT)),
    "memory": tuple(held(count) for count in CURVE_CONNECTIONS),
}
"""Series of figures for the plots, by what `--only` calls them. The percentages of `load` are of its first figure."""
