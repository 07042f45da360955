"""The HTTP application: every route this server answers except the WebSocket itself."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from aiohttp import web
from aiohttp.typedefs import Middleware

from realtime_communication.http import (
    admin,
    api,
    asyncapi,
    auth,
    batch,
    dashboard,
    debug,
    demo,
    directory,
    health,
    mock_issuer,
    openapi,
    overview,
    profile,
    reference_page,
    sse,
    topics,
)
from realtime_communication.http.answers import error_response
from realtime_communication.http.fleet import Alone
from realtime_communication.http.metrics import measuring
from realtime_communication.http.security import answer_errors, guard, on_prepare
from realtime_communication.http.services import FLEET, SERVICES, Services
from realtime_communication.http.tracing import name_trace, trace_requests
from realtime_communication.http.worker_answers import answers_of


def make_application(services: Services) -> web.Application:
    """The application of one worker. Its bodies are bounded by `websocket.max_message_size`, as messages are."""
    # Outermost, so that what is measured is what the peer waited for.
    measured: list[Middleware] = [measuring(services.metrics)] if services.metrics is not None else []
    application = web.Application(
        middlewares=[*measured, trace_requests, answer_errors, guard],
        client_max_size=0,  # the guard of each connection bounds bodies
    )
    application[SERVICES] = services
    application[FLEET] = services.fleet or Alone(answers_of(services), functools.partial(_change, services))
    application.on_response_prepare.append(on_prepare)
    application.on_response_prepare.append(name_trace)
    parts = (health, api, batch, auth, directory, topics, sse, admin, overview, debug, demo, mock_issuer, profile)
    for part in (*parts, dashboard, openapi, asyncapi, reference_page):
        part.add_routes(application)
    application.router.add_get("/ws", upgrade_required)
    return application


def _change(services: Services, changes: Mapping[str, object], origin: str) -> None:
    assert services.control is not None, "whoever asks has looked"
    services.control.change(changes, origin)


def max_body(services: Services) -> int:
    """Bound of a request body, in bytes."""
    return services.config.websocket.max_message_size


async def upgrade_required(request: web.Request) -> web.Response:
    """`/ws` without an upgrade, on a connection that has carried other requests: all else goes to the data plane."""
    response = error_response(
        426,
        "bad_request",
        "this is a WebSocket: ask for the upgrade",
        {"Upgrade": "websocket", "Sec-WebSocket-Version": "13"},
    )
    response.force_close()
    return response
