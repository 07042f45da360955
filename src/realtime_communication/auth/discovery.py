"""Getting an issuer's keys over HTTP (OpenID Connect Discovery 1.0), without being led astray.

The operator's configuration names the issuer; everything else comes from outside. So the address of the key set must
be https (http where the issuer itself is), and must not lead to this machine or a private network unless the issuer's
own host is there: every address its name resolves to is looked at, and the connection goes to just those. Redirects
are not followed, bodies and times are bounded, and no compressed body is taken.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver, ResolveResult

from realtime_communication.auth.issuer_keys import MAX_AGE_SECS, MIN_AGE_SECS, Fetched, FetchFailed
from realtime_communication.auth.jwks import KeyRefused, KeySet, key_set

MAX_DISCOVERY_BYTES: Final = 64 << 10
MAX_KEY_SET_BYTES: Final = 512 << 10
REQUEST_SECS: Final = 5.0
DEFAULT_AGE_SECS: Final = 3600.0  # of an answer that does not say

_MAX_AGE: Final = re.compile(r"(?:^|[\s,])max-age\s*=\s*\"?([0-9]{1,10})\"?(?:$|[\s,])", re.IGNORECASE)
_NOT_STORED: Final = re.compile(r"(?:^|[\s,])no-(?:store|cache)(?:$|[\s,=])", re.IGNORECASE)
_PIECE: Final = 64 << 10
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052


class IssuerClient:
    """Fetches the keys of the issuer at `issuer`, a URL that the configuration has checked.

    Each of its requests may take `request_secs`. `ssl_context` is for issuers whose certificate the system's
    authorities have not signed.
    """

    def __init__(
        self,
        issuer: str,
        *,
        request_secs: float = REQUEST_SECS,
        ssl_context: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._issuer = issuer
        self._url = urlsplit(issuer)
        self._request_secs = request_secs
        self._ssl_context = ssl_context
        self._clock = clock
        self._key_set_url: str | None = None
        self._discover_at = 0.0  # when the address of the key set is asked for again

    async def fetch(self) -> Fetched:
        """The keys, as they are now. Raises FetchFailed."""
        guard = AddressGuard(self._url.hostname or "")
        connector = aiohttp.TCPConnector(
            resolver=guard, use_dns_cache=False, force_close=True, ssl=self._ssl_context or True
        )
        async with aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=self._request_secs),
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
            auto_decompress=False,
        ) as session:
            if self._key_set_url is None or self._clock() >= self._discover_at:
                await self._discover(session)
            assert self._key_set_url is not None
            try:
                await guard.check(urlsplit(self._key_set_url))
                body, age = await _get(session, self._key_set_url, MAX_KEY_SET_BYTES, "the key set")
                return Fetched(_keys_in(body), age)
            except FetchFailed:
                self._key_set_url = None  # it may have moved
                raise

    async def _discover(self, session: aiohttp.ClientSession) -> None:
        # Discovery 1.0 section 4: a slash at the end of the issuer is removed first.
        url = self._issuer.rstrip("/") + "/.well-known/openid-configuration"
        body, age = await _get(session, url, MAX_DISCOVERY_BYTES, "the issuer's configuration")
        self._key_set_url = self._key_set_address(body)
        self._discover_at = self._clock() + min(max(age, MIN_AGE_SECS), MAX_AGE_SECS)

    def _key_set_address(self, body: bytes) -> str:
        try:
            found: Any = msgspec.json.decode(body)
        except (msgspec.DecodeError, RecursionError, ValueError):
            found = None
        if not isinstance(found, dict):
            raise FetchFailed("the issuer's configuration is no JSON object")
        # Section 4.3: it must be the very issuer that was asked.
        if found.get("issuer") != self._issuer:
            raise FetchFailed("the issuer's configuration names another `issuer`")
        address = found.get("jwks_uri")
        if not isinstance(address, str) or not address.isascii() or not address.isprintable() or " " in address:
            raise FetchFailed("the issuer's configuration has no usable `jwks_uri`")
        try:
            url = urlsplit(address)
            good = bool(url.hostname) and url.username is None and (url.port is None or url.port > 0)
        except ValueError:
            good = False
        if not good or url.scheme not in ("https", self._url.scheme):
            raise FetchFailed("the issuer's `jwks_uri` is not an https URL")
        return address


class AddressGuard(AbstractResolver):
    """Resolves names for one fetch, and refuses addresses that are not public, except those of `home`, the issuer."""

    def __init__(self, home: str) -> None:
        self._home = home
        self._at_home: set[str] | None = None

    async def check(self, url: SplitResult) -> None:
        """Refuse a URL whose host is a forbidden address; the client resolves names only. Raises FetchFailed."""
        host = url.hostname or ""
        if _address(host) is not None and not await self._allowed(host, host):
            raise _forbidden()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Every address of `host`. Raises FetchFailed when one of them is forbidden, OSError when there is none."""
        found = await asyncio.get_running_loop().getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
        results: list[ResolveResult] = []
        for kind, _, protocol, _, target in found:
            address = str(target[0])
            if not await self._allowed(host, address):
                raise _forbidden()
            results.append(
                ResolveResult(
                    hostname=host,
                    host=address,
                    port=port,
                    family=kind,
                    proto=protocol,
                    flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
                )
            )
        if not results:
            raise OSError("the name has no address")
        return results

    async def close(self) -> None:
        """Nothing is held."""

    async def _allowed(self, host: str, address: str) -> bool:
        if host == self._home or is_public(address):
            return True
        if self._at_home is None:
            loop = asyncio.get_running_loop()
            found = await loop.getaddrinfo(self._home, None, type=socket.SOCK_STREAM)
            self._at_home = {str(target[0]) for _, _, _, _, target in found}
        return address in self._at_home


