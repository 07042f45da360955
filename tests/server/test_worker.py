"""The server as a process: from its command line to its exit status."""

import asyncio
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from realtime_communication.server import worker
from serving.peer import Peer, unique
from serving.processes import ServerProcess, free_port
from serving.raw import CLOSE, RawSocket, close_frame
from serving.tokens import token

RTC = [sys.executable, "-m", "realtime_communication.cli.main", "serve", "--profile=dev", "--workers=1"]


@pytest.fixture
def start():
    started = []

    def start_one(settings=None):
        server = ServerProcess("product", free_port(), settings, None)
        started.append(server)
        server.start()
        return server

    yield start_one
    for server in started:
        server.dispose()


@contextlib.contextmanager
def dev(*options, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL):
    """A server of the dev profile, which must end well."""
    process = subprocess.Popen([*RTC, *options], stdout=stdout, stderr=stderr, text=True)
    try:
        yield process
    finally:
        process.terminate()
        status = process.wait(20)
        if process.stdout is not None:
            process.stdout.close()
    assert status == 0


def get(server, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=10) as answer:
        return json.loads(answer.read())


def post(port, path, body, user="bob"):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection):
        headers = {"Authorization": f"Bearer {token(user)}", "Content-Type": "application/json"}
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def events(server, name):
    lines = [json.loads(line) for line in server.log.splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == name]


def test_the_real_port_is_told_everywhere(start):
    server = start()
    assert get(server, "/health")["port"] == server.port
    assert server.stop() == 0
    assert [line["port"] for line in events(server, "listening")] == [server.port]
    assert f"listening on http://127.0.0.1:{server.port}" in server.log


def test_http_and_websocket_share_the_port_and_the_topics(start):
    server = start()
    topic = unique()
    with Peer(server.url, "alice") as peer:
        peer.ok("Subscribe", topic=topic)
        for number in range(1, 4):
            status, answer = post(server.port, "/api/publish", json.dumps({"topic": topic, "payload": {"n": number}}))
            assert (status, answer["offset"]) == (200, number)
            message = peer.event()
            assert (message["from"], message["payload"], message["offset"]) == ("bob", {"n": number}, number)
        sent = post(server.port, "/api/send", json.dumps({"to": ["alice", "nobody"], "payload": 7}))
        assert sent == (200, {"delivered": ["alice"], "offline": ["nobody"]})
        assert peer.event()["payload"] == 7
    assert get(server, "/health")["status"] == "ok"


def test_what_the_hub_refuses_over_http(start):
    server = start()
    for body, status, code in (
        (b"", 400, "bad_request"),
        (b"[]", 400, "bad_request"),
        (b'{"topic":"a*b","payload":1}', 400, "topic_invalid"),
        (b'{"topic":"@alice","payload":1}', 403, "forbidden"),
        (b'{"topic":"t"}', 400, "bad_request"),
        (b'{"topic":"t","payload":' + b"[" * 200 + b"]" * 200 + b"}", 400, "bad_request"),
        (b'{"topic":"t","payload":1}' + b" " * (1 << 21), 413, "too_large"),
    ):
        answer = post(server.port, "/api/publish", body)
        assert (answer[0], answer[1]["error"]["code"]) == (status, code), body[:60]


def test_limits_hold_over_http(start):
    server = start({"rate_limiting": {"enabled": True, "user": {"requests_per_second": 1, "burst_size": 3}}})
    body = json.dumps({"topic": "t", "payload": 1})
    answers = [post(server.port, "/api/publish", body) for _ in range(5)]
    assert [status for status, _ in answers[:3]] == [200, 200, 200]
    assert answers[-1][0] == 429
    assert answers[-1][1]["error"]["code"] == "rate_limited"


def test_sigterm_tells_every_client_and_ends_well(start):
    server = start()
    with Peer(server.url, "alice") as alice, Peer(server.url, "bob") as bob:
        server.terminate()
        for peer in (alice, bob):
            assert peer.close_code() == 1001
            closing = [each for each in peer.unasked if each["type"] == "Closing"]
            assert len(closing) == 1
            assert closing[0]["reconnect"] is True
            assert 0 <= closing[0]["after_ms"] <= 1000
    assert server.wait() == 0
    assert "Traceback" not in server.log


