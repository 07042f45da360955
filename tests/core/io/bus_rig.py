"""Workers of one node for tests of the bus: reactors with a bus each in one event loop, and peers made by hand."""

import asyncio
import contextlib
import gc
import os
import select
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import uvloop

from core.hub.sans_io import settings
from realtime_communication._core.hub.bus_user import BusRecorder
from realtime_communication._core.hub.hub import Hub
from realtime_communication._core.io.bus import Bus
from realtime_communication._core.io.reactor import Reactor

HELLO_BYTES = 16

CHILD = """
import os, socket, sys
path, said, uid = sys.argv[1:]
if uid:
    os.setuid(int(uid))
peer = socket.socket(socket.AF_UNIX)
peer.connect(path)
try:
    peer.sendall(bytes.fromhex(said))
    while data := peer.recv(65536):
        sys.stdout.buffer.write(data)
except ConnectionError:
    pass
"""


def frame(body: bytes) -> bytes:
    return struct.pack("<I", len(body)) + body


def hello(slot: int, incarnation: int, magic: bytes = b"RTCB", version: int = 1) -> bytes:
    return magic + struct.pack("<HHQ", version, slot, incarnation)


def descriptors() -> set[str]:
    """The descriptors this process has."""
    return {fd for fd in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{fd}")}


@contextlib.contextmanager
def running(directory: Path) -> Iterator["Rig"]:
    """A rig that leaves no link, no error and no descriptor behind."""
    uvloop.new_event_loop().close()  # the first one of a process leaves a pipe open for those after it
    gc.collect()
    before = descriptors()
    rig = Rig(directory)
    yield rig
    rig.stop()
    assert rig.errors == []
    assert all(worker.links == {} for worker in rig.workers)
    rig.workers.clear()
    gc.collect()  # a hub and its reactor hold each other
    assert descriptors() == before


class Worker:
    """A hub, its reactor and its bus."""

    def __init__(self, loop: asyncio.AbstractEventLoop, slot: int, incarnation: int, directory: Path) -> None:
        self.hub = Hub("node")
        self.hub.configure(settings())
        self.handed_over: list[bytes] = []
        self.reactor = Reactor(self.hub, loop, None, None, self.take_over)
        self.user = BusRecorder()
        self.bus = Bus(self.user, slot, incarnation, str(directory))
        self.reactor.attach_bus(self.bus)
        self.reactor.start()

    def take_over(self, fd: int, data: bytes, *_: object) -> None:
        os.close(fd)
        self.handed_over.append(data)

    @property
    def links(self) -> dict[int, int]:
        return self.bus.links_up()

    def events(self, *kinds: str) -> list[tuple[Any, ...]]:
        return [event for event in self.user.events if event[0] in kinds]

    def send(self, slot: int, frames: bytes) -> None:
        """Queue, and end the turn."""
        self.user.queue(slot, frames)
        self.reactor.turn()


class Rig:
    """Workers in one loop, which runs only while something is waited for."""

    def __init__(self, directory: Path) -> None:
        self.loop = uvloop.new_event_loop()
        self.errors: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _loop, context: self.errors.append(context))
        self.directory = directory
        self.workers: list[Worker] = []
        self.sockets: list[socket.socket] = []
        self.children: list[subprocess.Popen[bytes]] = []

    def worker(self, slot: int, incarnation: int = 1) -> Worker:
        self.workers.append(Worker(self.loop, slot, incarnation, self.directory))
        return self.workers[-1]

    def linked(self, count: int) -> list[Worker]:
        """Workers in slots from 0 that are all linked with each other."""
        made = [self.worker(slot) for slot in range(count)]
        for worker in made:
            worker.bus.set_members(dict.fromkeys(range(count), 1))
        self.until(lambda: all(len(worker.links) == count - 1 for worker in made))
        return made

    def until(self, condition: Callable[[], Any], timeout: float = 20) -> Any:
        """Run the loop until `condition` is true."""

        async def poll() -> Any:
            while not (found := condition()):
                await asyncio.sleep(0.001)
            return found

        return self.loop.run_until_complete(asyncio.wait_for(poll(), timeout))

    def dial(self, slot: int, *, rcvbuf: int = 0) -> socket.socket:
        """A connection to that slot's worker, without a hello; blocking."""
        peer = socket.socket(socket.AF_UNIX)
        peer.settimeout(20)
        if rcvbuf:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        peer.connect(str(self.directory / f"{slot}.sock"))
        self.sockets.append(peer)
        return peer

    def greeted(self, worker: Worker, slot: int, incarnation: int = 1) -> socket.socket:
        """A peer made by hand that is linked with the worker as the member of a lower slot."""
        worker.bus.set_members({slot: incarnation, worker.bus.slot: worker.bus.incarnation})
        peer = self.dial(worker.bus.slot)
        peer.sendall(hello(slot, incarnation))
        self.until(lambda: worker.links.get(slot) == incarnation)
        assert peer.recv(HELLO_BYTES) == hello(worker.bus.slot, worker.bus.incarnation)
        return peer

    def turns(self, count: int) -> None:
        """Let every worker have so many turns."""
        for _ in range(count):
            for worker in self.workers:
                worker.reactor.turn()

    def feed(self, peer: socket.socket, data: bytes) -> None:
        """Send it all from a peer made by hand, however many turns of the workers it takes."""
        peer.setblocking(False)
        while data:
            with contextlib.suppress(BlockingIOError):
                data = data[peer.send(data) :]
            self.turns(1)

    def rest_of(self, peer: socket.socket) -> bytes:
        """What comes until the end of the stream, while the loop runs."""
        peer.setblocking(False)
        data = b""
        while True:
            self.until(lambda: select.select([peer], [], [], 0)[0])
            try:
                piece = peer.recv(1 << 20)
            except ConnectionResetError:  # it left some of what we said unread
                return data
            if not piece:
                return data
            data += piece

    def accept(self, listener: socket.socket) -> socket.socket:
        """The next connection that is made to the listener; blocking."""
        self.until(lambda: select.select([listener], [], [], 0)[0])
        peer, _ = listener.accept()
        peer.settimeout(20)
        self.sockets.append(peer)
        return peer

    def child(self, slot: int, said: bytes, uid: int | None = None) -> "subprocess.Popen[bytes]":
        """A process that connects to that slot's worker, says this, and prints what comes until the end."""
        process = subprocess.Popen(
            [sys.executable, "-c", CHILD, f"{slot}.sock", said.hex(), str(uid or "")],
            cwd=self.directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.children.append(process)
        return process

    def listen(self, slot: int) -> socket.socket:
        """A socket in the place of that slot's worker."""
        path = self.directory / f"{slot}.sock"
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        listener = socket.socket(socket.AF_UNIX)
        listener.settimeout(20)
        listener.bind(str(path))
        listener.listen()
        self.sockets.append(listener)
        return listener

    def stop(self) -> None:
        for worker in self.workers:
            worker.reactor.stop()
        for peer in self.sockets:
            peer.close()
        for child in self.children:
            child.kill()
            child.communicate()
        self.loop.close()
