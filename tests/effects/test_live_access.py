"""Keys of `[auth]` and `[security]` that change while the server runs: who comes in, and what answers carry."""

import socket
import ssl

import jwt
import pytest

from realtime_communication.auth.api_key import hashed
from serving.asking import admin, ask
from serving.certificates import Authority, shared_authority
from serving.oidc_issuer import OidcIssuer
from serving.peer import Peer
from serving.raw import exchange, upgrade
from serving.tls_socket import TlsSocket
from serving.tokens import SECRET, token

OTHER = "another secret of at least thirty-two bytes, and more than sixty-four of them"
APP = "https://app.example.com"
HTTPS = {"X-Forwarded-For": "203.0.113.1", "X-Forwarded-Proto": "https"}
PROXIED = {"trusted_proxies": ["127.0.0.1"]}


def status(running, text):
    """What an upgrade with a token is answered."""
    return exchange(running.port, upgrade(authorization=f"Bearer {text}")).status


class TestTokens:
    def test_jwt_secret(self, serve):
        running = serve()
        old, new = token(), token(key=OTHER)
        with running.peer() as alice:
            assert (status(running, old), status(running, new)) == (101, 401)
            assert running.reload({"auth": {"jwt_secret": OTHER}})
            assert (status(running, old), status(running, new)) == (101, 101), "those signed before end by themselves"
            assert ask(running.port, "GET", "/api/topics", {"Authorization": f"Bearer {new}"}).status == 200
            assert alice.ok("Ping")
            assert alice.ok("Refresh", token=new)

    @pytest.mark.parametrize(
        ("settings", "good", "bad"),
        [
            ({"jwt_algorithms": ["HS384"]}, {"algorithm": "HS384", "key": OTHER}, {"algorithm": "HS256", "key": OTHER}),
            ({"jwt_issuer": "me"}, {"iss": "me"}, {"iss": "ai-system-rust"}),
            ({"jwt_audience": "us"}, {"aud": "us"}, {"aud": "realtime-communication"}),
            ({"validate_issuer": False}, {"iss": "somebody"}, {"iss": "somebody", "key": "k" * 64}),
            ({"validate_audience": False}, {"aud": "others"}, {"aud": "others", "key": "k" * 64}),
            ({"validate_exp": False}, {"exp": 1_000_000_000}, {"exp": 1_000_000_000, "key": "k" * 64}),
            ({"validate_nbf": False}, {"nbf": 4_000_000_000}, {"nbf": 4_000_000_000, "key": "k" * 64}),
        ],
    )
    def test_what_a_token_must_have(self, serve, settings, good, bad):
        base = {"jwt_secret": OTHER} if "jwt_algorithms" in settings else {}
        running = serve({"auth": base})
        with running.peer(key=base.get("jwt_secret", SECRET)) as alice:
            before = status(running, token(**good)), status(running, token(**bad))
            assert before[0] == (101 if "jwt_algorithms" in settings else 401)
            assert running.reload({"auth": base | settings})
            assert (status(running, token(**good)), status(running, token(**bad))) == (101, 401)
            assert alice.ok("Ping")
            assert running.reload({"auth": base})
            assert (status(running, token(**good)), status(running, token(**bad))) == before

    @pytest.mark.parametrize(
        ("settings", "shown"),
        [
            ({"access_token_expiry_hours": 0.5}, lambda claims, refresh: claims["exp"] - claims["iat"] == 1800),
            ({"refresh_token_expiry_days": 0.5}, lambda claims, refresh: refresh["exp"] - claims["iat"] == 43_200),
            (
                {"custom_claims": {"include_user_metadata": True}},
                lambda claims, refresh: claims.get("user_metadata") == {"team": "red"},
            ),
            (
                {"custom_claims": {"include_device_info": True}},
                lambda claims, refresh: claims.get("device_info") == {"user_agent": "curl/8"},
            ),
            (
                {"custom_claims": {"include_location": True}},
                lambda claims, refresh: claims.get("location") == {"address": "127.0.0.1"},
            ),
            (
                {"custom_claims": {"custom_fields": {"tier": "gold"}}},
                lambda claims, refresh: claims.get("tier") == "gold",
            ),
        ],
    )
    def test_what_an_issued_token_says(self, serve, settings, shown):
        running = serve()

        def issued():
            body = {"user_id": "alice", "user_metadata": {"team": "red"}}
            pair = ask(running.port, "POST", "/auth/token", admin() | {"User-Agent": "curl/8"}, body).json
            claims = (jwt.decode(pair[f"{kind}_token"], options={"verify_signature": False}) for kind in KINDS)
            return shown(*claims)

        assert not issued()
        assert running.reload({"auth": settings})
        assert issued()


