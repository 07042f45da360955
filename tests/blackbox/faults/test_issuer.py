"""FAULTS.md: JWT and JWKS, over real upgrades, with an OIDC issuer in a process of its own."""

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from serving.asking import until
from serving.notices import lines, noticed, total
from serving.oidc_issuer import WELL_KNOWN, OidcIssuer
from serving.peer import Peer
from serving.processes import ServerProcess, StartServer, assert_clean, free_port
from serving.raw import Answer, RawSocket, upgrade
from serving.tokens import ISSUER, token
from serving.witness import Witness


def settings(*issuers: OidcIssuer) -> dict[str, Any]:
    providers = [
        {"type": "oauth2", "name": each.url, "priority": 2 + number, "issuer": each.url}
        for number, each in enumerate(issuers)
    ]
    return {
        "auth": {"providers": [{"type": "jwt", "priority": 1}, *providers]},
        "metrics": {"enabled": True, "port": free_port()},
    }


@pytest.fixture(scope="module")
def issuer() -> Iterator[OidcIssuer]:
    with OidcIssuer() as running:
        yield running


@pytest.fixture(scope="module")
def stranger() -> Iterator[OidcIssuer]:
    """An issuer that the server trusts too, with keys of its own under the same ids."""
    with OidcIssuer() as running:
        yield running


@pytest.fixture(scope="module")
def standing(issuer: OidcIssuer, stranger: OidcIssuer) -> Iterator[tuple[ServerProcess, Witness]]:
    process = ServerProcess("product", free_port(), settings(issuer, stranger), None)
    process.start()
    try:
        with Witness(process.url) as witness:
            until(lambda: came_in(process, issuer.token()) and came_in(process, stranger.token()), lambda: process.log)
            yield process, witness
        process.stop()
        assert_clean(process)
    finally:
        process.dispose()


@pytest.fixture
def server(standing: tuple[ServerProcess, Witness]) -> Iterator[ServerProcess]:
    process, witness = standing
    yield process
    witness.check()


def ask(server: ServerProcess, text: str) -> Answer:
    """What an upgrade with that token is answered; an issuer that hangs is waited for, 5 seconds, before it is."""
    with RawSocket(server.port) as raw:
        raw.socket.settimeout(15)
        raw.send(upgrade(user=None, extra=(f"Authorization: Bearer {text}",)))
        return raw.answer()


def came_in(server: ServerProcess, text: str) -> bool:
    return ask(server, text).status == 101


def part(value: Any) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def with_header(text: str, **changes: Any) -> str:
    """The token with another header over the same signature."""
    head, _, rest = text.partition(".")
    header = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4))) | changes
    return f"{part({name: value for name, value in header.items() if value is not None})}.{rest}"


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_good_ones(server: ServerProcess, issuer: OidcIssuer, algorithm: str) -> None:
    with Peer(server.url, token_text=issuer.token("carol", algorithm)) as peer:
        assert peer.connected["user_id"] == "carol"
    with Peer(server.url, greet=False) as peer:
        assert peer.ok("Authenticate", token=issuer.token("carol", algorithm))["user_id"] == "carol"


HEADERS: dict[str, dict[str, Any]] = {
    "none": {"alg": "none"},
    "None": {"alg": "None"},
    "HS256": {"alg": "HS256"},
    "another algorithm": {"alg": "ES256"},
    "algorithm missing": {"alg": None},
    "crit": {"crit": ["b64"], "b64": False},
    "no kid": {"kid": None},
    "kid is a path": {"kid": "../../../../dev/null"},
    "kid is a URL": {"kid": "http://127.0.0.1:1/key"},
    "kid is SQL": {"kid": "x' UNION SELECT 'key"},
    "kid is a list": {"kid": ["rs256-1"]},
    "kid is a number": {"kid": 1},
    "kid is long": {"kid": "k" * 5000},
    "kid is empty": {"kid": ""},
}


@pytest.mark.parametrize("changes", HEADERS.values(), ids=HEADERS.keys())
def test_headers_that_lie(server: ServerProcess, issuer: OidcIssuer, changes: dict[str, Any]) -> None:
    answer = ask(server, with_header(issuer.token(), **changes))
    assert (answer.status, answer.error_code) == (401, "unauthorized")


def test_the_public_key_is_no_secret(server: ServerProcess, issuer: OidcIssuer) -> None:
    key, *_ = issuer.keys()
    payload = issuer.token().split(".")[1]
    for secret in (json.dumps(key).encode(), key["n"].encode(), base64.urlsafe_b64decode(key["n"] + "==")):
        signed = f"{part({'alg': 'HS256', 'kid': key['kid']})}.{payload}"
        forged = f"{signed}.{part(hmac.digest(secret, signed.encode(), hashlib.sha256))}"
        assert ask(server, forged).status == 401


@pytest.mark.parametrize("name", ["jku", "x5u", "jwk", "x5c"])
def test_keys_that_come_with_the_token_are_not_looked_at(
    server: ServerProcess, issuer: OidcIssuer, stranger: OidcIssuer, name: str
) -> None:
    before = stranger.counts()
    value: Any = f"{stranger.url}/elsewhere" if name.endswith("u") else stranger.keys()[0]
    forged = stranger.token(header={name: [part(b"x")] if name == "x5c" else value}, iss=issuer.url)
    assert ask(server, forged).status == 401
    assert stranger.counts() == before


