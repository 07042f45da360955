"""Starts a server command on a free port and stops it by its process id.

Four targets speak the same protocol: ``product`` is the installed server, ``workers`` the same with two worker
processes, ``tls`` the same over TLS, ``baseline`` the plain-Python one.
"""

import contextlib
import itertools
import json
import os
import random
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from serving import leaks
from serving.certificates import shared_server
from serving.tokens import SECRET

ROOT = Path(__file__).resolve().parents[2]
START_SECS = 60.0
STOP_SECS = 15.0
FIRST_PORT = 16_000
MAX_TRIES = 1000
TARGETS = ("product", "workers", "tls", "baseline")
TRACES = ("Traceback (most recent call last)", "Segmentation fault", "Fatal Python error", "AddressSanitizer")


def free_port() -> int:
    """A TCP port nobody listens on right now, and which nobody gets who leaves the choice to the system.

    Between this and the server's start others connect and listen on ports that the system chooses, this run's other
    process among them: so it is one from below the system's range, and each process of a run has ports of its own.
    """
    for port in itertools.islice(_ports, MAX_TRIES):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError(f"no free port among {MAX_TRIES}")


def _own_ports() -> Iterator[int]:
    first_of_system = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports = range(FIRST_PORT, max(first_of_system, FIRST_PORT + 1000))
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    own = ports[number :: int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))]
    begin = random.randrange(len(own))  # another run of the tests begins elsewhere
    return itertools.cycle([*own[begin:], *own[:begin]])


def toml(settings: dict[str, Any]) -> str:
    """``settings`` as TOML; nested dictionaries become tables, lists of dictionaries arrays of tables."""
    lines: list[str] = []
    _write_table(lines, "", settings)
    return "\n".join(lines) + "\n"


def _write_table(lines: list[str], prefix: str, table: dict[str, Any]) -> None:
    for key, value in table.items():
        if not isinstance(value, dict) and not _is_table_list(value):
            lines.append(f"{key} = {_value(value)}")
    for key, value in table.items():
        if isinstance(value, dict):
            lines.append(f"[{prefix}{key}]")
            _write_table(lines, f"{prefix}{key}.", value)
        elif _is_table_list(value):
            for entry in value:
                lines.append(f"[[{prefix}{key}]]")
                _write_table(lines, f"{prefix}{key}.", entry)


def _is_table_list(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(entry, dict) for entry in value)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, list):
        return "[" + ", ".join(_value(entry) for entry in value) + "]"
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """``base`` with ``changes`` laid over it, table by table."""
    result = dict(base)
    for key, value in changes.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def settings_for(port: int) -> dict[str, Any]:
    """The product's configuration for the tests: real tokens, limits out of the way, a short wait for credentials."""
    return {
        "server": {"host": "127.0.0.1", "port": port, "workers": 1},
        "auth": {"jwt_secret": SECRET},
        "websocket": {"auth_timeout_secs": 2},
        "rate_limiting": {"enabled": False},
        "logging": {"level": "info", "format": "json"},
        "metrics": {"enabled": False},
        "tracing": {"enabled": False},
        "development": {"enable_debug_endpoints": True},
        "testing": {"enable_test_mode": True, "bypass_auth": False, "use_in_memory_storage": True},
        "production": {"drain_timeout_secs": 2, "shutdown_timeout_secs": 3},
    }


def tls_settings() -> dict[str, Any]:
    """Switch TLS on, with a certificate that `serving.certificates.trusted` trusts."""
    certificate = shared_server()
    return {
        "security": {
            "tls": {"enabled": True, "cert_file": str(certificate.cert_file), "key_file": str(certificate.key_file)}
        }
    }


def workers_settings() -> dict[str, Any]:
    """Two workers, the least that an exchange between them takes."""
    return {"server": {"workers": 2}}


_OF_TARGET = {"tls": tls_settings, "workers": workers_settings}


