"""A worker led over its channel: the process itself, with the test as its supervisor."""

import asyncio
import contextlib
import functools
import os
import signal
import socket
import subprocess
import sys

import msgspec
import pytest

from realtime_communication.config import load
from realtime_communication.config.traffic import Transform
from realtime_communication.errors import ConfigurationError, ConfigurationProblem, ControlClosed, ControlError
from realtime_communication.server.control import ControlChannel
from realtime_communication.server.listening import open_listeners
from realtime_communication.server.place import Assignment, Fault, Place, handed, packed
from realtime_communication.server.worker_process import as_error, as_rows
from serving.peer import Peer
from serving.processes import toml
from serving.tokens import SECRET

SETTINGS = {
    "server": {"host": "127.0.0.1", "port": 0},
    "auth": {"jwt_secret": SECRET},
    "logging": {"format": "json"},
    "testing": {"use_in_memory_storage": True},
    "monitoring": {"prometheus": {"enabled": False}},
    "production": {"drain_timeout_secs": 1, "shutdown_timeout_secs": 1},
}


class Led:
    """One worker process and this end of its channel."""

    def __init__(self, tmp_path, settings):
        (tmp_path / "config.toml").write_text(toml(SETTINGS | settings))
        words = ["--profile=test", f"--config={tmp_path / 'config.toml'}"]
        self.loaded = load(words, environ={}, directory=tmp_path)
        self.listeners = open_listeners("127.0.0.1", 0)
        self.log = tmp_path / "log"
        self.ready, self.fault, self.heard = asyncio.Event(), None, []
        self.bus_dir = tmp_path / "bus"
        self.bus_dir.mkdir()
        mine, theirs = socket.socketpair()
        self.channel = ControlChannel(mine)
        self.channel.on("hello", self._hello)
        for method in ("linking", "linked"):
            self.channel.on(method, functools.partial(self._tell_members, method))
        self.channel.on("ready", lambda params: self.ready.set())
        self.channel.on("failed", self._failed)
        with self.log.open("wb") as log, theirs:
            command = [sys.executable, "-m", "realtime_communication.server.worker_process"]
            descriptors = (theirs.fileno(), log.fileno(), self.listeners[0].sock.fileno())
            self.process = subprocess.Popen(
                [*command, str(theirs.fileno()), str(log.fileno())], stderr=subprocess.PIPE, pass_fds=descriptors
            )

    def _hello(self, params):
        assert params["pid"] == self.process.pid
        place = Place(slot=1, seat=2, workers=2, incarnation=5, node_id="the-node", bus_dir=str(self.bus_dir))
        return packed(Assignment(place=place, loaded=self.loaded, listeners=handed(self.listeners)))

    def _tell_members(self, method, params):
        self.heard.append(method)
        homes = [2] if method == "linked" else []
        self.channel.notify("tell_members", {"version": len(self.heard), "links": {2: 5}, "homes": homes})

    def _failed(self, params):
        self.fault = msgspec.convert(params["fault"], Fault)

    async def ended(self):
        """Exit status and standard error."""
        _, errors = await asyncio.to_thread(self.process.communicate, None, 20)
        return self.process.returncode, errors.decode()


@pytest.fixture
def led(tmp_path):
    """Runs a coroutine function with a worker process: ``led(test, settings={}, wait=True)``."""

    def run(test, settings=None, wait=True):
        async def main():
            worker = Led(tmp_path, settings or {})
            running = asyncio.create_task(worker.channel.run())
            try:
                if wait:
                    await worker.ready.wait()
                await test(worker)
            finally:
                worker.channel.close()
                await running
                worker.process.kill()
                worker.process.wait()
                worker.process.stderr.close()
                for listener in worker.listeners:
                    listener.close()

        asyncio.run(asyncio.wait_for(main(), 60))

    return run


def test_its_life(led):
    async def test(worker):
        assert await worker.channel.call("ping") is None
        url = f"ws://127.0.0.1:{worker.listeners[0].port}/ws"
        peer = await asyncio.to_thread(Peer, url, "alice")
        assert peer.connected["node_id"] == "the-node"
        # Signals of the terminal and the operator are not for it.
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGUSR2):
            worker.process.send_signal(number)
        assert worker.heard == ["linking", "linked"] and (worker.bus_dir / "2.sock").is_socket()

        changed = msgspec.structs.replace(
            worker.loaded,
            config=msgspec.structs.replace(
                worker.loaded.config,
                websocket=msgspec.structs.replace(worker.loaded.config.websocket, heartbeat_interval_secs=7),
            ),
        )
        await cannot_prepare(worker)
        prepare = {"version": 3, "loaded": packed(changed), "reload": True}
        assert await worker.channel.call("prepare", prepare) == []
        await worker.channel.call("abort", {"version": 3})
        with pytest.raises(ControlError, match="nothing of that version"):
            await worker.channel.call("commit", {"version": 3})
        assert await worker.channel.call("prepare", prepare) == []
        await worker.channel.call("commit", {"version": 3})
        with contextlib.closing(await asyncio.to_thread(Peer, url, "bob")) as bob:
            assert bob.connected["heartbeat_interval_secs"] == 7

        worker.channel.notify("stop", {"restart": True})
        assert await asyncio.to_thread(peer.close_code) == 1012
        peer.close()
        assert await worker.ended() == (0, "")
        assert '"worker":1' in worker.log.read_text()

    led(test)


async def cannot_prepare(worker):
    """What cannot be prepared is told, and changes nothing."""
    config = worker.loaded.config
    transforms = (Transform(topic="*", callable="no_such:f"),)
    routing = msgspec.structs.replace(config.message_routing, enable_message_transformation=True, transforms=transforms)
    config = msgspec.structs.replace(config, message_routing=routing)
    broken = packed(msgspec.structs.replace(worker.loaded, config=config))
    rows = await worker.channel.call("prepare", {"version": 1, "loaded": broken, "reload": True})
    assert [row[0] for row in rows] == ["message_routing.transforms[0].callable"]
    with pytest.raises(ControlError, match="nothing of that version"):
        await worker.channel.call("commit", {"version": 1})


def test_what_hinders_its_start_is_told_before_it_ends(led):
    async def test(worker):
        status, errors = await worker.ended()
        assert status == 78 == worker.fault.status and errors == ""
        assert [row[0] for row in worker.fault.problems] == ["message_routing.transforms[0].callable"]

    routing = {"enable_message_transformation": True, "transforms": [{"topic": "*", "callable": "no_such:f"}]}
    led(test, {"message_routing": routing}, wait=False)


def test_without_its_supervisor_it_ends_well_and_removes_what_is_left(led):
    async def test(worker):
        assert os.listdir(worker.bus_dir) == ["2.sock"]
        worker.channel.close()
        assert (await worker.ended())[0] == 0
        assert "the supervisor is gone" in worker.log.read_text() and not worker.bus_dir.exists()

    led(test)


def test_sigusr1_shows_where_its_threads_are(led):
    async def test(worker):
        worker.process.send_signal(signal.SIGUSR1)
        line = await asyncio.to_thread(worker.process.stderr.readline)
        while b"Current thread" not in line:
            line = await asyncio.to_thread(worker.process.stderr.readline)
        with pytest.raises(ControlClosed):
            os.kill(worker.process.pid, signal.SIGKILL)
            await worker.channel.call("ping")

    led(test)


def test_problems_travel():
    error = ConfigurationError([ConfigurationProblem("k", "v", "o", "m"), ConfigurationProblem("", "", "", "n")])
    assert as_error([list(row) for row in as_rows(error)]).problems == error.problems
