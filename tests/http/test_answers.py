"""The shape of answers."""

import json

import pytest
from aiohttp import web

from realtime_communication.config.traffic import RateLimitHeaders
from realtime_communication.errors import ERROR_CODES
from realtime_communication.http.answers import error_response, json_response, refused_response, response_of


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
