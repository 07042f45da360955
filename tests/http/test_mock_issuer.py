"""The stand-in for OIDC issuers, and whom it talks to."""

import json

import jwt as pyjwt
import pytest

from realtime_communication.auth.mock_issuer import MockIssuer

ISSUER = "https://issuer.example"
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def server(make_server):
    return make_server(mock_issuer=MockIssuer({ISSUER: "us"}))


def ask(server, body, headers=JSON):
    return server.request("POST", "/mock/oidc/token", json.dumps(body), headers)


def test_by_its_own_description(server):
    found = server.request("GET", "/mock/oidc/.well-known/openid-configuration").json
    assert found["issuer"] == ISSUER
    assert found["jwks_uri"] == f"http://127.0.0.1:{server.port}/mock/oidc/jwks"
    token = ask(server, {"user_id": "alice", "algorithm": "ES256", "claims": {"scope": "read"}}).json["access_token"]
    keys = pyjwt.PyJWKSet.from_dict(server.request("GET", "/mock/oidc/jwks").json)
    key = keys[pyjwt.get_unverified_header(token)["kid"]]
    claims = pyjwt.decode(token, key, ["ES256"], audience="us", issuer=ISSUER)
    assert (claims["sub"], claims["scope"]) == ("alice", "read")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"user_id": ""},
        {"user_id": 7},
        {"user_id": "a", "algorithm": "none"},
        {"user_id": "a", "issuer": "https://other.example"},
        {"user_id": "a", "claims": {"iss": []}},
        {"user_id": "a", "more": 1},
    ],
)
def test_fields(server, body):
    answer = ask(server, body)
    assert (answer.status, answer.json["error"]["code"]) == (422, "bad_request")


@pytest.mark.parametrize(
    "headers", [{"Host": "evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}]
)
def test_not_for_pages_of_other_sites(server, headers):
    assert ask(server, {"user_id": "alice"}, JSON | headers).status == 403
    assert server.request("GET", "/mock/oidc/jwks", headers=headers).status == 403


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:99", "[::1]"])
def test_for_this_machine(server, host):
    assert ask(server, {"user_id": "alice"}, JSON | {"Host": host}).status == 200


def test_only_where_it_is_asked_for(make_server):
    assert ask(make_server(), {"user_id": "alice"}).status == 404