def stuck_subscriber(server, topic):
    """A socket that subscribes and never reads what is sent to it."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.settimeout(10)
    sock.connect(("127.0.0.1", server.port))
    sock.sendall(
        b"GET /ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer " + token("stuck").encode() + b"\r\n\r\n"
    )
    envelope = json.dumps({"type": "Subscribe", "topic": topic}).encode()
    sock.sendall(b"\x81" + bytes([0x80 | len(envelope)]) + b"\0\0\0\0" + envelope)
    sock.recv(1)
    return sock


def test_a_second_signal_ends_at_once(start):
    server = start({"production": {"drain_timeout_secs": 600, "shutdown_timeout_secs": 600}})
    topic = unique()
    with stuck_subscriber(server, topic), Peer(server.url, "alice") as peer:
        for _ in range(200):
            peer.ok("Broadcast", topic=topic, payload="x" * 50_000)
        server.terminate()
        deadline = time.monotonic() + 10
        while not events(server, "shutting down") and time.monotonic() < deadline:
            time.sleep(0.05)
        server.terminate()
        assert server.wait() == 0
    assert events(server, "second signal: closing at once")


def test_without_grace_the_end_comes_at_once(start):
    server = start({"production": {"enable_graceful_shutdown": False, "shutdown_timeout_secs": 600}})
    with Peer(server.url, "alice") as peer:
        server.terminate()
        assert peer.close_code() in (1001, 1006)
        assert server.wait() == 0


def test_sighup_reads_the_configuration_again(start):
    server = start()
    assert get(server, "/health")["status"] == "ok"  # it answers, so its handlers of signals are there
    os.kill(server.pid, signal.SIGHUP)
    deadline = time.monotonic() + 10
    while not events(server, "configuration reloaded") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert get(server, "/health")["status"] == "ok"
    assert server.stop() == 0
    assert [event["changed"] for event in events(server, "configuration reloaded")] == [0]


def test_a_port_in_use_ends_with_a_clear_message(start):
    server = start()
    second = subprocess.run(
        [*RTC, "--host=127.0.0.1", f"--port={server.port}"], capture_output=True, timeout=60, check=False
    )
    assert second.returncode == 71
    assert b"in use" in second.stderr
    assert str(server.port).encode() in second.stderr
    assert b"Traceback" not in second.stderr


def test_a_unix_socket_comes_and_goes(tmp_path):
    path = tmp_path / "rtc.sock"
    with dev(f"--host=unix:{path}") as process:
        assert f"listening on unix:{path}" in process.stdout.readline()
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(str(path))
            client.sendall(b"GET /health HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            answer = b""
            while piece := client.recv(65536):
                answer += piece
        assert answer.startswith(b"HTTP/1.1 200")
        assert b'"port":null' in answer
    assert not path.exists()


def until_it_answers(port):
    deadline = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                assert answer.status == 200
            return
        except OSError:
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.1)


@pytest.mark.parametrize("both", [True, False])
def test_closed_outputs_are_no_reason_to_stop(both):
    port = free_port()
    reader, writer = os.pipe()
    os.close(reader)
    stderr = writer if both else subprocess.DEVNULL
    with dev("--host=127.0.0.1", f"--port={port}", stdout=writer, stderr=stderr):
        os.close(writer)
        until_it_answers(port)


def test_full_outputs_are_no_reason_to_stop():
    port = free_port()
    with open("/dev/full", "w") as full, dev("--host=127.0.0.1", f"--port={port}", stdout=full, stderr=full):
        until_it_answers(port)


def test_a_socket_never_gets_the_number_of_a_standard_stream():
    port = free_port()
    options = [*RTC, "--host=127.0.0.1", f"--port={port}"]
    process = subprocess.Popen(["/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *options])
    try:
        until_it_answers(port)
        streams = [os.readlink(f"/proc/{process.pid}/fd/{number}") for number in range(3)]
        assert streams == ["/dev/null"] * 3
    finally:
        process.terminate()
        assert process.wait(20) == 0


def test_the_dev_profile_prints_what_is_needed_to_try_it():
    port = free_port()
    with dev("--host=127.0.0.1", f"--port={port}") as process:
        lines = [process.stdout.readline().strip() for _ in range(3)]
        assert lines[1] == f"demo page: http://127.0.0.1:{port}/"
        with Peer(f"ws://127.0.0.1:{port}/ws", token_text=lines[2].rpartition(" ")[2]) as peer:
            assert peer.connected["user_id"] == "demo"


def test_an_error_in_a_callback_is_logged_once_and_isolated(caplog):
    async def main():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(worker._isolate)
        loop.call_soon(lambda: 1 / 0)
        await asyncio.sleep(0.01)
        return "alive"

    assert asyncio.run(main()) == "alive"
    assert len(caplog.records) == 1
    assert caplog.records[0].exc_info[0] is ZeroDivisionError


def test_without_uvloop_asyncio_serves(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert worker.loop_factory() is asyncio.new_event_loop


def test_bypassed_authentication_believes_the_query(start):
    server = start({"testing": {"bypass_auth": True}})
    with Peer(f"{server.url}?user_id=carol") as peer:
        assert peer.connected["user_id"] == "carol"
        peer.ok("Subscribe", topic=unique())


def test_connections_leave_no_descriptors_behind(start):
    server = start()
    get(server, "/health")
    before = server.open_files()
    for _ in range(50):
        get(server, "/health/live")
        with socket.create_connection(("127.0.0.1", server.port)) as sock:
            sock.sendall(b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n")
    deadline = time.monotonic() + 15
    while server.open_files() > before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert server.open_files() <= before


CRASHING = """
import asyncio
import sys

