"""FAULTS.md: Network: clients behind a link that loses and delays, and clients that all come at once."""

import resource
import socket
import time

from serving.asking import until
from serving.bad_link import BadLink
from serving.peer import Peer, unique, unique_user
from serving.processes import StartServer
from serving.raw import RawSocket, envelope
from serving.witness import Witness

CLIENTS, MESSAGES = 4, 15
SYNS = 10_000


def test_a_bad_link_is_bad_for_those_behind_it_alone(start_server: StartServer) -> None:
    """5 % loss, up to 200 ms for each packet, so that they overtake each other, and an MTU of 576."""
    server = start_server({"server": {"host": "0.0.0.0"}})
    topic, payload = unique(), "x" * 1500
    with BadLink(loss=0.05, jitter_secs=0.2, mtu=576) as link, Witness(server.url) as witness:

        def connect() -> list[RawSocket]:
            return [RawSocket.upgraded(server.port, address=link.here) for _ in range(CLIENTS)]

        readers = link.behind(connect)
        for raw in readers:
            raw.send(envelope(type="Subscribe", topic=topic))
        witness.check()
        for raw in readers:
            assert raw.ping_works()
        with Peer(server.url, unique_user()) as peer:
            for number in range(MESSAGES):
                began = time.monotonic()
                peer.ok("Broadcast", topic=topic, payload=f"{number}{payload}")
                assert time.monotonic() - began < 5, "who is not behind it waits for those who are"
        witness.check()
        for raw in readers:
            assert [raw.json()["offset"] for _ in range(MESSAGES)] == list(range(1, MESSAGES + 1))
            raw.socket.close()
        witness.check()
        assert link.lost > 0


def test_ten_thousand_at_once(start_server: StartServer) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        server = start_server()
        with Witness(server.url) as witness:
            before = server.open_files()
            sockets = []
            for _ in range(SYNS):
                one = socket.socket()
                one.setblocking(False)
                one.connect_ex(("127.0.0.1", server.port))
                sockets.append(one)
            with Peer(server.url, unique_user()) as peer:
                peer.ok("Ping")
            witness.check()
            for one in sockets:
                one.close()
            until(lambda: server.open_files() <= before)
            witness.check()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
