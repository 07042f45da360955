"""`GET /openapi.json`: the HTTP API as OpenAPI 3.1, made of the routes there are and `operations.py`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from aiohttp import hdrs, web

from realtime_communication import __version__
from realtime_communication.config.schema import Config
from realtime_communication.http import schemas
from realtime_communication.http.answers import json_response
from realtime_communication.http.operations import OPERATIONS, Operation
from realtime_communication.http.services import SERVICES

Schema = dict[str, Any]

_JSON: Final = "application/json"
_PARAMETER: Final = re.compile(r"\{(\w+)\}")
_REFUSALS: Final = {
    400: "The request is malformed, or a parameter or field is out of range",
    401: "No credentials, or wrong ones",
    403: "The identity lacks a permission, a role or the topic",
    404: "There is nothing at this path",
    408: "The body did not come in time",
    413: "The body is too large",
    415: "The content type is not application/json in UTF-8",
    422: "A field is unknown, of the wrong type or out of its range",
    426: "This server is only to be used over TLS",
    429: "Too many requests, or too many wrong credentials from this address",
    431: "The head of the request is too large",
    500: "A fault of the server",
    503: "Full, draining, or a service behind it is out of reach",
}
_ALWAYS: Final = (400, 426, 429, 431, 500)
_WITH_CREDENTIALS: Final = (401, 403, 503)
_WITH_BODY: Final = (408, 413, 415, 422)

_DESCRIPTION: Final = """\
Publishing, reading and looking after a realtime_communication server over HTTP. The WebSocket beside it is described \
in `/asyncapi.json`.

A failure is `{"error": {"code", "message"}}` with the matching status; another method than a path has is answered 405 \
with `Allow`. Every path with GET has HEAD."""


def add_routes(application: web.Application) -> None:
    """The endpoint; to be called when all others are there."""
    application.router.add_get("/openapi.json", openapi)


async def openapi(request: web.Request) -> web.Response:
    """The document, as the configuration is now."""
    return json_response(described(request.app, request.app[SERVICES].config))


def described(application: web.Application, config: Config) -> Schema:
    """OpenAPI 3.1 of the application's public routes."""
    routes = [
        (route.method, route.resource.canonical, operation)
        for route in application.router.routes()
        if route.resource is not None and (operation := OPERATIONS.get(route.handler)) is not None
    ]
    shapes, components = _schemas(operation for _, _, operation in routes)
    paths: dict[str, Schema] = {}
    for method, path, operation in routes:
        if method != hdrs.METH_HEAD:
            paths.setdefault(path, {})[method.lower()] = _operation(path, operation, shapes, config)
    tags = dict.fromkeys(operation.tag for _, _, operation in routes)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "realtime_communication",
            "version": __version__,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name} for name in tags],
        "paths": paths,
        "components": {
            "schemas": components,
            "responses": {str(status): _refusal(status, config) for status in _REFUSALS},
            "headers": _limit_headers(config),
            "securitySchemes": {name: scheme for name, scheme, _ in _security_schemes(config)},
        },
    }


def _schemas(operations: Iterable[Operation]) -> tuple[Mapping[Any, Schema], dict[str, Any]]:
    """The schema of each type in use, by the type's own form, and the components they refer to."""
    types: list[Any] = [schemas.Failure]
    for operation in operations:
        types += [operation.answer, *operation.statuses.values()]
        types += [operation.body] if operation.body is not None else []
    made, components = schemas.described_types(types)
    return {repr(kind): schema for kind, schema in zip(types, made, strict=True)}, components


def _operation(path: str, operation: Operation, shapes: Mapping[Any, Schema], config: Config) -> Schema:
    parameters = _path_parameters(path) + _query_parameters(operation.query)
    parameters += [
        {"name": name, "in": "header", "description": text, "schema": {"type": "string"}}
        for name, text in operation.headers.items()
    ]
    made: Schema = {"tags": [operation.tag], "summary": operation.summary}
    if operation.text:
        made["description"] = operation.text
    made["security"] = _security(operation, config)
    if parameters:
        made["parameters"] = parameters
    if operation.body is not None:
        content = {_JSON: {"schema": shapes[repr(operation.body)]}}
        made["requestBody"] = {"required": operation.body_required, "content": content}
    made["responses"] = _responses(path, operation, shapes, config)
    return made


