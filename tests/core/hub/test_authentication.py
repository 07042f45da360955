"""Authenticate and Refresh: what a credential brings, and how each fails."""

from typing import Any

import pytest

from core.hub.sans_io import ADMIN, READ, WALL_MS, WRITE, Envelope, identity, make_hub


class TestAuthenticate:
    def test_the_first_message(self) -> None:
        server = make_hub()
        server.identities["good"] = identity("alice", expires_at=2_000_000_000, refresh_at=1_900_000_000)
        peer = server.connect(None)
        answer = peer.request({"type": "Authenticate", "id": 5, "token": "good"})
        assert answer.pop("session_id") == "0" * 31 + "1"
        assert answer == {
            "type": "Connected",
            "id": 5,
            "user_id": "alice",
            "node_id": "node-1",
            "protocol": "rtc.v1",
            "heartbeat_interval_secs": 30,
            "expires_at": 2_000_000_000,
            "refresh_at": 1_900_000_000,
        }
        assert peer.subscribe("room")["offset"] == 0

    @pytest.mark.parametrize(
        "request_", [{"type": "Authenticate", "id": 1, "token": "bad"}, {"type": "Ping", "id": 1}, {"type": "Nope"}]
    )
    def test_anything_else_is_refused_and_closed(self, request_: Envelope) -> None:
        server = make_hub()
        peer = server.connect(None)
        answer = peer.request(request_)
        assert answer["type"] == "Error"
        assert answer["code"] == ("bad_request" if request_["type"] == "Nope" else "unauthorized")
        assert peer.close == (4401, "unauthorized")
        assert server.stats()["connections"] == 0

    def test_what_follows_a_refused_one_is_not_read(self) -> None:
        server = make_hub()
        server.identities["good"] = identity("alice")
        peer = server.connect(None)
        peer.send({"type": "Authenticate", "token": "bad"}, {"type": "Authenticate", "token": "good"})
        assert [m["type"] for m in peer.messages()] == ["Error"]

    def test_only_once(self) -> None:
        server = make_hub()
        answer = server.connect("alice").request({"type": "Authenticate", "id": 1, "token": "x"})
        assert (answer["type"], answer["code"]) == ("Error", "bad_request")

    def test_a_check_that_fails_by_itself_is_internal(self) -> None:
        server = make_hub()

        def broken(token: str | None, api_key: str | None, peer: str) -> Any:
            raise RuntimeError("secret detail")

        server.hub.set_callbacks(server.authenticate_upgrade, broken)
        answer = server.connect(None).request({"type": "Authenticate", "id": 1, "token": "x"})
        assert answer["code"] == "internal"
        assert "secret" not in answer["message"]

    def test_a_large_first_message_is_refused(self) -> None:
        peer = make_hub(max_frame_size=1 << 20).connect(None)
        peer.send({"type": "Authenticate", "token": "x" * 70_000})
        assert peer.messages() == []
        assert peer.close is not None
        assert peer.close[0] == 1009


class TestRefresh:
    def test_new_times(self) -> None:
        server = make_hub()
        alice = server.connect("alice", expires_at=WALL_MS // 1000 + 100)
        server.identities["new"] = identity("alice", expires_at=WALL_MS // 1000 + 500, refresh_at=WALL_MS // 1000 + 400)
        answer = alice.request({"type": "Refresh", "id": 1, "token": "new"})
        assert answer == {
            "type": "Refreshed",
            "id": 1,
            "expires_at": WALL_MS // 1000 + 500,
            "refresh_at": WALL_MS // 1000 + 400,
        }
        for _ in range(15):
            server.advance(10_000)
            alice.send({"type": "Ping"})
        alice.messages()
        assert alice.close is None

    def test_new_rights(self) -> None:
        server = make_hub()
        alice = server.connect("alice", publish_patterns=("room",))
        server.identities["new"] = identity("alice", READ | WRITE, publish_patterns=("hall",), login="other")
        alice.request({"type": "Refresh", "id": 1, "token": "new"})
        assert alice.request({"type": "Broadcast", "id": 1, "topic": "room", "payload": 1})["code"] == "forbidden"
        assert alice.request({"type": "Broadcast", "id": 1, "topic": "hall", "payload": 1})["type"] == "Ack"
        assert alice.request({"type": "Subscribe", "id": 1, "topic": "room"})["code"] == "forbidden"
        assert server.hub.disconnect(login="other") == 1

    @pytest.mark.parametrize("token", ["bad", "another"])
    def test_a_token_that_is_none_of_the_user_changes_nothing(self, token: str) -> None:
        server = make_hub()
        server.identities["another"] = identity("bob", ADMIN)
        alice = server.connect("alice", permissions=READ)
        answer = alice.request({"type": "Refresh", "id": 1, "token": token})
        assert (answer["type"], answer["code"]) == ("Error", "unauthorized")
        assert alice.request({"type": "Broadcast", "id": 1, "topic": "room", "payload": 1})["code"] == "forbidden"
        assert alice.close is None

    def test_a_failure_half_way_leaves_the_old_rights(self) -> None:
        """Above all not those of a token without patterns, which may all."""
        server = make_hub()
        alice = server.connect("alice", publish_patterns=("room",), subscribe_patterns=("room",))
        for broken in ({"publish_patterns": (7,)}, {"subscribe_patterns": ("\ud800",)}, {"login": "\ud800"}):
            server.identities["new"] = identity("alice", ADMIN, **broken)
            assert alice.request({"type": "Refresh", "id": 1, "token": "new"})["code"] == "unavailable"
            assert alice.request({"type": "Broadcast", "id": 1, "topic": "hall", "payload": 1})["code"] == "forbidden"
            assert alice.request({"type": "Subscribe", "id": 1, "topic": "hall"})["code"] == "forbidden"
            assert alice.request({"type": "Broadcast", "id": 1, "topic": "room", "payload": 1})["type"] == "Ack"
