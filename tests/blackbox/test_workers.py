"""A server of many worker processes: who gets the connections, what a crash costs, and how it starts, changes, ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.peer import Peer, unique, unique_user
from serving.processes import ServerProcess, free_port, merged, settings_for, toml
from serving.tokens import SECRET
from serving.workers import IMPATIENT, all_ready, is_alive, on_each, ready, until, worker_of

RTC = [str(Path(sys.executable).with_name("rtc")), "serve"]


@pytest.fixture
def peers() -> Iterator[list[Peer]]:
    """Clients that are closed at the end."""
    made: list[Peer] = []
    yield made
    for peer in made:
        peer.close()


@pytest.fixture
def own_temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where servers put their temporary files; the path of a socket may not be long, as `tmp_path` is."""
    with tempfile.TemporaryDirectory(prefix="rtc-") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


def start(settings: dict[str, Any] | None = None, workers: int = 2) -> ServerProcess:
    server = ServerProcess("product", free_port(), merged({"server": {"workers": workers}}, settings or {}), None)
    try:
        server.start()
        all_ready(server, workers)
    except BaseException:
        server.dispose()
        raise
    return server


@pytest.fixture(scope="module")
def pair() -> Iterator[ServerProcess]:
    """A server of two workers, which may crash as often as the tests want."""
    server = start({"actor_system": {"max_restarts": 1000}})
    try:
        yield server
        pids = ready(server)
        assert server.stop() == 0
        assert not any(is_alive(pid) for pid in pids.values())
        assert "Traceback" not in server.log
    finally:
        server.dispose()


def serves(peer: Peer) -> bool:
    return peer.ok("Ping")["type"] == "Pong"


def health(port: int) -> dict[str, Any]:
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        sock.sendall(b"GET /health HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        answer = b""
        while piece := sock.recv(65536):
            answer += piece
    found: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])
    return found


def test_connections_land_on_every_worker(pair: ServerProcess, peers: list[Peer]) -> None:
    pids = all_ready(pair)
    assert len(set(pids.values()) | {pair.pid}) == 3
    for peer in on_each(pair, pids, peers).values():
        assert serves(peer)
    assert pair.log.count("listening on http://") == 1
    assert health(pair.port)["workers"] == 2


def test_all_workers_are_one_node(pair: ServerProcess) -> None:
    assert len({health(pair.port)["node_id"] for _ in range(20)}) == 1
    assert {health(pair.port)["port"] for _ in range(20)} == {pair.port}


def test_a_worker_that_is_killed_takes_only_its_own_clients(pair: ServerProcess, peers: list[Peer]) -> None:
    pids = all_ready(pair)
    clients = on_each(pair, pids, peers)
    crashes = len(pair.events("a worker crashed"))
    times = len(pair.events("a worker is ready"))
    os.kill(pids[0], signal.SIGKILL)
    assert clients[0].close_code() == 1006
    assert serves(clients[1])
    # Connections that were meant for it wait for its successor.
    for _ in range(20):
        peers.append(Peer(pair.url, unique_user()))
    after = all_ready(pair, times=times + 1)
    assert after[0] != pids[0] and after[1] == pids[1]
    assert serves(clients[1]) and all(serves(peer) for peer in peers[-20:])
    report = pair.events("a worker crashed")[crashes]
    assert (report["worker"], report["pid"], report["restarted"]) == (0, pids[0], "0")
    assert report["cause"] == "ended by SIGKILL" and "out of memory" in report["hint"]


def test_a_worker_that_gets_sigterm_alone_drains_and_is_replaced(pair: ServerProcess, peers: list[Peer]) -> None:
    pids = all_ready(pair)
    clients = on_each(pair, pids, peers)
    times = len(pair.events("a worker is ready"))
    os.kill(pids[1], signal.SIGTERM)
    assert clients[1].close_code() == 1001
    after = all_ready(pair, times=times + 1)
    assert after[1] != pids[1] and serves(clients[0])
    assert pair.events("a worker crashed")[-1]["cause"] == "exit status 0: it ended by itself"


def test_lines_of_workers_say_which_one(pair: ServerProcess) -> None:
    drained = pair.events("shutting down")
    assert drained and {line["worker"] for line in drained} <= {0, 1}


