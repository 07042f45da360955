"""The examples for proxies, by the proxies themselves in front of two real nodes with one Redis."""

import contextlib
import http.client
import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from websockets.sync.client import connect

from serving.asking import JSON, ask, bearer
from serving.certificates import trusted
from serving.deployments import two_nodes
from serving.peer import Peer, unique, unique_user
from serving.processes import merged
from serving.proxies import NAMES, STRANGER, TIMEOUT_SECS, proxies, stays_open
from serving.tokens import token

SETTINGS = {
    "websocket": {"heartbeat_interval_secs": 0.5, "client_timeout_secs": 30},
    "security": {"trusted_proxies": ["127.0.0.1"], "enforce_tls": True, "strict_transport_security": True},
    "auth": {"custom_claims": {"include_location": True}},
}
each = pytest.mark.parametrize("name", NAMES)


class Front:
    """The nodes and the proxies before them."""

    def __init__(self, deployment, started):
        self.nodes = deployment.servers
        self.store = deployment.stores[0]
        self.proxies = started

    def reload(self, node, changes):
        """Put `changes` of the settings into force on one node."""
        redis = {"redis": {"url": self.store.url}, "testing": {"use_in_memory_storage": False}}
        node.reload_and_wait(merged(merged(SETTINGS, redis), changes))


@pytest.fixture(scope="module")
def front():
    with two_nodes(SETTINGS) as deployment, proxies([node.port for node in deployment.servers]) as started:
        yield Front(deployment, started)


def connections_of(node):
    """How many WebSocket connections a node has. It refuses whoever does not say that he came over TLS."""
    return ask(node.port, "GET", "/health", {"X-Forwarded-Proto": "https"}).json["connections"]


@contextlib.contextmanager
def stranger(url, user, **headers):
    """A connection from an address nobody trusts, with these headers."""
    sent = {"Authorization": f"Bearer {token(user)}"} | {name.replace("_", "-"): text for name, text in headers.items()}
    with connect(
        url, additional_headers=sent, subprotocols=["rtc.v1.json"], ssl=trusted(url), source_address=(STRANGER, 0)
    ) as connection:
        assert json.loads(connection.recv(20))["type"] == "Connected"
        yield connection


def reply(connection, **request):
    connection.send(json.dumps({"id": 1, **request}))
    while (found := json.loads(connection.recv(20))).get("id") != 1:
        pass
    return found


@each
def test_messages_go_through_to_every_node(front, name):
    proxy, topic = front.proxies[name], unique()
    with Peer(proxy.url, unique_user()) as one, Peer(proxy.url, unique_user()) as other:
        assert connections_of(front.nodes[0]) == connections_of(front.nodes[1]) == 1
        one.ok("Subscribe", topic=topic)
        other.ok("Broadcast", topic=topic, payload="over the WebSocket")
        assert one.event()["payload"] == "over the WebSocket"
        body = json.dumps({"topic": topic, "payload": "over HTTP"}).encode()
        answer = proxy.ask("POST", "/api/publish", bearer() | JSON, body, source=STRANGER)
        assert answer.status == 200, answer
        assert one.event()["payload"] == "over HTTP"
        assert answer.headers["strict-transport-security"]


@each
def test_an_upgrade_may_come_over_a_connection_that_was_kept(front, name):
    proxy = front.proxies[name]
    for _ in range(4):  # both nodes have one then
        assert proxy.ask("GET", "/api/topics", bearer(), source=STRANGER).status == 200
        with Peer(proxy.url, unique_user()) as peer:
            assert peer.ok("Ping")


@each
def test_the_client_s_address_is_told_and_none_can_be_made_up(front, name):
    for forged in ({}, {"X_Forwarded_For": "203.0.113.7"}, {"Forwarded": "for=203.0.113.7;proto=http"}):
        with stranger(front.proxies[name].url, unique_user(), **forged) as connection:
            topic = unique()
            assert reply(connection, type="Subscribe", topic=topic)["type"] == "Subscribed"
            (member,) = reply(connection, type="Presence", topic=topic)["members"]
            assert member["info"]["location"]["address"] == STRANGER, forged