def is_public(text: str) -> bool:
    """Whether `text` is an address of the public internet; an IPv4 address that an IPv6 one carries is looked at."""
    address = _address(text)
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(address.packed[-4:])
        if inner is not None:
            address = inner
    return address is not None and address.is_global and not address.is_multicast


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None


def _forbidden() -> FetchFailed:
    return FetchFailed("the address of the key set is a private one, which the issuer's own is not")


async def _get(session: aiohttp.ClientSession, url: str, most_bytes: int, what: str) -> tuple[bytes, float]:
    """The body at `url`, and for how many seconds it is good. Raises FetchFailed."""
    try:
        async with session.get(url, allow_redirects=False) as response:
            if response.status != 200:
                raise FetchFailed(f"{what} was answered with status {response.status}")
            if response.headers.get("Content-Encoding", "identity").lower() != "identity":
                raise FetchFailed(f"{what} came compressed, which was not asked for")
            body = bytearray()
            while piece := await response.content.read(_PIECE):
                body += piece
                if len(body) > most_bytes:
                    raise FetchFailed(f"{what} is larger than {most_bytes} bytes")
            return bytes(body), _age_of(response.headers.get("Cache-Control", ""))
    except TimeoutError:
        raise FetchFailed(f"{what} did not come in time") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise FetchFailed(f"{what} cannot be fetched ({type(error).__name__})") from None


def _age_of(cache_control: str) -> float:
    """RFC 9111 section 5.2.2: `max-age` in seconds; what may not be kept is kept for the shortest time."""
    if _NOT_STORED.search(cache_control):
        return 0.0
    found = _MAX_AGE.search(cache_control)
    return float(found[1]) if found else DEFAULT_AGE_SECS


def _keys_in(body: bytes) -> KeySet:
    try:
        found = key_set(body)
    except KeyRefused as error:
        raise FetchFailed(str(error)) from None
    if not found.keys:
        # More likely a mistake than the end of all keys; those that are known go on serving.
        raise FetchFailed(
            "the key set holds no key that can be used" + "".join(f"; {why}" for why in found.left_out[:1])
        )
    return found
