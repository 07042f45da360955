"""Protocol section 1: the upgrade, the subprotocol, the three ways to authenticate, ``Connected``."""

import json
import time
import urllib.request
from typing import Any
from urllib.error import HTTPError

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from serving.certificates import trusted
from serving.peer import JSON, MSGPACK, Peer, unique_user
from serving.processes import ServerProcess, StartServer
from serving.tokens import token

CONNECTED_KEYS = [
    "type",
    "session_id",
    "user_id",
    "node_id",
    "protocol",
    "heartbeat_interval_secs",
    "expires_at",
    "refresh_at",
]


def refused(url: str, **options: Any) -> tuple[int, dict[str, Any]]:
    """Status and JSON body of an upgrade that must fail."""
    with pytest.raises(InvalidStatus) as caught:
        connect(url, open_timeout=5, proxy=None, ssl=trusted(url), **options).close()
    response = caught.value.response
    body = json.loads(response.body or b"null")
    assert list(body) == ["error"]
    assert list(body["error"])[:2] == ["code", "message"]
    return response.status_code, body["error"]


class TestConnected:
    def test_keys_and_values(self, server: ServerProcess, subprotocol: str) -> None:
        user = unique_user()
        now = int(time.time())
        with Peer(server.url, user, subprotocol=subprotocol, exp=now + 900, refresh_threshold=now + 600) as peer:
            connected = peer.connected
        assert list(connected) == CONNECTED_KEYS
        assert connected["type"] == "Connected"
        assert connected["user_id"] == user
        assert connected["protocol"] == "rtc.v1"
        assert connected["heartbeat_interval_secs"] == 30
        assert connected["expires_at"] == now + 900
        assert connected["refresh_at"] == now + 600
        assert isinstance(connected["session_id"], str) and connected["session_id"]
        assert isinstance(connected["node_id"], str) and connected["node_id"]

    def test_session_id_is_the_connections_own(self, server: ServerProcess) -> None:
        user = unique_user()
        with Peer(server.url, user) as one, Peer(server.url, user) as other:
            assert one.connected["session_id"] != other.connected["session_id"]
            assert "login-of" not in one.connected["session_id"]
            assert one.connected["node_id"] == other.connected["node_id"]


class TestSubprotocol:
    @pytest.mark.parametrize(
        ("offered", "chosen"),
        [
            ([JSON], JSON),
            ([MSGPACK], MSGPACK),
            ([MSGPACK, JSON], MSGPACK),
            ([JSON, MSGPACK], JSON),
            (["graphql-ws", MSGPACK, JSON], MSGPACK),
            (["rtc.v2.json", JSON], JSON),
        ],
    )
    def test_first_supported_of_the_clients_list(self, server: ServerProcess, offered: list[str], chosen: str) -> None:
        headers = {"Authorization": f"Bearer {token()}"}
        with connect(
            server.url,
            subprotocols=offered,  # type: ignore[arg-type]
            additional_headers=headers,
            proxy=None,
            ssl=trusted(server.url),
        ) as connection:
            assert connection.subprotocol == chosen
            assert isinstance(connection.recv(5), str) is (chosen == JSON)

    def test_none_offered_falls_back_to_json(self, server: ServerProcess) -> None:
        with Peer(server.url, unique_user(), subprotocol=None) as peer:
            assert peer.connection.subprotocol is None
            assert peer.connected["type"] == "Connected"

    def test_none_supported_is_400(self, server: ServerProcess) -> None:
        status, _ = refused(server.url, subprotocols=["graphql-ws"], additional_headers=bearer(token()))
        assert status == 400


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


