"""Limits of made-up machines."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from realtime_communication.cli.doctor.finding import Finding, Level
from realtime_communication.cli.doctor.machine import PAGE, Machine, findings
from realtime_communication.config import Config
from realtime_communication.config.schema import Server, Testing, Websocket
from realtime_communication.config.services import Redis

GOOD = {
    "fs.file-max": "1000000",
    "fs.nr_open": "1000000",
    "net.core.somaxconn": "4096",
    "net.ipv4.tcp_max_syn_backlog": "4096",
    "net.ipv4.tcp_rmem": "4096 131072 6291456",
    "net.ipv4.tcp_wmem": "4096 16384 4194304",
    "net.ipv4.tcp_mem": "100000 200000 400000",
    "net.ipv4.ip_local_port_range": "32768 60999",
    "vm.overcommit_memory": "1",
}


def machine(
    tmp_path: Path, changes: dict[str, str] | None = None, *, cores: int = 4, files: int = 100_000, quota: str = ""
) -> Machine:
    for name, value in (GOOD | (changes or {})).items():
        path = tmp_path / "proc/sys" / name.replace(".", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value + "\n")
    if quota:
        (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
        (tmp_path / "sys/fs/cgroup/cpu.max").write_text(quota)
    return Machine(tmp_path, cores, (1024, files))


def config(connections: int = 10_000, workers: int = 4, port: int = 8081, redis: str = "redis://elsewhere") -> Config:
    return Config(
        websocket=Websocket(max_connections=connections),
        server=Server(workers=workers, port=port),
        redis=Redis(url=redis),
    )


def bad(found: list[Finding]) -> dict[str, Level]:
    assert all(finding.mend for finding in found if finding.level is not Level.OK)
    return {finding.subject: finding.level for finding in found if finding.level is not Level.OK}


def test_a_good_machine(tmp_path: Path) -> None:
    assert bad(list(findings(machine(tmp_path), config()))) == {}


def test_this_machine_can_be_read() -> None:
    assert {finding.subject for finding in findings(Machine.here(), Config())} >= {"open files", "processors"}


def test_too_few_files(tmp_path: Path) -> None:
    found = list(findings(machine(tmp_path, files=10_000), config()))
    assert bad(found) == {"open files": Level.FAIL}
    assert "LimitNOFILE=10256" in found[0].mend
    unlimited = list(findings(machine(tmp_path, files=resource.RLIM_INFINITY), config()))
    assert bad(unlimited) == {} and "unlimited" in unlimited[0].text


@pytest.mark.parametrize(
    ("name", "value", "level", "mend"),
    [
        ("fs.file-max", "5000", Level.FAIL, "sysctl -w fs.file-max=20512"),
        ("net.core.somaxconn", "128", Level.WARN, "sysctl -w net.core.somaxconn=4096"),
        ("net.ipv4.tcp_max_syn_backlog", "128", Level.WARN, "sysctl -w net.ipv4.tcp_max_syn_backlog=4096"),
        ("net.ipv4.tcp_wmem", "4096 16384 65536", Level.WARN, "sysctl -w net.ipv4.tcp_wmem='4096 16384 4194304'"),
        ("net.ipv4.tcp_mem", "1 2 3", Level.WARN, "sysctl -w net.ipv4.tcp_mem='15000 20000 30000'"),
        (
            "net.ipv4.ip_local_port_range",
            "60000 60999",
            Level.WARN,
            "sysctl -w net.ipv4.ip_local_port_range='15000 65535'",
        ),
        ("vm.overcommit_memory", "2", Level.WARN, "sysctl -w vm.overcommit_memory=1"),
        ("net.netfilter.nf_conntrack_max", "9000", Level.WARN, "sysctl -w net.netfilter.nf_conntrack_max=20000"),
    ],
)
def test_kernel_limits(tmp_path: Path, name: str, value: str, level: Level, mend: str) -> None:
    found = list(findings(machine(tmp_path, {name: value}), config()))
    assert bad(found) == {name: level}
    assert [finding.mend for finding in found if finding.subject == name] == [mend]


def test_memory_for_sockets_is_told_in_bytes(tmp_path: Path) -> None:
    texts = {finding.subject: finding.text for finding in findings(machine(tmp_path), config())}
    assert texts["net.ipv4.tcp_mem"].startswith(f"{200_000 * PAGE >> 20:,} MiB")


def test_a_port_that_outgoing_connections_get(tmp_path: Path) -> None:
    found = list(findings(machine(tmp_path), config(port=40_000)))
    assert bad(found) == {"server.port": Level.WARN}
    reserved = machine(tmp_path, {"net.ipv4.ip_local_reserved_ports": "39999,40000"})
    assert bad(list(findings(reserved, config(port=40_000)))) == {}


def test_a_redis_on_this_machine_wants_overcommitment(tmp_path: Path) -> None:
    here = machine(tmp_path, {"vm.overcommit_memory": "0"})
    assert bad(list(findings(here, config()))) == {}
    assert bad(list(findings(here, config(redis="redis://:p@localhost:6379")))) == {"vm.overcommit_memory": Level.WARN}
    without = Config(testing=Testing(use_in_memory_storage=True), server=Server(workers=4))
    assert bad(list(findings(here, without))) == {}


@pytest.mark.parametrize(
    ("cores", "workers", "quota", "mend"),
    [
        (4, 8, "", "server.workers = 4"),
        (4, 1, "", "server.workers = 0"),
        (4, 0, "150000 100000", "server.workers = 1"),
        (4, 0, "max 100000", ""),
        (4, 3, "", ""),
    ],
)
def test_workers_and_cores(tmp_path: Path, cores: int, workers: int, quota: str, mend: str) -> None:
    found = list(findings(machine(tmp_path, cores=cores, quota=quota), config(workers=workers)))
    assert bad(found) == ({"processors": Level.WARN} if mend else {})
    assert found[-1].mend == mend