CLAIMS: dict[str, dict[str, Any]] = {
    "no exp": {"exp": None},
    "exp in the past": {"exp": 1_000_000_000},
    "exp is text": {"exp": "9999999999"},
    "exp is a fraction": {"exp": 4e9 + 0.5},
    "nbf in the future": {"nbf": 4_000_000_000},
    "iat in the future": {"iat": 4_000_000_000},
    "aud of others": {"aud": "other"},
    "no aud": {"aud": None},
    "no sub": {"sub": None},
    "sub is empty": {"sub": ""},
    "sub has a line end": {"sub": "a\nb"},
    "iss of the server itself": {"iss": ISSUER},
    "no iss": {"iss": None},
}


@pytest.mark.parametrize("changes", CLAIMS.values(), ids=CLAIMS.keys())
def test_claims(server: ServerProcess, issuer: OidcIssuer, changes: dict[str, Any]) -> None:
    answer = ask(server, issuer.token(**changes))
    assert answer.status == 401, answer
    assert answer.error_code in ("unauthorized", "token_expired")


def test_the_issuer_is_compared_exactly(server: ServerProcess, issuer: OidcIssuer) -> None:
    before = issuer.counts()
    for name in (f"{issuer.url}/", issuer.url.upper(), f"{issuer.url}@127.0.0.1:1", issuer.url.replace("127", "0127")):
        assert ask(server, issuer.token(iss=name)).status == 401
    assert issuer.counts() == before, "an address was made from a claim"


def test_a_key_of_another_issuer_under_the_same_id(
    server: ServerProcess, issuer: OidcIssuer, stranger: OidcIssuer
) -> None:
    assert ask(server, stranger.token(iss=issuer.url)).status == 401
    assert ask(server, issuer.token(iss=stranger.url)).status == 401
    assert came_in(server, stranger.token())


def test_a_thousand_unknown_keys_ask_the_issuer_hardly(server: ServerProcess, issuer: OidcIssuer) -> None:
    before, good, template = issuer.counts()["/jwks"], issuer.token(), issuer.token("eve")
    failures = total(server, "authentication_failures_total")

    def flood(start: int) -> None:
        for number in range(start, start + 250):
            assert ask(server, with_header(template, kid=f"made-up-{number}")).status == 401

    floods = [threading.Thread(target=flood, args=(start,)) for start in range(0, 1000, 250)]
    for thread in floods:
        thread.start()
    for thread in floods:
        thread.join()
    assert issuer.counts()["/jwks"] <= before + 2
    assert total(server, "authentication_failures_total") >= failures + 1000
    assert came_in(server, good)


class TestOutages:
    @pytest.mark.parametrize("mode", ["500", "hang", "big", "redirect", "garbage"])
    def test_known_keys_go_on_serving(self, start_server: StartServer, mode: str) -> None:
        with OidcIssuer() as issuer:
            server = start_server(settings(issuer))
            until(lambda: came_in(server, issuer.token()), lambda: server.log)
            old = issuer.token("bob")
            issuer.control(mode=mode, key_mode=mode, rotate=True)
            new = issuer.token("bob")
            with Witness(server.url) as witness:
                before = server.resident_kib()
                answer = ask(server, new)
                assert answer.status in (0, 401, 503), answer
                assert came_in(server, old), "a key that is known needs no issuer"
                assert came_in(server, token())
                witness.check()
                assert server.resident_kib() - before < 24 * 1024
            assert issuer.counts().get("/elsewhere", 0) == 0, "a redirect was followed"

    def test_down_from_the_start_is_no_wrong_credential(self, start_server: StartServer) -> None:
        with OidcIssuer() as issuer:
            good = issuer.token("bob")
            issuer.control(mode="500")
            server = start_server(settings(issuer))
            until(
                lambda: any(line["event"] == "the keys of an issuer cannot be fetched" for line in lines(server.log)),
                lambda: server.log,
            )
            answer = ask(server, good)
            assert (answer.status, answer.error_code) == (503, "unavailable")
            assert int(answer.headers["retry-after"]) >= 1
            assert came_in(server, token())
            issuer.control(mode="ok")
            until(lambda: came_in(server, good), lambda: server.log, 20)

    def test_a_discovery_that_points_elsewhere(self, start_server: StartServer) -> None:
        with OidcIssuer() as issuer, OidcIssuer() as foreign:
            issuer.control(discovery={"issuer": foreign.url})
            server = start_server(settings(issuer))
            until(
                lambda: any(line["event"] == "the keys of an issuer cannot be fetched" for line in lines(server.log)),
                lambda: server.log,
            )
            assert issuer.counts()[WELL_KNOWN] >= 1
            assert foreign.counts() == {}
            assert ask(server, foreign.token(iss=issuer.url)).status in (401, 503)

    def test_a_refused_token_has_a_line_without_it(self, server: ServerProcess, issuer: OidcIssuer) -> None:
        text = issuer.token(aud="other")
        with noticed(server, "request refused", "authentication_failures_total", status=401):
            ask(server, text)
        assert text.rpartition(".")[2] not in server.log