def test_a_rolling_restart_refuses_nobody_and_sends_all_to_new_workers(pair: ServerProcess, peers: list[Peer]) -> None:
    pids = all_ready(pair)
    clients = on_each(pair, pids, peers)
    done = len(pair.events("rolling restart done"))
    os.kill(pair.pid, signal.SIGUSR2)
    while len(pair.events("rolling restart done")) == done:
        socket.create_connection(("127.0.0.1", pair.port), 5).close()  # never refused
    after = ready(pair)
    for client in clients.values():  # they have moved, and were told nothing
        assert serves(client)
        assert client.unasked == []
        assert worker_of(pair.port, client, after) in after
    assert not set(after.values()) & set(pids.values())
    assert not any(is_alive(pid) for pid in pids.values())
    for peer in on_each(pair, after, peers).values():
        assert serves(peer)


def heartbeats(server: ServerProcess, peers: list[Peer]) -> set[float]:
    """The interval that new connections are told of, on every worker."""
    clients = on_each(server, ready(server), peers).values()
    return {client.connected["heartbeat_interval_secs"] for client in clients}


def test_a_reload_is_for_all_workers_or_none(pair: ServerProcess, peers: list[Peer]) -> None:
    all_ready(pair)
    before = heartbeats(pair, peers)
    base = {"server": {"workers": 2}, "actor_system": {"max_restarts": 1000}}
    pair.reload_and_wait(merged(base, {"websocket": {"heartbeat_interval_secs": 11}}))
    assert heartbeats(pair, peers) == {11} != before
    refused = "the configuration was not reloaded: all stays as it was"
    pair.reload(merged(base, {"websocket": {"heartbeat_interval_secs": 12, "max_frame_size": -1}}))
    until(lambda: pair.events(refused), "the reload is refused")
    assert heartbeats(pair, peers) == {11}
    assert len(pair.events("configuration reloaded")) == 1  # told once, not by each worker
    times = len(pair.events("a worker is ready"))
    os.kill(ready(pair)[0], signal.SIGKILL)
    all_ready(pair, times=times + 1)
    assert heartbeats(pair, peers) == {11}  # a successor begins with what is in force


def test_sigterm_tells_every_client_and_leaves_nothing(peers: list[Peer], own_temporary: Path) -> None:
    server = start()
    try:
        pids = ready(server)
        assert os.listdir(own_temporary)
        clients = on_each(server, pids, peers)
        server.terminate()
        for client in clients.values():
            assert client.close_code() == 1001
            assert [each["reconnect"] for each in client.unasked if each["type"] == "Closing"] == [True]
        assert server.wait() == 0
        assert not any(is_alive(pid) for pid in pids.values())
        assert os.listdir(own_temporary) == []
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port), 5)
        assert [line.get("worker") for line in server.events("stopped")][-1] is None
    finally:
        server.dispose()


def test_a_second_signal_ends_all_workers_at_once(peers: list[Peer]) -> None:
    server = start({"production": {"drain_timeout_secs": 600, "shutdown_timeout_secs": 600}})
    try:
        with socket.create_connection(("127.0.0.1", server.port), 5):
            silent = Peer(server.url, unique_user())
            silent.connection.socket.shutdown(socket.SHUT_RD)
            server.terminate()
            until(lambda: server.events("shutting down"), "a worker shuts down")
            server.terminate()
            assert server.wait() == 0
    finally:
        server.dispose()


def test_no_worker_outlives_its_supervisor(peers: list[Peer]) -> None:
    server = start()
    try:
        pids = ready(server)
        clients = on_each(server, pids, peers)
        server.kill()
        for client in clients.values():
            assert client.close_code() == 1001  # they end well
        until(lambda: not any(is_alive(pid) for pid in pids.values()), "the workers end")
    finally:
        server.dispose()


def test_all_for_one_on_cores_of_their_own_and_a_limit_of_restarts() -> None:
    cores = sorted(os.sched_getaffinity(0))
    actors = {"actor_system": {"supervision_strategy": "all_for_one", "max_restarts": 1}}
    server = start(merged(actors, {"performance": {"actors": {"pin_actors_to_cores": True}}}))
    try:
        before = ready(server)
        os.kill(before[1], signal.SIGKILL)
        after = all_ready(server, times=4)
        assert not set(before.values()) & set(after.values())
        assert [os.sched_getaffinity(after[slot]) for slot in (0, 1)] == [{cores[0]}, {cores[1 % len(cores)]}]
        assert os.sched_getaffinity(server.pid) == set(cores)
        os.kill(after[0], signal.SIGKILL)
        assert server.wait() == 70
        assert [line["restarted"] for line in server.events("a worker crashed")] == ["0, 1", "none"]
        assert "actor_system.max_restarts" in server.events("giving up: the server shuts down")[0]["reason"]
        assert "error: worker 0 crashed, and more than 1 restarts" in server.log
        assert not any(is_alive(pid) for pid in after.values())
    finally:
        server.dispose()


