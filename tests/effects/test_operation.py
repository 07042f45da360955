"""`[server]`, `[logging]`, `[security.cors]`, `[development]`, `[testing]` and `[production]`."""

import contextlib
import http.client
import json
import socket

import pytest

from serving.peer import Peer, unique
from serving.processes import ServerProcess, free_port
from serving.raw import RawSocket, envelope, exchange, upgrade


def get(port, path, host="127.0.0.1"):
    connection = http.client.HTTPConnection(host, port, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", path)
        return connection.getresponse().status


class TestServer:
    def test_host(self, serve):
        running = serve({"server": {"host": "127.0.0.2"}})
        assert get(running.port, "/health", "127.0.0.2") == 200
        with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", running.port), 5):
            pass

    def test_port(self, serve):
        port = free_port()
        assert serve({"server": {"port": port}}).port == port
        assert get(port, "/health") == 200


@contextlib.contextmanager
def process(settings):
    server = ServerProcess("product", free_port(), settings, None)
    try:
        server.start()
        assert get(server.port, "/health") == 200
        yield server
    finally:
        server.dispose()


@pytest.mark.parametrize(("level", "format"), [("warn", "json"), ("info", "pretty")])
def test_level_and_format_of_the_log(level, format):
    with process({"logging": {"level": level, "format": format}, "auth": {"validate_nbf": False}}) as server:
        assert server.stop() == 0
        lines = [line for line in server.log.splitlines() if "listening on http" not in line]
    objects = [json.loads(line) for line in lines if line.startswith("{")]
    if format == "json":
        assert [entry["event"] for entry in objects] == [
            "auth.validate_nbf is false: tokens are accepted that should not be"
        ]
    else:
        assert objects == []
        assert any("listening" in line for line in lines)
        assert any("auth.validate_nbf is false" in line for line in lines)


@pytest.mark.parametrize("enabled", [True, False])
def test_origins_of_upgrades(serve, enabled):
    running = serve({"security": {"cors": {"enabled": enabled, "allowed_origins": ["https://app.example.com"]}}})
    for origin, status in (("https://app.example.com", 101), ("https://evil.example.com", 403 if enabled else 101)):
        answer = exchange(running.port, upgrade(origin=origin))
        assert answer.status == status


@pytest.mark.parametrize("enabled", [True, False])
def test_enable_debug_endpoints(serve, enabled):
    running = serve({"development": {"enable_debug_endpoints": enabled}})
    assert get(running.port, "/debug/memory") == (200 if enabled else 404)
    assert exchange(running.port, upgrade(target="/debug/echo")).status == (101 if enabled else 404)


def test_bypass_auth(serve):
    with Peer(serve({"testing": {"bypass_auth": True}}).url + "?user_id=carol") as peer:
        assert peer.connected["user_id"] == "carol"
    with RawSocket(serve({"testing": {"bypass_auth": False}}).port) as raw:
        raw.send(upgrade(target="/ws?user_id=carol", user=None))
        assert raw.answer().status == 101
        raw.send(envelope(type="Ping", id=1))
        assert raw.closed_with() == 4401


@pytest.mark.parametrize("counting", [True, False])
def test_deterministic_ids(serve, counting):
    seen = []
    for _ in range(2):
        running = serve({"testing": {"deterministic_ids": counting}})
        with running.peer("alice") as peer:
            seen.append(
                (peer.connected["session_id"], peer.connected["node_id"], peer.ok("Subscribe", topic="t")["epoch"])
            )
    assert (seen[0] == seen[1]) is counting


def stuck(running):
    """A client that subscribes and never reads; more is published than its socket takes."""
    reader = running.raw("stuck", receive_buffer=4096)
    topic = unique()
    reader.send(envelope(type="Subscribe", id=1, topic=topic))
    reader.frame()
    with running.peer("publisher") as publisher:
        for _ in range(150):
            publisher.ok("Broadcast", topic=topic, payload="x" * 60_000)
    return reader


def test_drain_timeout(serve, caplog):
    running = serve({"production": {"drain_timeout_secs": 0.2, "shutdown_timeout_secs": 0.2}})
    with stuck(running):
        running.stop(at_once=False)
    assert "not everything was delivered before the end" in caplog.text
    assert "clients that did not answer the close are cut off" in caplog.text
    assert running.status == 0


def test_enable_graceful_shutdown(serve, caplog):
    settings = {"enable_graceful_shutdown": False, "drain_timeout_secs": 600, "shutdown_timeout_secs": 600}
    running = serve({"production": settings})
    with stuck(running):
        running.stop(at_once=False)
    assert running.status == 0
