"""A Redis at the other end of network links of its own, each of which can be cut.

Redis runs in a network namespace, and the nodes where the test runs: so each node reaches it by its own link, and the
test's own access, by Redis's Unix socket, is cut by nothing. Needs root: the rights to make namespaces and links.
"""

import contextlib
import random
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from typing import Any, Self

import redis

from serving.redis import RedisServer

SEARCHED = "/usr/sbin:/sbin:/usr/bin:/bin"
_SUBNETS = 1 << 14  # of four addresses each, of those that are set aside for measurements: 198.18.0.0/16


class Network:
    """A namespace; ``with`` makes it and, whatever happens, takes it away with its links."""

    def __init__(self) -> None:
        self.name = f"rtc-test-{uuid.uuid4().hex[:12]}"
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            ip("netns", "add", self.name)
            stack.callback(ip, "netns", "del", self.name)
            self.ip("link", "set", "lo", "up")
            self._open = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def ip(self, *words: str) -> None:
        """`ip` inside."""
        ip("-n", self.name, *words)

    def link(self) -> "Link":
        """One more link between here and there."""
        made = Link(self)
        self._open.callback(ip, "link", "del", made.device)
        return made

    @contextlib.contextmanager
    def redis(self, **options: Any) -> Iterator["DistantRedis"]:
        """A Redis there."""
        with DistantRedis(self, **options) as store:
            yield store


class Link:
    """Two devices that are connected: `here` and `there` are their addresses."""

    def __init__(self, network: Network) -> None:
        self.network = network
        name = uuid.uuid4().hex[:10]
        self.device, self._far_device = f"rtc-{name}", f"far-{name}"
        number = random.randrange(_SUBNETS)
        base = f"198.18.{number >> 6}"
        self.here, self.there = (f"{base}.{(number & 63) * 4 + place}" for place in (1, 2))
        far = ("peer", "name", self._far_device, "netns", network.name)
        ip("link", "add", self.device, "type", "veth", *far)
        ip("addr", "add", f"{self.here}/30", "dev", self.device)
        ip("link", "set", self.device, "up")
        network.ip("addr", "add", f"{self.there}/30", "dev", self._far_device)
        self.plug()

    def unplug(self) -> None:
        """The far end goes down: the carrier is lost, as when a cable is pulled."""
        self.network.ip("link", "set", self._far_device, "down")

    def plug(self) -> None:
        """The far end is up."""
        self.network.ip("link", "set", self._far_device, "up")

    def lose(self) -> None:
        """From now on whatever the far side sends is lost without a word; what is sent to it arrives."""
        self.network.ip("route", "add", "blackhole", self.here)

    def deliver(self) -> None:
        """Nothing is lost any more."""
        self.network.ip("route", "del", "blackhole", self.here)


class DistantRedis(RedisServer):
    """A Redis in a namespace."""

    host = "0.0.0.0"

    def __init__(self, network: Network, **options: Any) -> None:
        super().__init__(protected_mode="no", **options)
        self.runner = (_command(), "netns", "exec", network.name)

    @property
    def client(self) -> redis.Redis:
        if self._client is None:
            self._client = redis.Redis(unix_socket_path=str(self.socket), password=self.password, socket_timeout=5)
        return self._client

    def url_by(self, link: Link) -> str:
        """Its address by that link."""
        return f"redis://{link.there}:{self.port}"


def ip(*words: str) -> None:
    """Run `ip`. Raises AssertionError that says what is missing."""
    done = subprocess.run([_command(), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (
        f"ip {' '.join(words)}: {done.stderr.strip()} (tests that cut the network need CAP_NET_ADMIN and CAP_SYS_ADMIN)"
    )


def _command() -> str:
    found = shutil.which("ip", path=SEARCHED)
    assert found, "tests that cut the network need the command ip (Debian: iproute2)"
    return found
