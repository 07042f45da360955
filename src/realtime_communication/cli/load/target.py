"""The URL of a server that is put under load, as an address that accepts connections."""

from __future__ import annotations

import socket
from urllib.parse import parse_qs, urlsplit

import click
import msgspec

CONNECT_SECS = 5.0
DEFAULT_PORT = 80
LONGEST_PATH = 2000
_CREDENTIALS = frozenset({"token", "api_key"})


class Target(msgspec.Struct, frozen=True):
    """Where the generator connects: a numeric address, and what it asks for there."""

    address: str
    host: str
    """As the header Host has it, without the port."""
    port: int
    path: str

    @property
    def url(self) -> str:
        return f"ws://{self.host}:{self.port}{self.path}"


def read(url: str) -> Target:
    """The target of `url`, with the name of its host for an address. Raises click.UsageError."""
    if any(not "!" <= letter <= "~" for letter in url):
        raise _problem("must be printable ASCII without spaces")
    try:
        parts = urlsplit(url)
        port = parts.port if parts.port is not None else DEFAULT_PORT
    except ValueError as error:
        raise _problem(str(error)) from None
    if parts.scheme == "wss":
        raise _problem("wss is not supported by rtc bench yet: name a port of the server that speaks ws")
    if parts.scheme != "ws" or not parts.hostname or port == 0:
        raise _problem("must look like ws://host:port/ws")
    if parts.username is not None or parts.fragment:
        raise _problem("must have neither a user nor a fragment")
    if _CREDENTIALS & parse_qs(parts.query, keep_blank_values=True).keys():
        raise _problem("must not carry credentials: use --token-file, --secret-file or --api-key-file")
    path = (parts.path or "/ws") + (f"?{parts.query}" if parts.query else "")
    if len(path) > LONGEST_PATH:
        raise _problem(f"has a path of {len(path)} bytes; at most {LONGEST_PATH} are allowed")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return Target(parts.hostname, host, port, path)


def reached(target: Target) -> Target:
    """The same with a numeric address, the first one of the host that accepts a connection.

    Raises click.ClickException.
    """
    try:
        with socket.create_connection((target.address, target.port), timeout=CONNECT_SECS) as connection:
            address = str(connection.getpeername()[0])
    except (OSError, UnicodeError) as error:  # UnicodeError: a label of the name is too long
        reason = getattr(error, "strerror", None) or str(error)
        raise click.ClickException(f"{target.url} cannot be reached: {reason}") from None
    return msgspec.structs.replace(target, address=address)


def _problem(text: str) -> click.UsageError:
    return click.BadParameter(text, param_hint="'--url'")
