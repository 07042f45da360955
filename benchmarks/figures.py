"""What is measured: each figure, and how the load generator is asked for it."""

import msgspec

from .servers import Candidate

SUBSCRIBERS = 1000
PAYLOAD_BYTES = 100
ECHO_CONNECTIONS = 64
FANOUT_IN_FLIGHT = (1, 16, 64)
CLIFF_IN_FLIGHT = (256, 1024)
SPREAD_SUBSCRIBERS = (10, 100, 10_000)
IDLE_TOPICS = 100

SAMPLE_ENVELOPE = (
    '{"type":"Message","topic":"bench","offset":100000,"ts":1767220000123,"from":"u1000","payload":"'
    + "x" * (PAYLOAD_BYTES - 2)
    + '"}'
)
"""What a subscriber gets for a payload of PAYLOAD_BYTES. Peers without envelopes relay messages of the same length, so
that every server moves the same number of bytes."""


class Figure(msgspec.Struct, frozen=True):
    """One thing that is measured of a server.

    `kind` is what the server must be able to do, and the load generator's mode.
    """

    key: str
    kind: str
    connections: int
    in_flight: int = 1

    def arguments(self, candidate: Candidate, seconds: float, rate: float) -> list[str]:
        """The load generator's command line for this figure; `rate` is in publications a second."""
        rtc = candidate.protocol == "rtc"
        relayed = self.kind in {"fanout", "latency"}
        size = len(SAMPLE_ENVELOPE) if relayed and not rtc else PAYLOAD_BYTES
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
LATENCY = Figure("latency", "latency", SUBSCRIBERS)


def connect(connections: int) -> Figure:
    return Figure("connect", "connect", connections)


def idle(connections: int) -> Figure:
    return Figure("idle", "idle", connections)
