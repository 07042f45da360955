"""FAULTS.md: JWT and Auth. Every token here must be refused at the upgrade and as a first message."""

import base64
import contextlib
import hashlib
import hmac
import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from websockets.exceptions import ConnectionClosed

from serving.peer import Peer, unique_user
from serving.processes import ServerProcess
from serving.raw import exchange, upgrade
from serving.tokens import SECRET, claims, token

RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
RSA_PUBLIC_PEM = RSA_KEY.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)
NOW = int(time.time())


def encoded(part: Any) -> str:
    data = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def made(header: dict[str, Any] | bytes, payload: Any = None, *, secret: bytes = SECRET.encode()) -> str:
    """A token with any header and payload, signed with HMAC-SHA256 over exactly these bytes."""
    signed = f"{encoded(header)}.{encoded(claims() if payload is None else payload)}"
    return f"{signed}.{encoded(hmac.digest(secret, signed.encode(), hashlib.sha256))}"


def without_signature(algorithm: str) -> str:
    return f"{encoded({'alg': algorithm, 'typ': 'JWT'})}.{encoded(claims())}."


HS256 = {"alg": "HS256", "typ": "JWT"}
GOOD = token()

FORGED = {
    "none": without_signature("none"),
    "None": without_signature("None"),
    "NONE": without_signature("NONE"),
    "empty algorithm": without_signature(""),
    "HS256 without signature": without_signature("HS256"),
    "none with a good signature": made({"alg": "none"}),
    "no algorithm": made({"typ": "JWT"}),
    "algorithm is a number": made({"alg": 5}),
    "algorithm is a list": made({"alg": ["HS256"]}),
    "lower case": made({"alg": "hs256"}),
    "signed with a public key": made(HS256, secret=RSA_PUBLIC_PEM),
    "RS256": jwt.encode(claims(), RSA_KEY, algorithm="RS256"),
    "EdDSA": jwt.encode(claims(), ed25519.Ed25519PrivateKey.generate(), algorithm="EdDSA"),
    "unknown crit": made({**HS256, "crit": ["exp-2"], "exp-2": 1}),
    "empty secret": made(HS256, secret=b""),
    "jwk": made({**HS256, "jwk": {"kty": "oct", "k": encoded(b"k" * 32)}}, secret=b"k" * 32),
    "jku": made({**HS256, "jku": "http://127.0.0.1:1/keys"}, secret=b"k" * 32),
    "x5u": made({**HS256, "x5u": "http://127.0.0.1:1/cert"}, secret=b"k" * 32),
    "kid is a path": made({**HS256, "kid": "../../dev/null"}, secret=b""),
    "kid is SQL": made({**HS256, "kid": "' UNION SELECT 'k' --"}, secret=b"k"),
}
CLAIMS = {
    "exp missing": {"exp": None},
    "exp is text": {"exp": str(NOW + 3600)},
    "exp is infinite": {"exp": float("inf")},
    "exp is not a number": {"exp": float("nan")},
    "exp is a fraction": {"exp": NOW + 3600.5},
    "exp in the year 9999": {"exp": 253_402_300_799},
    "exp in the past": {"exp": NOW - 60},
    "exp is negative": {"exp": -1},
    "exp is a list": {"exp": [NOW + 3600]},
    "nbf in the future": {"nbf": NOW + 3600},
    "nbf is text": {"nbf": "soon"},
    "iat in the future": {"iat": NOW + 3600},
    "aud missing": {"aud": None},
    "aud is another": {"aud": "other"},
    "aud list without ours": {"aud": ["a", "b"]},
    "aud list with ours": {"aud": ["other", "realtime-communication"]},
    "aud is a prefix": {"aud": "realtime-communication-2"},
    "iss missing": {"iss": None},
    "iss is a prefix": {"iss": "ai-system-rust.evil.example"},
    "iss is a list": {"iss": ["ai-system-rust"]},
    "sub missing": {"sub": None, "user_id": None},
    "sub empty": {"sub": "", "user_id": None},
    "sub is a number": {"sub": 7, "user_id": None},
    "sub is too long": {"sub": "u" * 129, "user_id": "u" * 129},
    "sub has a control character": {"sub": "a\nb", "user_id": "a\nb"},
}
MALFORMED = {
    "one part": "abc",
    "two parts": "a.b",
    "four parts": GOOD + ".x",
    "five parts": ".".join([GOOD, "x", "y"]),
    "empty parts": "..",
    "10 KB": "x" * 10_000,
    "padding": GOOD + "==",
    "not base64": "!!!." + GOOD.partition(".")[2],
    "header is no JSON": f"{encoded(b'nonsense')}." + GOOD.partition(".")[2],
    "header is a list": made([1]),  # type: ignore[arg-type]
    "payload is no JSON": made(HS256, b"nonsense"),
    "payload is a list": made(HS256, [1]),
    "payload is deep": made(HS256, b'{"a":' + b"[" * 3000 + b"]" * 3000 + b"}"),
}