KINDS = ("access", "refresh")
KEY = {"key": hashed("open sesame"), "user": "robot", "permissions": ["write"]}
ROBOTS = {"type": "api_key", "name": "robots", "priority": 5, "keys": [KEY]}
OWN = {"type": "jwt", "priority": 1}


def providers(*some):
    return {"auth": {"providers": list(some)}}


class TestProviders:
    def key(self, running, headers=None, target="/ws"):
        """What a key is answered: the status of an upgrade."""
        lines = tuple(f"{name}: {value}" for name, value in (headers or {"X-API-Key": "open sesame"}).items())
        return exchange(running.port, upgrade(user=None, target=target, extra=lines)).status

    def publish(self, running, text="open sesame"):
        return ask(running.port, "POST", "/api/publish", {"X-API-Key": text}, {"topic": "t", "payload": 1}).status

    def test_keys_come_and_go(self, serve):
        running = serve(providers(OWN))
        assert self.publish(running) == 401
        assert running.reload(providers(OWN, ROBOTS))
        assert (self.key(running), self.publish(running)) == (101, 200)
        other = KEY | {"key": hashed("open barley")}
        assert running.reload(providers(OWN, ROBOTS | {"keys": [other]}))
        assert (self.publish(running), self.publish(running, "open barley")) == (401, 200)
        assert running.reload(providers(OWN))
        assert self.publish(running, "open barley") == 401

    def test_connections_of_a_key_that_is_gone_are_closed(self, serve):
        kept = KEY | {"key": hashed("open barley"), "user": "other"}
        running = serve(providers(OWN, ROBOTS | {"keys": [KEY, kept]}))
        url = running.url + "?api_key=open%20"
        with Peer(url + "sesame") as robot, Peer(url + "barley") as other, running.peer() as alice:
            assert running.reload(providers(OWN, ROBOTS | {"keys": [kept]}))
            assert robot.close_code() == 4401
            assert other.ok("Ping") and alice.ok("Ping")
            assert running.reload(providers(OWN, ROBOTS | {"keys": [kept | {"permissions": ["read"]}]}))
            assert other.close_code() == 4401
            assert alice.ok("Ping")

    def test_user_permissions_and_roles(self, serve):
        running = serve(providers(OWN, ROBOTS))
        stats = {"X-API-Key": "open sesame"}
        assert (self.publish(running), ask(running.port, "GET", "/admin/stats", stats).status) == (200, 403)
        assert running.reload(providers(OWN, ROBOTS | {"keys": [KEY | {"permissions": ["read"]}]}))
        assert self.publish(running) == 403
        operator = KEY | {"user": "operator", "roles": ["admin"]}
        assert running.reload(providers(OWN, ROBOTS | {"keys": [operator]}))
        assert ask(running.port, "GET", "/admin/stats", stats).status == 200
        with Peer(running.url + "?api_key=open%20sesame") as peer:
            assert peer.connected["user_id"] == "operator"

    def test_enabled(self, serve):
        running = serve(providers(OWN, ROBOTS))
        assert running.reload(providers(OWN, ROBOTS | {"enabled": False}))
        assert self.publish(running) == 401

    def test_header_and_query_param(self, serve):
        running = serve(providers(OWN, ROBOTS))
        assert self.key(running) == 101
        assert running.reload(providers(OWN, ROBOTS | {"header": "X-Robot", "query_param": "robot"}))
        with Peer(running.url + "?robot=open%20sesame") as peer:
            assert peer.connected["user_id"] == "robot"
        assert self.key(running, {"X-Robot": "wrong"}) == 401
        assert self.key(running, {"X-API-Key": "wrong"}) == 101, "no credential any more: who comes is anonymous"
        answer = ask(running.port, "GET", "/admin/stats?robot=open%20sesame", admin())
        assert "URL" in answer.json["error"]["message"]

    def test_priority(self, serve):
        running = serve(providers(OWN, ROBOTS))

        def user():
            with Peer(running.url + "?api_key=open%20sesame", "alice") as peer:
                return peer.connected["user_id"]

        assert user() == "alice"
        assert running.reload(providers(OWN, ROBOTS | {"priority": 0}))
        assert user() == "robot"

    def test_type(self, serve):
        running = serve(providers(OWN))
        with running.peer() as alice:
            assert running.reload(providers(ROBOTS))
            assert (status(running, token()), self.key(running)) == (401, 101)
            assert alice.ok("Ping")

    def test_name(self, serve, caplog):
        caplog.set_level("DEBUG")
        running = serve(providers(OWN, ROBOTS))
        assert running.reload(providers(OWN, ROBOTS | {"name": "machines"}))
        assert self.key(running, {"X-API-Key": "open barley"}) == 401
        assert "machines" in str([getattr(record, "event_fields", "") for record in caplog.records])

    def test_an_issuer(self, serve):
        with OidcIssuer() as issuer:
            company = {"type": "oauth2", "priority": 2, "issuer": issuer.url}
            running = serve(providers(OWN))
            assert status(running, issuer.token("bob")) == 401
            assert running.reload(providers(OWN, company))
            assert status(running, issuer.token("bob")) == 101
            assert running.reload(providers(OWN, company | {"audience": "ours"}))
            assert [status(running, issuer.token("bob", aud=aud)) for aud in ("ours", "realtime-communication")] == [
                101,
                401,
            ]
            assert running.reload(providers(OWN, company | {"issuer": "http://127.0.0.1:9"}))
            assert status(running, issuer.token("bob")) == 401


