"""What `auth.custom_claims` adds to issued tokens, each part only where it is configured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from realtime_communication.config.schema import CustomClaims

MAX_USER_AGENT: Final = 256  # characters; what follows is cut


def issued_claims(
    wanted: CustomClaims, *, user_metadata: Mapping[str, Any] | None, user_agent: str, address: str
) -> dict[str, Any]:
    """The claims for a token that is asked for with `user_metadata`, by this user agent, from this address."""
    claims: dict[str, Any] = dict(wanted.custom_fields)
    if wanted.include_user_metadata and user_metadata is not None:
        claims["user_metadata"] = dict(user_metadata)
    return claims | circumstances(wanted, user_agent=user_agent, address=address)


def circumstances(wanted: CustomClaims, *, user_agent: str, address: str) -> dict[str, Any]:
    """Where somebody is and with what, as far as it is configured and known."""
    found: dict[str, Any] = {}
    if wanted.include_device_info and user_agent:
        found["device_info"] = {"user_agent": user_agent[:MAX_USER_AGENT]}
    if wanted.include_location and address:
        found["location"] = {"address": address}
    return found


def is_wanted(wanted: CustomClaims) -> bool:
    """Whether anything at all is configured."""
    return bool(
        wanted.include_user_metadata or wanted.include_device_info or wanted.include_location or wanted.custom_fields
    )
