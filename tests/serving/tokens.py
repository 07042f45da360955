"""Access tokens and API keys as the servers under test expect them."""

import hashlib
import time
from typing import Any

import jwt

SECRET = "black-box-tests-sign-with-this-secret-0123456789"
ISSUER = "ai-system-rust"
AUDIENCE = "realtime-communication"
ADMIN_KEY = "rtc_the-key-of-the-administrator-of-these-tests"
ADMIN_KEYS = [
    {"key": "sha256:" + hashlib.sha256(ADMIN_KEY.encode()).hexdigest(), "user": "operator", "roles": ["admin"]}
]
ALL_PERMISSIONS = ("read", "write", "subscribe")


def claims(user: str = "alice", **changes: Any) -> dict[str, Any]:
    """A valid set of claims for ``user``; a change of None removes the claim."""
    now = int(time.time())
    made: dict[str, Any] = {
        "sub": user,
        "user_id": user,
        "iat": now,
        "nbf": now,
        "exp": now + 3600,
        "iss": ISSUER,
        "aud": AUDIENCE,
        "session_id": f"login-of-{user}",
        "roles": ["user"],
        "permissions": list(ALL_PERMISSIONS),
        "refresh_threshold": now + 1800,
    }
    made.update(changes)
    return {name: value for name, value in made.items() if value is not None}


def token(user: str = "alice", *, key: str = SECRET, algorithm: str = "HS256", **changes: Any) -> str:
    """A signed token."""
    return jwt.encode(claims(user, **changes), key, algorithm=algorithm)
