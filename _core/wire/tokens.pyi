"""Tokens signed with HS256, accepted in one go; `tokens.pxd` has the rules."""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")

class Hs256Tokens(Generic[T]):
    """Accepts tokens that `secrets` have signed; `identity` makes what `accept` gives back, of keyword arguments.

    `types` are the accepted `typ` in lower case; `issuer` and `audience` are what `iss` and `aud` must be, None leaves
    one out. The secrets themselves are not kept.
    """

    def __init__(
        self,
        secrets: Sequence[bytes],
        identity: Callable[..., T],
        *,
        types: Sequence[str],
        issuer: str | None,
        audience: str | None,
        validate_exp: bool,
        validate_nbf: bool,
    ) -> None: ...
    def accept(self, token: str, now: float) -> T | None:
        """The identity of a token that is certainly good at `now` (seconds since the epoch), else None: ask the rules.

        Raises MemoryError alone.
        """

def decoded(segment: bytes) -> bytes | None:
    """Strict base64url without padding; None for what is not the one text of a value."""
