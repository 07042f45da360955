"""Ports that are free, and those that are not."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from realtime_communication.cli.doctor.finding import Level
from realtime_communication.cli.doctor.ports import findings, owner_of, port
from realtime_communication.config import Config
from realtime_communication.config.schema import Server
from realtime_communication.config.watching import Monitoring, Prometheus
from serving.processes import ServerProcess, free_port


def test_free() -> None:
    found = port("server.port", "127.0.0.1", free_port())
    assert found.level is Level.OK and found.text.endswith("is free")


def test_in_use_by_this_process() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = listener.getsockname()[1]
        found = port("server.port", "127.0.0.1", number)
        assert found.level is Level.FAIL and f"process {os.getpid()}" in found.text
        owner = owner_of(number)
        assert owner is not None and owner[0] == os.getpid()


def test_in_use_by_the_server_itself(live_server: ServerProcess) -> None:
    found = port("server.port", "127.0.0.1", live_server.port)
    assert found.level is Level.OK and "by this program already" in found.text


def test_no_address_of_this_machine() -> None:
    found = port("server.port", "192.0.2.1", free_port())  # RFC 5737: for documentation
    assert found.level is Level.FAIL and "server.host" in found.mend
    assert port("server.port", "no-such-host.invalid", 1).level is Level.FAIL


def test_main_port_and_metrics() -> None:
    config = Config(
        server=Server(host="127.0.0.1", port=free_port()),
        monitoring=Monitoring(prometheus=Prometheus(port=free_port())),
    )
    assert [(found.subject, found.level) for found in findings(config)] == [
        ("server.port", Level.OK),
        ("metrics.port", Level.OK),
    ]


@pytest.mark.parametrize(("kind", "level"), [("none", Level.OK), ("socket", Level.OK), ("file", Level.FAIL)])
def test_a_unix_socket(tmp_path: Path, kind: str, level: Level) -> None:
    path = tmp_path / "rtc.sock"
    if kind == "file":
        path.write_text("")
    with socket.socket(socket.AF_UNIX) as made:
        if kind == "socket":
            made.bind(str(path))
        config = Config(server=Server(host=f"unix:{path}"), monitoring=Monitoring(prometheus=Prometheus(enabled=False)))
        (found,) = findings(config)
    assert found.level is level


def test_no_credentials_of_a_command_are_shown() -> None:
    script = "import socket, sys; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); print(); sys.stdin.read()"
    number = free_port()
    command = [sys.executable, "-uc", script, str(number), "--token=abcdef"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert "abcdef" not in str(owner_of(number)) and "abcdef" not in port("p", "127.0.0.1", number).text
        process.communicate()
