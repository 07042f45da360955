"""How often credentials may be wrong: a token bucket for each client address.

Only failures are counted, so who authenticates rightly never meets the limit; once an address has used its failures up,
its credentials are not looked at until some have come back. Rules: no I/O, time by the given clock, memory bounded.
A bucket that would be full again is forgotten; when the table is full, the one that failed least recently goes.

An address of this very machine, and no address at all, stand for whoever comes through a local proxy that is not among
`security.trusted_proxies`: one client could lock all others out there, so they are not limited.
"""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from realtime_communication.errors import RateLimited

FAILURES_PER_SECOND: Final = 20.0
MAX_FAILURES_AT_ONCE: Final = 40
MAX_ADDRESSES: Final = 16_384
IPV6_SITE_BITS: Final = 64  # one subscriber has a whole network of this size to pick addresses from

_TOO_MANY: Final = "too many wrong credentials from this address"


class Attempts:
    """Failed attempts by client address. `rate` come back per second, up to `burst`; `clock` is in seconds."""

    def __init__(
        self,
        rate: float = FAILURES_PER_SECOND,
        burst: int = MAX_FAILURES_AT_ONCE,
        *,
        max_addresses: int = MAX_ADDRESSES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rate = rate
        self._burst = burst
        self._max_addresses = max_addresses
        self._clock = clock
        self._used: OrderedDict[str, tuple[float, float]] = OrderedDict()  # failures used up, and when that was so

    def __len__(self) -> int:
        return len(self._used)

    @property
    def all_free(self) -> bool:
        """Whether `check` passes every address, since nobody has failed of late."""
        return not self._used and self._burst >= 1

    def check(self, address: str) -> None:
        """Raises RateLimited while `address` has no failure left."""
        if self.all_free:
            return  # the address need not be read
        over = self._used_by(site_of(address)) + 1 - self._burst
        if over > 0:
            wait_ms = max(1, round(over / self._rate * 1000))
            raise RateLimited(_TOO_MANY, retry_after_ms=wait_ms, scope="address")

    def state(self, address: str) -> tuple[int, int, int] | None:
        """Failures allowed at once, failures left, milliseconds until all are back; None where there is no limit."""
        site = site_of(address)
        if site is None:
            return None
        used = self._used_by(site)
        return self._burst, max(0, int(self._burst - used)), round(used / self._rate * 1000)

    def fail(self, address: str) -> None:
        """Count a failure."""
        site = site_of(address)
        if site is None:
            return
        self._used[site] = (min(self._used_by(site) + 1, float(self._burst)), self._clock())
        self._used.move_to_end(site)
        if len(self._used) > self._max_addresses:
            self._used.popitem(last=False)
        while self._used and not self._used_by(next(iter(self._used))):
            self._used.popitem(last=False)

    def _used_by(self, site: str | None) -> float:
        used, at = self._used.get(site, (0.0, 0.0)) if site is not None else (0.0, 0.0)
        return max(0.0, used - (self._clock() - at) * self._rate)


def site_of(address: str) -> str | None:
    """What counts as one client; None for what is not limited."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return None
    if parsed.is_loopback:
        return None
    if parsed.version == 4:
        return str(parsed)
    return str(ipaddress.ip_network((parsed, IPV6_SITE_BITS), strict=False).network_address)
