"""Public keys: which are taken, which are left out, and what each verifies."""

import json

import jwt as pyjwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from realtime_communication.auth.jwks import MAX_KEYS, KeyRefused, key_set, verification_key


def made(algorithm, private):
    key = algorithm.to_jwk(private.public_key(), as_dict=True)
    key.pop("key_ops", None)
    return key | {"kid": "k1"}


PRIVATE = {
    "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}
RSA = made(RSAAlgorithm, PRIVATE["RS256"])
P256, P384 = (made(ECAlgorithm, PRIVATE[name]) for name in ("ES256", "ES384"))
EDWARDS = made(OKPAlgorithm, PRIVATE["EdDSA"])


def keys_in(*entries):
    return key_set(json.dumps({"keys": list(entries)}).encode())


@pytest.mark.parametrize(
    ("entry", "signer", "algorithm"),
    [
        (RSA, "RS256", "RS256"),
        (RSA, "RS256", "RS384"),
        (RSA, "RS256", "RS512"),
        (RSA | {"alg": "RS256"}, "RS256", "RS256"),
        (RSA | {"alg": "PS256"}, "RS256", "PS256"),
        (P256, "ES256", "ES256"),
        (P384, "ES384", "ES384"),
        (EDWARDS, "EdDSA", "EdDSA"),
        (EDWARDS | {"use": "sig", "key_ops": ["verify"], "alg": "EdDSA"}, "EdDSA", "EdDSA"),
    ],
)
def test_signatures_of_pyjwt(entry, signer, algorithm):
    key = verification_key(entry)
    token = pyjwt.PyJWS().encode(b'{"a":1}', PRIVATE[signer], algorithm=algorithm)
    signed = token.rpartition(".")[0].encode()
    signature = pyjwt.utils.base64url_decode(token.rpartition(".")[2])
    assert key.verifies(algorithm, signed, signature)
    assert not key.verifies(algorithm, signed + b"x", signature)
    assert not key.verifies(algorithm, signed, signature[:-1])
    assert not key.verifies(algorithm, signed, b"")
    assert not key.verifies("HS256", signed, signature)
    assert not key.verifies("none", signed, b"")


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (None, "no JSON object"),
        ([], "no JSON object"),
        ({}, "kid"),
        (RSA | {"kid": None}, "kid"),
        (RSA | {"kid": ""}, "kid"),
        (RSA | {"kid": "a" * 129}, "kid"),
        (RSA | {"kid": "../x"}, "kid"),
        (RSA | {"kid": 7}, "kid"),
        (RSA | {"use": "enc"}, "use"),
        (RSA | {"use": None}, "use"),
        (RSA | {"key_ops": ["encrypt"]}, "key_ops"),
        (RSA | {"key_ops": "verify"}, "key_ops"),
        (RSA | {"d": "AQAB"}, "private"),
        ({"kty": "oct", "k": "AAAA", "kid": "k1"}, "kty"),
        (RSA | {"kty": "DSA"}, "kty"),
        (RSA | {"kty": ["RSA"]}, "kty"),
        (RSA | {"alg": "HS256"}, "alg"),
        (RSA | {"alg": "none"}, "alg"),
        (RSA | {"alg": "ES256"}, "alg"),
        (RSA | {"alg": ["RS256"]}, "alg"),
        (P256 | {"alg": "ES384"}, "alg"),
        (P256 | {"alg": "PS256"}, "alg"),
        (EDWARDS | {"alg": "PS256"}, "alg"),
        (made(RSAAlgorithm, rsa.generate_private_key(public_exponent=65537, key_size=1024)), "2048"),
        (RSA | {"n": "A" * 20_000}, "2048"),
        (RSA | {"n": "_" * 2000}, "8192"),
        (RSA | {"n": 7}, "`n`"),
        (RSA | {"n": "é"}, "`n`"),
        (RSA | {"n": "AAAAA"}, "`n`"),
        (RSA | {"e": "AQ"}, "exponent"),
        (RSA | {"e": "Aw"}, "exponent"),
        (RSA | {"e": "AQAA"}, "exponent"),
        (RSA | {"e": "_" * 400}, "exponent"),
        (P256 | {"crv": "P-521"}, "crv"),
        (P256 | {"crv": "secp256k1"}, "crv"),
        (P256 | {"crv": None}, "crv"),
        (P256 | {"x": P256["x"][:-3]}, "32 bytes"),
        (P256 | {"x": P256["y"]}, "numbers"),
        (P384 | {"crv": "P-256"}, "32 bytes"),
        (EDWARDS | {"x": EDWARDS["x"][:20]}, "32 bytes"),
        (EDWARDS | {"x": ""}, "`x`"),
        (EDWARDS | {"crv": "X25519"}, "Ed25519"),
        (made(OKPAlgorithm, ed448.Ed448PrivateKey.generate()), "Ed25519"),
    ],
)
def test_what_is_left_out(entry, reason):
    with pytest.raises(KeyRefused, match=reason):
        verification_key(entry)
    found = keys_in(entry, P256 | {"kid": "good"})
    assert list(found.keys) == ["good"]
    assert len(found.left_out) == 1


def test_a_second_key_of_the_same_id():
    found = keys_in(RSA, P256, EDWARDS | {"kid": "k2"})
    assert list(found.keys) == ["k1", "k2"]
    assert found.keys["k1"].algorithms == ("RS256", "RS384", "RS512")
    assert found.left_out == ("key 1: its `kid` was there before",)


def test_an_encryption_key_of_the_same_id_is_no_second_one():
    assert keys_in(RSA | {"use": "enc"}, RSA).keys.keys() == {"k1"}


def test_too_many():
    found = keys_in(*(EDWARDS | {"kid": f"k{number}"} for number in range(MAX_KEYS + 5)))
    assert len(found.keys) == MAX_KEYS
    assert str(MAX_KEYS) in found.left_out[0]


@pytest.mark.parametrize(
    "document", [b"", b"[]", b"7", b"null", b"{}", b'{"keys":{}}', b'{"keys":null}', b"\xff", b"[" * 100_000]
)
def test_what_is_no_key_set(document):
    with pytest.raises(KeyRefused):
        key_set(document)


def test_an_empty_one():
    assert keys_in().keys == {}