from realtime_communication.cli.main import main
from realtime_communication.server.collector import Collector

crashes = int(sys.argv.pop(1))
run = Collector.run


async def crash(self):
    global crashes
    await asyncio.sleep(0.05)
    if crashes:
        crashes -= 1
        raise RuntimeError("a fault of the collector")
    await run(self)


Collector.run = crash
main()
"""


def crashing(crashes, *options):
    """The arguments of a server whose collector crashes that often."""
    return [sys.executable, "-c", CRASHING, str(crashes), "serve", "--profile=dev", "--workers=1", *options]


def test_crashes_beyond_the_limit_end_the_server_which_says_why():
    command = crashing(
        100, "--host=127.0.0.1", f"--port={free_port()}", "--actor_system.max_restarts=2", "--logging.format=json"
    )
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 70
    logged = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    restarted = [line["restarted"] for line in logged if line["event"] == "a service crashed"]
    assert restarted == ["garbage collector", "garbage collector", "none"]
    assert [line["event"] for line in logged[-3:]] == [
        "giving up: the server shuts down",
        "shutting down",
        "stopped",
    ]
    assert "actor_system.max_restarts" in logged[-3]["reason"]
    assert done.stderr.splitlines()[-1].startswith("error: garbage collector crashed, and more than 2 restarts")


@pytest.mark.parametrize(
    ("strategy", "restarts"),
    [
        ("one_for_one", {"HTTP": 0, "garbage collector": 2}),
        ("rest_for_one", {"HTTP": 0, "garbage collector": 2}),
        ("all_for_one", {"HTTP": 2, "garbage collector": 2}),
    ],
)
def test_crashes_within_the_limit_are_repaired(strategy, restarts):
    port = free_port()
    command = crashing(2, "--host=127.0.0.1", f"--port={port}", f"--actor_system.supervision_strategy={strategy}")
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 20
            seen = None
            while seen != restarts and time.monotonic() < deadline:
                with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health") as answer:
                    services = json.loads(answer.read())["dependencies"]["services"]
                    seen = {name: services[name]["restarts"] for name in restarts}
                time.sleep(0.02)
            assert seen == restarts
        finally:
            process.terminate()
            assert process.wait(20) == 0


def test_clients_have_time_to_answer_the_close(start):
    server = start({"production": {"drain_timeout_secs": 600, "shutdown_timeout_secs": 600}})
    with RawSocket.upgraded(server.port) as silent:
        server.terminate()
        while (received := silent.frame()).opcode != CLOSE:
            pass
        assert received.close_code == 1001
        with pytest.raises(subprocess.TimeoutExpired):  # it waits for the answer, but not for ever
            server.wait(0.3)
        silent.send(close_frame(1001))
        assert silent.at_end()
    assert server.wait() == 0
    assert not events(server, "clients that did not answer the close are cut off")


def test_http_ends_after_the_sessions_whatever_it_is_about(start):
    server = start({"production": {"drain_timeout_secs": 600, "shutdown_timeout_secs": 600}})
    idle = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    begun = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    with contextlib.closing(idle), begun, RawSocket.upgraded(server.port) as silent:
        assert health(idle)["status"] == "ok"
        begun.sendall(b"POST /api/publish HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n")
        server.terminate()
        while silent.frame().opcode != CLOSE:
            pass
        assert health(idle)["status"] == "draining"
        silent.send(close_frame(1001))
        assert idle.sock.recv(1) == b""
        assert server.wait() == 0
    assert "Traceback" not in server.log


def health(connection):
    """The answer over a connection that stays open."""
    connection.request("GET", "/health")
    return json.loads(connection.getresponse().read())


def test_clients_that_never_answer_the_close_are_cut_off(start):
    server = start({"production": {"drain_timeout_secs": 600, "shutdown_timeout_secs": 0.2}})
    with RawSocket.upgraded(server.port):
        server.terminate()
        assert server.wait() == 0
    assert events(server, "clients that did not answer the close are cut off")[0]["connections"] == 1
