"""What an operator reads when the server does not start."""

import os
import socket
import subprocess
import sys

import pytest

from realtime_communication.errors import EXIT_CONFIG, EXIT_OS, EnvironmentFault
from realtime_communication.server import listening
from realtime_communication.server.listening import open_listeners

SECRET = "hunter2-hunter2-hunter2"
FAULTY = f"""
[server]
port = 70000
[auth]
jwt_secret = "{SECRET}"
[rate_limiting.connection]
burst_size = 0
[message_routing]
cache_ttl_secs = "soon"
[actor_system]
overflow_strategy = "panic"
[performance.actors]
batch_size = 2147483648
[logging]
level = "loud"
[security.cors]
allowed_origins = ["nonsense"]
[monitoring.health_check]
path = "/api/health"
[production]
drain_timeout_secs = -1
"""


def start(folder, *options, **variables):
    environment = {"PATH": os.environ["PATH"], **variables}
    command = [sys.executable, "-m", "realtime_communication.cli.main", "serve", *options]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_all_that_is_wrong_is_told_at_once(tmp_path):
    (tmp_path / "config.toml").write_text(FAULTY)
    done = start(tmp_path, "--websocket.max_frame_size=1", "--testing.bypass_auth=true", MAX_CONNECTIONS="many")
    assert done.returncode == EXIT_CONFIG == 78
    lines = done.stderr.splitlines()
    for line in (
        "error: config.toml:3: server.port = 70000: must be an integer from 0 to 65535",
        "error: config.toml:5: auth.jwt_secret = [redacted]: must be at least 32 bytes",
        "error: config.toml:7: rate_limiting.connection.burst_size = 0: must be an integer from 1 to",
        'error: config.toml:9: message_routing.cache_ttl_secs = "soon": must be a number above 0',
        'error: config.toml:11: actor_system.overflow_strategy = "panic": must be one of',
        "error: config.toml:13: performance.actors.batch_size = 2147483648: must be an integer from 1 to",
        'error: config.toml:15: logging.level = "loud": must be a level or a filter',
        'error: config.toml:17: security.cors.allowed_origins[0] = "nonsense": must be scheme://host',
        'error: config.toml:19: monitoring.health_check.path = "/api/health": must be an absolute path',
        "error: config.toml:21: production.drain_timeout_secs = -1: must be a number from 0 to",
        'error: environment variable MAX_CONNECTIONS: websocket.max_connections = "many": must be an integer from 1',
        "error: command line --websocket.max_frame_size: websocket.max_frame_size = 1: must be an integer from 125",
        "error: command line --testing.bypass_auth: testing.bypass_auth = true: must be false outside the test",
    ):
        assert [found for found in lines if found.startswith(line)], f"{line}\n{done.stderr}"
    assert lines[-1] == f"The configuration has {len(lines) - 1} problems; nothing was started."
    assert SECRET not in done.stderr + done.stdout
    assert done.stdout == ""


def refused(host, port=0):
    with pytest.raises(EnvironmentFault) as caught:
        open_listeners(host, port)
    assert caught.value.exit_status == EXIT_OS == 71
    return str(caught.value)


def test_addresses_that_cannot_be_used(tmp_path):
    (tmp_path / "file").touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert refused("127.0.0.1", port) == (
            f"cannot listen on 127.0.0.1:{port}: the address is in use by another process"
        )
    assert refused("203.0.113.7", 8081).endswith("this machine does not have the address")
    assert refused(f"unix:{tmp_path}/no/rtc.sock").endswith("/no/rtc.sock: the folder does not exist")
    assert refused(f"unix:{tmp_path}/file").endswith("/file: a file that is no socket is there")
    unresolved = refused("no.such.host.invalid")
    assert unresolved.startswith("cannot listen on no.such.host.invalid: ")
    assert "Errno" not in unresolved


def test_a_path_without_permission(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(listening.os, "stat", refuse)
    assert refused(f"unix:{tmp_path}/rtc.sock").endswith("rtc.sock: no permission for the path")
