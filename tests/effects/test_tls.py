"""[security.tls], also written [tls]: a whole worker that speaks TLS on its one port."""

import http.client
import json
import socket
import ssl

import pytest

from realtime_communication.errors import ConfigurationError
from serving.certificates import DAY, Authority, shared_authority, shared_server
from serving.peer import Peer
from serving.processes import free_port
from serving.raw import RawSocket, envelope, exchange
from serving.tls_socket import TlsSocket
from serving.tokens import token

GET = b"GET /health/live HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"


@pytest.fixture
def authority():
    return shared_authority()


def section(pair=None, **changes):
    pair = pair or shared_server()
    return {"enabled": True, "cert_file": str(pair.cert_file), "key_file": str(pair.key_file), **changes}


@pytest.fixture
def serve_tls(serve):
    """A worker with TLS: ``serve_tls(**keys)``."""
    return lambda pair=None, settings=None, **keys: serve(
        {**(settings or {}), "security": {"tls": section(pair, **keys)}}
    )


def connect(running, context):
    """A socket behind its handshake; the server has let it through when this returns."""
    sock = socket.create_connection(("127.0.0.1", running.port), timeout=10)
    try:
        made = TlsSocket(sock, context)
        made.sendall(GET)
        assert made.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
    except BaseException:
        sock.close()
        raise
    return made


def refused(running, context):
    """The alert with which a handshake is refused."""
    with pytest.raises(ssl.SSLError) as caught:
        connect(running, context).close()
    return caught.value.reason.lower().replace("_", " ")


