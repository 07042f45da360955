"""The proxies of deploy/ as processes of the test, each with its example configuration in front of two nodes.

The copy that a proxy reads differs from the example in addresses, paths and the length of time-outs alone. Whatever is
replaced has to be there, so that a changed example is noticed.
"""

import contextlib
import http.client
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from websockets.exceptions import ConnectionClosed

from serving.asking import WAIT_SECS, until
from serving.certificates import shared_server, trusted
from serving.processes import ROOT, free_port
from serving.programs import found
from serving.raw import Answer

DEPLOY = ROOT / "deploy"
TIMEOUT_SECS = 2.0
"""Of the silence of a connection, in place of the examples' 75 s."""
STRANGER = "127.0.0.2"
"""An address of this machine that no node and no proxy trusts."""


class Proxy:
    """One running proxy. `port` speaks TLS, `plain_port` does not."""

    def __init__(self, name: str, nodes: Sequence[int]) -> None:
        self.name = name
        self.port = free_port()
        self.plain_port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix=f"rtc-{name}-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._command = _COMMANDS[name](self, nodes)

    @property
    def url(self) -> str:
        return f"wss://127.0.0.1:{self.port}/ws"

    @property
    def log(self) -> str:
        """All it wrote, its log of requests too."""
        return "".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("*.log")))

    def start(self) -> None:
        """Start, and wait until it takes connections."""
        environment = os.environ | {"XDG_DATA_HOME": str(self.folder), "XDG_CONFIG_HOME": str(self.folder)}
        with (self.folder / "output.log").open("ab") as output:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment
            )
        until(self._answers, lambda: f"{self.name} does not start:\n{self.log}")

    def dispose(self) -> None:
        """End it and remove its files."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def ask(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        *,
        source: str,
    ) -> Answer:
        """An answer over TLS to a client with that address."""
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self.port, timeout=WAIT_SECS, context=trusted("https:"), source_address=(source, 0)
        )
        with contextlib.closing(connection):
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read())

    def copy(self, example: str, replaced: Mapping[str, str]) -> Path:
        """The example with other words, each of which must be in it. Returns the copy's path."""
        path = DEPLOY / example
        text = path.read_text()
        for old, new in replaced.items():
            assert old in text, f"{example} has no {old!r}"
            text = text.replace(old, new)
        copy = self.folder / path.name
        copy.write_text(text)
        return copy

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"{self.name} ended:\n{self.log}"
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
        except OSError:
            return False


def _nodes(ports: Sequence[int]) -> dict[str, str]:
    first, second = ports
    return {"10.0.0.11:8081": f"127.0.0.1:{first}", "10.0.0.12:8081": f"127.0.0.1:{second}"}


def _nginx(proxy: Proxy, nodes: Sequence[int]) -> list[str]:
    certificate, folder = shared_server(), proxy.folder
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    replaced = {
        "user www-data;": "user root;" if os.getuid() == 0 else "",
        "worker_processes auto;": "worker_processes 1;",
        "worker_rlimit_nofile 200000;": "",
        "worker_connections 100000;": "worker_connections 1000;",
        "/run/nginx.pid": str(folder / "nginx.pid"),
        "/var/log/nginx/error.log": str(folder / "error.log"),
        "/var/log/nginx/access.log rtc buffer=64k flush=5s": str(folder / "access.log") + " rtc",
        "listen 80 default_server;": f"listen 127.0.0.1:{proxy.plain_port} default_server;",
        "listen [::]:80 default_server;": "",
        "listen 443 ssl http2 backlog=65535;": f"listen 127.0.0.1:{proxy.port} ssl http2 backlog=65535;",
        "listen [::]:443 ssl http2 backlog=65535;": "".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds),
        "/etc/nginx/tls/rtc.crt": str(certificate.cert_file),
        "/etc/nginx/tls/rtc.key": str(certificate.key_file),
        "proxy_read_timeout 75s;": f"proxy_read_timeout {TIMEOUT_SECS:.0f}s;",
        "proxy_send_timeout 75s;": f"proxy_send_timeout {TIMEOUT_SECS:.0f}s;",
    }
    copy = proxy.copy("nginx/nginx.conf", _nodes(nodes) | replaced)
    return [found("nginx"), "-c", str(copy), "-p", str(folder), "-e", str(folder / "error.log"), "-g", "daemon off;"]


def _haproxy(proxy: Proxy, nodes: Sequence[int]) -> list[str]:
    certificate = shared_server()
    both = proxy.folder / "rtc.pem"
    both.write_text(certificate.cert_file.read_text() + certificate.key_file.read_text())
    replaced = {
        "maxconn 100000": "maxconn 1000",
        "bind :80": f"bind 127.0.0.1:{proxy.plain_port}",
        "bind :443": f"bind 127.0.0.1:{proxy.port}",
        "/etc/haproxy/tls/rtc.pem": str(both),
        "timeout tunnel 75s": f"timeout tunnel {TIMEOUT_SECS:.0f}s",
        "timeout client 75s": f"timeout client {TIMEOUT_SECS:.0f}s",
        "timeout server 75s": f"timeout server {TIMEOUT_SECS:.0f}s",
    }
    copy = proxy.copy("haproxy/haproxy.cfg", _nodes(nodes) | replaced)
    return [found("haproxy"), "-db", "-f", str(copy)]


def _caddy(proxy: Proxy, nodes: Sequence[int]) -> list[str]:
    certificate = shared_server()
    options = f"admin off\n\tauto_https disable_redirects\n\thttp_port {proxy.plain_port}"
    replaced = {
        "{\n\tservers {": f"{{\n\t{options}\n\tservers {{",
        "rtc.example.com {": f"https://:{proxy.port} {{\n\ttls {certificate.cert_file} {certificate.key_file}",
    }
    copy = proxy.copy("caddy/Caddyfile", _nodes(nodes) | replaced)
    return [found("caddy"), "run", "--config", str(copy), "--adapter", "caddyfile"]


_COMMANDS: dict[str, Callable[[Proxy, Sequence[int]], list[str]]] = {
    "nginx": _nginx,
    "haproxy": _haproxy,
    "caddy": _caddy,
}
NAMES = tuple(_COMMANDS)


@contextlib.contextmanager
def proxies(nodes: Sequence[int]) -> Iterator[dict[str, Proxy]]:
    """One of each kind in front of the same nodes."""
    with contextlib.ExitStack() as stack:
        started: dict[str, Proxy] = {}
        for name in NAMES:
            started[name] = Proxy(name, nodes)
            stack.callback(started[name].dispose)
        for proxy in started.values():
            proxy.start()
        yield started


def stays_open(connection: Any, seconds: float) -> bool:
    """Whether a WebSocket connection on which no message is sent is open after so many seconds."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        try:
            connection.recv(left)
        except TimeoutError:
            break
        except ConnectionClosed:
            return False
    return True
