"""A Redis server as a process of the test, on a free port of the loopback, in a folder of its own.

Several that belong together: redis_sentinel.py and redis_cluster.py.
"""

import contextlib
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import redis

from serving.processes import free_port

START_SECS = 60.0
STOP_SECS = 10.0


def until(reached: Callable[[], Any], secs: float = START_SECS) -> Any:
    """What `reached` returns once it is true; a lost connection counts as not yet."""
    deadline = time.monotonic() + secs
    while True:
        with contextlib.suppress(redis.RedisError, OSError):
            if found := reached():
                return found
        assert time.monotonic() < deadline, f"not reached within {secs} s"
        time.sleep(0.02)


class RedisServer:
    """One `redis-server`. ``with`` starts and stops it; the options are those of its configuration file."""

    mode: tuple[str, ...] = ()
    runner: tuple[str, ...] = ()
    """What the command is started by, such as another namespace's."""
    host = "127.0.0.1"
    """Where it listens."""

    def __init__(self, port: int | None = None, **options: Any) -> None:
        self.port = port or free_port()
        self.password = options.get("requirepass")
        self.folder = Path(tempfile.mkdtemp(prefix="rtc-redis-"))
        self.socket = self.folder / "redis.sock"
        self._options = {"unixsocket": self.socket, "save": '""', "appendonly": "no"} | options
        self._process: subprocess.Popen[bytes] | None = None
        self._client: redis.Redis | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.dispose()

    @property
    def url(self) -> str:
        user = f":{self.password}@" if self.password else ""
        return f"redis://{user}127.0.0.1:{self.port}"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def client(self) -> redis.Redis:
        """The test's own access to it."""
        if self._client is None:
            self._client = redis.Redis(port=self.port, password=self.password, socket_timeout=5)
        return self._client

    def start(self, *, ready: bool = True) -> None:
        """Start, and wait until it answers; with ``ready=False`` until it listens is not waited for either."""
        lines = [f"{name.replace('_', '-')} {value}" for name, value in self._options.items()]
        path = self.folder / "redis.conf"
        if not path.exists():  # a Sentinel keeps its state there
            path.write_text(
                "\n".join([f"port {self.port}", f"bind {self.host}", f"dir {self.folder}", *lines, *self.more()])
            )
        with (self.folder / "log").open("ab") as log:
            command = [*self.runner, "redis-server", str(path), *self.mode]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        if ready:
            until(self.client.ping)

    def more(self) -> list[str]:
        """Further lines of the configuration."""
        return []

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_SECS)
            self._process = None

    def pause(self) -> None:
        """SIGSTOP: it answers nothing, and its connections stay open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def dispose(self) -> None:
        """End it and remove its files."""
        if self._client is not None:
            self._client.close()
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def connections(self, command: str = "") -> int:
        """How many clients it has beside this one; with ``command``, those whose last command begins so."""
        rows = [row for row in self.client.client_list(_type="normal") if "client" not in row["cmd"]]
        rows += self.client.client_list(_type="pubsub")
        return sum(row["cmd"].startswith(command) for row in rows)