class ServerProcess:
    """One running server. ``log`` is everything it wrote to standard output and standard error.

    ``words`` are more options, ``environment`` more variables; with ``output``, a path, standard output and standard
    error go there. ``metrics_port`` is where the metrics are when the settings turn them on.
    """

    def __init__(
        self,
        target: str,
        port: int,
        settings: dict[str, Any] | None,
        open_files: int | None,
        profile: str = "test",
        *,
        words: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        output: str | None = None,
    ) -> None:
        self.target = target
        self.profile = profile
        self.port = port
        self.metrics_port = int((settings or {}).get("metrics", {}).get("port", 0))
        self._words = tuple(words)
        self._environment = dict(environment or {})
        self._output = output
        self._settings = settings or {}
        self._open_files = open_files
        self._folder = tempfile.TemporaryDirectory(prefix="rtc-test-")
        self._log_path = Path(self._folder.name) / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self._secrets: set[str] = set()

    @property
    def url(self) -> str:
        return f"{'wss' if self.target == 'tls' else 'ws'}://127.0.0.1:{self.port}/ws"

    @property
    def http_url(self) -> str:
        return f"{'https' if self.target == 'tls' else 'http'}://127.0.0.1:{self.port}"

    @property
    def configuration(self) -> Path:
        """The file that the server reads."""
        return Path(self._folder.name) / "config.toml"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server was not started"
        return self._process.pid

    @property
    def log(self) -> str:
        return self._log_path.read_text(errors="replace") if self._log_path.exists() else ""

    def start(self) -> None:
        """Start and wait until the port accepts connections."""
        process = self.launch()
        deadline = time.monotonic() + START_SECS
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise RuntimeError(f"the {self.target} server ended with {process.returncode}:\n{self.log[-4000:]}")
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                    return
            except OSError:
                time.sleep(0.05)
        self.kill()
        raise RuntimeError(f"the {self.target} server does not listen after {START_SECS} s:\n{self.log[-4000:]}")

    def launch(self) -> "subprocess.Popen[bytes]":
        """Start without waiting."""
        environment = {key: value for key, value in os.environ.items() if key not in _CONFIGURING}
        environment |= self._environment
        command = [*self._command(environment), *self._words]
        with open(self._output or self._log_path, "ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=self._limit_files if self._open_files is not None else None,  # noqa: PLW1509
            )
        return self._process

    def stop(self) -> int:
        """SIGTERM, then wait. Returns the exit status."""
        assert self._process is not None, "the server was not started"
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(STOP_SECS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"no end {STOP_SECS} s after SIGTERM:\n{self.log[-4000:]}") from None

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def reload_and_wait(self, settings: dict[str, Any]) -> None:
        """Put ``settings`` in place of the ones so far, send SIGHUP and wait until the server has read them."""
        before = self.log.count(_RELOADED)
        self.reload(settings)
        deadline = time.monotonic() + START_SECS
        while self.log.count(_RELOADED) == before:
            assert time.monotonic() < deadline, f"no reload within {START_SECS} s:\n{self.log[-4000:]}"
            time.sleep(0.02)

    def terminate(self) -> None:
        """Send SIGTERM and return at once."""
        assert self._process is not None, "the server was not started"
        self._process.send_signal(signal.SIGTERM)

    def wait(self, timeout: float = STOP_SECS) -> int:
        """The exit status of a server that ends by itself."""
        assert self._process is not None, "the server was not started"
        return self._process.wait(timeout)

    def reload(self, settings: dict[str, Any] | None = None, *, text: str = "") -> None:
        """Send SIGHUP, after `settings` have taken the place of those so far, with `text` behind them in the file."""
        self.configure(settings, text=text)
        self.hang_up()

    def configure(self, settings: dict[str, Any] | None = None, *, text: str = "") -> None:
        """Write the configuration file, after `settings` have taken the place of those so far, with `text` behind."""
        if settings is not None:
            self._settings = settings
        own = merged(_OF_TARGET.get(self.target, dict)(), self._settings)
        base = settings_for(self.port)
        if self.profile != "test":
            del base["testing"]  # refused there
        complete = merged(base, own)
        self._secrets |= leaks.secrets_of(complete)
        # In one step: a reload that is under way must not find half of it.
        fresh = self.configuration.with_suffix(".new")
        fresh.write_text(toml(complete) + text)
        fresh.replace(self.configuration)

    def hang_up(self) -> None:
        """Send SIGHUP."""
        assert self._process is not None, "the server was not started"
        self._process.send_signal(signal.SIGHUP)

    def events(self, event: str) -> list[dict[str, Any]]:
        """The lines of a JSON log with that event."""
        lines = [json.loads(line) for line in self.log.splitlines() if line.startswith("{") and line.endswith("}")]
        return [line for line in lines if line["event"] == event]

    def dispose(self) -> None:
        """Stop what may still run and remove its files. What its log tells of secrets fails the test in its end."""
        if self._process is not None and self._process.poll() is None:
            try:
                self.stop()
            finally:
                self.kill()
        leaks.look(self.log, self._secrets, f"the {self.target} server")
        self._folder.cleanup()

    def resident_kib(self) -> int:
        """The process's resident memory."""
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        assert found is not None
        return int(found[1])

    def open_files(self) -> int:
        """How many file descriptors the process has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def cpu_secs(self) -> float:
        """Processor time used so far, user and system."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _command(self, environment: dict[str, str]) -> list[str]:
        if self.target == "baseline":
            environment["JWT_SECRET"] = SECRET
            return [sys.executable, "-m", "benchmarks.baseline", "--port", str(self.port)]
        self.configure()
        script = Path(sys.executable).with_name("rtc")
        return [str(script), "serve", f"--profile={self.profile}", f"--config={self.configuration}"]

    def _limit_files(self) -> None:
        assert self._open_files is not None
        resource.setrlimit(resource.RLIMIT_NOFILE, (self._open_files, self._open_files))


def assert_clean(server: ServerProcess) -> None:
    """The log shows no failure of the server's own."""
    log = server.log
    for trace in TRACES:
        assert trace not in log, log[max(0, log.index(trace) - 500) :][:4000]


@contextlib.contextmanager
def ended_cleanly(server: ServerProcess) -> Iterator[ServerProcess]:
    """A started server of several tests: it ends as told, its log shows no failure of its own, and nothing stays."""
    try:
        yield server
        assert server.stop() == 0
        assert_clean(server)
    finally:
        server.dispose()


_CONFIGURING = frozenset(
    {"HOST", "PORT", "WORKERS", "RUST_LOG", "LOG_LEVEL", "JWT_SECRET", "JWT_ISSUER", "JWT_AUDIENCE", "REDIS_URL"}
)

_RELOADED = '"event":"configuration reloaded"'

_ports = _own_ports()

StartServer = Callable[..., ServerProcess]