@each
def test_what_is_for_the_house_is_not_for_strangers(front, name):
    proxy = front.proxies[name]
    for path in ("/admin/stats", "/health", "/health/ready", "/debug/profile"):
        assert proxy.ask("GET", path, source=STRANGER).status == 403, path
    assert proxy.ask("GET", "/health/ready", source="127.0.0.1").status == 200
    assert proxy.ask("GET", "/admin/stats", bearer("root", roles=["admin"]), source="127.0.0.1").status == 200


@each
def test_tokens_in_addresses_are_in_no_log(front, name):
    proxy, secret = front.proxies[name], token(unique_user())
    with connect(f"{proxy.url}?token={secret}", subprotocols=["rtc.v1.json"], ssl=trusted(proxy.url)) as connection:
        connection.recv(20)
    assert proxy.ask("GET", f"/api/topics?token={secret}", source=STRANGER).status == 200
    assert secret not in proxy.log
    if name != "caddy":  # which logs requests only when asked to
        assert "/api/topics" in proxy.log


@each
def test_a_body_over_the_bound_is_refused(front, name):
    answer = front.proxies[name].ask("POST", "/api/publish", bearer() | JSON, b"x" * 1_100_000, source=STRANGER)
    # Caddy goes on sending, and may lose the answer.
    assert answer.status in ((413, 502) if name == "caddy" else (413,))


@pytest.mark.parametrize("name", ["nginx", "haproxy"])
def test_plain_http_is_sent_to_https(front, name):
    answer = ask(front.proxies[name].plain_port, "GET", "/api/topics", {"Host": "rtc.example.com"})
    assert (answer.status, answer.headers["location"]) == (308, "https://rtc.example.com/api/topics")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_old_tls_is_refused_by_all(front):
    for proxy in front.proxies.values():
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            connect(proxy.url, ssl=context)


def test_silent_connections_outlive_the_time_outs_because_of_heartbeats(front):
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(Peer(proxy.url, unique_user())) for proxy in front.proxies.values()]
        assert stays_open(peers[0].connection, 1.5 * TIMEOUT_SECS)
        for peer in peers:
            assert peer.ok("Ping")


def test_without_heartbeats_they_are_cut(front):
    for node in front.nodes:
        front.reload(node, {"websocket": {"heartbeat_interval_secs": 3600, "client_timeout_secs": 7200}})
    try:
        with contextlib.ExitStack() as stack:
            urls = [front.proxies[name].url for name in ("nginx", "haproxy")]
            for peer in [stack.enter_context(Peer(url, unique_user())) for url in urls]:
                assert not stays_open(peer.connection, 20 * TIMEOUT_SECS)
    finally:
        for node in front.nodes:
            front.reload(node, {})


@pytest.mark.parametrize("name", ["nginx", "haproxy"])
def test_a_node_that_is_full_is_passed_over(front, name):
    full, other = front.nodes
    front.reload(full, {"websocket": {"max_connections": 1}})
    try:
        with contextlib.ExitStack() as stack:
            for _ in range(4):
                stack.enter_context(Peer(front.proxies[name].url, unique_user()))
            assert (connections_of(full), connections_of(other)) == (1, 3)
    finally:
        front.reload(full, {})


class Events(BaseHTTPRequestHandler):
    """Writes one event, and the next one when it has been read."""

    protocol_version = "HTTP/1.1"
    read = threading.Event()

    def do_GET(self):
        if self.path != "/sse":
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for event in (b"data: first\n\n", b"data: second\n\n", b""):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
            self.wfile.flush()
            self.read.wait(20)

    def log_message(self, *_):
        pass


def test_events_go_out_as_they_come():
    with ThreadingHTTPServer(("127.0.0.1", 0), Events) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            with proxies([server.server_port] * 2) as started:
                for proxy in started.values():
                    Events.read.clear()
                    connection = http.client.HTTPSConnection(
                        "127.0.0.1", proxy.port, timeout=20, context=trusted("https:")
                    )
                    with contextlib.closing(connection):
                        connection.request("GET", "/sse")
                        answer = connection.getresponse()
                        assert answer.readline() == b"data: first\n"
                        Events.read.set()
                        assert answer.read() == b"\ndata: second\n\n"
        finally:
            Events.read.set()
            server.shutdown()
