"""FAULTS.md: JSON, MsgPack, Envelope and Rate, as far as the protocol tests beside this folder do not have them."""

import json
import threading
import time

import pytest
from websockets.exceptions import ConnectionClosed

from serving.peer import MSGPACK, Peer, unique, unique_user
from serving.processes import ServerProcess, StartServer
from serving.raw import TEXT, RawSocket, envelope, frame
from serving.witness import Witness

HOSTILE_JSON = {
    "nesting": '{"type":"Broadcast","topic":"t","payload":' + "[" * 60_000,
    "nested maps": '{"a":' * 12_000,
    "long integer": '{"type":"Broadcast","topic":"t","payload":' + "9" * 60_000 + "}",
    "escapes": '{"type":"Broadcast","topic":"' + "\\u0041" * 10_000 + '","payload":1}',
    "many keys": "{" + ",".join(f'"k{number}":1' for number in range(6_000)) + "}",
    "same key again and again": "{" + ",".join('"type":"Ping"' for _ in range(4_000)) + "}",
}
HOSTILE_MSGPACK = {
    "nesting": b"\x91" * 60_000,
    "nested maps": b"\x81\xa1a" * 20_000,
    "4 G items in the payload": b"\x83\xa4type\xa9Broadcast\xa5topic\xa1t\xa7payload\xdd\xff\xff\xff\xff",
    "4 G bytes in the payload": b"\x83\xa4type\xa9Broadcast\xa5topic\xa1t\xa7payload\xc6\xff\xff\xff\xff",
    "ext": b"\x83\xa4type\xa9Broadcast\xa5topic\xa1t\xa7payload\xc7\xff\x01",
}


@pytest.mark.parametrize("text", HOSTILE_JSON.values(), ids=HOSTILE_JSON.keys())
def test_hostile_json_costs_next_to_nothing(victim: ServerProcess, text: str) -> None:
    before, memory = victim.cpu_secs(), victim.resident_kib()
    with Peer(victim.url, unique_user()) as peer:
        for _ in range(50):
            peer.send(text)
            assert peer.receive()["type"] == "Error"
        assert peer.ok("Ping")["type"] == "Pong"
    assert victim.cpu_secs() - before < 1.0
    assert victim.resident_kib() - memory < 8 * 1024


@pytest.mark.parametrize("data", HOSTILE_MSGPACK.values(), ids=HOSTILE_MSGPACK.keys())
def test_hostile_msgpack_costs_next_to_nothing(victim: ServerProcess, data: bytes) -> None:
    before, memory = victim.cpu_secs(), victim.resident_kib()
    with Peer(victim.url, unique_user(), subprotocol=MSGPACK) as peer:
        for _ in range(50):
            peer.send(data)
            assert peer.receive()["type"] == "Error"
        assert peer.ok("Ping")["type"] == "Pong"
    assert victim.cpu_secs() - before < 1.0
    assert victim.resident_kib() - memory < 8 * 1024


class TestEnvelope:
    def test_topic_of_64_kib(self, victim: ServerProcess) -> None:
        with Peer(victim.url, unique_user()) as peer:
            error = peer.error("Subscribe", topic="t" * 65_000)
            assert error["code"] == "topic_invalid"
            assert len(error["message"]) < 1000

    def test_id_of_1_mb(self, victim: ServerProcess) -> None:
        data = json.dumps({"type": "Ping", "id": "i" * 1_000_000}).encode()
        with RawSocket.upgraded(victim.port) as raw:
            for at in range(0, len(data), 60_000):
                raw.send(frame(0 if at else TEXT, data[at : at + 60_000], fin=at + 60_000 >= len(data)))
            error = raw.json()
            assert (error["type"], error["code"]) == ("Error", "bad_request")
            assert "id" not in error
            assert raw.ping_works()

    def test_10_000_subscriptions_of_one_client(self, victim: ServerProcess) -> None:
        base = unique()
        with Peer(victim.url, unique_user()) as peer:
            outcomes: set[str] = set()
            words = ""
            for start in range(0, 10_000, 500):
                for number in range(start, start + 500):
                    peer.send({"type": "Subscribe", "id": number, "topic": f"{base}:{number}"})
                for number in range(start, start + 500):
                    reply = peer.reply(number)
                    outcomes.add(reply["type"])
                    words = reply.get("message", words)
            assert outcomes == {"Subscribed", "Error"}
            assert "at most" in words, "the refusal names the limit"
            assert peer.ok("Ping")["type"] == "Pong"

    def test_user_with_50_sessions(self, victim: ServerProcess) -> None:
        user = unique_user()
        sessions = [Peer(victim.url, user) for _ in range(50)]
        try:
            with Peer(victim.url, unique_user()) as peer:
                assert peer.ok("DirectMessage", to=user, payload=1)["delivered"] == [user]
            assert [session.event()["offset"] for session in sessions] == [1] * 50
        finally:
            for session in sessions:
                session.close()

    def test_races_of_one_user_leave_nothing_behind(self, victim: ServerProcess) -> None:
        user, topic = unique_user(), unique()

        def race() -> None:
            for number in range(10):
                with Peer(victim.url, user) as peer:
                    for request in ("Subscribe", "Unsubscribe", "Subscribe"):
                        peer.send({"type": request, "topic": topic})
                    peer.send({"type": "Broadcast", "topic": topic, "payload": number})
                    peer.send({"type": "DirectMessage", "to": user, "payload": number})
                    if number % 2:
                        peer.connection.socket.close()

        racers = [threading.Thread(target=race) for _ in range(4)]
        for racer in racers:
            racer.start()
        for racer in racers:
            racer.join()
        with Peer(victim.url, unique_user()) as peer:
            deadline = time.monotonic() + 10
            while peer.ok("Presence", topic=topic)["count"] and time.monotonic() < deadline:
                time.sleep(0.05)
            assert peer.ok("Presence", topic=topic)["members"] == []
            assert peer.ok("DirectMessage", to=user, payload=1)["offline"] == [user]


