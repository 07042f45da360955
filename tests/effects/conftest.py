"""Parts of the server under a configuration that went through the loader.

`hub` gives a data plane in memory, whose time the test moves; `serve` a whole worker in a thread of the test.
"""

import asyncio
import gc
import threading
from types import SimpleNamespace

import msgspec
import pytest

from core.hub.sans_io import make_hub
from realtime_communication.config import load
from realtime_communication.server import collector
from realtime_communication.server.core_settings import core_settings
from realtime_communication.server.listening import open_listeners
from realtime_communication.server.metrics_server import open_metrics_listeners
from realtime_communication.server.worker import Worker
from serving.peer import Peer
from serving.processes import START_SECS, merged, toml
from serving.raw import RawSocket
from serving.tokens import SECRET

BASE = {
    "server": {"host": "127.0.0.1", "port": 0, "workers": 1},
    "auth": {"jwt_secret": SECRET},
    "rate_limiting": {"enabled": False},
    "testing": {"use_in_memory_storage": True},
    "production": {"drain_timeout_secs": 1, "shutdown_timeout_secs": 1},
}


def configured(folder, settings, profile="test"):
    """What the loader makes of `settings` laid over the tests' own."""
    path = folder / "config.toml"
    base = BASE if profile == "test" else {name: section for name, section in BASE.items() if name != "testing"}
    path.write_text(toml(merged(base, settings)))
    return load([f"--profile={profile}", f"--config={path}"], environ={}, directory=folder)


class Running:
    """A worker that serves. `status` is what it returned in the end."""

    def __init__(self, loaded):
        self.loaded = loaded
        self.status = None
        self._listeners = open_listeners(loaded.config.server.host, loaded.config.server.port)
        self._metrics_listeners = open_metrics_listeners(loaded)
        self.port = self._listeners[0].port
        self.metrics_port = self._metrics_listeners[0].port if self._metrics_listeners else None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        assert self._ready.wait(START_SECS)

    async def _serve(self):
        self._loop = asyncio.get_running_loop()
        self.worker = Worker(self.loaded, self._listeners, self._metrics_listeners)
        self.worker._install_signals = lambda loop: self._ready.set()  # signals belong to the main thread
        self.status = await self.worker.serve()

    @property
    def url(self):
        return f"{'wss' if self.loaded.config.security.tls.enabled else 'ws'}://127.0.0.1:{self.port}/ws"

    def peer(self, user="alice", **options):
        return Peer(self.url, user, **options)

    def raw(self, user="alice", **options):
        return RawSocket.upgraded(self.port, user, **options)

    def ask(self, function):
        """The result of `function`, called in the worker's own thread."""

        async def call():
            return function()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(START_SECS)

    def reload(self, settings=None):
        """Read the configuration again, with `settings` in place of the ones so far; whether that worked."""
        if settings is not None:
            self.loaded.files[0].write_text(toml(merged(BASE, settings)))
        return asyncio.run_coroutine_threadsafe(self.worker.parts.live.reload(), self._loop).result(START_SECS)

    def stats(self):
        return self.ask(self.worker.parts.hub.stats)

    def stop(self, *, at_once=True):
        if self._thread.is_alive():
            if at_once:
                self._loop.call_soon_threadsafe(self.worker._at_once.set)
            self._loop.call_soon_threadsafe(self.worker._stopping.set)
            self._thread.join(30)
        for listener in (*self._listeners, *self._metrics_listeners):
            listener.close()


@pytest.fixture(autouse=True, scope="module")
def frozen():
    """What this process froze after the collection of its tests stays so: a worker collects no more than came since."""
    kept = SimpleNamespace(
        collect=gc.collect, enable=gc.enable, disable=gc.disable, freeze=lambda: None, unfreeze=lambda: None
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collector, "gc", kept)
        yield


@pytest.fixture
def configure(tmp_path):
    """The configuration that `settings` make: ``configure(settings, profile="test")``."""
    return lambda settings, profile="test": configured(tmp_path, settings, profile)


@pytest.fixture
def hub(configure):
    """A data plane in memory: ``hub(settings)``."""
    return lambda settings: make_hub(**msgspec.structs.asdict(core_settings(configure(settings).config)))


@pytest.fixture
def serve(configure):
    """Starts a worker: ``serve(settings, profile="test")``."""
    started = []

    def start(settings=None, profile="test"):
        started.append(Running(configure(settings or {}, profile)))
        return started[-1]

    yield start
    for running in started:
        running.stop()
