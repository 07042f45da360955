"""The HTTP application on real sockets, handed over as the reactor does it, with a hub that can be told to fail."""

import asyncio
import contextlib
import http.client
import json
import socket
import threading
import time

import msgspec
import pytest

from realtime_communication._core.hub.hub import RequestError
from realtime_communication.auth.api_key import ApiKeyVerifier, hashed
from realtime_communication.auth.chain import ApiKeyProvider, AuthenticationChain, JwtProvider
from realtime_communication.auth.identity import Identity
from realtime_communication.auth.jwt import JwtRules, JwtVerifier
from realtime_communication.auth.tokens import TokenIssuer
from realtime_communication.config import load
from realtime_communication.config.reference import effective
from realtime_communication.config.schema import ApiKey, Config
from realtime_communication.http.app import make_application, max_body
from realtime_communication.http.connection import HttpServer
from realtime_communication.http.services import Services

SECRET = "a secret of the tests, 32 bytes or longer"
API_KEY = "the key of the tests"
ADMIN_KEY = "the key of the operator"
ISSUER = TokenIssuer(secret=SECRET, issuer="i", audience="a", lifetime_secs=600)


FULL_ROW = {
    "session_id": "",
    "user_id": None,
    "address": "192.0.2.1:5",
    "transport": "websocket",
    "encoding": "json",
    "subscriptions": 1,
    "queued": 0,
    "replies_queued": 0,
    "blocked": False,
    "connected_ms": 10,
    "silent_ms": 5,
}


class RecordingHub:
    """Remembers what it was asked, and refuses or breaks when told to."""

    def __init__(self):
        self.asked = []
        self.orders = []  # by which changes of subscriptions are known to all workers
        self.refusal = None
        self.limit = None
        self.rows = [{"session_id": str(number), "user_id": f"user-{number % 2}"} for number in range(3)]
        self.topic_rows = [
            {"topic": name, "subscribers": 1} for name in ("room:1", "@alice", "room:2", "$sys", "*", "hall")
        ]
        self.closed = []
        self.logins = []
        self.counted = []  # whose requests were taken from limits here

    def _ask(self, what, body, identity, answer):
        self.asked.append((what, body, identity.user_id))
        if self.refusal is not None:
            raise self.refusal
        return answer

    def refuse(self, code, message="refused", retry_after_ms=None):
        self.refusal = RequestError(code, message, retry_after_ms)

    def publish_request(self, body, identity):
        return self._ask("publish", body, identity, {"epoch": "e", "offset": 1})

    def send_request(self, body, identity):
        return self._ask("send", body, identity, {"delivered": ["bob"], "offline": []})

    def subscribe_user(self, user_id, topic, order=0):
        self.orders.append(order)
        return self._ask("subscribe", topic, Identity(user_id=user_id), 2)

    def unsubscribe_user(self, user_id, topic, order=0):
        self.orders.append(order)
        return self._ask("unsubscribe", topic, Identity(user_id=user_id), 1)

    def presence_request(self, topic):
        self.asked.append(("presence", topic))
        members = b'[{"user_id":"alice","session_id":"1","joined_at":5,"info":{"x":1}}]'
        return {"topic": topic, "count": 1, "members": members}

    def history_request(self, topic, epoch=None, offset=0, limit=100, reverse=False):
        self.asked.append(("history", topic, epoch, offset, limit, reverse))
        if self.refusal is not None:
            raise self.refusal
        if topic != "room:1":
            return {"topic": topic, "epoch": "f", "offset": 0, "messages": b"[]"}
        messages = b'[{"offset":7,"ts":1,"from":"bob","payload":1.50}]'
        return {"topic": topic, "epoch": "e", "offset": 7, "messages": messages}

    def reading_refused(self, identity, topic, *, history):
        return "topic: not told" if topic == "room:silent" else None

    def user_limit(self, user_id):
        return self.limit

    def count_request(self, user_id):
        self.counted.append(user_id)
        if self.refusal is not None:
            raise self.refusal

    def connection_count(self):
        return len(self.rows)

    def stats(self):
        return {"connections": 3}

    def connections(self, limit=1000):
        return self.rows[:limit]

    def connections_of(self, user_id, limit=1000):
        found = [row for row in self.rows if row["user_id"] == user_id]
        return len(found), found[:limit]

    def connection(self, session_id, limit=1000):
        found = [row for row in self.rows if row["session_id"] == session_id]
        more = {"login": None, "permissions": ["read"], "expires_at": None, "topics": []}
        return FULL_ROW | found[0] | more if found else None

    def queued(self):
        return 7

    def mailboxes(self, limit):
        slow = FULL_ROW | {"session_id": "9", "user_id": "slow", "queued": 7}
        return [2, 0, 0, 1] + [0] * 12, [slow][:limit]

    def topics(self, limit=1000):
        return self.topic_rows[:limit]

    def topic(self, name):
        return {"topic": name, "epoch": "e", "offset": 9, "subscribers": 0, "cached": 0} if name == "busy" else None

    def topic_counts(self, limit):
        return [("room:1", 3, 5), ("$sys", 1, 1)][:limit]

    def disconnect(self, *, session_id=None, user_id=None, login=None, reason=""):
        if login is not None:
            return len([1 for known in self.logins if known == login])
        self.closed.append((session_id, user_id, reason))
        return len(
            [row for row in self.rows if session_id in (None, row["session_id"]) and user_id in (None, row["user_id"])]
        )