class TestInvalidMessagesDropped:
    def test_they_are_not_answered(self, start_server: StartServer) -> None:
        server = start_server({"message_routing": {"drop_invalid_messages": True}})
        with Witness(server.url) as witness, Peer(server.url, unique_user()) as peer:
            peer.send("nonsense")
            peer.send({"type": "Nonsense", "id": 1})
            assert peer.settle() == []
            witness.check()


LIMITED = {
    "rate_limiting": {
        "enabled": True,
        "connection": {"requests_per_second": 20.0, "burst_size": 20, "window_size_secs": 1},
        "custom_limits": [{"name": "s", "pattern": "Subscribe", "requests_per_second": 1.0, "burst_size": 2}],
    }
}


class TestRate:
    def test_refused_with_everything_the_client_needs(self, start_server: StartServer) -> None:
        server = start_server(LIMITED)
        with Peer(server.url, unique_user()) as peer:
            replies = [peer.request("Ping") for _ in range(25)]
            errors = [reply for reply in replies if reply["type"] == "Error"]
            assert [reply["type"] for reply in replies[:20]] == ["Pong"] * 20
            assert errors
            assert list(errors[0]) == ["type", "id", "code", "message", "retry_after_ms", "scope"]
            assert (errors[0]["code"], errors[0]["scope"]) == ("rate_limited", "connection")
            assert 0 < errors[0]["retry_after_ms"] <= 1000
            time.sleep(errors[-1]["retry_after_ms"] / 1000 + 0.2)
            assert peer.ok("Ping")["type"] == "Pong"

    def test_custom_limit_of_one_request_type(self, start_server: StartServer) -> None:
        server = start_server(LIMITED)
        with Peer(server.url, unique_user()) as peer:
            replies = [peer.request("Subscribe", topic=unique()) for _ in range(4)]
            assert [reply["type"] for reply in replies[:2]] == ["Subscribed"] * 2
            assert replies[3]["code"] == "rate_limited"
            assert peer.ok("Ping")["type"] == "Pong"

    @pytest.mark.parametrize("message", ["{}", '{"type":"Ping"}', '{"type":"Subscribe","topic":""}'])
    def test_who_goes_on_is_closed_with_4429(self, start_server: StartServer, message: str) -> None:
        server = start_server(LIMITED)
        with RawSocket.upgraded(server.port, user="abuser") as raw:
            raw.socket.settimeout(5)
            for _ in range(300):
                raw.send(frame(TEXT, message.encode()) * 20)
                time.sleep(0.001)
            assert raw.closed_with() == 4429
        with Peer(server.url, unique_user()) as other:
            assert other.ok("Ping")["type"] == "Pong"

    def test_users_limit_spans_their_connections(self, start_server: StartServer) -> None:
        server = start_server(
            {"rate_limiting": {"enabled": True, "user": {"requests_per_second": 5.0, "burst_size": 10}}}
        )
        user = unique_user()
        with Peer(server.url, user) as one, Peer(server.url, user) as other, Peer(server.url, unique_user()) as third:
            replies = [peer.request("Ping") for _ in range(10) for peer in (one, other)]
            scopes = {reply["scope"] for reply in replies if reply["type"] == "Error"}
            assert scopes == {"user"}
            assert third.ok("Ping")["type"] == "Pong"


def test_close_of_a_client_that_breaks_the_protocol_hurts_nobody(victim: ServerProcess) -> None:
    for _ in range(50):
        with RawSocket.upgraded(victim.port) as raw:
            raw.send(envelope(type="Subscribe", topic=unique()) + frame(3))
            assert raw.closed_with() == 1002


def test_message_beyond_the_limit_is_1009_and_names_itself(victim: ServerProcess) -> None:
    with Peer(victim.url, unique_user()) as peer:
        with pytest.raises(ConnectionClosed):  # while this sends still, or when it has sent
            peer.connection.send(["x" * 60_000] * 20)
            peer.receive()
        assert peer.close_code() == 1009
