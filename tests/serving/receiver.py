"""A receiver of webhooks, on a socket of its own, that answers as told."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs" / "webhooks.md"


def documented_check():
    """The function a receiver checks signatures with, as `docs/webhooks.md` gives it: ``(secret, headers, body)``."""
    code = DOCS.read_text().split("```python\n")[1].split("```")[0]
    names = {}
    exec(code, names)
    return names["is_genuine"]


@dataclass
class Request:
    path: str
    headers: dict
    body: bytes

    @property
    def event(self):
        return json.loads(self.body)


class Receiver:
    """`answers` are statuses, one for each request, after which all are answered 204. Not listening until `start`."""

    def __init__(self, *answers, headers=(), body=b""):
        self.requests = []
        self.answers = list(answers)
        self.headers = dict(headers)
        self.body = body
        self.cut_off = 0  # answers whose body the sender did not take
        self.silent = False  # True: no answer at all
        self.hold = None  # an event that has to be set before anything is answered
        self._closing = threading.Event()
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self), bind_and_activate=False)
        self._server.server_bind()
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def events(self):
        return [request.event for request in self.requests]

    def start(self):
        self._server.server_activate()
        self._thread.start()
        return self

    def close(self):
        self._closing.set()
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join(10)
        with contextlib.suppress(OSError):
            self._server.server_close()


def _handler_of(receiver):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.requests.append(Request(self.path, dict(self.headers), body))
            if receiver.hold is not None:
                receiver.hold.wait(30)
            if receiver.silent:
                receiver._closing.wait(30)
                return
            self.send_response(receiver.answers.pop(0) if receiver.answers else 204)
            for name, value in receiver.headers.items():
                self.send_header(name, value)
            if receiver.body:
                self.send_header("Content-Length", str(len(receiver.body)))
            self.end_headers()
            try:
                self.wfile.write(receiver.body)
            except OSError:
                receiver.cut_off += 1

        def log_message(self, *args):
            pass

    return Handler