def assert_refused(server: ServerProcess, text: str) -> None:
    answer = exchange(server.port, upgrade(user=None, extra=(f"Authorization: Bearer {text}",)))
    assert answer.status == 401, answer
    assert answer.error_code in ("unauthorized", "token_expired")
    with Peer(server.url, greet=False) as peer:
        error = peer.error("Authenticate", token=text)
        assert error["code"] in ("unauthorized", "token_expired")
        assert SECRET not in json.dumps(error)
        assert peer.close_code() == 4401


@pytest.mark.parametrize("text", FORGED.values(), ids=FORGED.keys())
def test_forged(victim: ServerProcess, text: str) -> None:
    assert_refused(victim, text)


@pytest.mark.parametrize("changes", CLAIMS.values(), ids=CLAIMS.keys())
def test_claims(victim: ServerProcess, changes: dict[str, Any]) -> None:
    assert_refused(victim, made(HS256, claims(**changes)))


@pytest.mark.parametrize("text", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed(victim: ServerProcess, text: str) -> None:
    assert_refused(victim, text)


def test_token_of_half_a_megabyte(victim: ServerProcess) -> None:
    text = token(padding="x" * 500_000)
    assert exchange(victim.port, upgrade(user=None, extra=(f"Authorization: Bearer {text}",))).status == 431
    with Peer(victim.url, greet=False) as peer:
        message = json.dumps({"type": "Authenticate", "token": text})
        with contextlib.suppress(ConnectionClosed):
            peer.connection.send([message[at : at + 60_000] for at in range(0, len(message), 60_000)])
        assert peer.close_code() in (4401, 1009)


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_good_ones_are_taken(victim: ServerProcess, algorithm: str) -> None:
    with Peer(victim.url, token_text=token(algorithm=algorithm)) as peer:
        assert peer.connected["user_id"] == "alice"


def test_no_token_ever_reaches_the_log(victim: ServerProcess) -> None:
    user = unique_user()
    good, bad = token(user), token(user, key="x" * 40)
    with Peer(f"{victim.url}?token={good}") as peer:
        peer.ok("Ping")
    exchange(victim.port, upgrade(user=None, target=f"/ws?token={bad}"))
    exchange(victim.port, upgrade(user=None, target=f"/nowhere?token={bad}"))
    exchange(victim.port, f"GET /nothing?token={bad} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    for text in (good, bad):
        assert text not in victim.log
        assert text.rpartition(".")[2] not in victim.log


def test_control_characters_do_not_reach_the_log(victim: ServerProcess) -> None:
    mark = unique_user("mark")
    exchange(victim.port, f"GET /%0d%0a{mark}%1b[31m?x=%0a HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    with Peer(victim.url, unique_user()) as peer:
        peer.error("Subscribe", topic=f"{mark}\n\x1b[31mred")
    assert not [line for line in victim.log.splitlines() if line.startswith(mark)]
    assert "\x1b" not in victim.log
