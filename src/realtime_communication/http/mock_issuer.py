"""The HTTP side of the stand-in for OIDC issuers: `/mock/oidc/*`, only with `development.mock_external_services`.

Whoever reaches it is whoever they like. So it talks to peers on this machine alone, and not to pages of other sites
that a browser on this machine has open, under whatever name they have found it.
"""

from __future__ import annotations

import ipaddress
from typing import Any, Final

import msgspec
from aiohttp import web

from realtime_communication.auth.mock_issuer import ALGORITHMS, LIFETIME_SECS, MockIssuer
from realtime_communication.http.answers import error_response, json_response
from realtime_communication.http.api import read_json_body
from realtime_communication.http.services import SERVICES

PREFIX: Final = "/mock/oidc"


class MockTokenRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /mock/oidc/token`."""

    user_id: str
    issuer: str | None = None
    algorithm: str = "RS256"
    expires_in: int = LIFETIME_SECS
    claims: dict[str, Any] = {}


def add_routes(application: web.Application) -> None:
    """The endpoints, where there is a mock issuer."""
    if application[SERVICES].mock_issuer is None:
        return
    application.router.add_get(f"{PREFIX}/.well-known/openid-configuration", discovery)
    application.router.add_get(f"{PREFIX}/jwks", keys)
    application.router.add_post(f"{PREFIX}/token", token)


async def discovery(request: web.Request) -> web.Response:
    """The issuer's configuration, as OpenID Connect Discovery 1.0 has it."""
    here = f"{request.scheme}://{request.host}{PREFIX}"
    return json_response(
        {
            "issuer": _issuer(request).issuer,
            "jwks_uri": f"{here}/jwks",
            "token_endpoint": f"{here}/token",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": list(ALGORITHMS),
        }
    )


async def keys(request: web.Request) -> web.Response:
    """The JSON Web Key Set."""
    return json_response(_issuer(request).key_set())


async def token(request: web.Request) -> web.Response:
    """{user_id, issuer?, algorithm?, expires_in?, claims?} → {access_token, token_type, expires_in}."""
    issuer = _issuer(request)
    try:
        asked = msgspec.json.decode(await read_json_body(request), type=MockTokenRequest)
        made = issuer.token(
            asked.user_id,
            request.app[SERVICES].clock(),
            issuer=asked.issuer,
            algorithm=asked.algorithm,
            lifetime_secs=asked.expires_in,
            claims=asked.claims,
        )
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        return error_response(422, "bad_request", str(error)[:300])
    return json_response({"access_token": made, "token_type": "Bearer", "expires_in": asked.expires_in})


def _issuer(request: web.Request) -> MockIssuer:
    """The issuer, for a peer on this machine. Raises HTTPForbidden."""
    issuer = request.app[SERVICES].mock_issuer
    assert issuer is not None
    host = request.url.host or ""
    here = host == "localhost" or host.endswith(".localhost") or _address(host) is not None
    peer = _address(request.remote or "")
    # A peer without an address is on a Unix socket, and so on this machine.
    local = peer.is_loopback if peer is not None else not request.remote
    if not local or not here or request.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
        raise web.HTTPForbidden
    return issuer


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
