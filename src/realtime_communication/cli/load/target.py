"""The URL of a server that is put under load, as an address that accepts connections."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import click
import msgspec

CONNECT_SECS = 5.0
DEFAULT_PORTS = {"ws": 80, "wss": 443}
LONGEST_PATH = 2000
_CREDENTIALS = frozenset({"token", "api_key"})


class Target(msgspec.Struct, frozen=True):
    """Where the generator connects: a numeric address, and what it asks for there."""

    address: str
    host: str
    """As the header Host has it, without the port."""
    port: int
    path: str
    secure: bool = False
    """Over TLS. The certificate must be for the host, and signed by someone who is trusted."""
    ca_file: Path | None = None
    """Certificates of those who are trusted; None: as the machine has them."""
    insecure: bool = False
    """Any certificate will do."""

    @property
    def url(self) -> str:
        return f"{'wss' if self.secure else 'ws'}://{self.host}:{self.port}{self.path}"


def read(url: str, ca_file: Path | None = None, insecure: bool = False) -> Target:
    """The target of `url`, with the name of its host for an address. Raises click.UsageError."""
    if any(not "!" <= letter <= "~" for letter in url):
        raise _problem("must be printable ASCII without spaces")
    try:
        parts = urlsplit(url)
        port = parts.port if parts.port is not None else DEFAULT_PORTS.get(parts.scheme, 0)
    except ValueError as error:
        raise _problem(str(error)) from None
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname or port == 0:
        raise _problem("must look like ws://host:port/ws or wss://host:port/ws")
    if parts.username is not None or parts.fragment:
        raise _problem("must have neither a user nor a fragment")
    if _CREDENTIALS & parse_qs(parts.query, keep_blank_values=True).keys():
        raise _problem("must not carry credentials: use --token-file, --secret-file or --api-key-file")
    path = (parts.path or "/ws") + (f"?{parts.query}" if parts.query else "")
    if len(path) > LONGEST_PATH:
        raise _problem(f"has a path of {len(path)} bytes; at most {LONGEST_PATH} are allowed")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    secure = parts.scheme == "wss"
    if not secure and (ca_file is not None or insecure):
        raise click.UsageError("--ca-file and --insecure are about certificates: they need a URL of wss")
    if ca_file is not None and insecure:
        raise click.UsageError("give one of --ca-file and --insecure: without verification nobody is trusted")
    return Target(parts.hostname, host, port, path, secure, ca_file, insecure)


def reached(target: Target) -> Target:
    """The same with a numeric address, the first one of the host that accepts a connection, and TLS on it.

    Raises click.ClickException.
    """
    context = _context(target) if target.secure else None
    try:
        with socket.create_connection((target.address, target.port), timeout=CONNECT_SECS) as connection:
            address = str(connection.getpeername()[0])
            if context is not None:
                context.wrap_socket(connection, server_hostname=target.address).close()
    except ssl.SSLCertVerificationError as error:
        raise click.ClickException(
            f"{target.url}: the certificate is not accepted: {error.verify_message.rstrip('.')}; name its authority "
            "with --ca-file, or do without verification by --insecure"
        ) from None
    except ssl.SSLError as error:
        reason = (error.reason or "the server ended the handshake").replace("_", " ").lower()
        raise click.ClickException(f"{target.url}: no TLS with this server: {reason}") from None
    except (OSError, UnicodeError) as error:  # UnicodeError: a label of the name is too long
        reason = getattr(error, "strerror", None) or str(error)
        raise click.ClickException(f"{target.url} cannot be reached: {reason}") from None
    return msgspec.structs.replace(target, address=address)


def _context(target: Target) -> ssl.SSLContext:
    """What is trusted, and whether anybody has to be. Raises click.UsageError."""
    try:
        context = ssl.create_default_context(cafile=target.ca_file)
    except OSError as error:  # ssl.SSLError is one
        reason = "has no certificates in PEM" if isinstance(error, ssl.SSLError) else error.strerror
        raise click.BadParameter(f"{target.ca_file}: {reason}", param_hint="'--ca-file'") from None
    if target.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _problem(text: str) -> click.UsageError:
    return click.BadParameter(text, param_hint="'--url'")
