"""HTTP requests with JSON, and waiting for what a server tells over HTTP."""

import contextlib
import http.client
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

WAIT_SECS = 20.0


@dataclass(frozen=True)
class Reply:
    """``body`` is the JSON in it; header names are in lower case."""

    status: int
    body: Any
    headers: dict[str, str]

    @property
    def code(self) -> str:
        """Of the JSON error body."""
        return str(self.body["error"]["code"])

    @property
    def message(self) -> str:
        """Of the JSON error body."""
        return str(self.body["error"]["message"])


def ask(port: int, method: str, path: str, body: Any = None, **headers: str | None) -> Reply:
    """One request on a connection of its own. ``x_api_key`` is the header X-Api-Key; one of None is left out."""
    given = {name.replace("_", "-"): value for name, value in headers.items() if value is not None}
    text = None if body is None else body if isinstance(body, (str, bytes)) else json.dumps(body)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_SECS)
    with contextlib.closing(connection):
        connection.request(method, path, text, {"Content-Type": "application/json"} | given)
        answer = connection.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        return Reply(answer.status, json.loads(answer.read()), found)


def wait_for(reached: Callable[[], Any], secs: float = WAIT_SECS) -> Any:
    """What ``reached`` returns once it is true."""
    deadline = time.monotonic() + secs
    while not (found := reached()):
        assert time.monotonic() < deadline, f"not reached within {secs} s"
        time.sleep(0.02)
    return found


def health(port: int) -> Any:
    """The body of `/health`, whose status must be 200."""
    reply = ask(port, "GET", "/health")
    assert reply.status == 200, reply
    return reply.body
