"""The HTTP API against its own description: schemathesis makes requests of `/openapi.json`, right ones and wrong ones.

What is made is the same each time. Left out: `/sse` (`test_event_streams.py`) and `/admin/events`
(`http/test_overview.py`), whose answers have no end, and `/admin/drain`, after which the server serves no more.
"""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from realtime_communication.config.schema import Config
from realtime_communication.http.app import make_application
from realtime_communication.http.openapi import described
from realtime_communication.http.services import Services
from serving.processes import ServerProcess, free_port
from serving.tokens import token

CHECKS: Any = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
ADMIN = {"Authorization": f"Bearer {token('root', roles=['admin'])}"}


def _document() -> dict[str, Any]:
    nothing: Any = object()
    services = Services(
        hub=nothing, chain=nothing, config=Config(), profile="test", node_id="n", streams=nothing, authority=nothing
    )
    return described(make_application(services), Config())


DOCUMENT = _document()
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT).exclude(path=["/sse", "/admin/drain", "/admin/events"])


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    process = ServerProcess("product", free_port(), None, None)
    try:
        process.start()
        yield process.http_url
    finally:
        process.dispose()


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


def test_the_document_is_what_the_server_tells(address: str) -> None:
    told = requests.get(f"{address}/openapi.json", timeout=10).json()
    assert told == DOCUMENT


@SCHEMA.parametrize()
@settings(
    max_examples=40,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_requests_of_every_kind(case: schemathesis.Case, address: str, session: requests.Session) -> None:
    case.call_and_validate(base_url=address, session=session, headers=ADMIN, checks=CHECKS)


@pytest.mark.parametrize("path", list(DOCUMENT["paths"]))
def test_other_methods_are_refused_with_those_there_are(address: str, path: str) -> None:
    allowed = {method.upper() for method in DOCUMENT["paths"][path]}
    if "GET" in allowed:
        allowed.add("HEAD")
    for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} - allowed:
        answer = requests.request(method, address + re.sub(r"{\w+}", "t", path), timeout=10)
        assert answer.status_code == 405, method
        assert set(answer.headers["Allow"].split(",")) == allowed
        assert method == "HEAD" or answer.json()["error"]["code"] == "method_not_allowed"


@pytest.mark.parametrize(
    ("path", "operation"),
    [
        (path, method)
        for path, methods in DOCUMENT["paths"].items()
        for method, about in methods.items()
        if about["security"] and "requestBody" in about
    ],
)
def test_bodies_that_are_none(address: str, path: str, operation: str) -> None:
    def status(data: bytes, kind: str = "application/json", headers: dict[str, str] = ADMIN) -> int:
        headers = {**headers, "Content-Type": kind}
        return requests.request(operation, address + path, data=data, headers=headers, timeout=10).status_code

    assert status(b"{}", "text/plain") == 415
    assert status(b"{}", "application/json; charset=latin-1") == 415
    assert status(b"{") == 400
    assert status(b'{"a": "' + b"x" * (1 << 24) + b'"}') == 413
    answer = requests.request(operation, address + path, json={}, timeout=10)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    answer = requests.request(operation, address + path, json={}, headers={"Authorization": "Bearer x"}, timeout=10)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