def upgraded(running, headers=None, **options):
    lines = tuple(f"{name}: {value}" for name, value in (headers or {}).items())
    return exchange(running.port, upgrade(extra=lines, **options))


def cors(**changed):
    return {"security": {"cors": {"enabled": True, "allowed_origins": [APP], **changed}}}


class TestCors:
    def preflight(self, running, origin=APP):
        return ask(running.port, "OPTIONS", "/x", {"Origin": origin, "Access-Control-Request-Method": "POST"})

    def test_enabled(self, serve):
        running = serve()
        with running.peer() as alice:
            assert upgraded(running, origin="https://evil.example.com").status == 101
            assert running.reload(cors())
            assert upgraded(running, origin="https://evil.example.com").status == 403
            assert self.preflight(running).status == 204
            assert alice.ok("Ping")
            assert running.reload({})
            assert upgraded(running, origin="https://evil.example.com").status == 101

    def test_allowed_origins(self, serve):
        running = serve(cors())
        assert running.reload(cors(allowed_origins=["https://new.example.com"]))
        for origin, allowed in (("https://new.example.com", True), (APP, False)):
            assert upgraded(running, origin=origin).status == (101 if allowed else 403)
            assert self.preflight(running, origin).status == (204 if allowed else 403)

    @pytest.mark.parametrize(
        ("key", "value", "header", "shown"),
        [
            ("allowed_methods", ["PUT"], "access-control-allow-methods", "PUT"),
            ("allowed_headers", ["X-API-Key"], "access-control-allow-headers", "X-API-Key"),
            ("allow_credentials", True, "access-control-allow-credentials", "true"),
            ("max_age_secs", 7, "access-control-max-age", "7"),
        ],
    )
    def test_what_a_preflight_grants(self, serve, key, value, header, shown):
        running = serve(cors())
        assert self.preflight(running).headers.get(header) != shown
        assert running.reload(cors(**{key: value}))
        assert self.preflight(running).headers[header] == shown


class TestHeadersAndTls:
    def test_enforce_tls(self, serve):
        running = serve({"development": {"enable_debug_endpoints": True}})
        changed = {"development": {"enable_debug_endpoints": True}, "security": PROXIED | {"enforce_tls": True}}
        with running.peer() as alice:
            assert running.reload(changed)
            assert ask(running.port, "GET", "/health").status == 426
            assert {upgraded(running, target=target).status for target in ("/ws", "/debug/echo")} == {426}
            assert upgraded(running, HTTPS).status == 101
            assert alice.ok("Ping"), "who is in stays"

    def test_trusted_proxies(self, serve):
        running = serve({"security": PROXIED | {"enforce_tls": True}})
        assert upgraded(running, HTTPS).status == 101
        assert running.reload({"security": {"trusted_proxies": ["10.0.0.0/8"], "enforce_tls": True}})
        assert (upgraded(running, HTTPS).status, ask(running.port, "GET", "/health", HTTPS).status) == (426, 426)

    def test_strict_transport_security(self, serve):
        running = serve({"security": PROXIED})
        assert "strict-transport-security" not in ask(running.port, "GET", "/health", HTTPS).headers
        assert running.reload({"security": PROXIED | {"strict_transport_security": True}})
        assert "strict-transport-security" in ask(running.port, "GET", "/health", HTTPS).headers

    def test_content_security_policy(self, serve):
        running = serve()
        assert running.reload({"security": {"content_security_policy": "default-src 'none'"}})
        for answer in (ask(running.port, "GET", "/health"), upgraded(running, authorization="Bearer wrong")):
            assert answer.headers["content-security-policy"] == "default-src 'none'"


