"""Starts servers and signs tokens for tests in another language, which ask for it over HTTP.

Each action is ``POST /action`` with a JSON object, answered with one; a failure is a 500 with its text.
"""

import json
import os
import signal
import threading
import time
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from serving.processes import ServerProcess, assert_clean, free_port
from serving.tokens import token
from serving.workers import all_ready


class Rig:
    """The servers of one run of tests, while ``with`` lasts; ``shared`` is the one that more than one run uses."""

    def __init__(self, shared: ServerProcess) -> None:
        self._servers: list[ServerProcess] = [shared]
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()
        own = self._servers[1:]
        try:
            for server in own if kind is None else []:
                assert_clean(server)
        finally:
            for server in own:
                server.kill()
                server.dispose()

    def answer(self, action: str, asked: dict[str, Any]) -> dict[str, Any]:
        """What ``action`` gives back."""
        match action:
            case "shared":
                return self._told(0)
            case "start":
                return self._told(self._start(asked["target"], asked["settings"]))
            case "token":
                return {"token": _signed(asked["user"], asked["claims"])}
        server = self._servers[asked["id"]]
        match action:
            case "stop":
                server.stop()
            case "kill":
                server.kill()
            case "again":
                server.start()
            case "roll":
                ready = len(server.events("a worker is ready"))
                os.kill(server.pid, signal.SIGUSR2)
                all_ready(server, times=ready + 2)
            case _:
                raise ValueError(f"there is no action {action!r}")
        return {}

    def _start(self, target: str, settings: dict[str, Any]) -> int:
        server = ServerProcess(target, free_port(), settings, None)
        with self._lock:
            self._servers.append(server)
            number = len(self._servers) - 1
        server.start()
        if target == "workers":
            all_ready(server)
        return number

    def _told(self, number: int) -> dict[str, Any]:
        server = self._servers[number]
        return {"id": number, "url": server.url, "port": server.port}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        rig = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                status, answer = 200, b""
                try:
                    asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                    answer = json.dumps(rig.answer(self.path.removeprefix("/"), asked)).encode()
                except Exception:
                    status, answer = 500, traceback.format_exc().encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def _signed(user: str, claims: dict[str, Any]) -> str:
    now = int(time.time())
    changes: dict[str, Any] = {name: claims[name] for name in ("permissions", "roles") if name in claims}
    if "expiresIn" in claims:
        changes["exp"] = now + claims["expiresIn"]
    if "refreshIn" in claims:
        changes["refresh_threshold"] = None if claims["refreshIn"] is None else now + claims["refreshIn"]
    return token(user, **changes)