def _path_parameters(path: str) -> list[Schema]:
    schema = {"type": "string", "minLength": 1, "maxLength": 255}
    return [{"name": name, "in": "path", "required": True, "schema": schema} for name in _PARAMETER.findall(path)]


def _query_parameters(query: type[msgspec.Struct]) -> list[Schema]:
    schema = msgspec.json.schema(query)["$defs"][query.__name__]
    required = schema.get("required", ())
    made = []
    for name, field in schema["properties"].items():
        shown = {key: value for key, value in field.items() if key not in ("default", "description")}
        parameter: Schema = {"name": name, "in": "query", "required": name in required, "schema": shown}
        if "description" in field:
            parameter["description"] = field["description"]
        if field.get("default") not in (None, ""):
            shown["default"] = field["default"]
        made.append(parameter)
    return made


def _responses(path: str, operation: Operation, shapes: Mapping[Any, Schema], config: Config) -> Schema:
    good: Schema = {
        "description": operation.summary,
        "content": {operation.media: {"schema": shapes[repr(operation.answer)]}},
    }
    if operation.needs != "nothing" and config.rate_limiting.headers.enabled:
        good["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in _limit_headers(config)}
    statuses = [*_ALWAYS]
    if operation.needs != "nothing":
        statuses += _WITH_CREDENTIALS
    if operation.body is not None:
        statuses += [*_WITH_BODY, 503]
    if _PARAMETER.search(path):
        statuses += (404, 503)
    made: Schema = {"200": good}
    for status in sorted({*statuses, *operation.statuses}):
        shape = operation.statuses.get(status, schemas.Failure)
        if shape is schemas.Failure:
            made[str(status)] = {"$ref": f"#/components/responses/{status}"}
        else:
            made[str(status)] = {
                "description": _REFUSALS[status],
                "content": {_JSON: {"schema": shapes[repr(shape)]}},
                "headers": _refusal_headers(status, config),
            }
    return made


def _refusal(status: int, config: Config) -> Schema:
    made: Schema = {
        "description": _REFUSALS[status],
        "content": {_JSON: {"schema": {"$ref": schemas.REFERENCE.format(name="Failure")}}},
    }
    headers = _refusal_headers(status, config)
    return made | ({"headers": headers} if headers else {})


def _refusal_headers(status: int, config: Config) -> Schema:
    limits = config.rate_limiting.headers
    retry = limits.retry_after_header if status == 429 and limits.enabled else "Retry-After"
    made: Schema = {}
    if status in (429, 503):
        made[retry] = {"description": "seconds to wait", "schema": {"type": "integer", "minimum": 0}}
    if status == 429:
        made |= {name: {"$ref": f"#/components/headers/{name}"} for name in _limit_headers(config)}
    return made


def _limit_headers(config: Config) -> Schema:
    limits = config.rate_limiting.headers
    if not limits.enabled:
        return {}
    named = {
        limits.limit_header: "requests allowed at once",
        limits.remaining_header: "requests left",
        limits.reset_header: "when all are back, in seconds since 1970",
    }
    return {name: {"description": text, "schema": {"type": "integer", "minimum": 0}} for name, text in named.items()}


def _security_schemes(config: Config) -> list[tuple[str, Schema, bool]]:
    """Name, scheme, and whether it stands in the URL."""
    providers = [one for one in config.auth.providers if one.type == "api_key"]
    key_headers = dict.fromkeys(["X-API-Key", *(one.header for one in providers)])
    key_queries = dict.fromkeys(["api_key", *(one.query_param for one in providers)])
    bearer = {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
    return [
        ("bearer", bearer, False),
        *((f"key-{name}", {"type": "apiKey", "in": "header", "name": name}, False) for name in key_headers),
        ("token", {"type": "apiKey", "in": "query", "name": "token"}, True),
        *((f"query-{name}", {"type": "apiKey", "in": "query", "name": name}, True) for name in key_queries),
    ]


def _security(operation: Operation, config: Config) -> list[Schema]:
    if operation.needs == "nothing":
        return []
    return [{name: []} for name, _, in_url in _security_schemes(config) if operation.in_url or not in_url]