class TestTls:
    @pytest.fixture
    def authority(self):
        return shared_authority()

    def section(self, pair, **changed):
        return {"security": {"tls": {"enabled": True, "cert_file": str(pair[0]), "key_file": str(pair[1]), **changed}}}

    def handshake(self, running, context):
        """The server's certificate name, protocol version and cipher, or the reason why there is no connection."""
        with socket.create_connection(("127.0.0.1", running.port), timeout=10) as sock:
            try:
                made = TlsSocket(sock, context)
                made.sendall(b"GET /health/live HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
                assert made.recv(65536).startswith(b"HTTP/1.1 200 ")
            except ssl.SSLError as error:
                return error.reason
            subject = dict(pair[0] for pair in made.tls.getpeercert()["subject"])
            return subject["commonName"], made.tls.version(), made.tls.cipher()[0]

    @pytest.fixture
    def old(self, authority):
        """A context for TLS 1.2."""
        context = authority.client_context()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        return context

    def test_files(self, serve, authority):
        running = serve(self.section(authority.issue("first")))
        with Peer(running.url, "alice") as alice:
            assert running.reload(self.section(authority.issue("second")))
            assert self.handshake(running, authority.client_context())[0] == "second"
            assert alice.ok("Ping")

    def test_a_key_of_another_certificate_changes_nothing(self, serve, authority, caplog):
        first, second = authority.issue("first"), authority.issue("second")
        running = serve(self.section(first))
        assert not running.reload(self.section((second.cert_file, first.key_file), min_version="1.3"))
        assert self.handshake(running, authority.client_context())[0] == "first"
        assert running.worker.parts.live.config.security.tls.min_version == "1.2"
        assert "does not match" in str([getattr(record, "event_fields", "") for record in caplog.records])

    def test_min_version(self, serve, authority, old):
        pair = authority.issue("server")
        running = serve(self.section(pair))
        assert self.handshake(running, old)[1] == "TLSv1.2"
        assert running.reload(self.section(pair, min_version="1.3"))
        assert self.handshake(running, old) == "TLSV1_ALERT_PROTOCOL_VERSION"

    def test_ciphers(self, serve, authority, old):
        pair = authority.issue("server")
        running = serve(self.section(pair))
        assert "CHACHA20" not in self.handshake(running, old)[2]
        assert running.reload(self.section(pair, ciphers=["TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"]))
        assert self.handshake(running, old)[2] == "ECDHE-ECDSA-CHACHA20-POLY1305"

    @pytest.mark.parametrize("demand", [{"client_auth": "required"}, {"verify_client": True}])
    def test_client_certificates(self, serve, authority, tmp_path, old, demand):
        pair = authority.issue("server")
        clients = Authority(tmp_path, "clients")
        with_one = authority.client_context(clients.issue("alice"))
        running = serve(self.section(pair))
        assert self.handshake(running, old)[0] == "server"
        assert running.reload(self.section(pair, ca_file=str(authority.ca_file), **demand))
        assert isinstance(self.handshake(running, old), str)
        assert isinstance(self.handshake(running, with_one), str)
        assert running.reload(self.section(pair, ca_file=str(clients.ca_file), **demand))
        assert self.handshake(running, with_one)[0] == "server"


def test_wrong_credentials_are_counted_over_a_reload(serve):
    """A reload is no way to begin anew."""
    settings = {"security": PROXIED, "rate_limiting": {"enabled": True}}
    running = serve(settings)
    running.worker.parts.services.attempts._rate = 0.001
    client = {"X-Forwarded-For": "203.0.113.1"}
    for _ in range(40):
        upgraded(running, client, authorization="Bearer wrong")
    assert running.reload(settings | providers(OWN, ROBOTS))
    assert upgraded(running, client, authorization="Bearer wrong").status == 429
    assert running.reload(settings | {"rate_limiting": {"enabled": False}})
    assert upgraded(running, client, authorization="Bearer wrong").status == 401
