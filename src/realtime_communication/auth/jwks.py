"""The public keys of an issuer, out of a JSON Web Key Set (RFC 7517, RFC 7518 section 6, RFC 8037).

A key decides by itself which algorithms it verifies; a token only names one of them. What cannot be used is left out
of the set with a reason for the log, so that one strange key does not lock everybody out: symmetric keys above all,
for which a public key could be taken, RSA keys under 2048 bits, and a second key of the same id.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import Algorithm, ECAlgorithm, OKPAlgorithm, RSAAlgorithm, RSAPSSAlgorithm

MIN_RSA_BITS: Final = 2048
MAX_RSA_BITS: Final = 8192  # verifying takes time with the size
MAX_KEYS: Final = 100
# Issuers choose these freely, plain base64 among them; they only ever look something up in a dictionary.
KEY_ID: Final = re.compile(r"(?!.*\.\.)[A-Za-z0-9._:+/=@-]{1,128}")

RSA_ALGORITHMS: Final = ("RS256", "RS384", "RS512")
_ALGORITHMS: Final[Mapping[str, Algorithm]] = {
    "RS256": RSAAlgorithm(RSAAlgorithm.SHA256),
    "RS384": RSAAlgorithm(RSAAlgorithm.SHA384),
    "RS512": RSAAlgorithm(RSAAlgorithm.SHA512),
    "PS256": RSAPSSAlgorithm(RSAPSSAlgorithm.SHA256),
    "ES256": ECAlgorithm(ECAlgorithm.SHA256),
    "ES384": ECAlgorithm(ECAlgorithm.SHA384),
    "EdDSA": OKPAlgorithm(),
}
ASYMMETRIC_ALGORITHMS: Final = tuple(_ALGORITHMS)
_CURVES: Final[Mapping[str, tuple[ec.EllipticCurve, int, str]]] = {
    "P-256": (ec.SECP256R1(), 32, "ES256"),
    "P-384": (ec.SECP384R1(), 48, "ES384"),
}
_ED25519_BYTES: Final = 32
_TEXT: Final = re.compile(r"[A-Za-z0-9_-]+")


class KeyRefused(ValueError):
    """A key, or a whole set, that cannot be used. The text says why, for the log."""


class VerificationKey(msgspec.Struct, frozen=True):
    """A public key and the algorithms it verifies."""

    key_id: str
    algorithms: tuple[str, ...]
    key: Any

    def verifies(self, algorithm: str, signed: bytes, signature: bytes) -> bool:
        """Whether `signature` is this key's over `signed`. False too where the key is not for `algorithm`."""
        return algorithm in self.algorithms and bool(_ALGORITHMS[algorithm].verify(signed, self.key, signature))


class KeySet(msgspec.Struct, frozen=True):
    """The keys that can be used, by their id, and why each of the others was left out."""

    keys: dict[str, VerificationKey]
    left_out: tuple[str, ...]


def key_set(document: bytes) -> KeySet:
    """The keys in a key set's JSON. Raises KeyRefused when it is no key set."""
    try:
        listed = msgspec.json.decode(document)["keys"]
    except (msgspec.DecodeError, RecursionError, ValueError, TypeError, KeyError):
        listed = None
    if not isinstance(listed, list):
        raise KeyRefused("the key set is no JSON object with a list `keys`")
    keys: dict[str, VerificationKey] = {}
    left_out = [f"only {MAX_KEYS} keys are looked at"] if len(listed) > MAX_KEYS else []
    for number, entry in enumerate(listed[:MAX_KEYS]):
        try:
            key = verification_key(entry)
            if key.key_id in keys:
                raise KeyRefused("its `kid` was there before")
            keys[key.key_id] = key
        except KeyRefused as error:
            left_out.append(f"key {number}: {error}")
    return KeySet(keys, tuple(left_out))


def verification_key(entry: object) -> VerificationKey:
    """One key of a set. Raises KeyRefused."""
    if not isinstance(entry, dict):
        raise KeyRefused("it is no JSON object")
    key_id = entry.get("kid")
    if not isinstance(key_id, str) or not KEY_ID.fullmatch(key_id):
        raise KeyRefused("its `kid` is absent or malformed")
    if entry.get("use", "sig") != "sig":
        raise KeyRefused("it is not for signatures (`use`)")
    operations = entry.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise KeyRefused("it is not for verifying (`key_ops`)")
    if "d" in entry:
        raise KeyRefused("it is a private key, which everybody can read by now")
    make = _MAKERS.get(entry["kty"]) if isinstance(entry.get("kty"), str) else None
    if make is None:
        raise KeyRefused("its type (`kty`) is none of RSA, EC and OKP")
    try:
        key, algorithms = make(entry)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyRefused(
            str(error) if isinstance(error, KeyRefused) else "its numbers are not those of a key"
        ) from None
    if "alg" in entry:
        if entry["alg"] not in (*algorithms, *(("PS256",) if entry["kty"] == "RSA" else ())):
            raise KeyRefused("its algorithm (`alg`) is not one for this kind of key")
        algorithms = (entry["alg"],)
    return VerificationKey(key_id, algorithms, key)


def _rsa(entry: dict[str, Any]) -> tuple[Any, tuple[str, ...]]:
    modulus = int.from_bytes(_octets(entry, "n"))
    if not MIN_RSA_BITS <= modulus.bit_length() <= MAX_RSA_BITS:
        raise KeyRefused(f"an RSA key must have {MIN_RSA_BITS} to {MAX_RSA_BITS} bits")
    exponent = int.from_bytes(_octets(entry, "e"))
    if not 65_537 <= exponent < 2**32:
        raise KeyRefused("an RSA exponent must be 65537 or a little above")
    return rsa.RSAPublicNumbers(exponent, modulus).public_key(), RSA_ALGORITHMS


def _elliptic(entry: dict[str, Any]) -> tuple[Any, tuple[str, ...]]:
    name = entry.get("crv")
    if not isinstance(name, str) or name not in _CURVES:
        raise KeyRefused(f"its curve (`crv`) is none of {', '.join(_CURVES)}")
    curve, size, algorithm = _CURVES[name]
    x, y = (_octets(entry, coordinate) for coordinate in ("x", "y"))
    if len(x) != size or len(y) != size:
        raise KeyRefused(f"coordinates on {name} have {size} bytes")
    # Making the key checks that the point is on the curve.
    return ec.EllipticCurvePublicNumbers(int.from_bytes(x), int.from_bytes(y), curve).public_key(), (algorithm,)


def _edwards(entry: dict[str, Any]) -> tuple[Any, tuple[str, ...]]:
    if entry.get("crv") != "Ed25519":
        raise KeyRefused("its curve (`crv`) is not Ed25519")
    point = _octets(entry, "x")
    if len(point) != _ED25519_BYTES:
        raise KeyRefused(f"an Ed25519 key has {_ED25519_BYTES} bytes")
    return ed25519.Ed25519PublicKey.from_public_bytes(point), ("EdDSA",)


_MAKERS: Final = {"RSA": _rsa, "EC": _elliptic, "OKP": _edwards}


def _octets(entry: dict[str, Any], name: str) -> bytes:
    text = entry.get(name)
    if not isinstance(text, str) or not _TEXT.fullmatch(text):
        raise KeyRefused(f"`{name}` is not base64url")
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        raise KeyRefused(f"`{name}` is not base64url") from None
