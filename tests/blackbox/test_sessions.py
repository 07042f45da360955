"""``Refresh``, expiry, compression of the connection, and the end of the server."""

import time
from typing import Any

import pytest

from serving.peer import Connect, Peer, unique, unique_user
from serving.processes import ServerProcess, StartServer
from serving.tokens import token


class TestRefresh:
    def test_reply(self, join: Connect) -> None:
        alice = join()
        now = int(time.time())
        reply = alice.ok("Refresh", token=token(str(alice.user), exp=now + 7200, refresh_threshold=now + 7000))
        assert list(reply) == ["type", "id", "expires_at", "refresh_at"]
        assert list(reply.values())[2:] == [now + 7200, now + 7000]
        assert reply["type"] == "Refreshed"

    def test_of_another_user_is_refused(self, join: Connect) -> None:
        alice = join()
        assert alice.error("Refresh", token=token(unique_user()))["code"] in ("unauthorized", "forbidden")
        assert alice.ok("Ping")["type"] == "Pong"

    @pytest.mark.parametrize("change", [{"exp": 1}, {"iss": "x"}, {"key": "k" * 32}], ids=repr)
    def test_invalid_token_is_refused_and_the_session_stays(self, join: Connect, change: dict[str, Any]) -> None:
        alice = join()
        error = alice.error("Refresh", token=token(str(alice.user), **change))
        assert error["code"] in ("unauthorized", "token_expired")
        assert alice.ok("Ping")["type"] == "Pong"

    def test_permissions_are_those_of_the_new_token(self, join: Connect, topic: str) -> None:
        alice = join()
        alice.ok("Broadcast", topic=topic, payload=1)
        alice.ok("Refresh", token=token(str(alice.user), permissions=["subscribe"]))
        assert alice.error("Broadcast", topic=topic, payload=1)["code"] == "forbidden"


class TestExpiry:
    def test_idle_connection_is_closed(self, join: Connect) -> None:
        alice = join(exp=int(time.time()) + 2, refresh_threshold=None)
        assert alice.close_code(12) == 4401
        codes = [event.get("code") for event in alice.unasked if event["type"] == "Error"]
        assert codes in ([], ["token_expired"])

    def test_warning_comes_at_the_refresh_threshold(self, join: Connect) -> None:
        now = int(time.time())
        alice = join(exp=now + 4, refresh_threshold=now + 1)
        warning = alice.event()
        assert list(warning) == ["type", "expires_at"]
        assert list(warning.values()) == ["TokenExpiring", now + 4]
        alice.ok("Refresh", token=token(str(alice.user)))

    def test_refreshed_connection_lives_on(self, join: Connect, topic: str) -> None:
        expiry = int(time.time()) + 4
        alice = join(exp=expiry, refresh_threshold=None)
        alice.ok("Refresh", token=token(str(alice.user)))
        alice.ok("Subscribe", topic=topic)
        time.sleep(max(0.0, expiry + 1 - time.time()))
        alice.ok("Broadcast", topic=topic, payload="alive")
        # On a busy machine the first token was about to expire before it was replaced, and that was told.
        told = [event for event in alice.settle() if event["type"] != "TokenExpiring"]
        assert [event["payload"] for event in told] == ["alive"]

    def test_nothing_comes_after_the_expiry(self, join: Connect, topic: str) -> None:
        alice, bob = join(), join(exp=int(time.time()) + 2, refresh_threshold=None)
        bob.ok("Subscribe", topic=topic)
        assert bob.close_code(12) == 4401
        alice.ok("Broadcast", topic=topic, payload=1)
        assert [event for event in bob.unasked if event["type"] == "Message"] == []


class TestPermessageDeflate:
    def test_messages_arrive_both_ways(self, server: ServerProcess) -> None:
        topic = unique()
        text = "compress me " * 1000
        with (
            Peer(server.url, unique_user(), compression="deflate") as alice,
            Peer(server.url, unique_user()) as bob,
        ):
            assert "permessage-deflate" in alice.connection.response.headers.get("Sec-WebSocket-Extensions", "")
            alice.ok("Subscribe", topic=topic)
            bob.ok("Subscribe", topic=topic)
            for payload in (text, "short", text):
                alice.ok("Broadcast", topic=topic, payload=payload)
            assert [event["payload"] for event in alice.settle()] == [text, "short", text]
            assert [event["payload"] for event in bob.settle()] == [text, "short", text]

    def test_no_context_takeover_either_way(self, server: ServerProcess) -> None:
        with Peer(server.url, unique_user(), compression="deflate") as alice:
            offer = alice.connection.response.headers["Sec-WebSocket-Extensions"]
        assert "server_no_context_takeover" in offer
        assert "client_no_context_takeover" in offer


class TestClosing:
    @pytest.mark.parametrize("target", ["product", "baseline"])
    def test_sigterm_announces_then_closes_with_1001(self, start_server: StartServer, target: str) -> None:
        process = start_server(target=target)
        peers = [Peer(process.url, unique_user()) for _ in range(20)]
        process.terminate()
        waits = []
        for peer in peers:
            assert peer.close_code(10) == 1001
            closing = [event for event in peer.unasked if event["type"] == "Closing"]
            assert len(closing) == 1, peer.unasked
            assert list(closing[0]) == ["type", "code", "reason", "reconnect", "after_ms"]
            assert (closing[0]["code"], closing[0]["reconnect"]) == (1001, True)
            waits.append(closing[0]["after_ms"])
            peer.close()
        assert len(set(waits)) > 5, "the reconnects must be spread"
        assert process.wait() == 0
