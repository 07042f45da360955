"""Who a client really is, when proxies stand between it and this server.

Rules. Only a direct peer among `security.trusted_proxies` is believed; from anybody else the forwarding headers are as
if they were not there. Even a trusted proxy appends to what it was sent, so the headers are read from their end, the
part the nearest proxy wrote, and no further than the first address that is not trusted: that is the client. What stands
before it is the client's own word. A hop that cannot be read ends the walk, and the last one that could be read counts.

A proxy writes one kind of header, `X-Forwarded-*` or `Forwarded` (RFC 7239), and may let the other pass, which then is
the client's word again. So where both kinds are there they must agree: over different addresses the proxy's own is
used, and https counts only when both say so.
"""

from __future__ import annotations

import functools
import ipaddress
import itertools
import re
import socket
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from aiohttp import web

from realtime_communication.http.attempts import site_of
from realtime_communication.http.services import SERVICES

Headers = Sequence[tuple[bytes, bytes]]  # names in lower case
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

MAX_HOPS: Final = 32  # looked at, from the end: nobody has more proxies
MAX_BYTES: Final = 4096  # of one kind of header, all its lines together, from the end
UNIX: Final = "unix"  # stands for every peer on a Unix socket, which has no address

_SECURE_SCHEMES: Final = (b"https", b"wss")  # some proxies name the scheme of a WebSocket
_HOST: Final = re.compile(rb"(?:([0-9.]{7,15})|\[([0-9A-Fa-f:.]{2,45})\])(?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]+))?")
_BARE: Final = re.compile(rb"[0-9A-Fa-f.]*:[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*")
_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_PAIR: Final = re.compile(rb"(" + _TOKEN + rb")=(?:(" + _TOKEN + rb')|"((?:[^"\\]|\\.)*)")')
_ESCAPED: Final = re.compile(rb"\\(.)")


class Client(NamedTuple):
    """The other end of a request: its address, empty when it is not known (a peer on a Unix socket has none), and
    whether its own link is encrypted."""

    address: str
    secure: bool


class _Hop(NamedTuple):
    """Whom a proxy got the request from (None: it does not say), and whether over https."""

    address: Address | None
    secure: bool


class TrustedProxies:
    """The networks of `security.trusted_proxies`. Raises ValueError for a text that is neither one nor `unix`."""

    def __init__(self, texts: Iterable[str]) -> None:
        texts = tuple(texts)
        self._unix = UNIX in texts
        self._networks = [ipaddress.ip_network(text) for text in texts if text != UNIX]
        self.nobody = not texts  # is believed

    def trusts(self, address: Address | None) -> bool:
        """Whether the peer at `address`, None for one on a Unix socket, is believed."""
        if address is None:
            return self._unix
        return any(address in network for network in self._networks)


@functools.lru_cache(maxsize=4)
def trusted_proxies(texts: tuple[str, ...]) -> TrustedProxies:
    """`TrustedProxies` of a value of the configuration, made once for each."""
    return TrustedProxies(texts)


def client_of(peer: str, headers: Headers, secure: bool, trusted: TrustedProxies) -> Client:
    """The client of a request that came from `peer`: an address with or without a port, empty for a Unix socket.

    `secure` says whether the bytes came over TLS. Never raises.
    """
    if trusted.nobody and (host := _plain_ipv4(peer)):
        return Client(host, secure)
    direct = _address_of(peer.partition("%")[0].encode())  # a link-local address may carry its interface
    own = Client(str(direct or ""), secure)
    if (direct is None and peer) or not trusted.trusts(direct):
        return own
    told = []
    addresses, schemes = _lines(headers, b"x-forwarded-for"), _lines(headers, b"x-forwarded-proto")
    if addresses or schemes:
        walked = _walk((_Hop(_address_of(item), False) for item in _elements(addresses)), own.address, trusted)
        nearest = next(_elements(schemes), b"").lower()
        told.append(Client(walked.address, nearest in _SECURE_SCHEMES))
    forwarded = _lines(headers, b"forwarded")
    if forwarded:
        told.append(_walk(map(_hop_of, _elements(forwarded)), own.address, trusted))
    if not told:
        return own
    address = told[0].address if told[0].address == told[-1].address else own.address
    return Client(address, secure or all(client.secure for client in told))


