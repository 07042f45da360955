"""What plain and TLS connections share; `test_reactor.py` and `test_tls_connection.py` are its users."""

import socket

import pytest

from core.io.test_reactor import UPGRADE, Client, Running, rest_of


def test_a_callback_that_fails_when_tls_failed_is_isolated(tmp_path):
    from serving.certificates import Authority

    running = Running(context=Authority(tmp_path).server_context())
    try:
        running.tls_failures = None  # the callback fails on it
        with socket.create_connection(running.address, timeout=20) as sock:
            sock.sendall(bytes(100))
            rest_of(sock)
        running.until(lambda: running.errors)
        assert [context["message"] for context in running.errors] == ["a TLS failure could not be told"]
        assert running.reactor.tls_failures == 1
    finally:
        running.stop()


def test_a_plain_connection_is_handed_over_without_a_stream():
    running = Running()
    try:
        running.socket().sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        running.until(lambda: running.handed_over)
        assert running.streams == [None]
        client = Client(running.socket())
        client.socket.sendall(UPGRADE % b"alice")
        client.head()
        assert running.reactor.tls_failures == 0
    finally:
        running.stop()


LISTENERS = {
    "127.0.0.1": (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
    "::1": (socket.AF_INET6, "::1", "[::1]"),
    "::": (socket.AF_INET6, "127.0.0.1", "[::ffff:127.0.0.1]"),
}


@pytest.mark.parametrize("bound", LISTENERS)
def test_the_address_of_a_peer(bound):
    family, to, shown = LISTENERS[bound]
    running = Running()
    try:
        with socket.create_server((bound, 0), family=family, dualstack_ipv6=bound == "::") as listener:
            listener.setblocking(False)
            running.call(lambda: running.reactor.listen(listener))
            with socket.create_connection((to, listener.getsockname()[1]), timeout=20) as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                running.until(lambda: running.handed_over)
                assert running.handed_over[0][2] == f"{shown}:{client.getsockname()[1]}"
            running.call(running.reactor.stop_accepting)
    finally:
        running.stop()


def test_a_peer_on_a_unix_socket_has_no_address(tmp_path):
    running = Running()
    try:
        with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
            listener.bind(str(tmp_path / "socket"))
            listener.listen()
            listener.setblocking(False)
            running.call(lambda: running.reactor.listen(listener))
            client.settimeout(20)
            client.connect(str(tmp_path / "socket"))
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            running.until(lambda: running.handed_over)
            assert running.handed_over[0][2] == ""
            running.call(running.reactor.stop_accepting)
    finally:
        running.stop()