class TestAuthentication:
    def test_query(self, server: ServerProcess) -> None:
        user = unique_user()
        with Peer(f"{server.url}?token={token(user)}") as peer:
            assert peer.connected["user_id"] == user

    def test_first_message(self, server: ServerProcess, subprotocol: str) -> None:
        user = unique_user()
        with Peer(server.url, subprotocol=subprotocol, greet=False) as peer:
            connected = peer.ok("Authenticate", token=token(user))
            assert list(connected) == [CONNECTED_KEYS[0], "id", *CONNECTED_KEYS[1:]]
            assert connected["user_id"] == user
            assert peer.ok("Ping")["type"] == "Pong"

    def test_first_message_without_id(self, server: ServerProcess) -> None:
        with Peer(server.url, greet=False) as peer:
            peer.send({"type": "Authenticate", "token": token()})
            assert list(peer.receive()) == CONNECTED_KEYS

    def test_wrong_token_in_first_message(self, server: ServerProcess, subprotocol: str) -> None:
        with Peer(server.url, subprotocol=subprotocol, greet=False) as peer:
            error = peer.error("Authenticate", token=token(key="another secret that is long enough, 32 bytes"))
            assert error["code"] == "unauthorized"
            assert peer.close_code() == 4401

    def test_another_first_message(self, server: ServerProcess) -> None:
        with Peer(server.url, greet=False) as peer:
            error = peer.error("Ping")
            assert error["code"] == "unauthorized"
            assert peer.close_code() == 4401

    def test_authenticate_twice_is_refused(self, server: ServerProcess) -> None:
        with Peer(server.url, unique_user()) as peer:
            assert peer.error("Authenticate", token=token())["code"] == "bad_request"
            assert peer.ok("Ping")["type"] == "Pong"

    def test_no_message_in_time(self, product: ServerProcess) -> None:
        with Peer(product.url, greet=False) as peer:
            assert peer.close_code(6) == 4408

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "no.token",
            "a.b.c",
            token(key="another secret that is long enough, 32 bytes"),
            token(exp=int(time.time()) - 3600),
            token(iss="someone-else"),
            token(aud="someone-else"),
        ],
        ids=["empty", "two parts", "garbage", "signature", "expired", "issuer", "audience"],
    )
    def test_wrong_credentials_are_401(self, server: ServerProcess, text: str) -> None:
        status, error = refused(server.url, additional_headers=bearer(text))
        assert status == 401
        assert error["code"] in ("unauthorized", "token_expired")
        assert not text or text not in error["message"]
        assert refused(f"{server.url}?token={text}")[0] == 401

    def test_expired_token_has_its_code(self, server: ServerProcess) -> None:
        text = token(exp=int(time.time()) - 3600)
        assert refused(server.url, additional_headers=bearer(text))[1]["code"] == "token_expired"

    def test_unknown_api_key_is_401(self, start_server: StartServer) -> None:
        key = {"key": "sha256:" + "0" * 64, "user": "robot", "permissions": ["read"]}
        provider = {"name": "keys", "type": "api_key", "enabled": True, "priority": 2, "keys": [key]}
        url = start_server({"auth": {"providers": [provider]}}).url
        assert refused(url, additional_headers={"X-API-Key": "nobody's"})[0] == 401
        assert refused(f"{url}?api_key=nobodys")[0] == 401


def test_unknown_path_is_404(server: ServerProcess) -> None:
    with pytest.raises(InvalidStatus) as caught:
        connect(server.url + "x", additional_headers=bearer(token()), proxy=None, ssl=trusted(server.url)).close()
    assert caught.value.response.status_code == 404


def test_health_answers_on_the_same_port(server: ServerProcess) -> None:
    with urllib.request.urlopen(f"{server.http_url}/health", timeout=5, context=trusted(server.url)) as answer:
        assert answer.status == 200
        assert "status" in json.load(answer)


def test_plain_get_of_the_socket_path_is_no_upgrade(product: ServerProcess) -> None:
    with pytest.raises(HTTPError) as caught:
        urllib.request.urlopen(f"http://127.0.0.1:{product.port}/ws", timeout=5)
    assert caught.value.code in (400, 426)
