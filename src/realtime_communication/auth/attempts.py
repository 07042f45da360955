"""How often an address may fail to prove who it is: a token bucket for each, in a table of bounded size."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from typing import Final

from realtime_communication._core.hub.token_bucket import Bucket

ATTEMPTS_PER_SECOND: Final = 10.0
ATTEMPTS_AT_ONCE: Final = 20
MAX_ADDRESSES: Final = 10_000  # the one not seen for longest is forgotten

_REFILL_MS: Final = 100
_PRECISION: Final = 0.1
_IPV6_NETWORK_BITS: Final = 64  # what one subscriber has at least


class Attempts:
    """Every attempt takes a token; one that succeeds gives it back. Times are milliseconds that never go back."""

    def __init__(
        self,
        per_second: float = ATTEMPTS_PER_SECOND,
        at_once: int = ATTEMPTS_AT_ONCE,
        most: int = MAX_ADDRESSES,
    ) -> None:
        self._per_second = per_second
        self._at_once = at_once
        self._most = most
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def begin(self, address: str, now_ms: int) -> int:
        """Count an attempt from `address`: -1 when it may be made, else the milliseconds until one may."""
        return self._bucket(address, now_ms).take(now_ms)

    def succeeded(self, address: str, now_ms: int) -> None:
        """The attempt is not counted after all."""
        self._bucket(address, now_ms).give_back()

    def state(self, address: str, now_ms: int) -> tuple[int, int, int]:
        """Attempts allowed at once, attempts left, milliseconds until all are back."""
        bucket = self._bucket(address, now_ms)
        return self._at_once, bucket.remaining(now_ms), bucket.full_in_ms(now_ms)

    def _bucket(self, address: str, now_ms: int) -> Bucket:
        name = network_of(address)
        bucket = self._buckets.get(name)
        if bucket is None:
            if len(self._buckets) >= self._most:
                self._buckets.popitem(last=False)
            bucket = self._buckets[name] = Bucket(now_ms, self._per_second, self._at_once, _REFILL_MS, _PRECISION)
        else:
            self._buckets.move_to_end(name)
        return bucket


def network_of(address: str) -> str:
    """What counts as one peer: an IPv4 address, or the network of an IPv6 one; other texts as they are."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, _IPV6_NETWORK_BITS), strict=False))
