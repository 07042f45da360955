"""Connections whose peers have not authenticated: over a bound the one that has waited longest makes room."""

import ipaddress

import pytest

from core.hub.sans_io import TEXT, Server, client_frame, identity, make_hub, split_frames
from realtime_communication._core.hub.memory_driver import Connection

CROWD = 5


def site(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


def open_ones(connections: list[Connection]) -> list[bool]:
    return [connection.open for connection in connections]


def arrivals(server: Server, *peers: str) -> list[bool]:
    """Which of the connections from these addresses are open when all have come."""
    return open_ones([server.driver.connect(site(peer)) for peer in peers])


class TestOfAll:
    def test_the_oldest_goes(self) -> None:
        server = make_hub(max_unauthenticated=3)
        connections = [server.driver.connect() for _ in range(CROWD)]
        assert open_ones(connections) == [False, False, True, True, True]
        server.driver.flush()
        stats = server.stats()
        assert (stats["crowded_out"], stats["closed"], stats["sessions"], stats["timers"]) == (2, 2, 3, 3)

    def test_who_has_authenticated_is_none_of_them(self) -> None:
        server = make_hub(max_unauthenticated=1)
        peers = [server.connect(f"user-{number}") for number in range(CROWD)]
        assert all(peer.connection.open for peer in peers)
        assert server.stats()["crowded_out"] == 0

    def test_who_has_not_yet_is_told(self) -> None:
        server = make_hub(max_unauthenticated=1)
        anonymous = server.connect(None)
        server.driver.connect()
        anonymous.frames()
        assert anonymous.close == (1013, "websocket.max_unauthenticated is reached")
        assert not anonymous.connection.open
        assert server.stats()["connections"] == 0

    def test_by_a_message_too(self) -> None:
        server = make_hub(max_unauthenticated=2)
        server.identities["good"] = identity("alice")
        waiting, other = server.connect(None), server.driver.connect()
        waiting.send({"type": "Authenticate", "id": 1, "token": "good"})
        more = [server.driver.connect() for _ in range(2)]
        assert waiting.connection.open
        assert open_ones([other, *more]) == [False, True, True]

    def test_what_was_handed_over_or_has_gone_makes_room(self) -> None:
        server = make_hub(max_unauthenticated=2)
        for _ in range(CROWD):
            server.driver.connect().feed(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            server.driver.connect().end()
        assert server.stats()["crowded_out"] == 0

    def test_refused_ones_that_linger_count(self) -> None:
        server = make_hub(max_unauthenticated=2)
        refused = server.driver.connect()
        refused.feed(b"GET /ws HTTP/1.1\r\nHost: x\r\n\r\n")
        assert refused.lingering
        later = [server.driver.connect() for _ in range(2)]
        assert open_ones([refused, *later]) == [False, True, True]

    def test_an_operator_hears_of_it(self) -> None:
        server, told = make_hub(max_unauthenticated=1), []
        server.hub.report_faults(lambda *fault: told.append(fault))
        server.driver.connect()
        server.driver.connect()
        assert told == [("memory", 503, "websocket.max_unauthenticated is reached", 0)]


class TestOfASite:
    def test_the_oldest_of_the_site_goes(self) -> None:
        server = make_hub(max_unauthenticated_per_address=2)
        one, two = "198.51.100.1", "198.51.100.2"
        assert arrivals(server, one, two, one, two, one) == [False, True, True, True, True]

    @pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
    def test_this_machine_is_none(self, peer: str) -> None:
        assert arrivals(make_hub(max_unauthenticated_per_address=1), *[peer] * 3) == [True] * 3

    def test_no_address_is_none(self) -> None:
        server = make_hub(max_unauthenticated_per_address=1)
        assert open_ones([server.driver.connect() for _ in range(3)]) == [True] * 3

    def test_one_network_of_64_bits_is_one(self) -> None:
        server = make_hub(max_unauthenticated_per_address=1)
        assert arrivals(server, "2001:db8::1", "2001:db8:0:1::1", "2001:db8::ffff:1:1:1") == [False, True, True]

    def test_an_address_in_either_form_is_one(self) -> None:
        server = make_hub(max_unauthenticated_per_address=1)
        assert arrivals(server, "::ffff:198.51.100.1", "198.51.100.1") == [False, True]

    def test_a_trusted_proxy_brings_others(self) -> None:
        asked = []

        def is_proxy(address: bytes) -> bool:
            asked.append(address)
            return address == site("198.51.100.1")

        server = make_hub(max_unauthenticated_per_address=2, trusted_proxies=is_proxy)
        assert arrivals(server, *["198.51.100.1"] * CROWD) == [True] * CROWD
        assert arrivals(server, *["198.51.100.2"] * CROWD) == [False, False, False, True, True]
        assert asked == [site("198.51.100.1"), site("198.51.100.2")], "asked once of each, and only over the bound"

    def test_who_cannot_be_asked_about_is_none(self) -> None:
        def fails(address: bytes) -> bool:
            raise RuntimeError

        server = make_hub(max_unauthenticated_per_address=1, trusted_proxies=fails)
        assert arrivals(server, *["198.51.100.1"] * 2) == [False, True]

    def test_many_sites_that_come_and_go_leave_nothing(self) -> None:
        server = make_hub(max_unauthenticated_per_address=2)
        connections = [server.driver.connect(bytes([198, 51, n >> 8, n & 255])) for n in range(900)]
        for connection in connections[::2]:
            connection.end()
        for connection in connections[1::2]:
            connection.feed(b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n")
        stats = server.stats()
        assert (stats["crowded_out"], stats["sessions"], stats["timers"]) == (0, 0, 0)


def test_frames_of_one_that_was_crowded_out_are_not_read() -> None:
    server = make_hub(max_unauthenticated=1)
    anonymous = server.connect(None)
    server.driver.connect()
    anonymous.connection.feed(client_frame(b'{"type":"Ping"}', TEXT))
    assert [opcode for opcode, _, _ in split_frames(anonymous.connection.drain())[0]] == [8]
    assert server.stats()["requests"] == 0