def client_of_request(request: web.Request) -> Client:
    """The client of an HTTP request, by the configuration as it is now."""
    texts = request.app[SERVICES].config.security.trusted_proxies
    headers = [(name.lower(), value) for name, value in request.raw_headers] if texts else []
    return client_of(request.remote or "", headers, request.secure, trusted_proxies(texts))


def site_of_peer(peer: str, trusted: TrustedProxies) -> str | None:
    """Whom the connections of the direct `peer`, as for `client_of`, count for; None where it brings those of others:
    it is trusted, or on this machine."""
    direct = _address_of(peer.partition("%")[0].encode())
    return None if direct is None or trusted.trusts(direct) else site_of(str(direct))


def _walk(hops: Iterable[_Hop], nearest: str, trusted: TrustedProxies) -> Client:
    """From the nearest hop on to the first that is not trusted; `nearest` is who told of the first."""
    address, secure = nearest, False
    for hop in itertools.islice(hops, MAX_HOPS):
        secure = hop.secure
        if hop.address is None:
            break
        address = str(hop.address)
        if not trusted.trusts(hop.address):
            break
    return Client(address, secure)


def _lines(headers: Headers, name: bytes) -> list[bytes]:
    return [value for header, value in headers if header == name]


def _elements(lines: Sequence[bytes]) -> Iterator[bytes]:
    """The elements of a list (RFC 9110 section 5.6.1), last first, without empty ones.

    Read from the end, so that a quote which the client left open does not swallow what the proxy wrote behind it. An
    element that the bound cuts in two comes out as a malformed one.
    """
    left = MAX_BYTES
    for line in reversed(lines):
        quoted, end = False, len(line)
        for at in range(len(line) - 1, -1, -1):
            if left == 0:
                yield b'"'
                return
            left -= 1
            if line[at] == ord('"') and not _is_escaped(line, at):
                quoted = not quoted
            elif line[at] == ord(",") and not quoted:
                if element := line[at + 1 : end].strip(b" \t"):
                    yield element
                end = at
        if element := line[:end].strip(b" \t"):
            yield element


def _is_escaped(line: bytes, at: int) -> bool:
    start = at
    while start > 0 and line[start - 1] == ord("\\"):
        start -= 1
    return (at - start) % 2 == 1


def _hop_of(element: bytes) -> _Hop:
    """An element of `Forwarded` (RFC 7239 section 4); a malformed one says nothing."""
    pairs: dict[bytes, bytes] = {}
    at = 0
    while at < len(element):
        pair = _PAIR.match(element, at)
        if pair is None or pair[1].lower() in pairs:
            return _Hop(None, False)
        pairs[pair[1].lower()] = pair[2] if pair[2] is not None else _ESCAPED.sub(rb"\1", pair[3])
        at = pair.end()
        if at < len(element):
            if element[at : at + 1] != b";":
                return _Hop(None, False)
            at += 1
    return _Hop(_address_of(pairs.get(b"for", b"")), pairs.get(b"proto", b"").lower() in _SECURE_SCHEMES)


def _plain_ipv4(peer: str) -> str:
    """The address in `1.2.3.4` or `1.2.3.4:80` as `_address_of` would read it, without the cost; else empty."""
    host, colon, port = peer.partition(":")
    if colon and not (len(port) <= 5 and port.isascii() and port.isdecimal()):
        return ""
    try:
        socket.inet_pton(socket.AF_INET, host)
    except (OSError, ValueError):
        return ""
    return host


def _address_of(text: bytes) -> Address | None:
    """The address in `1.2.3.4`, `1.2.3.4:80`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:80`, else None."""
    found = _HOST.fullmatch(text)
    if found is not None:
        text = found[1] or found[2]
    elif not _BARE.fullmatch(text):
        return None
    try:
        address = ipaddress.ip_address(text.decode())
    except ValueError:
        return None
    # A socket for both families shows the older one mapped into the newer.
    return (address.ipv4_mapped or address) if isinstance(address, ipaddress.IPv6Address) else address
