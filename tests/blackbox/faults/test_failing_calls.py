"""FAULTS.md: Network: errors of single system calls that say nothing about the connection."""

import time

import pytest

from serving.failing_calls import failing_calls
from serving.peer import Peer, unique, unique_user
from serving.processes import StartServer
from serving.raw import RawSocket
from serving.witness import Witness

PAYLOAD = "x" * 3000
MESSAGES = 400


@pytest.mark.parametrize("target", ["product", "tls"])
@pytest.mark.parametrize("every", [2, 7])
def test_no_byte_is_lost_and_nobody_spins(start_server: StartServer, target: str, every: int) -> None:
    with failing_calls(every) as environment:
        server = start_server(target=target, environment=environment)
        topic = unique()
        with Witness(server.url) as witness:
            readers = [Peer(server.url, unique_user()) for _ in range(5)]
            for reader in readers:
                reader.ok("Subscribe", topic=topic)
            with Peer(server.url, unique_user()) as publisher:
                for number in range(MESSAGES):
                    publisher.send({"type": "Broadcast", "topic": topic, "payload": f"{number}{PAYLOAD}", "id": number})
                for number in range(MESSAGES):
                    assert publisher.reply(number)["type"] == "Ack"
            for reader in readers:
                assert [event["offset"] for event in reader.events(MESSAGES)] == list(range(1, MESSAGES + 1))
                reader.close()
            for _ in range(30):  # accepting, too
                with Peer(server.url, unique_user()) as peer:
                    peer.ok("Ping")
            witness.check()
        if target == "product":
            with RawSocket.upgraded(server.port) as raw:
                before = server.cpu_secs()
                time.sleep(0.5)
                assert server.cpu_secs() - before < 0.2, "an idle server spins"
                assert raw.ping_works()
        assert server.stop() == 0
