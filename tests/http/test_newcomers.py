"""Which HTTP connections make room, and for whom."""

import socket

import pytest

from realtime_communication.http.connection import HttpConnection
from realtime_communication.http.forwarding import TrustedProxies, site_of_peer
from realtime_communication.http.newcomers import OF_ADDRESS, OF_ALL, Newcomers

GET = b"GET /health/live HTTP/1.1\r\nHost: h\r\n\r\n"


class Door:
    """Newcomers with names, three of them and two of each site, and who was sent away."""

    def __init__(self):
        self.sent_away = []
        self.newcomers = Newcomers(lambda name, reason: self.sent_away.append((name, reason)))

    def come(self, *names, site="s"):
        for name in names:
            self.newcomers.add(name, site, 3, 2)


@pytest.fixture
def door():
    return Door()


def test_the_oldest_of_the_site_makes_room(door):
    door.come("a", site="far")
    door.come("b", "c", "d")
    assert door.sent_away == [("b", OF_ADDRESS)]
    assert len(door.newcomers) == 3


def test_the_oldest_of_all_makes_room(door):
    door.come("a", "b")
    door.come("c", "d", site=None)
    assert door.sent_away == [("a", OF_ALL)]


def test_who_has_no_site_is_bounded_with_all_only(door):
    door.come("a", "b", "c", site=None)
    assert door.sent_away == []


def test_who_has_left_takes_no_room(door):
    door.come("a", "b")
    for name in ("a", "a", "nobody"):
        door.newcomers.remove(name)
    door.come("c")
    assert door.sent_away == []
    for name in ("b", "c"):
        door.newcomers.remove(name)
    assert (len(door.newcomers), door.newcomers._sites) == (0, {})


def test_room_for_another_kind(door):
    door.come("a", "b")
    assert [door.newcomers.make_room("full") for _ in range(3)] == [True, True, False]
    assert door.sent_away == [("a", "full"), ("b", "full")]


@pytest.mark.parametrize(
    ("peer", "site"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("127.0.0.1", None),
        ("::1", None),
        ("", None),
        ("198.51.100.1", None),
    ],
)
def test_sites_of_peers(peer, site):
    assert site_of_peer(peer, TrustedProxies(["198.51.100.0/24"])) == site


class TestConnections:
    """Their peers seem to be far away."""

    @pytest.fixture
    def server(self, make_server, monkeypatch):
        monkeypatch.setattr(HttpConnection, "_address", lambda _: "192.0.2.7")
        return make_server(changes={"websocket.max_unauthenticated_per_address": 1})

    @pytest.fixture
    def connect(self, server):
        made = []

        def connect(request):
            made.append(socket.create_connection(("127.0.0.1", server.port), timeout=10))
            made[-1].sendall(request)
            assert made[-1].recv(65536).startswith(b"HTTP/1.1 200 ")
            return made[-1]

        yield connect
        for sock in made:
            sock.close()

    def test_the_older_one_is_closed(self, server, connect):
        first, second = connect(GET), connect(GET)
        assert first.recv(1) == b""
        second.sendall(GET)
        assert second.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert server.services.crowded_out == 1

    def test_good_credentials_settle_a_connection(self, server, connect, admin_key):
        known = connect(
            GET.replace(b"/health/live", b"/admin/stats").replace(
                b"\r\n\r\n", b"\r\nX-API-Key: " + admin_key["X-API-Key"].encode() + b"\r\n\r\n"
            )
        )
        for _ in range(3):
            connect(GET)
        known.sendall(GET)
        assert known.recv(65536).startswith(b"HTTP/1.1 200 ")
