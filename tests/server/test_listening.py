"""Listening sockets, and what is said when there can be none."""

import os
import socket
import stat

import pytest

from realtime_communication.errors import EXIT_OS, EnvironmentFault
from realtime_communication.server.listening import open_listeners, open_shared_listeners


@pytest.fixture
def listen():
    opened = []

    def open_and_remember(host, port=0):
        opened.extend(open_listeners(host, port))
        return opened[-1]

    yield open_and_remember
    for listener in opened:
        listener.close()


def test_a_free_port_is_told(listen):
    listener = listen("127.0.0.1")
    assert listener.port > 0
    assert listener.url == f"http://127.0.0.1:{listener.port}"
    socket.create_connection(("127.0.0.1", listener.port)).close()
    assert listener.sock.getblocking() is False


def test_the_address_of_a_listener_that_speaks_tls(listen):
    for host, written in (("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")):
        listener = listen(host)
        listener.secure = True
        assert listener.url == f"https://{written}:{listener.port}"


def test_ipv6(listen):
    listener = listen("::1")
    assert listener.url == f"http://[::1]:{listener.port}"
    socket.create_connection(("::1", listener.port)).close()


def test_a_name_is_all_its_addresses_on_one_port():
    listeners = open_listeners("localhost", 0)
    try:
        assert len({listener.port for listener in listeners}) == 1
        assert listeners[0].url.startswith("http://127.0.0.1:")
    finally:
        for listener in listeners:
            listener.close()


def test_nobody_waits_in_the_backlog_of_a_server_that_does_not_take_connections_yet():
    (listener,) = open_listeners("127.0.0.1", 0, listening=False)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", listener.port))
    for _ in range(2):
        listener.listen()
        socket.create_connection(("127.0.0.1", listener.port)).close()
    listener.close()


def test_of_two_servers_that_start_at_once_one_finds_out():
    (one,) = open_listeners("127.0.0.1", 0, listening=False)
    (other,) = open_listeners("127.0.0.1", one.port, listening=False)
    one.listen()
    with pytest.raises(EnvironmentFault, match="in use") as caught:
        other.listen()
    assert str(one.port) in str(caught.value)
    one.close()
    other.close()


def test_a_port_in_use_is_said_clearly(listen):
    listener = listen("127.0.0.1")
    with pytest.raises(EnvironmentFault, match="in use") as caught:
        open_listeners("127.0.0.1", listener.port)
    assert str(listener.port) in str(caught.value)
    assert caught.value.exit_status == EXIT_OS


def test_a_port_is_free_again_after_its_connections(listen):
    first = open_listeners("127.0.0.1", 0)[0]
    port = first.port
    client = socket.create_connection(("127.0.0.1", port))
    first.sock.setblocking(True)
    accepted, _ = first.sock.accept()
    accepted.close()
    client.recv(1)
    first.close()
    client.close()
    assert listen("127.0.0.1", port).port == port


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid", "256.1.1.1", "a" * 300])
def test_addresses_that_are_not_here(host):
    with pytest.raises(EnvironmentFault, match="cannot listen"):
        open_listeners(host, 0)


class TestUnix:
    def test_a_socket_and_its_end(self, listen, tmp_path):
        path = tmp_path / "s"
        listener = listen(f"unix:{path}")
        assert (listener.port, listener.url) == (None, f"unix:{path}")
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o660
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
        listener.close()
        assert not path.exists()

    def test_what_a_crashed_server_left_is_replaced(self, listen, tmp_path):
        path = tmp_path / "s"
        with socket.socket(socket.AF_UNIX) as crashed:
            crashed.bind(str(path))
            crashed.listen()
        assert path.exists()
        listen(f"unix:{path}")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))

    def test_a_living_server_is_not_replaced(self, listen, tmp_path):
        listen(f"unix:{tmp_path / 's'}")
        with pytest.raises(EnvironmentFault, match="in use"):
            open_listeners(f"unix:{tmp_path / 's'}", 0)
        assert (tmp_path / "s").exists()

    def test_a_file_is_not_replaced(self, tmp_path):
        path = tmp_path / "s"
        path.write_text("precious")
        with pytest.raises(EnvironmentFault, match="no socket"):
            open_listeners(f"unix:{path}", 0)
        assert path.read_text() == "precious"

    def test_the_successors_socket_is_left_alone(self, listen, tmp_path):
        path = tmp_path / "s"
        first = open_listeners(f"unix:{path}", 0)[0]
        os.rename(path, tmp_path / "kept")  # keeps the inode, so that the successor's differs
        listen(f"unix:{path}")
        first.close()
        assert path.exists()

    @pytest.mark.parametrize("path", ["/nowhere/at/all", "/" + "a" * 200])
    def test_paths_that_cannot_be(self, path):
        with pytest.raises(EnvironmentFault, match="cannot listen"):
            open_listeners(f"unix:{path}", 0)


class TestSharedListeners:
    @pytest.fixture
    def share(self):
        opened = []

        def open_and_remember(host, port=0, workers=3):
            opened.extend(open_shared_listeners(host, port, workers))
            return opened[-workers:]

        yield open_and_remember
        for listeners in opened:
            for listener in listeners:
                listener.close()

    def test_each_worker_has_its_own_on_one_port(self, share):
        lists = share("localhost")
        assert len({listener.port for listeners in lists for listener in listeners}) == 1
        assert len({listener.sock.fileno() for listeners in lists for listener in listeners}) == sum(map(len, lists))
        clients = [socket.create_connection(("127.0.0.1", lists[0][0].port)) for _ in range(60)]
        accepted = [0, 0, 0]
        for index, listeners in enumerate(lists):
            while True:
                try:
                    listeners[0].sock.accept()[0].close()
                except BlockingIOError:
                    break
                accepted[index] += 1
        assert sum(accepted) == 60 and min(accepted) > 0
        for client in clients:
            client.close()

    def test_a_connection_waits_while_nobody_accepts(self, share):
        (listener,) = share("127.0.0.1", workers=1)[0]
        copy = socket.socket(fileno=os.dup(listener.sock.fileno()))
        copy.close()  # as a worker that dies closes its copy
        with socket.create_connection(("127.0.0.1", listener.port), 5):
            listener.sock.accept()[0].close()

    @pytest.mark.parametrize("shared", [True, False])
    def test_another_server_is_found_out(self, share, listen, shared):
        port = share("127.0.0.1")[0][0].port if shared else listen("127.0.0.1").port
        with pytest.raises(EnvironmentFault, match="in use"):
            share("127.0.0.1", port)

    def test_one_worker_finds_out_too(self, share):
        with pytest.raises(EnvironmentFault, match="in use"):
            open_listeners("127.0.0.1", share("127.0.0.1")[0][0].port)

    def test_a_unix_socket_is_one_for_all_and_goes_with_the_first(self, share, tmp_path):
        path = tmp_path / "s"
        lists = share(f"unix:{path}")
        assert len({listeners[0].sock for listeners in lists}) == 1
        lists[2][0].close()
        assert path.exists()
        lists[0][0].close()
        assert not path.exists()
