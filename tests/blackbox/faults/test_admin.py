"""FAULTS.md: Admin. What asks for more than it may have, and what is too much."""

import contextlib
import hmac
import json
import socket
from typing import Any

import pytest

from realtime_communication.auth import api_key
from realtime_communication.auth.api_key import ApiKeyVerifier
from realtime_communication.config.schema import ApiKey
from serving.notices import noticed, total
from serving.peer import Peer, unique, unique_user
from serving.processes import ServerProcess, StartServer, free_port
from serving.raw import Answer, RawSocket, exchange
from serving.scrapes import scrape
from serving.tokens import ADMIN_KEY, ADMIN_KEYS, SECRET, token

ADMIN = f"X-API-Key: {ADMIN_KEY}"
ENDPOINTS = [
    ("GET", "/admin/config"),
    ("GET", "/admin/stats"),
    ("PUT", "/admin/config/rate-limits"),
    ("PUT", "/admin/config/log-level"),
    ("GET", "/api/connections"),
    ("POST", "/api/disconnect"),
]


def ask(server: ServerProcess, method: str, path: str, *headers: str, body: Any = None) -> Answer:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close", *headers]
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    if body is not None:
        lines += [f"Content-Length: {len(data)}"]
        if not any(header.lower().startswith("content-type:") for header in headers):
            lines += ["Content-Type: application/json"]
    return exchange(server.port, ("\r\n".join(lines) + "\r\n\r\n").encode() + data)


class TestKeys:
    @pytest.mark.parametrize(("method", "path"), ENDPOINTS)
    @pytest.mark.parametrize(
        ("header", "status"),
        [
            ("X-Nothing: 1", 401),
            ("X-API-Key: ", 401),
            (f"X-API-Key: {ADMIN_KEY}x", 401),
            (f"X-API-Key: {ADMIN_KEY[:-1]}", 401),
            (f"X-API-Key: {ADMIN_KEY.upper()}", 401),
            (f"X-API-Key: {ADMIN_KEYS[0]['key']}", 401),
            ("X-API-Key: " + "k" * 8000, 401),
            (f"Authorization: Bearer {ADMIN_KEY}", 401),
            (f"Authorization: Bearer {token('alice', roles=['user'])}", 403),
            (f"Authorization: Bearer {token('alice', roles=['ADMIN', 'admin '])}", 403),
        ],
        ids=["none", "empty", "longer", "shorter", "case", "hash", "8 KB", "as a token", "no admin", "almost admin"],
    )
    def test_refused(self, watched: ServerProcess, method: str, path: str, header: str, status: int) -> None:
        answer = ask(watched, method, path, header, body=None if method == "GET" else {})
        assert answer.status == status, answer
        assert ADMIN_KEY.encode() not in answer.body

    @pytest.mark.parametrize(("method", "path"), ENDPOINTS)
    def test_the_right_one_in_the_url_is_refused_and_not_logged(
        self, watched: ServerProcess, method: str, path: str
    ) -> None:
        answer = ask(watched, method, f"{path}?api_key={ADMIN_KEY}", body=None if method == "GET" else {})
        assert answer.status == 401
        assert ADMIN_KEY not in watched.log

    def test_the_right_one_in_a_header(self, watched: ServerProcess) -> None:
        assert ask(watched, "GET", "/admin/stats", ADMIN).status == 200

    def test_every_compare_takes_the_same_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        compared: list[tuple[bytes, bytes]] = []

        def compare(given: bytes, known: bytes) -> bool:
            compared.append((given, known))
            return hmac.compare_digest(given, known)

        verifier = ApiKeyVerifier([ApiKey(key=api_key.hashed(f"key {n}"), user=f"user{n}") for n in range(5)])
        monkeypatch.setattr(api_key, "hmac", type("Counted", (), {"compare_digest": staticmethod(compare)}))
        for key, user in (("key 0", "user0"), ("key 4", "user4"), ("key x", None), ("", None)):
            compared.clear()
            found = verifier.verify(key)
            assert (None if found is None else found.user_id) == user
            assert len(compared) == 5, "a key that is found early must not end the search"
            assert {len(given) for given, _ in compared} == {32}, "hashes are compared, never keys"

    def test_other_ports_know_nothing_of_it(self, watched: ServerProcess) -> None:
        for path in ("/admin/stats", "/admin/config", "/api/connections"):
            assert scrape(watched.metrics_port, path, X_API_Key=ADMIN_KEY).status == 404


