"""A stand-in for OIDC issuers, inside this server: `development.mock_external_services`.

It signs tokens in the name of whatever issuers are configured, with keys made at the start, so that a developer can try
an `oauth2` provider without one. Whoever reaches it is whoever they like; the configuration refuses it in the prod
profile, and its HTTP side talks to this machine only.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from realtime_communication.auth.identity import MAX_USER_ID_BYTES, checked_name
from realtime_communication.auth.issuer_keys import MAX_AGE_SECS, Fetched, IssuerKeys
from realtime_communication.auth.jwks import key_set

LIFETIME_SECS: Final = 3600
ALGORITHMS: Final = ("RS256", "ES256")

_RSA_BITS: Final = 2048


class MockIssuer:
    """Signs for `issuers`, each with the audience its tokens are for; the first one is the default.

    `keys` are the `private_keys` of another one, to sign with the same.
    """

    def __init__(self, issuers: Mapping[str, str], keys: Sequence[bytes] = ()) -> None:
        if not issuers:
            raise ValueError("a mock issuer needs the name of an issuer")
        self._issuers = dict(issuers)
        if keys:
            first, second = (load_pem_private_key(key, None) for key in keys)
            assert isinstance(first, rsa.RSAPrivateKey) and isinstance(second, ec.EllipticCurvePrivateKey)
            self._rsa, self._elliptic = first, second
        else:
            self._rsa = rsa.generate_private_key(public_exponent=65_537, key_size=_RSA_BITS)
            self._elliptic = ec.generate_private_key(ec.SECP256R1())
        shown = [hashlib.sha256(key).hexdigest()[:8] for key in self.private_keys()]
        self._key_ids = {name: f"mock-{name.lower()}-{digits}" for name, digits in zip(ALGORITHMS, shown, strict=True)}

    def private_keys(self) -> tuple[bytes, ...]:
        """The key of each algorithm as PEM, for the other processes of this server."""
        return tuple(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) for key in (self._rsa, self._elliptic)
        )

    @property
    def issuer(self) -> str:
        """The default one."""
        return next(iter(self._issuers))

    def key_set(self) -> dict[str, Any]:
        """The JSON Web Key Set."""
        numbers, point = self._rsa.public_key().public_numbers(), self._elliptic.public_key().public_numbers()
        shared = {"use": "sig"}
        return {
            "keys": [
                {"kty": "RSA", "alg": "RS256", "kid": self._key_ids["RS256"], "n": _text(numbers.n, 256)}
                | {"e": _text(numbers.e, 3)}
                | shared,
                {"kty": "EC", "alg": "ES256", "kid": self._key_ids["ES256"], "crv": "P-256"}
                | {"x": _text(point.x, 32), "y": _text(point.y, 32)}
                | shared,
            ]
        }

    def token(
        self,
        user_id: str,
        now: float,
        *,
        issuer: str | None = None,
        algorithm: str = "RS256",
        lifetime_secs: int = LIFETIME_SECS,
        claims: Mapping[str, Any] | None = None,
    ) -> str:
        """A token of `issuer` for `user_id`, valid from `now` (seconds since the epoch).

        `claims` go in too, in place of the usual ones of their names. Raises ValueError when the user cannot be one,
        the issuer is not configured or the algorithm is not one of ALGORITHMS.
        """
        name = self.issuer if issuer is None else issuer
        if name not in self._issuers:
            raise ValueError(f"issuer: must be one of {', '.join(self._issuers)}")
        if algorithm not in ALGORITHMS:
            raise ValueError(f"algorithm: must be one of {', '.join(ALGORITHMS)}")
        made = {
            "iss": name,
            "aud": self._issuers[name],
            "sub": checked_name(user_id, "user_id", MAX_USER_ID_BYTES),
            "iat": int(now),
            "exp": int(now) + lifetime_secs,
            **(claims or {}),
        }
        key = self._rsa if algorithm == "RS256" else self._elliptic
        try:
            return jwt.encode(made, key, algorithm=algorithm, headers={"kid": self._key_ids[algorithm]})
        except TypeError:
            raise ValueError("claims: `iss` must be a string") from None

    async def fetch(self) -> Fetched:
        """The keys, as a fetch from a real issuer gives them."""
        return self._fetched()

    def keys_for(self, issuer: str) -> IssuerKeys:
        """The keys of `issuer`, there from the start."""
        keys = IssuerKeys(issuer, self.fetch)
        keys.install(self._fetched())
        return keys

    def _fetched(self) -> Fetched:
        return Fetched(key_set(msgspec.json.encode(self.key_set())), MAX_AGE_SECS)


def _text(number: int, size: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes(size)).rstrip(b"=").decode()
