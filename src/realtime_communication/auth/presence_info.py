"""What others see of a user beside the name: the `info` of presence, made of what `auth.custom_claims` names.

The user's metadata and the custom fields come from the token, the user agent and the address from the connection, which
may be another device than the one the token was issued to. Nothing that is not configured is shown, whatever a token
says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from realtime_communication.auth.custom_claims import circumstances, is_wanted
from realtime_communication.config.schema import CustomClaims

MAX_INFO_BYTES: Final = 4096


def presence_info(
    claims: Mapping[str, Any] | None, wanted: CustomClaims, *, user_agent: str, address: str
) -> bytes | None:
    """A JSON object of at most MAX_INFO_BYTES, None when there is nothing to show.

    `claims` are a token's, verified; None for other credentials. A custom field that the token does not have as a
    string, because it is older than the field or another issuer's, has its configured value. What does not fit is left
    out: the metadata first, then the custom fields.
    """
    if not is_wanted(wanted):
        return None
    given = claims or {}
    where = circumstances(wanted, user_agent=user_agent, address=address)
    fields = {
        name: given[name] if isinstance(given.get(name), str) else value for name, value in wanted.custom_fields.items()
    }
    metadata = given.get("user_metadata") if wanted.include_user_metadata else None
    about = {"user_metadata": metadata} if isinstance(metadata, dict) else {}
    for shown in (about | fields | where, fields | where, where):
        info = msgspec.json.encode(shown) if shown else b""
        if info and len(info) <= MAX_INFO_BYTES:
            return info
    return None
