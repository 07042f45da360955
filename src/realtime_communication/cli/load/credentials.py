"""As whom the connections of a load sign on: what the generator writes into the header of each one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec

USER_PREFIX = "rtc-bench-"
LIFETIME_SECS = 2 * 3600
LONGEST_CREDENTIAL = 4096
LARGEST_FILE = 256 * 1024 * 1024
LEAST_SECRET_BYTES = 32


class Credentials(msgspec.Struct, frozen=True):
    """What connections carry, used in turn; none at all when `values` is empty."""

    values: tuple[str, ...] = ()
    header: str = ""
    """That carries a value; empty: `Authorization`, as a bearer token."""
    users: bool = False
    """Connection i has the user USER_PREFIX + i."""

    def __repr__(self) -> str:
        return f"Credentials({len(self.values)} × <redacted>)"


def signed(secret: str, count: int, *, issuer: str, audience: str, algorithm: str) -> Credentials:
    """A token for each of `count` connections, each for a user of its own. Raises click.UsageError."""
    if len(secret.encode()) < LEAST_SECRET_BYTES:
        raise click.UsageError(f"the secret has {len(secret.encode())} bytes; at least {LEAST_SECRET_BYTES} are needed")
    from realtime_communication.auth.tokens import TokenIssuer  # other commands should not pay for it

    signer = TokenIssuer(
        secret=secret, issuer=issuer, audience=audience, lifetime_secs=LIFETIME_SECS, algorithm=algorithm
    )
    now = time.time()
    return Credentials(tuple(signer.access_token(f"{USER_PREFIX}{index}", now) for index in range(count)), users=True)


def tokens(values: Sequence[str], hint: str) -> Credentials:
    """Tokens that somebody else signed. Raises click.UsageError."""
    return Credentials(_checked(values, hint))


def api_key(value: str, header: str, hint: str) -> Credentials:
    """One API key for all connections. Raises click.UsageError."""
    if not header or not all(letter.isalnum() or letter in "-_" for letter in header) or not header.isascii():
        raise click.BadParameter("must be the name of a header", param_hint="'--api-key-header'")
    return Credentials(_checked([value], hint), header)


def text_of(path: Path, hint: str) -> str:
    """What a file says, without the blanks around it. Raises click.UsageError."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise click.BadParameter(f"{path} is larger than {LARGEST_FILE} bytes", param_hint=hint)
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise click.BadParameter(f"{path}: {error.strerror}", param_hint=hint) from None
    except UnicodeDecodeError:
        raise click.BadParameter(f"{path} is not UTF-8 text", param_hint=hint) from None


def _checked(values: Sequence[str], hint: str) -> tuple[str, ...]:
    found = tuple(value.strip() for value in values if value.strip())
    if not found:
        raise click.BadParameter("is empty", param_hint=hint)
    for number, value in enumerate(found, 1):
        if len(value) > LONGEST_CREDENTIAL:
            raise click.BadParameter(
                f"line {number} has {len(value)} bytes; at most {LONGEST_CREDENTIAL} are allowed", param_hint=hint
            )
        if any(not "!" <= letter <= "~" for letter in value):
            raise click.BadParameter(f"line {number} is not printable ASCII without blanks", param_hint=hint)
    return found
