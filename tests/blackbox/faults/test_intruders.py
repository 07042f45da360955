"""Those who want in without the right: credentials in the wrong place, administration, files, logs, metrics."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from realtime_communication.auth.api_key import hashed
from realtime_communication.http import operations
from serving.asking import admin, ask, bearer
from serving.deployments import worker_pids
from serving.notices import lines
from serving.peer import Peer, unique, unique_user
from serving.processes import ServerProcess, StartServer, ended_cleanly, free_port
from serving.raw import RawSocket, envelope, exchange, upgrade
from serving.scrapes import scrape
from serving.tokens import ADMIN_KEY, ADMIN_KEYS, SECRET, token

READER = "rtc_the-key-of-a-reader-of-these-tests"
READERS = {"key": hashed(READER), "user": "reader", "permissions": ["read", "write", "subscribe"]}


@pytest.fixture(scope="module")
def guarded() -> Iterator[ServerProcess]:
    """Knows a key of an administrator and one of somebody else, and all there is over HTTP."""
    keys = [*ADMIN_KEYS, READERS]
    settings = {
        "auth": {"providers": [{"type": "jwt"}, {"type": "api_key", "priority": 2, "keys": keys}]},
        "metrics": {"enabled": True, "port": free_port()},
        "logging": {"level": "debug"},
    }
    server = ServerProcess("product", free_port(), settings, None)
    server.start()
    with ended_cleanly(server):
        yield server


def misplaced(text: str) -> dict[str, str]:
    """Headers in which a token has no business."""
    basic = base64.b64encode(f"user:{text}".encode()).decode()
    return {
        "cookie": f"Cookie: token={text}; access_token={text}; Authorization=Bearer {text}",
        "own header": f"X-Auth-Token: {text}",
        "proxy's": f"Proxy-Authorization: Bearer {text}",
        "another scheme": f"Authorization: Token {text}",
        "no scheme": f"Authorization: {text}",
        "basic": f"Authorization: Basic {basic}",
        "two in one": f"Authorization: Bearer {text} {text}",
        "quoted": f'Authorization: Bearer "{text}"',
        "comma": f"Authorization: Bearer x, Bearer {text}",
        "key": f"X-API-Key: {text}",
        "referrer": f"Referer: https://app.example.com/?token={text}",
        "protocol": f"Sec-WebSocket-Protocol: rtc.v1.json, {text}",
    }


PLACES = list(misplaced(""))


class TestCredentialsElsewhere:
    @pytest.mark.parametrize("place", PLACES)
    def test_headers_of_an_upgrade(self, guarded: ServerProcess, place: str) -> None:
        line = misplaced(token())[place]
        with RawSocket(guarded.port) as raw:
            raw.send(upgrade(user=None, subprotocol=None, extra=(line,)) + envelope(type="Subscribe", id=1, topic="t"))
            answer = raw.answer()
            if answer.status == 101:
                assert raw.json()["code"] == "unauthorized"
                assert raw.closed_with() == 4401
            else:
                assert answer.status in (400, 401)

    @pytest.mark.parametrize("place", [place for place in PLACES if place != "protocol"])
    def test_headers_of_a_request(self, guarded: ServerProcess, place: str) -> None:
        name, _, value = misplaced(token("root", roles=["admin"]))[place].partition(": ")
        for method, path in (("GET", "/api/topics"), ("GET", "/admin/config")):
            assert ask(guarded.port, method, path, {name: value}).status in (400, 401), path

    @pytest.mark.parametrize("name", ["access_token", "jwt", "auth", "Token", "TOKEN", "authorization", "bearer"])
    def test_other_parameters(self, guarded: ServerProcess, name: str) -> None:
        target = f"/ws?{name}={token()}"
        with RawSocket(guarded.port) as raw:
            raw.send(upgrade(user=None, target=target) + envelope(type="Subscribe", id=1, topic="t"))
            if raw.answer().status == 101:
                assert raw.json()["code"] == "unauthorized"

    def test_the_body_of_a_request(self, guarded: ServerProcess) -> None:
        mine = token("root", roles=["admin"])
        for fields in ({"token": mine}, {"api_key": ADMIN_KEY}, {"authorization": f"Bearer {mine}"}):
            body = {"topic": "t", "payload": 1} | fields
            assert ask(guarded.port, "POST", "/api/publish", body=body).status in (400, 401, 422)
            assert ask(guarded.port, "POST", "/auth/token", body={"user_id": "bob"} | fields).status in (400, 401, 422)

    def test_the_query_of_what_only_administrators_may(self, guarded: ServerProcess) -> None:
        mine = token("root", roles=["admin"])
        for method, path in ADMINISTRATION:
            body = None if method == "GET" else {}
            answer = ask(guarded.port, method, f"{path}?token={mine}", body=body)
            assert answer.status == 401, (method, path, answer)

    def test_the_fields_of_a_first_message(self, guarded: ServerProcess) -> None:
        text = token()
        for fields in ({"jwt": text}, {"authorization": f"Bearer {text}"}, {"api_key": text}, {"token": ADMIN_KEY}):
            with Peer(guarded.url, greet=False) as peer:
                assert peer.error("Authenticate", **fields)["code"] in ("unauthorized", "bad_request")

    def test_none_of_it_is_in_the_log(self, guarded: ServerProcess) -> None:
        text = token("logged")
        for line in misplaced(text).values():
            exchange(guarded.port, upgrade(user=None, subprotocol=None, extra=(line,)))
            request = f"GET /nowhere?x={text} HTTP/1.1\r\nHost: x\r\n{line}\r\n\r\n"
            exchange(guarded.port, request.encode())
        for part in text.split(".")[1:]:
            assert part not in guarded.log


ADMINISTRATION = sorted(
    [
        ("GET", "/admin/config"),
        ("GET", "/admin/connections/0"),
        ("GET", "/admin/events"),
        ("GET", "/admin/overview"),
        ("GET", "/admin/stats"),
        ("PUT", "/admin/config/rate-limits"),
        ("PUT", "/admin/config/log-level"),
        ("POST", "/admin/drain"),
        ("GET", "/api/connections"),
        ("POST", "/api/disconnect"),
        ("POST", "/api/subscribe"),
        ("POST", "/api/unsubscribe"),
    ]
)
INTRUDERS: dict[str, tuple[dict[str, str], int]] = {
    "nobody": ({}, 401),
    "user": (bearer("alice"), 403),
    "user of all permissions": (bearer("alice", permissions=["read", "write", "subscribe", "admin"]), 403),
    "almost administrator": (bearer("alice", roles=["Admin", "admin ", "administrator", "superadmin"]), 403),
    "role in another claim": (bearer("alice", role="admin", scope="admin", admin=True), 403),
    "key": ({"X-API-Key": READER}, 403),
    "wrong key": ({"X-API-Key": READER[:-1]}, 401),
    "expired": (bearer("root", roles=["admin"], exp=1_000_000_000), 401),
}


class TestAdministration:
    def test_these_are_all(self) -> None:
        needing = [handler.__name__ for handler, each in operations.OPERATIONS.items() if each.needs == "admin"]
        assert len(ADMINISTRATION) == len(needing), needing

    @pytest.mark.parametrize(("method", "path"), ADMINISTRATION)
    @pytest.mark.parametrize("who", INTRUDERS)
    def test_refused(self, guarded: ServerProcess, method: str, path: str, who: str) -> None:
        headers, status = INTRUDERS[who]
        body = None if method == "GET" else {}
        answer = ask(guarded.port, method, path, headers, body)
        if who == "user of all permissions":  # `admin` is a role; a token that claims it as a permission may be refused
            assert answer.status in (401, 403), answer
        else:
            assert answer.status == status, answer
        assert json.loads(answer.body).keys() == {"error"}

    @pytest.mark.parametrize(("method", "path"), ADMINISTRATION)
    def test_no_other_spelling_leads_there(self, guarded: ServerProcess, method: str, path: str) -> None:
        for other in (f"{path}/", f"/{path}", path.upper(), f"{path};x", f"{path}/..%2f", f"/x/..{path}", f"{path}%00"):
            answer = ask(guarded.port, method, other, bearer("alice"), None if method == "GET" else {})
            assert answer.status in (400, 401, 403, 404, 405), (other, answer)

    def test_other_methods_do_not_help(self, guarded: ServerProcess) -> None:
        for path in {path for _, path in ADMINISTRATION}:
            for method in ("HEAD", "OPTIONS", "PATCH", "DELETE", "TRACE", "PROPFIND"):
                answer = ask(guarded.port, method, path, {"X-HTTP-Method-Override": "GET"})
                assert answer.status in (401, 403, 404, 405, 501), (method, path, answer)
                assert SECRET.encode() not in answer.body

    def test_the_server_goes_on(self, guarded: ServerProcess) -> None:
        """None of all that had an effect: it is not draining, and logs as before."""
        with Peer(guarded.url, unique_user()) as peer:
            peer.ok("Ping")
        assert ask(guarded.port, "GET", "/admin/stats", admin()).status == 200


TRAVERSALS = [
    "/docs/../../../../etc/passwd",
    "/docs/..%2f..%2f..%2f..%2fetc%2fpasswd",
    "/docs/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    "/docs/%252e%252e%252fetc%252fpasswd",
    "/docs/reference.js/../../../etc/passwd",
    "/docs/reference.js%00.html",
    "/docs/..;/..;/etc/passwd",
    "/docs/....//....//etc/passwd",
    "/docs/%c0%ae%c0%ae/%c0%ae%c0%ae/etc/passwd",
    "/docs/..\\..\\etc\\passwd",
    "/docs//etc/passwd",
    "/docs/__init__.py",
    "/docs/reference.html",
    "/static/../config.toml",
    "/static/demo.html",
    "/demo.js/../config.toml",
    "/demo.js%00",
    "/%2e%2e/%2e%2e/etc/passwd",
    "/../../etc/passwd",
    "//etc/passwd",
    "/./etc/passwd",
    "/etc/passwd",
    "/config.toml",
]


@pytest.mark.parametrize("path", TRAVERSALS)
def test_no_path_leads_to_other_files(guarded: ServerProcess, path: str) -> None:
    answer = exchange(guarded.port, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert answer.status in (400, 404), answer
    assert b"root:" not in answer.body
    assert answer.json.keys() == {"error"}


def test_files_of_the_demo_page_neither(start_server: StartServer) -> None:
    server = start_server(profile="dev")
    assert ask(server.port, "GET", "/demo.js").status == 200
    for path in TRAVERSALS:
        answer = exchange(server.port, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        assert answer.status in (400, 404), (path, answer)


HOSTILE_USERS = ["\x1b[31mred", "a\r\nb", "a\nb", "\x00", "\x9b31m", "\u202ebob", "bob\u2028bob", "\u200b", "\ufeffbob"]


@pytest.mark.parametrize("user", HOSTILE_USERS, ids=ascii)
def test_what_users_are_called_does_not_write_lines(guarded: ServerProcess, user: str) -> None:
    begin = len(guarded.log)
    mark = unique("mark")
    name = f"{user}{mark}"
    exchange(guarded.port, upgrade(user=None, authorization=f"Bearer {token(name)}"))
    for path, fields in (
        ("/api/disconnect", {"user_id": name, "reason": name}),
        ("/api/subscribe", {"user_id": name, "topic": f"{user}{mark}"}),
        ("/auth/revoke", {"user_id": name}),
        ("/auth/token", {"user_id": name}),
    ):
        ask(guarded.port, "POST", path, admin(), fields)
    ask(guarded.port, "GET", "/api/connections?user_id=" + mark, {"X-API-Key": ADMIN_KEY, "User-Agent": f"x{mark}"})
    written = guarded.log[begin:]
    assert written.isascii()
    assert all(line.isprintable() and line.startswith("{") for line in written.splitlines())
    assert len(lines(written)) == len(written.splitlines())


def test_labels_do_not_grow_with_what_peers_send(guarded: ServerProcess) -> None:
    def series() -> int:
        return sum(not line.startswith("#") for line in scrape(guarded.metrics_port).text.splitlines())

    def disturb(count: int) -> None:
        mark = unique("x").partition(":")[2]
        for number in range(count):
            name = f"{mark}{number}"
            exchange(guarded.port, f"M{name.upper()} /{name} HTTP/1.1\r\nHost: h{name}\r\n\r\n".encode())
            exchange(guarded.port, f"GET /api/topics/{name}/history HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            exchange(guarded.port, upgrade(target=f"/{name}", extra=(f"Origin: https://{name}.example",)))
            exchange(guarded.port, upgrade(user=name, extra=(f"User-Agent: {name}",)))

    disturb(3)  # every kind has its series by then
    before = series()
    disturb(60)
    assert series() <= before


def test_no_command_line_shows_a_secret(start_server: StartServer) -> None:
    """Of the supervisor and its workers, whether the secret is in the file or in the environment."""
    secret = "the-secret-of-the-environment-0123456789abcdef"
    server = start_server(target="workers", environment={"JWT_SECRET": secret})
    with Peer(server.url, token_text=token(key=secret)) as peer:
        peer.ok("Ping")
    lines_of_commands = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in (server.pid, *worker_pids(server))]
    assert len(lines_of_commands) == 3
    assert not [line for line in lines_of_commands if secret.encode() in line or SECRET.encode() in line]
