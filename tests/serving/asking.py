"""HTTP requests to a server on this machine, and waiting for what comes by itself."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from serving.processes import ServerProcess
from serving.raw import Answer
from serving.tokens import token

JSON = {"Content-Type": "application/json"}
WAIT_SECS = 60.0


def bearer(user: str = "alice", **claims: Any) -> dict[str, str]:
    """The header with a token of `user`."""
    return {"Authorization": "Bearer " + token(user, **claims)}


def admin() -> dict[str, str]:
    """The header with an administrator's token."""
    return bearer("root", roles=["admin"])


def ask(port: int, method: str, path: str, headers: Mapping[str, str | None] | None = None, body: Any = None) -> Answer:
    """An answer; its headers in lower case. `body` is sent as JSON, bytes as they are; a header of None is left out."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body)
    given = {name: value for name, value in (headers or {}).items() if value is not None}
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_SECS)) as connection:
        connection.request(method, path, data, (JSON if body is not None else {}) | given)
        answer = connection.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, found, answer.read())


def health(port: int) -> Any:
    """The body of `/health`, whose status must be 200."""
    answer = ask(port, "GET", "/health")
    assert answer.status == 200, answer
    return answer.json


def redis_of(server: ServerProcess) -> Any:
    """What a server's health tells of Redis."""
    return health(server.port)["dependencies"]["redis"]


def until(reached: Callable[[], Any], told: Callable[[], object] | None = None, seconds: float = WAIT_SECS) -> Any:
    """What `reached` returns, once that is true. Fails when it is not within `seconds`; `told` says what there was."""
    deadline = time.monotonic() + seconds
    while not (found := reached()):
        assert time.monotonic() < deadline, told() if told else f"not reached within {seconds} s: {reached}"
        time.sleep(0.01)
    return found
