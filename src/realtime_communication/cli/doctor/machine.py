"""Limits of the process and of the kernel, and processors, beside what the configuration asks for.

Everything is read from files below `root`, so that a machine can be made up.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from realtime_communication.cli.doctor.finding import Finding, fail, ok, warn
from realtime_communication.config.schema import MAX_WORKERS, Config

SPARE_FILES: Final = 256  # what a process needs beside its connections
LEAST_BACKLOG: Final = 4096  # connections that come at once when clients return
LEAST_PORTS: Final = 10_000
LEAST_BUFFER: Final = 1 << 20  # bytes in flight to one client far away
PAGES_PER_CONNECTION: Final = 2  # of an idle one, both directions
PAGE: Final = os.sysconf("SC_PAGE_SIZE")


class Machine(msgspec.Struct, frozen=True):
    """Where to look. `files` are the soft and the hard limit of open files."""

    root: Path
    cores: int
    files: tuple[int, int]

    @classmethod
    def here(cls) -> Machine:
        """This machine."""
        return cls(Path("/"), len(os.sched_getaffinity(0)), resource.getrlimit(resource.RLIMIT_NOFILE))

    def numbers(self, name: str) -> list[int]:
        """What a sysctl says, such as `net.core.somaxconn`; nothing where this kernel or container has none."""
        try:
            words = (self.root / "proc/sys" / name.replace(".", "/")).read_text().split()
            return [int(word) for word in words]
        except (OSError, ValueError):
            return []

    def text(self, path: str) -> str:
        """A file's content without blanks around it; empty where there is none."""
        try:
            return (self.root / path).read_text().strip()
        except OSError:
            return ""


def findings(machine: Machine, config: Config) -> Iterator[Finding]:
    """All of them."""
    connections = config.websocket.max_connections
    yield from _files(machine, connections)
    yield from _backlog(machine)
    yield from _buffers(machine, connections)
    yield from _ports(machine, config)
    yield from _overcommit(machine, config)
    yield from _conntrack(machine, connections)
    yield from _cores(machine, config)


def _files(machine: Machine, connections: int) -> Iterator[Finding]:
    needed = connections + SPARE_FILES
    _, hard = machine.files  # the server raises the soft limit by itself
    if hard == resource.RLIM_INFINITY or hard >= needed:
        shown = "unlimited" if hard == resource.RLIM_INFINITY else f"{hard:,}"
        yield ok("open files", f"{shown} are allowed, {needed:,} needed for websocket.max_connections")
    else:
        yield fail(
            "open files",
            f"{hard:,} are allowed, and websocket.max_connections = {connections} needs {needed:,}",
            f"LimitNOFILE={needed} in the systemd unit, or `ulimit -Hn {needed}` as root before the start",
        )
    for name in ("fs.file-max", "fs.nr_open"):
        for found in machine.numbers(name)[:1]:
            if found >= needed:
                yield ok(name, f"{found:,}")
            else:
                yield fail(name, f"{found:,} is below the {needed:,} files needed", f"sysctl -w {name}={needed * 2}")


def _backlog(machine: Machine) -> Iterator[Finding]:
    for name in ("net.core.somaxconn", "net.ipv4.tcp_max_syn_backlog"):
        least = LEAST_BACKLOG if name == "net.core.somaxconn" else LEAST_BACKLOG // 4
        for found in machine.numbers(name)[:1]:
            if found >= least:
                yield ok(name, f"{found:,}")
            else:
                yield warn(
                    name,
                    f"{found:,}: when many clients come back at once, some wait a second or more",
                    f"sysctl -w {name}={LEAST_BACKLOG}",
                )


def _buffers(machine: Machine, connections: int) -> Iterator[Finding]:
    for name in ("net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"):
        sizes = machine.numbers(name)
        if len(sizes) != 3:
            continue
        if sizes[2] >= LEAST_BUFFER:
            yield ok(name, " ".join(map(str, sizes)))
        else:
            wanted = f"{sizes[0]} {sizes[1]} {LEAST_BUFFER * 4}"
            yield warn(
                name,
                f"the most is {sizes[2]:,} bytes: little for a client far away",
                f"sysctl -w {name}='{wanted}'",
            )
    pages = machine.numbers("net.ipv4.tcp_mem")
    if len(pages) == 3:
        needed = connections * PAGES_PER_CONNECTION
        if pages[1] >= needed:
            yield ok("net.ipv4.tcp_mem", f"{pages[1] * PAGE >> 20:,} MiB for sockets before the kernel saves")
        else:
            wanted = f"{needed * 3 // 4} {needed} {needed * 3 // 2}"
            yield warn(
                "net.ipv4.tcp_mem",
                f"{pages[1] * PAGE >> 20:,} MiB for sockets; {connections:,} connections need"
                f" {needed * PAGE >> 20:,} MiB",
                f"sysctl -w net.ipv4.tcp_mem='{wanted}'",
            )


