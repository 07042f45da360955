"""Routes, and the shape every failure has."""

import pytest


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/api/publish", 405, "method_not_allowed"),
        ("DELETE", "/health", 405, "method_not_allowed"),
        ("BREW", "/health", 400, "bad_request"),
        ("GET", "/ws", 426, "bad_request"),
        ("GET", "/%zz", 404, "not_found"),
        ("GET", "/..%2f..%2fetc/passwd", 404, "not_found"),
    ],
)
def test_failures_are_json(server, method, path, status, code):
    answer = server.request(method, path)
    assert answer.status == status
    assert answer.json["error"]["code"] == code
    assert answer.json["error"]["message"]
    assert answer.headers["Content-Type"].startswith("application/json")


def test_405_names_what_is_allowed(server):
    assert server.request("GET", "/api/publish").headers["Allow"] == "POST"


def test_expectations_nobody_can_meet(server):
    answer = server.request("POST", "/api/publish", b"{}", {"Expect": "miracles"})
    assert answer.status == 417
    assert "error" in answer.json


def test_answers_say_little_about_the_server(server):
    for path in ("/health", "/nowhere"):
        assert server.request("GET", path).headers["Server"] == "realtime_communication"


def test_an_error_of_its_own_tells_nothing(server, bearer, caplog):
    server.hub.refusal = RuntimeError("internals")
    answer = server.request("POST", "/api/publish", b"{}", bearer() | {"Content-Type": "application/json"})
    assert answer.status == 500
    assert answer.json["error"]["code"] == "internal"
    assert b"internals" not in answer.body
    assert len([record for record in caplog.records if record.exc_info]) == 1
