"""Making values fit for a log or a span: no secrets, no control characters, bounded length.

Text is searched as it may come out of a request, an exception or a `repr`: `name=value`, JSON at any depth of escaping,
headers as lines and as pairs, percent-encoded once or more. Where it is unclear how far a secret reaches, more is taken
away rather than less.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

REDACTED = "[redacted]"
MAX_VALUE_LENGTH = 1024
"""Longest value in characters; what follows is cut and its length told."""

_SCAN_LENGTH = 8 * MAX_VALUE_LENGTH
"""So much of a long value is looked through: more than is kept, so that no secret at the cut stays half hidden."""

_MAX_DECODINGS = 3
"""So many layers of percent-encoding are looked through."""

_SECRET_FIELDS = frozenset(
    {"api_key", "apikey", "authorization", "bearer", "cookie", "credential", "credentials", "jwt", "passphrase"}
    | {"passwd", "password", "pem", "private_key", "secret", "secret_key", "token"}
)
_SECRET_ENDINGS = tuple(f"_{name}" for name in _SECRET_FIELDS - {"pem"})

# A name that ends so, whatever stands before it: `token`, `refreshToken`, `REDIS_PASSWORD`, `X-API-Key`.
_NAME = r"token|api[_-]?key|access[_-]?key|private[_-]?key|secret(?:[_-]?key)?|passw(?:or)?d|passphrase|credentials?"
_QUOTE = r"\\{0,7}[\"']"  # escaped as often as JSON inside JSON asks for
# Then `=`, `:`, `=>`, or the comma of a pair (name, value) whose parts are quoted.
_IS = rf"(?:{_QUOTE}\s{{0,8}},\s{{0,8}}(?=b?{_QUOTE})|(?:{_QUOTE})?\]?\s{{0,8}}(?:=>|[=:])\s{{0,8}})b?(?={_QUOTE})"
_IS_BARE = rf"(?:{_QUOTE})?\]?\s{{0,8}}(?:=>|[=:])\s{{0,8}}"
_ASSIGNED = re.compile(rf"(?i)(?:{_NAME})(?:{_IS}|{_IS_BARE})")
_HEADER = re.compile(rf"(?i)(?:authorization|cookie)(?:{_IS}|{_IS_BARE})")  # bare, its value reaches to the line's end
_PROTOCOLS = re.compile(rf"(?i)(sec-websocket-protocol(?:{_IS}|{_IS_BARE})(?:{_QUOTE})?)([^\s\"'][^\r\n\"']*)")
_OWN_PROTOCOL = re.compile(r"\s*(?:rtc\.v1\.[a-z+0-9]{1,32}|\[redacted\])\s*")
_BEARER = re.compile(r"(?i)\b(bearer[\s+]{1,8})(?!\[redacted\])[^\s\"',&]+")
_BASIC = re.compile(r"(?i)\b(basic[\s+]{1,8})(?=[a-z/+]*[A-Z0-9=])(?-i:[A-Za-z0-9+/]{8,}={0,2})")
_JWT = re.compile(
    r"(?:(?<![A-Za-z0-9_-])|(?<=%[0-9A-Fa-f]{2}))eyJ[A-Za-z0-9_-]{6,}(?:(?:\.|%2[Ee])[A-Za-z0-9_-]*){0,4}"
)
_USER_INFO = re.compile(r"(://)(?!\[redacted\]@)[^\s/\"'<>]{1,512}@")
_REDIS_USER_INFO = re.compile(r"(?i)(\brediss?://[^\s/@:]{0,256}:)(?!\[redacted\]@)[^\s\"'<>]{1,512}@")
_PEM = re.compile(r"-----BEGIN[A-Z0-9 +]{1,64}-----.*?(?:-----END[A-Z0-9 +]{1,64}-----|\Z)", re.DOTALL)
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_ESCAPE = re.compile("%[0-9A-Fa-f]{2}")
_OPENING_QUOTE = re.compile(_QUOTE)
_CLOSING = {"[": "]", "(": ")", "{": "}"}
_WORD_END = re.compile(r"[\s&\"',;}\])]|\Z")
_LINE_END = re.compile(r"[\r\n]|\Z")


def redact(text: str) -> str:
    """The text with tokens, keys, passwords and anything that looks like a JWT or a PEM block replaced.

    Text in which a secret is percent-encoded comes back decoded.
    """
    text = _redact_plain(text)
    decoded = text
    for _ in range(_MAX_DECODINGS):
        if _ESCAPE.search(decoded) is None:
            break
        decoded = unquote(decoded)
        safe = _redact_plain(decoded)
        if safe != decoded:
            text = decoded = safe
    return text


def _redact_plain(text: str) -> str:
    text = _PEM.sub(REDACTED, text)
    text = _redact_values(text, _HEADER, _LINE_END)
    text = _PROTOCOLS.sub(lambda found: found[1] + _own_protocols(found[2]), text)
    for pattern in (_BEARER, _BASIC):
        text = pattern.sub(rf"\1{REDACTED}", text)
    text = _redact_values(text, _ASSIGNED, _WORD_END)
    text = _JWT.sub(REDACTED, text)
    text = _REDIS_USER_INFO.sub(rf"\1{REDACTED}@", text)
    return _USER_INFO.sub(rf"\1{REDACTED}@", text)


def _own_protocols(offered: str) -> str:
    """The subprotocols of this server's; browsers have no other header, so clients put tokens beside them."""
    return ",".join(name if _OWN_PROTOCOL.fullmatch(name) else f" {REDACTED}" for name in offered.split(","))


