"""A bad network link: packets are lost, late and small. Who is behind it sits in a network namespace.

    with BadLink(loss=0.05, jitter_secs=0.2, mtu=576) as link:
        raw = link.behind(lambda: RawSocket(port, host=link.here))

Two tunnel devices, and a thread that carries packets between them (the kernel's own `netem` is a module that few test
machines have). Needs root: the rights to make namespaces and devices.
"""

import contextlib
import ctypes
import fcntl
import heapq
import itertools
import os
import random
import select
import struct
import threading
import time
import uuid
from collections.abc import Callable
from typing import Self, TypeVar

from serving.networks import Network, ip

T = TypeVar("T")
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI, _CLONE_NEWNET = 0x400454CA, 0x0001, 0x1000, 0x40000000
_SUBNETS = 1 << 14  # of four addresses each, of those that are set aside for measurements: 198.19.0.0/16


class BadLink:
    """`loss` is the share of packets that never arrive; the others take up to `jitter_secs`, each for itself."""

    def __init__(self, loss: float, jitter_secs: float, mtu: int) -> None:
        self._loss, self._jitter_secs, self._mtu = loss, jitter_secs, mtu
        self._network = Network()
        self._open = contextlib.ExitStack()
        self._ended = False
        number = random.randrange(_SUBNETS)
        base = f"198.19.{number >> 6}"
        self.here, self._there = (f"{base}.{(number & 63) * 4 + place}" for place in (1, 2))
        self.carried = self.lost = 0

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._network)
            name = uuid.uuid4().hex[:10]
            near, far = (self._device(stack, f"{end}-{name}") for end in ("rtc", "far"))
            ip("link", "set", f"far-{name}", "netns", self._network.name)
            for run, device, address in (
                (ip, f"rtc-{name}", self.here),
                (self._network.ip, f"far-{name}", self._there),
            ):
                run("addr", "add", f"{address}/30", "dev", device)
                run("link", "set", device, "mtu", str(self._mtu), "up")
            carrier = threading.Thread(target=self._carry, args=(near, far), name="link")
            carrier.start()
            stack.callback(carrier.join)
            stack.callback(self._end)
            self._open = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def behind(self, make: Callable[[], T]) -> T:
        """What `make` returns; the sockets that it opens are behind the link."""
        made: list[T] = []

        def run() -> None:
            with open(f"/run/netns/{self._network.name}") as namespace:
                done = ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _CLONE_NEWNET)
            assert done == 0, os.strerror(ctypes.get_errno())
            made.append(make())

        thread = threading.Thread(target=run)  # a thread has a namespace of its own, and ends with it
        thread.start()
        thread.join()
        assert made, "it failed behind the link"
        return made[0]

    def _device(self, stack: contextlib.ExitStack, name: str) -> int:
        file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        stack.callback(os.close, file)
        fcntl.ioctl(file, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
        return file

    def _end(self) -> None:
        self._ended = True

    def _carry(self, near: int, far: int) -> None:
        on_its_way: list[tuple[float, int, int, bytes]] = []
        numbers = itertools.count()
        while not self._ended:
            now = time.monotonic()
            while on_its_way and on_its_way[0][0] <= now:
                _, _, to, packet = heapq.heappop(on_its_way)
                with contextlib.suppress(OSError):
                    os.write(to, packet)
            wait = min(on_its_way[0][0] - now, 0.05) if on_its_way else 0.05
            for file in select.select([near, far], [], [], max(wait, 0.0))[0]:
                with contextlib.suppress(OSError):
                    packet = os.read(file, 65_536)
                    self.carried += 1
                    if random.random() < self._loss:
                        self.lost += 1
                        continue
                    due = time.monotonic() + random.random() * self._jitter_secs
                    heapq.heappush(on_its_way, (due, next(numbers), far if file == near else near, packet))
