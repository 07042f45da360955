"""An OpenID Connect issuer in a process of its own, with real keys, that can be told to misbehave.

``OidcIssuer`` starts it and asks it. What it signs comes from PyJWT, so that it is no mirror of the code under test.
"""

import asyncio
import json
import subprocess
import sys
import time
import urllib.request
from types import TracebackType
from typing import Any, Self

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

AUDIENCE = "realtime-communication"
ALGORITHMS = ("RS256", "ES256", "EdDSA")
WELL_KNOWN = "/.well-known/openid-configuration"


class OidcIssuer:
    """A running issuer. ``url`` is its name."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen([sys.executable, __file__], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def control(self, **changes: Any) -> dict[str, Any]:
        """Change how it behaves: ``mode`` and ``key_mode`` (ok, 500, hang, big, redirect, garbage), ``cache_control``,
        ``discovery`` (fields to replace), ``further_keys``, ``rotate``. What hangs is answered after the next change of
        its mode. Returns the requests counted by path."""
        return self._post("/control", changes)

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait()

    def counts(self) -> dict[str, int]:
        """How often each path was asked for."""
        return self._post("/control", {})["counts"]

    def token(self, user: str = "alice", algorithm: str = "RS256", header: dict[str, Any] | None = None, **claims: Any):
        """A token; a claim or a header of None is left out."""
        now = int(time.time())
        made = {"iss": self.url, "aud": AUDIENCE, "sub": user, "iat": now, "exp": now + 600, **claims}
        made = {name: value for name, value in made.items() if value is not None}
        return self._post("/control/sign", {"algorithm": algorithm, "claims": made, "header": header or {}})["token"]

    def keys(self) -> list[dict[str, Any]]:
        """The public keys, without counting the request."""
        return self._post("/control", {})["keys"]

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(
            self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}, method="POST"
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read())


class _Issuer:
    def __init__(self) -> None:
        self.url = ""
        self.generation = 0
        self.counts: dict[str, int] = {}
        self.modes = {"mode": "ok", "key_mode": "ok"}
        self.cache_control = ""
        self.discovery: dict[str, Any] = {}
        self.further_keys: list[dict[str, Any]] = []
        self.rotate()

    def rotate(self) -> None:
        self.generation += 1
        self.private = {
            "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
            "ES256": ec.generate_private_key(ec.SECP256R1()),
            "EdDSA": ed25519.Ed25519PrivateKey.generate(),
        }

    def key_id(self, algorithm: str) -> str:
        return f"{algorithm.lower()}-{self.generation}"

    def public_keys(self) -> list[dict[str, Any]]:
        makers = {"RS256": RSAAlgorithm, "ES256": ECAlgorithm, "EdDSA": OKPAlgorithm}
        keys = []
        for algorithm, private in self.private.items():
            key = makers[algorithm].to_jwk(private.public_key(), as_dict=True)
            key.pop("key_ops", None)
            keys.append(key | {"kid": self.key_id(algorithm), "use": "sig", "alg": algorithm})
        return keys + self.further_keys

    async def control(self, request: web.Request) -> web.Response:
        changes = await request.json()
        for name in self.modes:
            self.modes[name] = changes.get(name, self.modes[name])
        for name in ("cache_control", "discovery", "further_keys"):
            setattr(self, name, changes.get(name, getattr(self, name)))
        if changes.get("rotate"):
            self.rotate()
        return web.json_response({"counts": self.counts, "keys": self.public_keys()})

    async def sign(self, request: web.Request) -> web.Response:
        asked = await request.json()
        algorithm = asked["algorithm"]
        header = {"kid": self.key_id(algorithm)} | asked["header"]
        header = {name: value for name, value in header.items() if value is not None}
        token = jwt.encode(asked["claims"], self.private[algorithm], algorithm=algorithm, headers=header)
        return web.json_response({"token": token})

    async def configuration(self, request: web.Request) -> web.StreamResponse:
        found = {"issuer": self.url, "jwks_uri": f"{self.url}/jwks"} | self.discovery
        return await self.answer(request, "mode", found)

    async def key_set(self, request: web.Request) -> web.StreamResponse:
        return await self.answer(request, "key_mode", {"keys": self.public_keys()})

    async def answer(self, request: web.Request, name: str, found: dict[str, Any]) -> web.StreamResponse:
        self.counts[request.path] = self.counts.get(request.path, 0) + 1
        while (mode := self.modes[name]) == "hang":
            await asyncio.sleep(0.01)
        if mode == "redirect":
            raise web.HTTPFound("/elsewhere")
        if mode == "500":
            raise web.HTTPInternalServerError
        if mode == "garbage":
            return web.Response(body=b"\x00\xff not JSON")
        headers = {"Cache-Control": self.cache_control} if self.cache_control else {}
        if mode == "gzip":
            headers["Content-Encoding"] = "gzip"
        if mode == "big":
            found = found | {"filling": "x" * (10 << 20)}
        return web.json_response(found, headers=headers)

    async def elsewhere(self, request: web.Request) -> web.Response:
        self.counts[request.path] = self.counts.get(request.path, 0) + 1
        return web.json_response({"keys": self.public_keys()})


async def _main() -> None:
    issuer = _Issuer()
    application = web.Application()
    application.router.add_get(WELL_KNOWN, issuer.configuration)
    application.router.add_get("/jwks", issuer.key_set)
    application.router.add_get("/elsewhere", issuer.elsewhere)
    application.router.add_post("/control", issuer.control)
    application.router.add_post("/control/sign", issuer.sign)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    issuer.url = f"http://127.0.0.1:{port}"
    print(port, flush=True)
    await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    asyncio.run(_main())