class TestEachKey:
    @pytest.mark.parametrize("wrap", [lambda keys: {"security": {"tls": keys}}, lambda keys: {"tls": keys}])
    def test_enabled(self, serve, capfd, wrap):
        running = serve(wrap(section()))
        address = f"127.0.0.1:{running.port}"
        assert running.url == f"wss://{address}/ws"
        with running.peer("alice") as alice, running.peer("bob") as bob:
            bob.ok("Subscribe", topic="room")
            alice.ok("Broadcast", topic="room", payload={"over": "TLS"})
            assert bob.event()["payload"] == {"over": "TLS"}
        assert f"listening on https://{address}\n" in capfd.readouterr().out
        answer = exchange(running.port, b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (answer.status, answer.error_code) == (400, "bad_request")
        assert b"use https or wss" in answer.body

    def test_disabled(self, serve):
        running = serve({"security": {"tls": section(enabled=False)}})
        assert running.url.startswith("ws:")
        with running.peer("alice") as alice:
            alice.ok("Ping")

    def test_cert_file_and_key_file(self, serve_tls, authority):
        running = serve_tls(authority.issue("another"))
        sock = connect(running, authority.client_context())
        assert sock.tls.getpeercert()["subject"] == ((("commonName", "another"),),)
        sock.close()

    def test_ca_file(self, serve_tls, authority, tmp_path):
        clients = Authority(tmp_path, "clients")
        running = serve_tls(ca_file=str(clients.ca_file), client_auth="required")
        connect(running, authority.client_context(clients.issue("alice"))).close()
        # Its own authority is not among those that sign clients.
        assert "unknown ca" in refused(running, authority.client_context(authority.issue("mallory")))

    @pytest.mark.parametrize("oldest", ["1.2", "1.3"])
    def test_min_version(self, serve_tls, authority, oldest):
        running = serve_tls(min_version=oldest)
        context = authority.client_context()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        if oldest == "1.3":
            assert refused(running, context) == "tlsv1 alert protocol version"
        else:
            sock = connect(running, context)
            assert sock.tls.version() == "TLSv1.2"
            sock.close()
        sock = connect(running, authority.client_context())
        assert sock.tls.version() == "TLSv1.3"
        sock.close()

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
    def test_versions_that_are_broken_are_never_spoken(self, serve_tls, authority, version):
        running = serve_tls(ciphers=["DEFAULT@SECLEVEL=0"])
        context = authority.client_context()
        context.set_ciphers("DEFAULT@SECLEVEL=0")
        with pytest.warns(DeprecationWarning):
            context.minimum_version = context.maximum_version = version
        assert refused(running, context) == "tlsv1 alert protocol version"

    def test_ciphers(self, serve_tls, authority):
        running = serve_tls(ciphers=["TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"])
        context = authority.client_context()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        sock = connect(running, context)
        assert sock.tls.cipher()[0] == "ECDHE-ECDSA-CHACHA20-POLY1305"
        sock.close()
        context.set_ciphers("ECDHE+AESGCM")
        assert "handshake failure" in refused(running, context)

    def test_verify_client(self, serve_tls, authority):
        running = serve_tls(verify_client=True, ca_file=str(authority.ca_file))
        assert "certificate required" in refused(running, authority.client_context())
        connect(running, authority.client_context(authority.issue("alice"))).close()

    @pytest.mark.parametrize(
        ("mode", "without", "foreign"),
        [("none", True, True), ("optional", True, False), ("required", False, False)],
    )
    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    def test_client_auth(self, serve_tls, authority, tmp_path, mode, without, foreign, version):
        running = serve_tls(client_auth=mode, ca_file=str(authority.ca_file))
        contexts = {
            "good": authority.client_context(authority.issue("alice")),
            "without": authority.client_context(),
            "foreign": authority.client_context(Authority(tmp_path, "foreign").issue("mallory")),
            "expired": authority.client_context(authority.issue("late", ends=-DAY / 2)),
        }
        for name, served in {"good": True, "without": without, "foreign": foreign, "expired": foreign}.items():
            contexts[name].maximum_version = version
            if served:
                connect(running, contexts[name]).close()
            else:
                assert refused(running, contexts[name])


class TestFiles:
    @pytest.mark.parametrize(
        ("key", "pair", "told"),
        [
            ("cert_file", {"ends": -DAY / 2}, "expired on"),
            ("cert_file", {"starts": DAY / 2}, "valid from"),
            ("key_file", {"passphrase": b"secret"}, "passphrase"),
        ],
    )
    def test_the_server_refuses_to_start_and_names_the_key(self, configure, authority, key, pair, told):
        with pytest.raises(ConfigurationError) as caught:
            configure({"security": {"tls": section(authority.issue("unusable", **pair))}})
        (problem,) = caught.value.problems
        assert problem.key == f"security.tls.{key}"
        assert told in problem.message


class TestRenewal:
    def test_new_connections_get_the_new_certificate_and_none_is_dropped(self, serve_tls, authority, tmp_path):
        pair = authority.issue("first")
        running = serve_tls(pair)
        with running.peer("alice") as alice:
            renewed = authority.issue("second")
            for old, new in zip(pair, renewed, strict=True):
                old.write_bytes(new.read_bytes())
            assert running.reload()
            sock = connect(running, authority.client_context())
            assert sock.tls.getpeercert()["subject"] == ((("commonName", "second"),),)
            sock.close()
            alice.ok("Ping")

    def test_a_broken_file_changes_nothing(self, serve_tls, authority):
        pair = authority.issue("broken")
        running = serve_tls(pair)
        pair.key_file.write_text("nonsense")
        assert not running.reload()
        connect(running, authority.client_context()).close()

    def test_other_rules_for_new_connections(self, serve_tls, authority):
        running = serve_tls()
        tls = running.loaded.config.security.tls
        files = {"cert_file": tls.cert_file, "key_file": tls.key_file}
        assert running.reload({"security": {"tls": files | {"enabled": True, "min_version": "1.3"}}})
        context = authority.client_context()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        assert refused(running, context) == "tlsv1 alert protocol version"


class TestHttps:
    @pytest.fixture
    def connection(self, serve_tls, authority):
        """To a server of messages of up to 4 MiB."""
        running = serve_tls(settings={"websocket": {"max_message_size": 4 << 20, "max_frame_size": 4 << 20}})
        made = http.client.HTTPSConnection("127.0.0.1", running.port, timeout=10, context=authority.client_context())
        yield made
        made.close()

    def request(self, connection, method, path, body=None, **options):
        headers = {"Authorization": f"Bearer {token('alice')}", "Content-Type": "application/json"}
        connection.request(method, path, body, headers, **options)
        response = connection.getresponse()
        return response.status, json.loads(response.read())

    def test_many_requests_on_one_connection(self, connection):
        for _ in range(20):
            assert self.request(connection, "GET", "/health")[0] == 200
            assert self.request(connection, "GET", "/nothing")[0] == 404

    @pytest.mark.parametrize("chunked", [False, True])
    def test_large_bodies(self, connection, chunked):
        body = json.dumps({"topic": "room", "payload": "x" * 3_000_000}).encode()
        pieces = (body[at : at + 50_000] for at in range(0, len(body), 50_000)) if chunked else body
        status, answer = self.request(connection, "POST", "/api/publish", pieces, encode_chunked=chunked)
        assert (status, answer["offset"]) == (200, 1)

    def test_a_page(self, serve, authority):
        running = serve({"server": {"port": free_port()}, "security": {"tls": section()}}, profile="dev")
        with RawSocket(running.port, tls=authority.client_context()) as raw:
            raw.send(GET.replace(b"/health/live", b"/"))
            answer = raw.answer()
        assert answer.status == 200
        assert b"<html" in answer.body.lower()


def test_a_full_house_over_tls(serve_tls, authority):
    """Many connections at once, each of which is served."""
    running = serve_tls()
    context = authority.client_context()
    raws = [RawSocket.upgraded(running.port, f"user{number}", tls=context) for number in range(100)]
    for raw in raws:
        raw.send(envelope(type="Subscribe", id=1, topic="room"))
    for raw in raws:
        assert raw.json()["type"] == "Subscribed"
    raws[0].send(envelope(type="Broadcast", id=2, topic="room", payload=1))
    for raw in raws[1:]:
        assert raw.json()["payload"] == 1
    for raw in raws:
        raw.socket.close()


def test_a_peer_of_the_protocol_tests_trusts_the_server(serve_tls):
    with Peer(serve_tls().url, "alice") as alice:
        assert alice.connected["type"] == "Connected"
