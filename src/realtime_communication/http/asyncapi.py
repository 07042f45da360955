"""`GET /asyncapi.json`: the wire protocol rtc.v1 as AsyncAPI 3.0, made of the types in `envelopes.py`."""

from __future__ import annotations

import inspect
from typing import Any, Final

import msgspec
from aiohttp import web

from realtime_communication import __version__
from realtime_communication.http import envelopes, schemas
from realtime_communication.http.answers import json_response
from realtime_communication.http.forwarding import client_of_request

Schema = dict[str, Any]

_CHANNEL: Final = "#/channels/connection"
_SUBPROTOCOLS: Final = [
    f"rtc.v1.{encoding}{compression}"
    for encoding in ("json", "msgpack")
    for compression in ("", "+zstd", "+lz4", "+gzip")
]
_DESCRIPTION: Final = """\
Topics, direct messages, presence and history over one WebSocket. Every message of the WebSocket is one envelope: JSON \
in a text frame or, with `rtc.v1.msgpack`, MessagePack in a binary one. A request with an `id` gets exactly one reply \
with the same `id`: the one named here, or an Error. The HTTP API beside it is described in `/openapi.json`."""


def add_routes(application: web.Application) -> None:
    """The endpoint."""
    application.router.add_get("/asyncapi.json", asyncapi)


async def asyncapi(request: web.Request) -> web.Response:
    """The document, with this server as the one to connect to."""
    return json_response(described(request.host, secure=client_of_request(request).secure))


def described(host: str, *, secure: bool) -> Schema:
    """AsyncAPI 3.0 of the protocol, spoken at `host`, from the server's point of view."""
    types = list(dict.fromkeys([*(type(one) for one in envelopes.EXAMPLES)]))
    _, components = schemas.described_types(types)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "rtc.v1",
            "version": __version__,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {"this": {"host": host, "protocol": "wss" if secure else "ws"}},
        "channels": {"connection": _channel(types)},
        "operations": _operations(),
        "components": {
            "schemas": components,
            "messages": {kind.__name__: _message(kind) for kind in types},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "key": {"type": "httpApiKey", "in": "header", "name": "X-API-Key"},
                "token": {"type": "httpApiKey", "in": "query", "name": "token"},
            },
        },
    }


def _channel(types: list[type[msgspec.Struct]]) -> Schema:
    text = {"type": "string"}
    return {
        "address": "/ws",
        "messages": {kind.__name__: {"$ref": f"#/components/messages/{kind.__name__}"} for kind in types},
        "bindings": {
            "ws": {
                "method": "GET",
                "query": {"type": "object", "properties": {"token": text, "api_key": text}},
                "headers": {
                    "type": "object",
                    "properties": {
                        "Authorization": text,
                        "X-API-Key": text,
                        "Sec-WebSocket-Protocol": {"type": "string", "enum": _SUBPROTOCOLS},
                    },
                },
            }
        },
    }


def _message(kind: type[msgspec.Struct]) -> Schema:
    examples = [one for one in envelopes.EXAMPLES if type(one) is kind]
    return {
        "name": str(kind.__struct_config__.tag),
        "summary": " ".join((inspect.getdoc(kind) or "").split()),
        "payload": {"$ref": f"#/components/schemas/{kind.__name__}"},
        "examples": [{"payload": msgspec.to_builtins(one)} for one in examples],
    }


def _operations() -> Schema:
    made: Schema = {}
    for request, replies in envelopes.REQUESTS:
        answers: list[type[msgspec.Struct]] = [*replies, envelopes.Error]
        made[f"receive{request.__name__}"] = {
            "action": "receive",
            "channel": {"$ref": _CHANNEL},
            "messages": [_of_channel(request)],
            "reply": {
                "channel": {"$ref": _CHANNEL},
                "messages": [_of_channel(answer) for answer in answers],
            },
        }
    for unasked in envelopes.UNASKED:
        made[f"send{unasked.__name__}"] = {
            "action": "send",
            "channel": {"$ref": _CHANNEL},
            "messages": [_of_channel(unasked)],
        }
    return made


def _of_channel(kind: type[msgspec.Struct]) -> Schema:
    return {"$ref": f"{_CHANNEL}/messages/{kind.__name__}"}