def _redact_values(text: str, name: re.Pattern[str], bare_end: re.Pattern[str]) -> str:
    """`text` without what follows each match of `name`; a value that nothing encloses goes on until `bare_end`."""
    parts: list[str] = []
    at = 0
    while (found := name.search(text, at)) is not None:
        start = found.end()
        opener, end = _value_at(text, start, bare_end)
        inside = start + opener
        if end > inside and not text.startswith(REDACTED, inside):
            parts += [text[at:inside], REDACTED]
        else:
            parts.append(text[at:end])
        at = end
    return "".join(parts) + text[at:] if parts else text


def _value_at(text: str, start: int, bare_end: re.Pattern[str]) -> tuple[int, int]:
    """Length of what opens the value at `start`, and where the value ends: before what closes it."""
    if text.startswith(REDACTED, start):
        return 0, start + len(REDACTED)
    if text[start : start + 1] in _CLOSING:
        return 1, _group_end(text, start)
    quote = _OPENING_QUOTE.match(text, start)
    if quote is not None:
        return len(quote[0]), _quote_end(text, quote.end(), quote[0])
    found = bare_end.search(text, start)
    return 0, found.start() if found is not None else len(text)


def _quote_end(text: str, at: int, opener: str) -> int:
    """Where the quoted text ends whose first character is at `at`; its end when nothing closes it."""
    escapes = len(opener) - 1
    while (at := text.find(opener[-1], at)) >= 0:
        before = at - len(text[:at].rstrip("\\")) if text[at - 1 : at] == "\\" else 0
        if before <= escapes:
            return at - before
        at += 1
    return len(text)


def _group_end(text: str, start: int) -> int:
    """Where the list, tuple or object that opens at `start` closes, or the text ends."""
    waiting: list[str] = []
    at = start
    while at < len(text):
        char = text[at]
        if char in "\"'":
            at = _quote_end(text, at + 1, char)
        elif char in _CLOSING:
            waiting.append(_CLOSING[char])
        elif waiting and char == waiting[-1]:
            waiting.pop()
            if not waiting:
                return at
        at += 1
    return len(text)


def clean(text: str) -> str:
    """Redacted, and cut to MAX_VALUE_LENGTH characters with a note of how many are missing."""
    redacted = redact(text[:_SCAN_LENGTH])
    missing = max(len(text) - _SCAN_LENGTH, 0) + max(len(redacted) - MAX_VALUE_LENGTH, 0)
    return redacted if missing == 0 else f"{redacted[:MAX_VALUE_LENGTH]}… ({missing} more)"


def escape(text: str) -> str:
    r"""Control characters, line separators, direction marks and lone surrogates as `\x1b`, `\u2028`."""
    return _CONTROL.sub(lambda match: _escaped(ord(match.group())), text)


def without_controls(text: str) -> str:
    """Without the characters `escape` replaces."""
    return _CONTROL.sub("", text)


def _escaped(code: int) -> str:
    return {9: "\\t", 10: "\\n", 13: "\\r"}.get(code) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")


def is_secret_field(name: str) -> bool:
    """Whether a field's value is never shown, by its name."""
    plain = name.lower().replace("-", "_")
    return plain in _SECRET_FIELDS or plain.endswith(_SECRET_ENDINGS)
