"""CORS, and what the log may say."""

import logging

import pytest

CORS = {"security.cors.enabled": True, "security.cors.allowed_origins": ("https://app.example",)}


def preflight(server, origin):
    return server.request(
        "OPTIONS", "/api/publish", headers={"Origin": origin, "Access-Control-Request-Method": "POST"}
    )


def test_a_granted_preflight(make_server):
    server = make_server(changes=CORS | {"security.cors.allow_credentials": True})
    answer = preflight(server, "https://app.example")
    assert answer.status == 204
    assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example"
    assert answer.headers["Access-Control-Allow-Methods"] == "GET, POST, OPTIONS"
    assert answer.headers["Access-Control-Allow-Headers"] == "Authorization, Content-Type"
    assert answer.headers["Access-Control-Allow-Credentials"] == "true"
    assert answer.headers["Access-Control-Max-Age"] == "86400"
    assert answer.headers["Vary"] == "Origin"


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "https://evil-app.example",
        "https://app.example.evil",
        "http://app.example",
        "https://app.example:8443",
        "",
    ],
)
def test_other_origins(make_server, origin):
    server = make_server(changes=CORS)
    assert preflight(server, origin).status == 403
    answer = server.request("GET", "/health", headers={"Origin": origin})
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert answer.headers["Vary"] == "Origin"


def test_errors_can_be_read_by_a_granted_page(make_server):
    answer = make_server(changes=CORS).request("POST", "/api/publish", headers={"Origin": "https://app.example"})
    assert answer.status == 401
    assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example"


def test_a_wildcard_never_grants_credentials(make_server):
    changes = CORS | {"security.cors.allowed_origins": ("*",), "security.cors.allow_credentials": True}
    answer = preflight(make_server(changes=changes), "https://any.example")
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert "Access-Control-Allow-Credentials" not in answer.headers


def test_off_means_off(server):
    assert preflight(server, "https://app.example").status == 405
    answer = server.request("GET", "/health", headers={"Origin": "https://app.example"})
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_the_log_line_has_no_query_and_is_cut(server, bearer, caplog):
    with caplog.at_level(logging.DEBUG, "realtime_communication"):
        server.request("GET", "/health/live?token=hunter2&api_key=hunter3")
        server.request("GET", "/" + "a" * 5000)
        server.request("POST", "/api/publish", b"{}", bearer())
    lines = [record.event_fields for record in caplog.records if record.message == "HTTP request"]
    assert [line["status"] for line in lines] == [200, 404, 415]
    assert lines[0]["path"] == "/health/live"
    assert len(lines[1]["path"]) <= 200
    assert "hunter" not in repr([vars(record) for record in caplog.records])
    assert bearer()["Authorization"] not in repr([vars(record) for record in caplog.records])
