"""Making values fit for a log: no secrets, no control characters, bounded length."""

from __future__ import annotations

import re

REDACTED = "[redacted]"
MAX_VALUE_LENGTH = 1024
"""Longest value in characters; what follows is cut and its length told."""

_SCAN_LENGTH = 8 * MAX_VALUE_LENGTH
"""So much of a long value is looked through: more than is kept, so that no secret at the cut stays half hidden."""

_SECRET_FIELDS = frozenset(
    {
        "authorization",
        "proxy_authorization",
        "cookie",
        "set_cookie",
        "token",
        "access_token",
        "refresh_token",
        "id_token",
        "api_key",
        "apikey",
        "x_api_key",
        "password",
        "passwd",
        "secret",
        "jwt_secret",
        "client_secret",
        "private_key",
    }
)
_NAME = r"(?:access_|refresh_|id_)?token|api[_-]?key|jwt[_-]?secret|client[_-]?secret|secret|password|passwd"
_ASSIGNED = re.compile(
    rf"(?i)\b((?:[a-z0-9]+_)*(?:{_NAME})(?:[\"'])?\s{{0,8}}(?:=|:|%3d)\s{{0,8}}[\"']?)(?!\[redacted\])[^\s&\"',;}}]+"
)
_HEADER = re.compile(r"(?i)\b((?:proxy-)?authorization[\"']?\s{0,8}[:=]\s{0,8}[\"']?)[^\r\n\"',]+")
_COOKIE = re.compile(r"(?i)\b((?:set-)?cookie[\"']?\s{0,8}:\s{0,8}[\"']?)[^\r\n\"']+")
_API_KEY_HEADER = re.compile(r"(?i)\b(x-api-key[\"']?\s{0,8}[:=]\s{0,8}[\"']?)[^\s\"',]+")
_BEARER = re.compile(r"(?i)\b(bearer\s{1,8})(?!\[redacted\])[^\s\"',]+")
_JWT = re.compile(r"\beyJ[A-Za-z0-9_-]{6,}(?:\.[A-Za-z0-9_-]*){0,4}")
_USER_INFO = re.compile(r"\b([a-z][a-z0-9+.-]{0,20}://)[^\s/@:]{0,256}:[^\s/@]{1,256}@")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def redact(text: str) -> str:
    """The text with tokens, keys, passwords and anything that looks like a JWT replaced."""
    for pattern in (_HEADER, _COOKIE, _API_KEY_HEADER, _BEARER, _ASSIGNED):
        text = pattern.sub(rf"\1{REDACTED}", text)
    text = _JWT.sub(REDACTED, text)
    return _USER_INFO.sub(rf"\1{REDACTED}@", text)


def clean(text: str) -> str:
    """Redacted, and cut to MAX_VALUE_LENGTH characters with a note of how many are missing."""
    redacted = redact(text[:_SCAN_LENGTH])
    missing = max(len(text) - _SCAN_LENGTH, 0) + max(len(redacted) - MAX_VALUE_LENGTH, 0)
    return redacted if missing == 0 else f"{redacted[:MAX_VALUE_LENGTH]}… ({missing} more)"


def escape(text: str) -> str:
    r"""Control characters, line separators, direction marks and lone surrogates as `\x1b`, `\u2028`."""
    return _CONTROL.sub(lambda match: _escaped(ord(match.group())), text)


def _escaped(code: int) -> str:
    return {9: "\\t", 10: "\\n", 13: "\\r"}.get(code) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")


def is_secret_field(name: str) -> bool:
    """Whether a field's value is never shown, by its name."""
    return name.lower().replace("-", "_") in _SECRET_FIELDS
