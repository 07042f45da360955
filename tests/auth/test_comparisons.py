"""Secrets are compared in constant time, and every one of them each time: nothing that is told depends on where a guess
begins to be wrong."""

import hmac
from typing import Any

import pytest

from realtime_communication.auth.api_key import ApiKeyVerifier, hashed
from realtime_communication.auth.jwt import JwtRules, JwtVerifier
from realtime_communication.broker.sealing import Seal
from realtime_communication.config.schema import ApiKey
from realtime_communication.errors import AuthenticationFailed
from serving.tokens import AUDIENCE, ISSUER, SECRET, claims, token

OLD = "the secret that was good before, of more than thirty-two bytes"
KEYS = [ApiKey(key=hashed(f"key {number}"), user=f"user{number}") for number in range(3)]


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of what is compared in constant time."""
    lengths: list[int] = []
    true = hmac.compare_digest

    def compare(one: Any, other: Any) -> bool:
        lengths.append(len(one))
        return true(one, other)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    return lengths


@pytest.mark.parametrize("key", ["key 0", "key 2", "key 3", "", "k" * 200])
def test_api_keys(compared: list[int], key: str) -> None:
    verifier = ApiKeyVerifier(KEYS)
    compared.clear()
    verifier.verify(key)
    assert compared == [32] * len(KEYS), "hashes, of all keys"


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
@pytest.mark.parametrize("key", [SECRET, OLD, "a secret that nobody has configured at all"])
def test_signatures_of_tokens(compared: list[int], algorithm: str, key: str) -> None:
    rules = JwtRules(secret=SECRET, previous_secrets=(OLD,), issuer=ISSUER, audience=AUDIENCE)
    verifier, now = JwtVerifier(rules), float(claims()["iat"])
    text = token(key=key, algorithm=algorithm)
    compared.clear()
    try:
        verifier.verify_by_rules(text, now)
    except AuthenticationFailed:
        assert key not in (SECRET, OLD)
    assert len(compared) == 2, "both secrets are tried, whichever has signed"
    if algorithm == "HS256":
        compared.clear()
        verifier.accept(text, now)
        assert compared == [32, 32]


@pytest.mark.parametrize("secret", [SECRET, OLD, "another"])
def test_marks_of_nodes(compared: list[int], secret: str) -> None:
    mark = Seal([secret], "events").mark(b"body")
    seal = Seal([SECRET, OLD], "events")
    compared.clear()
    assert seal.is_genuine(b"body", mark) is (secret != "another")
    assert compared == [64, 64]
