"""The description of the HTTP API: valid, complete, and true to the configuration."""

import msgspec
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from realtime_communication.config.schema import AuthProvider, Config
from realtime_communication.http.app import make_application
from realtime_communication.http.dashboard import ASSETS
from realtime_communication.http.openapi import described
from realtime_communication.http.services import Services

NOT_PUBLIC = {"/admin", "/admin/", *(f"/admin/{name}" for name in ASSETS)} | {
    "/openapi.json",
    "/asyncapi.json",
    "/docs",
    "/docs/reference.js",
    "/docs/reference.css",
    "/ws",
}


@pytest.fixture
def application():
    return make_application(
        Services(
            hub=None,
            chain=None,
            config=Config(),
            profile="test",
            node_id="node-1",
            streams=lambda address, on_ready, *, secure: None,
            authority=object(),
        )
    )


def test_is_served_to_anyone(server):
    answer = server.request("GET", "/openapi.json")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    OpenAPIV31SpecValidator(answer.json).validate()
    assert "/sse" not in answer.json["paths"], "this server has no streams"


def test_every_route_is_described(application):
    document = described(application, Config())
    OpenAPIV31SpecValidator(document).validate()
    told = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    routes = {(route.method, route.resource.canonical) for route in application.router.routes()}
    assert {route for route in routes if route[0] != "HEAD" and route[1] not in NOT_PUBLIC} == told
    assert ("GET", "/sse") in told


def test_names_are_those_of_the_configuration(application):
    provider = AuthProvider(type="api_key", header="X-Door", query_param="door")
    config = Config()
    limits = msgspec.structs.replace(config.rate_limiting.headers, limit_header="X-Most", retry_after_header="X-Wait")
    config = msgspec.structs.replace(
        config,
        auth=msgspec.structs.replace(config.auth, providers=(provider,)),
        rate_limiting=msgspec.structs.replace(config.rate_limiting, headers=limits),
    )
    document = described(application, config)
    OpenAPIV31SpecValidator(document).validate()
    assert {"key-X-Door", "query-door"} <= document["components"]["securitySchemes"].keys()
    refused = document["components"]["responses"]["429"]["headers"]
    assert {"X-Most", "X-Wait"} <= refused.keys()
    assert "X-Most" in document["paths"]["/api/publish"]["post"]["responses"]["200"]["headers"]


def test_without_headers_of_limits(application):
    config = Config()
    limits = msgspec.structs.replace(config.rate_limiting.headers, enabled=False)
    config = msgspec.structs.replace(
        config, rate_limiting=msgspec.structs.replace(config.rate_limiting, headers=limits)
    )
    document = described(application, config)
    OpenAPIV31SpecValidator(document).validate()
    assert list(document["components"]["responses"]["429"]["headers"]) == ["Retry-After"]
    assert "headers" not in document["paths"]["/api/publish"]["post"]["responses"]["200"]


def test_credentials_stay_out_of_the_url_where_they_must(application):
    paths = described(application, Config())["paths"]

    def schemes(path, method):
        return {name for one in paths[path][method]["security"] for name in one}

    assert schemes("/sse", "get") == {"bearer", "key-X-API-Key", "token", "query-api_key"}
    assert schemes("/admin/drain", "post") == {"bearer", "key-X-API-Key"}
    assert schemes("/health", "get") == set()
