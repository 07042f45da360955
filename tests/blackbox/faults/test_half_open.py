"""FAULTS.md: Network: clients that are cut off without a word, behind a link of their own."""

import ctypes
import os
import socket
import threading
from collections.abc import Iterator

import pytest

from serving.asking import health, until
from serving.networks import Link, Network
from serving.peer import Peer, unique, unique_user
from serving.processes import ServerProcess, StartServer
from serving.raw import RawSocket, envelope, upgrade
from serving.witness import Witness

CLIENTS = 12
CLONE_NEWNET = 0x40000000
QUICK = {"websocket": {"heartbeat_interval_secs": 1, "client_timeout_secs": 3, "auth_timeout_secs": 2}}


@pytest.fixture
def link() -> Iterator[Link]:
    with Network() as network:
        yield network.link()


def sockets_behind(link: Link, port: int, count: int) -> list[socket.socket]:
    """Connections to the server that come from the other end of the link."""
    made: list[socket.socket] = []
    failed: list[OSError] = []

    def connect() -> None:
        try:
            with open(f"/run/netns/{link.network.name}") as space:
                if ctypes.CDLL(None, use_errno=True).setns(space.fileno(), CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            made.extend(socket.create_connection((link.here, port), 10) for _ in range(count))
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=connect)  # whose namespace ends with it
    thread.start()
    thread.join()
    assert not failed, failed
    return made


@pytest.mark.parametrize("cut", ["unplugged", "lost"])
def test_they_are_freed_by_the_heartbeat(start_server: StartServer, link: Link, cut: str) -> None:
    """Some at rest, some with more to read than the kernel takes: none leaves a trace, and nobody else notices."""
    server = start_server({"server": {"host": "0.0.0.0"}, **QUICK})
    topic = unique()
    with Witness(server.url) as witness, Peer(server.url, unique_user()) as peer:
        before = connections(server), server.open_files()
        raws = [RawSocket.over(each) for each in sockets_behind(link, server.port, CLIENTS)]
        for number, raw in enumerate(raws):
            raw.send(upgrade(user=f"far-{number}"))
            assert raw.answer().status == 101
            raw.frame()
            if number % 2:
                raw.send(envelope(type="Subscribe", topic=topic))
                assert raw.ping_works()
        assert connections(server) == before[0] + CLIENTS
        link.unplug() if cut == "unplugged" else link.lose()
        for _ in range(100):
            peer.ok("Broadcast", topic=topic, payload="x" * 60_000)
        until(lambda: connections(server) <= before[0], lambda: server.log[-2000:])
        until(lambda: server.open_files() <= before[1], lambda: os.listdir(f"/proc/{server.pid}/fd"))
        assert peer.ok("Presence", topic=topic)["count"] == 0
        witness.check()
        for raw in raws:
            raw.socket.close()


def connections(server: ServerProcess) -> int:
    return int(health(server.port)["connections"])