class TestBounds:
    @pytest.mark.parametrize(
        "query",
        [
            "limit=-1",
            "limit=0",
            f"limit={2**63}",
            "limit=1e3",
            "limit=",
            "limit=%D9%A1",
            "offset=-1",
            f"offset={2**63}",
        ],
    )
    def test_numbers(self, watched: ServerProcess, query: str) -> None:
        answer = ask(watched, "GET", f"/api/connections?{query}", ADMIN)
        assert answer.status == 400, answer
        assert query.partition("=")[0] in json.loads(answer.body)["error"]["message"]

    def test_a_filter_of_1_mb(self, watched: ServerProcess) -> None:
        assert ask(watched, "GET", "/api/connections?user_id=" + "u" * 5000, ADMIN).status == 400
        assert ask(watched, "GET", "/api/connections?user_id=" + "u" * 1_000_000, ADMIN).status in (0, 400, 414, 431)

    @pytest.mark.parametrize("path", ["/api/disconnect", "/admin/config/log-level", "/api/publish", "/auth/token"])
    @pytest.mark.parametrize("announced", [True, False])
    def test_a_body_of_100_mb(self, watched: ServerProcess, path: str, announced: bool) -> None:
        method = "PUT" if path.startswith("/admin") else "POST"
        framing = "Content-Length: 104857600" if announced else "Transfer-Encoding: chunked"
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\n{ADMIN}\r\nContent-Type: application/json\r\n{framing}\r\n\r\n"
        before = watched.resident_kib()
        with RawSocket(watched.port) as raw:
            raw.send(head.encode())
            chunk = b"x" * 65_536 if announced else b"10000\r\n" + b"x" * 65_536 + b"\r\n"
            raw.socket.setblocking(True)
            raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, b"\x05" + b"\0" * 15)
            with contextlib.suppress(
                OSError
            ):  # what is too much may be read and thrown away for a while, or not at all
                for _ in range(1600):
                    raw.socket.sendall(chunk)
            raw.socket.settimeout(5)
            assert raw.answer().status in (0, 413)
        assert watched.resident_kib() - before < 16 * 1024

    @pytest.mark.parametrize("path", ["/api/disconnect", "/api/publish"])
    def test_a_million_items(self, watched: ServerProcess, path: str) -> None:
        before = watched.cpu_secs()
        body = b"[" + b"0," * 999_999 + b"0]"
        assert ask(watched, "POST", path, ADMIN, body=body).status in (0, 400, 413)
        small = b"[" + b"0," * 5000 + b"0]"
        assert ask(watched, "POST", path, ADMIN, body=small).status in (400, 422)
        assert watched.cpu_secs() - before < 1.0

    @pytest.mark.parametrize(
        "kind", ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16", "a/b/c", ""]
    )
    @pytest.mark.parametrize("path", ["/api/disconnect", "/api/publish", "/auth/token"])
    def test_content_types(self, watched: ServerProcess, path: str, kind: str) -> None:
        answer = ask(watched, "POST", path, ADMIN, f"Content-Type: {kind}", body=b"{}")
        assert answer.status in (400, 415), answer

    @pytest.mark.parametrize("body", [b"[" * 60_000, b'{"a":' * 3000, b"1" * 10_000, b"\xff", b'{"level":NaN}', b""])
    def test_hostile_json(self, watched: ServerProcess, body: bytes) -> None:
        before = watched.cpu_secs()
        assert ask(watched, "PUT", "/admin/config/log-level", ADMIN, body=body).status in (400, 413, 422)
        assert watched.cpu_secs() - before < 0.5


class TestSecrets:
    def test_not_in_the_configuration_shown(self, watched: ServerProcess) -> None:
        answer = ask(watched, "GET", "/admin/config", ADMIN)
        assert answer.status == 200
        for secret in (SECRET, ADMIN_KEY, str(ADMIN_KEYS[0]["key"]).partition(":")[2]):
            assert secret.encode() not in answer.body

    def test_on_the_command_line_there_is_a_warning(self, start_server: StartServer) -> None:
        secret = "a-secret-that-is-given-on-the-command-line"
        server = start_server(words=[f"--auth.jwt_secret={secret}"])
        with Peer(server.url, token_text=token(key=secret)) as peer:
            peer.ok("Ping")
        with noticed(server, "configuration reloaded"):
            server.hang_up()
        assert server.log.count("--auth.jwt_secret holds a secret") == 2  # at the start and at the reload
        assert secret not in server.log


def test_many_topics_have_few_labels(start_server: StartServer) -> None:
    metric = {"name": "active_subscriptions", "type": "gauge", "labels": ["topic"]}
    server = start_server(
        {"metrics": {"enabled": True, "port": free_port()}, "monitoring": {"custom_metrics": [metric]}}
    )
    with Peer(server.url, unique_user()) as peer:
        for number in range(3000):
            peer.send({"type": "Subscribe", "topic": f"{unique('label')}:{number}:" + "x" * 150})
        peer.ok("Ping")
        assert total(server, "subscriptions") == 3000
        found = scrape(server.metrics_port)
        assert len(found._samples("active_subscriptions")) <= 500
        assert len(found.body) < 1 << 20