def _ports(machine: Machine, config: Config) -> Iterator[Finding]:
    name = "net.ipv4.ip_local_port_range"
    ends = machine.numbers(name)
    if len(ends) != 2:
        return
    first, last = ends
    if last - first < LEAST_PORTS:
        yield warn(
            name,
            f"{last - first + 1:,} ports for connections to Redis, or of a proxy before the server on this machine",
            f"sysctl -w {name}='15000 65535'",
        )
    else:
        yield ok(name, f"{first} to {last}")
    reserved = machine.text("proc/sys/net/ipv4/ip_local_reserved_ports")
    for key, port in (("server.port", config.server.port), ("metrics.port", config.monitoring.prometheus.port)):
        if first <= port <= last and str(port) not in reserved.split(","):
            yield warn(
                key,
                f"{port} is among the ports that outgoing connections get: one may hold it when the server starts",
                f"sysctl -w net.ipv4.ip_local_reserved_ports={port}",
            )


def _overcommit(machine: Machine, config: Config) -> Iterator[Finding]:
    name = "vm.overcommit_memory"
    for found in machine.numbers(name)[:1]:
        if found == 2:
            yield warn(name, "2: memory that is free may be refused when connections rise", f"sysctl -w {name}=1")
        elif found == 0 and _redis_is_here(config):
            yield warn(name, "0: a Redis on this machine may fail to save in the background", f"sysctl -w {name}=1")
        else:
            yield ok(name, str(found))


def _redis_is_here(config: Config) -> bool:
    from realtime_communication.broker.broker import uses_redis  # which loads much: not before it is needed

    if not uses_redis(config) or config.redis.cluster.enabled or config.redis.sentinel.enabled:
        return False
    host = config.redis.url.partition("://")[2].rpartition("@")[2]
    return config.redis.url.startswith("unix:") or host.startswith(("localhost", "127.", "[::1]"))


def _conntrack(machine: Machine, connections: int) -> Iterator[Finding]:
    name = "net.netfilter.nf_conntrack_max"
    most, used = machine.numbers(name)[:1], machine.numbers("net.netfilter.nf_conntrack_count")[:1]
    if not most:
        yield ok("conntrack", "connections are not tracked here")
        return
    count = used[0] if used else 0
    needed = connections + count
    if most[0] >= needed:
        yield ok(name, f"{most[0]:,}, of which {count:,} are used")
    else:
        yield warn(
            name,
            f"{most[0]:,}, of which {count:,} are used: with {connections:,} connections packets are dropped",
            f"sysctl -w {name}={needed * 2}",
        )


def _cores(machine: Machine, config: Config) -> Iterator[Finding]:
    workers = config.server.workers or min(machine.cores, MAX_WORKERS)
    share = _share_of_cores(machine)
    if share is not None and share < workers:
        yield warn(
            "processors",
            f"the container may use {share:g} cores, and {workers} workers are started: they are stopped in between",
            f"server.workers = {max(1, int(share))}",
        )
    elif workers > machine.cores:
        yield warn(
            "processors",
            f"{workers} workers on {machine.cores} cores: they take turns",
            f"server.workers = {machine.cores}",
        )
    elif workers < machine.cores and config.server.workers != 1:
        yield ok("processors", f"{machine.cores} cores, {workers} workers")
    elif workers < machine.cores:
        yield warn("processors", f"one worker on {machine.cores} cores: the others are idle", "server.workers = 0")
    else:
        yield ok("processors", f"{machine.cores} cores, {workers} workers")


def _share_of_cores(machine: Machine) -> float | None:
    """What the control group allows (cpu.max of cgroup v2), in cores; None without a bound."""
    words = machine.text("sys/fs/cgroup/cpu.max").split()
    if len(words) != 2 or not all(word.isdigit() for word in words) or int(words[1]) == 0:
        return None
    return int(words[0]) / int(words[1])
