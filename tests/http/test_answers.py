"""The shape of answers."""

import json

import pytest
from aiohttp import web

from realtime_communication.config.protection import Security
from realtime_communication.config.traffic import RateLimitHeaders
from realtime_communication.errors import ERROR_CODES
from realtime_communication.http.answers import (
    FieldError,
    error_response,
    json_response,
    refusal_headers,
    refused_response,
    response_of,
    set_headers,
)


def body_of(response):
    return json.loads(response.body)


def test_answers_are_json_that_nobody_stores():
    response = json_response({"a": 1}, 201, {"X": "y"})
    assert (response.status, response.body, response.headers["X"]) == (201, b'{"a":1}', "y")
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Cache-Control"] == "no-store"


def test_failures_have_a_code_and_a_message():
    assert body_of(error_response(400, "bad_request", "say why")) == {
        "error": {"code": "bad_request", "message": "say why"}
    }


@pytest.mark.parametrize("row", ERROR_CODES, ids=lambda row: row.name)
def test_every_code_of_the_table_has_its_status(row):
    response = refused_response(row.name, "m", None, RateLimitHeaders(), (10, 0, 0))
    assert response.status == row.status
    assert ("Retry-After" in response.headers) == (row.status in (429, 503))


def test_unknown_codes_are_the_servers_own_fault():
    assert refused_response("new", "m", None, RateLimitHeaders(), (10, 0, 0)).status == 500


def test_waiting_times_are_rounded_up():
    assert refused_response("unavailable", "m", 1001, RateLimitHeaders(), (10, 0, 0)).headers["Retry-After"] == "2"
    assert refused_response("rate_limited", "m", 1, RateLimitHeaders(), (10, 0, 0)).headers["Retry-After"] == "1"


def test_limit_headers_can_be_turned_off_but_the_wait_is_told():
    response = refused_response("rate_limited", "m", 1, RateLimitHeaders(enabled=False), (10, 0, 0))
    assert "X-RateLimit-Limit" not in response.headers
    assert response.headers["Retry-After"] == "1"


@pytest.mark.parametrize(
    ("exception", "status", "code"),
    [
        (web.HTTPNotFound(), 404, "not_found"),
        (web.HTTPMethodNotAllowed("GET", ["POST"]), 405, "method_not_allowed"),
        (web.HTTPUnsupportedMediaType(), 415, "unsupported_media_type"),
        (web.HTTPRequestTimeout(), 408, "timed_out"),
        (web.HTTPRequestEntityTooLarge(1, 2), 413, "too_large"),
        (web.HTTPInternalServerError(text="internals"), 500, "internal"),
    ],
)
def test_refusals_of_the_library_take_the_same_shape(exception, status, code):
    response = response_of(exception)
    assert (response.status, body_of(response)["error"]["code"]) == (status, code)
    assert "internals" not in response.text


def test_what_a_client_needs_is_kept():
    assert response_of(web.HTTPMethodNotAllowed("GET", ["POST"])).headers["Allow"] == "POST"
    moved = response_of(web.HTTPFound("/there"))
    assert (moved.status, moved.headers["Location"], moved.body) == (302, "/there", None)


def test_a_429_leaves_nothing_whichever_bucket_is_empty():
    headers = refusal_headers(429, 5000, RateLimitHeaders(), (10, 7, 0))
    assert (headers["X-RateLimit-Limit"], headers["X-RateLimit-Remaining"], headers["Retry-After"]) == ("10", "0", "5")
    assert refusal_headers(400, None, RateLimitHeaders(), (10, 7, 0))["X-RateLimit-Remaining"] == "7"
    assert refusal_headers(429, 5000, RateLimitHeaders(), None) == {"Retry-After": "5"}
    assert refusal_headers(503, 5000, RateLimitHeaders(retry_after_header="X-Wait"), None) == {"Retry-After": "5"}


@pytest.mark.parametrize("secure", [True, False])
def test_headers_of_every_answer(secure):
    security = Security(content_security_policy="default-src 'self'", strict_transport_security=True)
    plain, own = web.Response(), web.Response(headers={"Content-Security-Policy": "x"}, content_type="text/html")
    for response in (plain, own):
        set_headers(response, security, secure=secure)
        assert ("Strict-Transport-Security" in response.headers) is secure
    assert plain.headers["Content-Security-Policy"] == "default-src 'self'"
    assert own.headers["Content-Security-Policy"] == "x"
    assert (own.headers["X-Frame-Options"], plain.headers.get("X-Frame-Options")) == ("DENY", None)


def test_a_field_at_fault_is_named_on_one_short_line():
    assert str(FieldError("size", "must be 1")) == "size: must be 1"
    long = str(FieldError("a\r\n\x1b" + "x" * 10_000, "y" * 10_000))
    assert len(long) < 700
    assert long.isprintable()
    for status, code in ((400, "bad_request"), (413, "too_large"), (422, "bad_request")):
        response = FieldError("size", "must be 1", status).response()
        assert (response.status, body_of(response)["error"]) == (status, {"code": code, "message": "size: must be 1"})