def test_another_server_with_workers_finds_the_port_in_use(pair: ServerProcess, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(toml(merged(settings_for(pair.port), {"server": {"workers": 2}})))
    done = subprocess.run(
        [*RTC, "--profile=test", f"--config={config}"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 71
    assert f"cannot listen on 127.0.0.1:{pair.port}: the address is in use by another process" in done.stderr


def test_what_only_a_worker_finds_out_ends_the_start_as_with_one_worker(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    broken = {
        "server": {"workers": 2},
        "message_routing": {
            "enable_message_transformation": True,
            "transforms": [{"topic": "*", "callable": "no_such_module:f"}],
        },
    }
    config.write_text(toml(merged(settings_for(free_port()), broken)))
    done = subprocess.run(
        [*RTC, "--profile=test", f"--config={config}"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 78
    assert "error: message_routing.transforms[0].callable" in done.stderr
    assert "nothing was started" in done.stderr and "Traceback" not in done.stderr


SPINNING = """
import time


def spin(topic, payload):
    if payload == "spin":
        while True:
            time.sleep(0.01)
    return payload
"""


def test_a_worker_whose_loop_is_stuck_is_shown_killed_and_replaced(tmp_path: Path) -> None:
    (tmp_path / "spinning.py").write_text(SPINNING)
    settings = {
        "server": {"workers": 2},
        "message_routing": {
            "enable_message_transformation": True,
            "transforms": [{"topic": "*", "callable": "spinning:spin"}],
        },
    }
    port = free_port()
    (tmp_path / "config.toml").write_text(toml(merged(settings_for(port), settings)))
    log = tmp_path / "log"
    command = [sys.executable, "-c", IMPATIENT, "serve", "--profile=test", f"--config={tmp_path / 'config.toml'}"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=output, stderr=output)

    def events(name: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == name]

    try:
        until(lambda: len(events("a worker is ready")) == 2, "both workers are ready")
        pids = {line["worker"]: line["pid"] for line in events("a worker is ready")}
        # A new worker that cannot start ends a rolling restart, and changes nothing.
        (tmp_path / "spinning.py").write_text("this is no Python\n")
        process.send_signal(signal.SIGUSR2)
        ended = "the rolling restart ends: a new worker did not start, the old ones go on"
        (told,) = until(lambda: events(ended), "the rolling restart ends")
        assert told["worker"] == 0 and "spinning:spin" in told["cause"]
        (tmp_path / "spinning.py").write_text(SPINNING)
        with Peer(f"ws://127.0.0.1:{port}/ws", "alice") as peer:
            slot = worker_of(port, peer, pids)
            peer.send({"type": "Broadcast", "topic": unique(), "payload": "spin"})
            assert peer.close_code(timeout=20) == 1006
        until(lambda: len(events("a worker is ready")) == 3, "it is replaced")
        (report,) = events("a worker crashed")
        assert (report["worker"], report["pid"]) == (slot, pids[slot])
        assert report["cause"] == "it did not answer for 0.7 s"
        assert "spinning.py" in report["output"] and "in spin" in report["output"]
    finally:
        process.terminate()
        assert process.wait(20) == 0


def test_a_unix_socket_is_shared_by_the_workers_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "rtc.sock"
    environment = {**os.environ, "JWT_SECRET": SECRET}
    command = [*RTC, "--profile=dev", "--workers=2", f"--host=unix:{path}"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment, cwd=tmp_path
    )
    assert process.stdout is not None
    try:
        assert f"listening on unix:{path}" in process.stdout.readline()
        for _ in range(10):
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(10)
                client.connect(str(path))
                client.sendall(b"GET /health/live HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
                assert client.recv(65536).startswith(b"HTTP/1.1 200")
    finally:
        process.terminate()
        status = process.wait(20)
        process.stdout.close()
    assert status == 0 and not path.exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_hang_up_as_soon_as_the_port_is_open_is_a_reload(workers: int) -> None:
    server = ServerProcess("product", free_port(), {"server": {"workers": workers}}, None)
    try:
        server.start()  # the port takes connections: no worker need be ready
        os.kill(server.pid, signal.SIGHUP)
        until(lambda: server.events("configuration reloaded"), "the reload")
        assert server.stop() == 0
    finally:
        server.dispose()
