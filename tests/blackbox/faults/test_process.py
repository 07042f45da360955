"""FAULTS.md: Network, Process, Config: resets, half-open peers, churn, no descriptors left, signals, start-up."""

import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from serving.peer import Peer, unique, unique_user
from serving.processes import ServerProcess, StartServer, free_port
from serving.raw import CLOSE, TEXT, RawSocket, close_frame, envelope, frame, upgrade
from serving.witness import Witness

EX_CONFIG = 78


def wait_until(met: Any, seconds: float = 10.0) -> bool:
    """Whether ``met()`` becomes true in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if met():
            return True
        time.sleep(0.05)
    return bool(met())


class TestNetwork:
    @pytest.mark.parametrize("stage", ["connect", "head", "upgrade", "frame", "message", "close", "unread"])
    def test_reset_at_every_stage(self, victim: ServerProcess, stage: str) -> None:
        topic = unique()
        before = victim.open_files()
        for _ in range(50):
            raw = RawSocket(victim.port)
            if stage == "head":
                raw.send(upgrade()[:40])
            elif stage != "connect":
                raw.send(upgrade())
                if stage != "unread":
                    assert raw.answer().status == 101
            if stage == "frame":
                raw.send(frame(1, b"x" * 1000)[:500])
            elif stage == "message":
                raw.send(frame(1, b"{", fin=False))
            elif stage == "close":
                raw.send(envelope(type="Subscribe", topic=topic) + close_frame(1000))
            raw.reset()
        with Peer(victim.url, unique_user()) as peer:
            assert wait_until(lambda: victim.open_files() <= before + 1)
            assert wait_until(lambda: peer.ok("Presence", topic=topic)["count"] == 0)

    def test_half_closed_peer(self, victim: ServerProcess) -> None:
        with RawSocket.upgraded(victim.port) as raw:
            raw.send(envelope(type="Ping", id=1))
            raw.socket.shutdown(socket.SHUT_WR)
            assert raw.at_end()

    def test_half_open_peer_is_freed(self, start_server: StartServer) -> None:
        server = start_server(
            {"websocket": {"heartbeat_interval_secs": 1, "client_timeout_secs": 3, "auth_timeout_secs": 2}}
        )
        with RawSocket.upgraded(server.port) as raw:
            received = raw.frame()
            assert received.opcode == 0x9, "a silent connection is pinged"
            while received.opcode != CLOSE:
                received = raw.frame()
            assert received.close_code == 4408

    def test_whoever_answers_pings_stays(self, start_server: StartServer) -> None:
        server = start_server(
            {"websocket": {"heartbeat_interval_secs": 1, "client_timeout_secs": 3, "auth_timeout_secs": 2}}
        )
        with RawSocket.upgraded(server.port) as raw:
            for _ in range(4):
                received = raw.frame()
                assert received.opcode == 0x9
                raw.send(frame(0xA, received.payload))
            assert raw.ping_works()

    def test_thousand_connections_at_once(self, victim: ServerProcess) -> None:
        before = victim.open_files()
        sockets = []
        for _ in range(1000):
            raw = socket.socket()
            raw.setblocking(False)
            raw.connect_ex(("127.0.0.1", victim.port))
            sockets.append(raw)
        with Peer(victim.url, unique_user()) as peer:
            peer.ok("Ping")
        for raw in sockets:
            raw.close()
        assert wait_until(lambda: victim.open_files() <= before)


class TestChurn:
    def test_everything_returns_to_where_it_was(self, start_server: StartServer) -> None:
        server = start_server()

        def churn(count: int) -> None:
            for number in range(count):
                with RawSocket(server.port) as raw:
                    raw.send(upgrade(user=f"churn{number % 50}") + envelope(type="Subscribe", topic=f"c:{number % 20}"))
                    raw.answer()
                    raw.frame()
                    if number % 3 == 0:
                        raw.send(close_frame(1000))
                        raw.at_end()
                    elif number % 3 == 1:
                        raw.reset()

        with Witness(server.url) as witness:
            churn(600)
            with Peer(server.url, unique_user()) as peer:
                peer.ok("Ping")
                files, memory = server.open_files(), server.resident_kib()
            threads = [threading.Thread(target=churn, args=(1500,)) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            witness.check()
            with Peer(server.url, unique_user()) as peer:
                assert wait_until(lambda: server.open_files() <= files)
                assert wait_until(lambda: all(not peer.ok("Presence", topic=f"c:{n}")["count"] for n in range(20)))
            assert server.resident_kib() - memory < 4 * 1024


class TestDescriptors:
    def test_none_left_then_room_again(self, start_server: StartServer) -> None:
        server = start_server(open_files=64)
        topic = unique()
        with Peer(server.url, unique_user()) as alice, Peer(server.url, unique_user()) as bob:
            bob.ok("Subscribe", topic=topic)
            crowd = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(100)]
            try:
                for number in range(50):
                    alice.ok("Broadcast", topic=topic, payload=number)
                assert [event["payload"] for event in bob.events(50)] == list(range(50))
                before = server.cpu_secs()
                time.sleep(1)
                assert server.cpu_secs() - before < 0.5, "the server spins"
            finally:
                for one in crowd:
                    one.close()
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline:
                try:
                    with Peer(server.url, unique_user()) as late:
                        assert late.ok("Ping")["type"] == "Pong"
                        break
                except (TimeoutError, OSError):
                    continue
            else:
                pytest.fail("no new connection although there is room again")

    def test_connection_limit_is_503_with_retry_after(self, start_server: StartServer) -> None:
        server = start_server({"websocket": {"max_connections": 3}})
        peers = [Peer(server.url, unique_user()) for _ in range(3)]
        with RawSocket(server.port) as raw:
            raw.send(upgrade())
            answer = raw.answer()
            assert answer.status == 503
            assert int(answer.headers["retry-after"]) >= 0
            assert answer.error_code in ("unavailable", "backpressure")
        peers.pop().close()
        with Peer(server.url, unique_user()) as peer:
            assert peer.ok("Ping")["type"] == "Pong"
        for peer in peers:
            peer.close()


class Client(threading.Thread):
    """Reads until the server ends the connection; a close is answered."""

    def __init__(self, server: ServerProcess, receive_buffer: int | None = None) -> None:
        super().__init__()
        self.closings = 0
        self.errors: list[str] = []
        self.code: int | None = None
        self.raw = RawSocket.upgraded(server.port, user=unique_user(), receive_buffer=receive_buffer)
        self.raw.socket.settimeout(30)

    def run(self) -> None:
        with self.raw:
            try:
                while True:
                    received = self.raw.frame()
                    if received.opcode == CLOSE:
                        self.code = received.close_code
                        self.raw.send(close_frame(self.code))
                    elif received.opcode == TEXT:
                        self.take(json.loads(received.payload))
            except (EOFError, OSError):
                return

    def take(self, message: dict[str, Any]) -> None:
        if message["type"] == "Closing":
            self.closings += 1
        elif message["type"] == "Error":
            assert self.closings, f"refused before the end was announced: {message}"
            self.errors.append(message["code"])


class Subscriber(Client):
    """Notes the offsets of a topic once it was started; until then it reads nothing."""

    def __init__(self, server: ServerProcess, topic: str, receive_buffer: int | None = None) -> None:
        super().__init__(server, receive_buffer)
        self.offsets: list[int] = []
        self.raw.send(envelope(type="Subscribe", topic=topic))
        assert self.raw.ping_works()

    def take(self, message: dict[str, Any]) -> None:
        super().take(message)
        if message["type"] == "Message":
            self.offsets.append(message["offset"])


class Pipelined(Client):
    """Publishes until the server ends the connection, with ``WINDOW`` requests under way."""

    WINDOW = 64

    def __init__(self, server: ServerProcess, topic: str) -> None:
        super().__init__(server)
        self.acked: list[int] = []
        self.request = envelope(type="Broadcast", id=1, topic=topic, payload="x" * 1000)

    def run(self) -> None:
        self.raw.send(self.request * self.WINDOW)
        super().run()

    def take(self, message: dict[str, Any]) -> None:
        super().take(message)
        if message["type"] == "Ack":
            self.acked.append(message["offset"])
        if "id" in message:
            self.raw.send(self.request)


class TestSignals:
    def test_sigterm_under_load_twice(self, start_server: StartServer) -> None:
        server = start_server()
        topic = unique()
        subscribers = [Peer(server.url, unique_user()) for _ in range(20)]
        for peer in subscribers:
            peer.ok("Subscribe", topic=topic)
        stop = threading.Event()
        acked: list[int] = []

        def load() -> None:
            with Peer(server.url, unique_user()) as publisher:
                try:
                    while not stop.is_set():
                        acked.append(publisher.ok("Broadcast", topic=topic, payload=len(acked))["offset"])
                except Exception:  # the server goes while this publishes: that is the test
                    return

        publishing = threading.Thread(target=load)
        publishing.start()
        assert wait_until(lambda: len(acked) > 50)
        server.terminate()
        time.sleep(0.1)
        server.terminate()
        for peer in subscribers:
            assert peer.close_code(10) == 1001
            kinds = [event["type"] for event in peer.unasked]
            assert kinds.count("Closing") == 1
            offsets = [event["offset"] for event in peer.unasked if event["type"] == "Message"]
            assert offsets == list(range(1, len(offsets) + 1))
            assert len(offsets) >= len(acked) - 1, "an acknowledged message was not delivered"
            peer.close()
        stop.set()
        publishing.join()
        assert server.wait() == 0

    def test_sigterm_loses_no_acknowledged_message(self, start_server: StartServer) -> None:
        """Publishers with many requests under way; subscribers that keep up, and one that is far behind."""
        server = start_server(
            {
                "actor_system": {"mailbox_capacity": 200},
                "message_routing": {"max_cache_entries": 100_000},
                "production": {"drain_timeout_secs": 10},
            }
        )
        topic = unique()
        publishers = [Pipelined(server, topic) for _ in range(6)]
        subscribers = [Subscriber(server, topic) for _ in range(5)]
        late = Subscriber(server, topic, receive_buffer=2048)
        for subscriber in subscribers:
            subscriber.start()
        for publisher in publishers:
            publisher.start()
        assert wait_until(lambda: all(len(publisher.acked) > 300 for publisher in publishers))
        server.terminate()
        late.start()
        for thread in (*publishers, *subscribers, late):
            thread.join(30)
            assert thread.code == 1001
            assert thread.closings == 1
            assert set(thread.errors) <= {"unavailable"}
        acked = {offset for publisher in publishers for offset in publisher.acked}
        assert len(acked) == sum(len(publisher.acked) for publisher in publishers)
        for subscriber in (*subscribers, late):
            assert subscriber.offsets == list(range(1, len(subscriber.offsets) + 1))
            assert max(acked) <= len(subscriber.offsets), "an acknowledged message was not delivered"
        assert "not everything was delivered" not in server.log
        assert server.wait() == 0

    def test_clients_are_told_to_come_back_at_different_times(self, start_server: StartServer) -> None:
        server = start_server()
        peers = [Peer(server.url, unique_user()) for _ in range(20)]
        server.terminate()
        delays = set()
        for peer in peers:
            assert peer.close_code(10) == 1001
            closing = peer.unasked[-1]
            assert list(closing) == ["type", "code", "reason", "reconnect", "after_ms"]
            assert (closing["type"], closing["code"], closing["reconnect"]) == ("Closing", 1001, True)
            delays.add(closing["after_ms"])
            peer.close()
        assert len(delays) > 10
        assert all(0 <= delay <= 1000 for delay in delays)
        assert server.wait() == 0

    @pytest.mark.parametrize("again", [True, False])
    def test_whoever_never_reads_holds_up_the_end_no_longer_than_allowed(
        self, start_server: StartServer, again: bool
    ) -> None:
        """`drain_timeout_secs` and `shutdown_timeout_secs` end the waiting, and a second SIGTERM does at once."""
        secs = 600 if again else 0.3
        server = start_server(
            {
                "actor_system": {"mailbox_capacity": 10_000},
                "message_routing": {"max_cache_entries": 10_000},
                "performance": {"messages": {"compression_algorithm": "none"}},
                "production": {"drain_timeout_secs": secs, "shutdown_timeout_secs": secs},
            }
        )
        topic = unique()
        stuck = Subscriber(server, topic, receive_buffer=2048)
        with Peer(server.url, unique_user()) as peer:
            for number in range(200):
                peer.ok("Broadcast", topic=topic, payload=f"{number}" + "x" * 60_000)
            server.terminate()
            assert wait_until(lambda: "shutting down" in server.log)
            if again:
                server.terminate()
            assert server.wait() == 0
        assert "not everything was delivered before the end" in server.log
        stuck.raw.socket.close()

    def test_draining_server_takes_nobody_new(self, start_server: StartServer) -> None:
        server = start_server()
        with Peer(server.url, unique_user()) as peer, RawSocket(server.port) as late:
            server.terminate()
            assert peer.close_code(10) == 1001
            late.send(upgrade())
            assert late.answer().status in (0, 503)
        server.wait()

    def test_sigint(self, start_server: StartServer) -> None:
        server = start_server()
        with Peer(server.url, unique_user()) as peer:
            subprocess.run(["kill", f"-{signal.SIGINT.value}", str(server.pid)], check=True)
            assert peer.close_code(10) == 1001
        assert server.wait() == 0


class TestStart:
    def test_port_in_use(self, victim: ServerProcess) -> None:
        second = ServerProcess("product", victim.port, None, None)
        try:
            second.launch()
            assert second.wait() not in (0, EX_CONFIG)
            assert str(victim.port) in second.log
            assert "Traceback" not in second.log
        finally:
            second.dispose()

    def test_all_errors_at_once_then_78(self) -> None:
        settings = {
            "websocket": {"max_connections": -1, "max_frame_size": "big", "no_such_key": 1},
            "rate_limiting": {"connection": {"requests_per_second": 0.0}},
            "auth": {"jwt_secret": "too short"},
        }
        server = ServerProcess("product", free_port(), settings, None)
        try:
            server.launch()
            assert server.wait() == EX_CONFIG
            for name in ("max_connections", "max_frame_size", "no_such_key", "requests_per_second", "jwt_secret"):
                assert name in server.log, name
            assert "too short" not in server.log, "a secret in an error"
            assert "Traceback" not in server.log
        finally:
            server.dispose()

    @pytest.mark.parametrize(
        "settings",
        [
            {"websocket": {"max_connections": 0}},
            {"websocket": {"max_connections": 2**31}},
            {"websocket": {"heartbeat_interval_secs": "30s"}},
            {"actor_system": {"overflow_strategy": "panic"}},
            {"unknown_section": {"x": 1}},
            {"server": {"port": 70_000}},
            {"websocket": {"max_frame_size": 1_048_576, "max_message_size": 65_536}},
            {"websocket": {"heartbeat_interval_secs": 60, "client_timeout_secs": 30}},
        ],
        ids=repr,
    )
    def test_each_mistake_is_78_and_names_the_key(self, settings: dict[str, dict[str, Any]]) -> None:
        server = ServerProcess("product", free_port(), settings, None)
        try:
            server.launch()
            assert server.wait() == EX_CONFIG
            section, keys = next(iter(settings.items()))
            assert section in server.log
            assert "Traceback" not in server.log
            if section != "unknown_section":
                assert any(key in server.log for key in keys)
        finally:
            server.dispose()

    def test_broken_file(self, tmp_path: Path) -> None:
        path = tmp_path / "config.toml"
        path.write_text("[server\nport = ")
        rtc = str(Path(sys.executable).with_name("rtc"))
        done = subprocess.run(
            [rtc, "config", "check", f"--config={path}"],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert done.returncode == EX_CONFIG
        assert str(path) in done.stderr
        assert "Traceback" not in done.stderr


def test_health_while_clients_misbehave(victim: ServerProcess) -> None:
    broken = [RawSocket(victim.port) for _ in range(50)]
    try:
        for raw in broken:
            raw.send(upgrade()[:50])
        with urllib.request.urlopen(f"http://127.0.0.1:{victim.port}/health", timeout=5) as answer:
            assert answer.status == 200
    finally:
        for raw in broken:
            raw.socket.close()
