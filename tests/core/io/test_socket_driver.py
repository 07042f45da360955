"""What plain and TLS connections share; `test_reactor.py` and `test_tls_connection.py` are its users."""

import socket

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
