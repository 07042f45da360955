"""Bodies and query parameters, read strictly, through an endpoint that takes two fields."""

import pytest

from realtime_communication.http import app
from realtime_communication.http.answers import json_response
from realtime_communication.http.fields import MAX_BODY_BYTES, limit_in, name_in, query_of, read_object

JSON = {"Content-Type": "application/json"}


class Endpoint:
    @staticmethod
    def add_routes(application):
        application.router.add_post("/fields", Endpoint.post)
        application.router.add_get("/fields", Endpoint.get)

    @staticmethod
    async def post(request):
        fields = await read_object(request, ("name", "size"))
        return json_response({"fields": fields, "name": name_in(fields, "name", 8)})

    @staticmethod
    async def get(request):
        parameters = query_of(request, ("limit", "name"))
        return json_response({"limit": limit_in(parameters, 50), "name": name_in(parameters, "name", 8)})


@pytest.fixture
def ask(make_server, monkeypatch):
    monkeypatch.setattr(app, "debug", Endpoint)
    server = make_server()
    return lambda body, headers=JSON: server.request("POST", "/fields", body, headers)


@pytest.fixture
def look(make_server, monkeypatch):
    monkeypatch.setattr(app, "debug", Endpoint)
    server = make_server()
    return lambda query: server.request("GET", f"/fields?{query}")


def refused(answer, status, *words):
    assert answer.status == status, answer
    message = answer.json["error"]["message"]
    assert all(word in message for word in words), message
    assert len(message) < 700
    return True


def test_an_object_of_known_fields(ask):
    answer = ask(b' {"name": "a", "size": [1.5, true, null, "\xc3\xa9"]} ')
    assert (answer.status, answer.json["fields"]) == (200, {"name": "a", "size": [1.5, True, None, "é"]})
    assert ask(b"{}").json == {"fields": {}, "name": None}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"{} x",
        b'{"size":NaN}',
        b'{"size":-Infinity}',
        b'{"size":1,"size":2}',
        b'{"size":{"a":1,"a":2}}',
        b"\xff",
        b'\xef\xbb\xbf{"size":1}',
        '{"size":1}'.encode("utf-16"),
        b'{"size":' + b"9" * 10_000 + b"}",
        b"[" * 16_000,
        b'{"size":' * 2_000,
    ],
)
def test_what_is_no_json(ask, body):
    assert refused(ask(body), 400, "body: must be JSON")


@pytest.mark.parametrize("body", [b"[]", b"1", b'"name"', b"null", b"[{}]"])
def test_other_values(ask, body):
    assert refused(ask(body), 422, "body: must be an object of name, size")


def test_unknown_names_are_told_but_not_at_length(ask):
    assert refused(ask(b'{"nmae": 1}'), 422, "nmae: is not known: there are name, size")
    assert refused(ask(b'{"' + b"x" * 10_000 + b'": 1}'), 422, "is not known")
    assert refused(ask(b'{"\\u001b[31m\\r\\n\\ud800": 1}'), 422, "\\x1b[31m\\r\\n\\ud800: is not known")


def test_the_size_is_bounded(ask):
    exact = b"{}" + b" " * (MAX_BODY_BYTES - 2)
    assert ask(exact).status == 200
    assert refused(ask(exact + b" "), 413, f"body: must be at most {MAX_BODY_BYTES} bytes")
    chunked = iter([exact, b" "])
    assert refused(ask(chunked), 413, "body: must be at most")


def test_other_content_types(ask):
    for headers in ({}, {"Content-Type": "text/json"}, JSON | {"Content-Encoding": "gzip"}):
        assert ask(b"{}", headers).status == 415


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (b"1", "must be a string that is not empty"),
        (b'""', "must be a string that is not empty"),
        (b"null", "must be a string that is not empty"),
        (b'"123456789"', "longer than 8 bytes"),
        (b'"a\\nb"', "contains control characters"),
        (b'"\\ud800"', "no valid Unicode text"),
    ],
)
def test_names(ask, value, words):
    assert refused(ask(b'{"name":' + value + b"}"), 422, "name: ", words)


def test_queries(look):
    assert look("").json == {"limit": 50, "name": None}
    assert look("limit=7&name=a%20b").json == {"limit": 7, "name": "a b"}
    assert refused(look("nmae=a"), 400, "nmae: is not known: there are limit, name")
    for query in ("limit=1&limit=2", "limit=%zz", "name=%ff"):
        assert look(query).status == 400


@pytest.mark.parametrize(
    "limit", ["0", "-1", "51", "9223372036854775808", "9" * 1000, "1.0", "1e1", "+1", " 1", "", "٣", "0x10"]
)
def test_limits(look, limit):
    quoted = "".join(f"%{byte:02x}" for byte in limit.encode())
    assert refused(look(f"limit={quoted}"), 400, "limit: must be an integer from 1 to 50")
