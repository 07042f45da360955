"""`[websocket]`: bounds and times of connections."""

import pytest


def closed(peer):
    peer.frames()
    return peer.close and peer.close[0]


def test_max_connections(hub):
    server = hub({"websocket": {"max_connections": 2}})
    assert [server.connect(user).status for user in ("alice", "bob", "carol")] == [101, 101, 503]


def test_max_unauthenticated(hub):
    server = hub({"websocket": {"max_unauthenticated": 2}})
    alice = server.connect("alice")
    waiting = [server.driver.connect() for _ in range(3)]
    assert [connection.open for connection in waiting] == [False, True, True]
    assert alice.connection.open


def test_max_unauthenticated_per_address(hub):
    server = hub({"websocket": {"max_unauthenticated_per_address": 2}})
    far, near = b"\xc6\x33\x64\x07", b"\x7f\x00\x00\x01"
    waiting = [server.driver.connect(peer) for peer in (far, near, near, near, far, far)]
    assert [connection.open for connection in waiting] == [False, True, True, True, True, True]


@pytest.mark.parametrize("interval", [5, 20])
def test_heartbeat_interval(hub, interval):
    server = hub({"websocket": {"heartbeat_interval_secs": interval, "client_timeout_secs": 100}})
    peer = server.connect()
    server.advance(interval * 1000 - 100)
    peer.frames()
    assert peer.pings == []
    server.advance(200)
    peer.frames()
    assert len(peer.pings) == 1


@pytest.mark.parametrize("timeout", [5, 20])
def test_client_timeout(hub, timeout):
    server = hub({"websocket": {"heartbeat_interval_secs": 1, "client_timeout_secs": timeout}})
    peer = server.connect()
    for _ in range(timeout * 10 - 1):
        server.advance(100)
    assert closed(peer) is None
    server.advance(200)
    assert closed(peer) == 4408


@pytest.mark.parametrize("timeout", [1, 30])
def test_auth_timeout(hub, timeout):
    server = hub({"websocket": {"auth_timeout_secs": timeout}})
    peer = server.connect(None)
    server.advance(timeout * 1000 - 100)
    assert closed(peer) is None
    server.advance(200)
    assert closed(peer) == 4408


def test_max_frame_size(hub):
    server = hub({"websocket": {"max_frame_size": 200, "max_message_size": 1000}})
    for size, code in ((200, None), (201, 1009)):
        peer = server.connect()
        peer.send_frame(b" " * size)
        assert closed(peer) == code


def test_max_message_size(hub):
    server = hub({"websocket": {"max_frame_size": 200, "max_message_size": 300}})
    for size, code in ((100, None), (101, 1009)):
        peer = server.connect()
        peer.send_frame(b" " * 200, fin=False)
        peer.send_frame(b" " * size, 0)
        assert closed(peer) == code