class Control:
    """Changes the configuration of `services` through the loader, as if by further options on the command line."""

    def __init__(self, services, folder):
        self._services = services
        self._folder = folder
        self._words = ["--profile=test", f"--auth.jwt_secret={SECRET}"]
        self._origins = {}
        self.loaded = self._load(self._words)

    def _load(self, words):
        return load(words, environ={}, directory=self._folder)

    def change(self, changes, origin):
        words = self._words + [f"--{path}={value}" for path, value in changes.items()]
        self.loaded = self._load(words)
        self._words = words
        self._origins |= dict.fromkeys(changes, origin)
        self._services.config = self.loaded.config

    def effective(self):
        keys = {
            key.path: {"value": value, "origin": self._origins.get(key.path, origin)}
            for key, value, origin in effective(self.loaded)
        }
        return {"profile": self.loaded.profile, "files": [], "keys": keys}


class Answer(msgspec.Struct):
    status: int
    headers: dict
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


class Server:
    """Runs in a thread of its own; accepts and reads a head, as the reactor would, then hands over."""

    def __init__(self, config, profile="test", **services):
        keys = (
            ApiKey(key=hashed(API_KEY), user="service", permissions=("write",)),
            ApiKey(key=hashed(ADMIN_KEY), user="operator", roles=("admin",)),
        )
        chain = AuthenticationChain(
            [
                JwtProvider(JwtVerifier(JwtRules(secret=SECRET, issuer="i", audience="a"))),
                ApiKeyProvider(ApiKeyVerifier(keys)),
            ]
        )
        self.hub = RecordingHub()
        self.services = Services(
            hub=self.hub, chain=chain, config=config, profile=profile, node_id="node-1", issuer=ISSUER, **services
        )
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port = self.listener.getsockname()[1]
        self.services.port = self.port
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        assert self._started.wait(30)

    async def _serve(self):
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self.http = HttpServer(make_application(self.services), lambda: max_body(self.services))
        self.http.give_back = self._take_back
        await self.http.start()
        self.listener.setblocking(False)
        acceptor = self._loop.create_task(self._accept())
        self._started.set()
        await self._stop.wait()
        acceptor.cancel()
        await self.http.shutdown(1.0)

    def _take_back(self, fd, data, stream):
        """What goes back to the reactor is told to the peer instead."""
        with socket.socket(fileno=fd) as sock:
            sock.sendall(b"back: " + data)

    async def _accept(self):
        async with asyncio.TaskGroup() as group:
            while True:
                sock, _ = await self._loop.sock_accept(self.listener)
                sock.setblocking(False)
                group.create_task(self._hand_over(sock))

    async def _hand_over(self, sock):
        data = b""
        while b"\r\n\r\n" not in data:
            piece = await self._loop.sock_recv(sock, 65536)
            if not piece:
                sock.close()
                return
            data += piece
        self.http.adopt(sock.detach(), data, "127.0.0.1:1")

    def close(self):
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(30)
            assert not self._thread.is_alive()
        self.listener.close()

    def request(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read())

    def raw(self, data, pieces=None):
        """Every byte the server answers until it closes the connection."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=15) as sock:
            for piece in pieces or [data]:
                sock.sendall(piece)
                if pieces:
                    time.sleep(0.01)
            answer = b""
            while piece := sock.recv(65536):
                answer += piece
            return answer


def changed(config, path, value):
    """`config` with the value at the dotted `path` replaced."""
    name, _, rest = path.partition(".")
    return msgspec.structs.replace(config, **{name: changed(getattr(config, name), rest, value) if rest else value})


@pytest.fixture
def make_server():
    servers = []

    def make(profile="test", changes=(), **services):
        config = Config()
        for path, value in dict(changes).items():
            config = changed(config, path, value)
        servers.append(Server(config, profile, **services))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


@pytest.fixture
def server(make_server):
    return make_server()


@pytest.fixture
def operated(make_server, tmp_path):
    """A server whose configuration can be changed while it runs."""
    server = make_server()
    server.services.control = Control(server.services, tmp_path)
    server.services.config = server.services.control.loaded.config
    return server


@pytest.fixture
def bearer():
    def header(user="alice", **claims):
        return {"Authorization": "Bearer " + ISSUER.access_token(user, time.time(), **claims)}

    return header


@pytest.fixture
def api_key():
    return {"X-API-Key": API_KEY}


@pytest.fixture
def admin_key():
    return {"X-API-Key": ADMIN_KEY}
