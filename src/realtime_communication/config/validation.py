"""Rules that one key's type and range cannot say.

Each rule names the keys or sections it reads, and is left out when any of them was already wrong. It yields complaints:
the key at fault and what is allowed. `RULES` is the whole list.
"""

from __future__ import annotations

import fnmatch
import ipaddress
import re
from collections.abc import Callable, Iterator

import msgspec

from realtime_communication.config.log_filter import parse_filter
from realtime_communication.config.schema import AuthProvider, Config
from realtime_communication.config.values import did_you_mean

Complaint = tuple[str, str]
Rule = Callable[["Subject"], Iterator[Complaint]]

MIN_SECRET_BYTES = 32
"""An HMAC-SHA-256 key shorter than its output weakens it (RFC 7518 section 3.2)."""

JWT_ALGORITHMS = ("HS256", "HS384", "HS512")
PERMISSIONS = ("read", "write", "subscribe", "admin")
REQUEST_TYPES = (
    "Authenticate",
    "Subscribe",
    "Unsubscribe",
    "Broadcast",
    "DirectMessage",
    "Presence",
    "History",
    "Refresh",
    "Ping",
)
MAX_CUSTOM_LIMITS = 16
"""Each connection has a bucket for each of them; the data plane has room for so many."""

_UNIX_PATH_BYTES = 107
"""Longest name of a Unix socket: `sun_path` of unix(7) without its NUL."""

_HOST_NAME = re.compile(
    r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*\.?\Z"
)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?\Z")
_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)+\Z")
_HASH = re.compile(r"sha256:[0-9a-fA-F]{64}\Z")
_QUERY_NAME = re.compile(r"[A-Za-z0-9._~-]+\Z")
_RESERVED_PATHS = ("/ws", "/api", "/auth", "/admin", "/debug", "/sse", "/openapi.json")


class Subject(msgspec.Struct, frozen=True):
    """What the rules look at. `secret_made` says that the signing secret was made for this run."""

    config: Config
    profile: str
    secret_made: bool = False


def check(subject: Subject, wrong: frozenset[str]) -> Iterator[Complaint]:
    """Complaints of all rules that read none of the `wrong` keys."""
    for paths, rule in RULES:
        if not any(path == bad or bad.startswith(path + ".") for path in paths for bad in wrong):
            yield from rule(subject)


def _host(subject: Subject) -> Iterator[Complaint]:
    host = subject.config.server.host
    if host.startswith("unix:"):
        path = host.removeprefix("unix:")
        if not path.startswith("/") or len(path.encode()) > _UNIX_PATH_BYTES or "\0" in path:
            yield "server.host", f"must be unix: and an absolute path of at most {_UNIX_PATH_BYTES} bytes"
        return
    try:
        ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        looks_like_address = re.fullmatch(r"[0-9.]+", host) is not None
        if looks_like_address or not _HOST_NAME.match(host):
            yield "server.host", "must be an IPv4 or IPv6 address, a host name, or unix:/path"


def _port(subject: Subject) -> Iterator[Complaint]:
    if subject.config.server.port == 0 and not subject.config.testing.enable_test_mode:
        yield "server.port", "must be an integer from 1 to 65535; 0 only in the test profile"


def _jwt_secret(subject: Subject) -> Iterator[Complaint]:
    secret = subject.config.auth.jwt_secret
    if not secret:
        if not (subject.secret_made or subject.config.testing.bypass_auth):
            yield (
                "auth.jwt_secret",
                f"is missing: set JWT_SECRET to at least {MIN_SECRET_BYTES} bytes, as `openssl rand -base64 32` gives",
            )
        return
    if "-----BEGIN" in secret:
        yield "auth.jwt_secret", "must not be a PEM: a public key would let anybody sign tokens"
    elif len(secret.encode(errors="replace")) < MIN_SECRET_BYTES:
        yield "auth.jwt_secret", f"must be at least {MIN_SECRET_BYTES} bytes"


def _jwt_algorithms(subject: Subject) -> Iterator[Complaint]:
    algorithms = subject.config.auth.jwt_algorithms
    if not algorithms or any(name not in JWT_ALGORITHMS for name in algorithms):
        yield "auth.jwt_algorithms", f"must be a list of one or more of {', '.join(JWT_ALGORITHMS)}"


def _providers(subject: Subject) -> Iterator[Complaint]:
    providers = subject.config.auth.providers
    names: set[str] = set()
    for index, provider in enumerate(providers):
        place = f"auth.providers[{index}]"
        name = provider.name or provider.type
        if name in names:
            yield f"{place}.name", f"must be unique: there is another provider {name!r}"
        names.add(name)
        yield from _provider(place, provider)
    if not any(provider.enabled for provider in providers) and not subject.config.testing.bypass_auth:
        yield "auth.providers", "must hold an enabled provider: nobody could connect"


def _provider(place: str, provider: AuthProvider) -> Iterator[Complaint]:
    if provider.type == "oauth2" and provider.enabled:
        yield f"{place}.enabled", "oauth2 is not supported by this version yet: must be false"
    if not _TOKEN.match(provider.header):
        yield f"{place}.header", "must be the name of an HTTP header"
    if not _QUERY_NAME.match(provider.query_param):
        yield f"{place}.query_param", "must be a plain name of letters, digits, and . _ ~ -"
    if provider.type != "api_key" and provider.keys:
        yield f"{place}.keys", "only a provider of type api_key has keys"
    if provider.type != "oauth2" and (provider.issuer or provider.audience):
        yield f"{place}.issuer", "only a provider of type oauth2 has issuer and audience"
    hashes: set[str] = set()
    for index, key in enumerate(provider.keys):
        below = f"{place}.keys[{index}]"
        if not _HASH.match(key.key):
            yield f"{below}.key", "must be sha256: and 64 hexadecimal digits; `rtc api-key` makes one"
        if key.key.lower() in hashes:
            yield f"{below}.key", "must be unique: the same key is listed before"
        hashes.add(key.key.lower())
        if any(permission not in PERMISSIONS for permission in key.permissions):
            yield f"{below}.permissions", f"must be a list of {', '.join(PERMISSIONS)}"
        if any(ord(character) < 32 or ord(character) == 127 for character in key.user):
            yield f"{below}.user", "must have no control characters"


def _timeouts(subject: Subject) -> Iterator[Complaint]:
    websocket = subject.config.websocket
    if websocket.heartbeat_interval_secs >= websocket.client_timeout_secs:
        yield (
            "websocket.heartbeat_interval_secs",
            f"must be below websocket.client_timeout_secs ({websocket.client_timeout_secs:g}), "
            "or clients are closed before they are asked for a sign of life",
        )


def _sizes(subject: Subject) -> Iterator[Complaint]:
    websocket = subject.config.websocket
    if websocket.max_frame_size > websocket.max_message_size:
        yield (
            "websocket.max_frame_size",
            f"must be at most websocket.max_message_size ({websocket.max_message_size})",
        )


def _custom_limits(subject: Subject) -> Iterator[Complaint]:
    names = {"connection", "user", "global"}
    limits = subject.config.rate_limiting.custom_limits
    if len(limits) > MAX_CUSTOM_LIMITS:
        yield "rate_limiting.custom_limits", f"must have at most {MAX_CUSTOM_LIMITS} entries, not {len(limits)}"
    for index, limit in enumerate(limits):
        place = f"rate_limiting.custom_limits[{index}]"
        if limit.name in names:
            yield f"{place}.name", "must be unique, and not connection, user or global"
        names.add(limit.name)
        if not any(fnmatch.fnmatchcase(name, limit.pattern) for name in REQUEST_TYPES):
            hint = did_you_mean(limit.pattern, REQUEST_TYPES)
            yield f"{place}.pattern", f"must match one of {', '.join(REQUEST_TYPES)}{hint}"


def _rate_limit_headers(subject: Subject) -> Iterator[Complaint]:
    headers = subject.config.rate_limiting.headers
    for name in ("limit_header", "remaining_header", "reset_header", "retry_after_header"):
        if not _TOKEN.match(getattr(headers, name)):
            yield f"rate_limiting.headers.{name}", "must be the name of an HTTP header"


def _log_level(subject: Subject) -> Iterator[Complaint]:
    try:
        parse_filter(subject.config.logging.level)
    except ValueError as error:
        yield "logging.level", f"must be a level or a filter such as info,realtime_communication::auth=debug: {error}"


def _cors(subject: Subject) -> Iterator[Complaint]:
    cors = subject.config.security.cors
    for index, origin in enumerate(cors.allowed_origins):
        if origin != "*" and not _ORIGIN.match(origin):
            yield (
                f"security.cors.allowed_origins[{index}]",
                "must be scheme://host or scheme://host:port, without a path, or *",
            )
    if cors.allow_credentials and "*" in cors.allowed_origins:
        yield "security.cors.allow_credentials", "must be false when allowed_origins holds *"
    for name, items in (("allowed_methods", cors.allowed_methods), ("allowed_headers", cors.allowed_headers)):
        if any(not _TOKEN.match(item) for item in items):
            yield f"security.cors.{name}", "must be a list of plain HTTP names"


def _health_path(subject: Subject) -> Iterator[Complaint]:
    path = subject.config.monitoring.health_check.path
    if not _PATH.match(path) or any(path == taken or path.startswith(taken + "/") for taken in _RESERVED_PATHS):
        yield (
            "monitoring.health_check.path",
            f"must be an absolute path of plain characters outside {', '.join(_RESERVED_PATHS)}",
        )


def _development(subject: Subject) -> Iterator[Complaint]:
    development = subject.config.development
    for name in ("enable_debug_endpoints", "mock_external_services"):
        if subject.profile == "prod" and getattr(development, name):
            yield f"development.{name}", "must be false in the prod profile; --profile=dev is for development"


def _testing(subject: Subject) -> Iterator[Complaint]:
    testing = subject.config.testing
    for name in ("enable_test_mode", "bypass_auth", "use_in_memory_storage", "deterministic_ids"):
        if not getattr(testing, name):
            continue
        if subject.profile != "test":
            yield f"testing.{name}", "must be false outside the test profile (--profile=test)"
        elif not testing.enable_test_mode:
            yield f"testing.{name}", "must be false while testing.enable_test_mode is false"


RULES: tuple[tuple[tuple[str, ...], Rule], ...] = (
    (("server.host",), _host),
    (("server.port", "testing.enable_test_mode"), _port),
    (("auth.jwt_secret", "testing.bypass_auth"), _jwt_secret),
    (("auth.jwt_algorithms",), _jwt_algorithms),
    (("auth.providers", "testing.bypass_auth"), _providers),
    (("websocket.client_timeout_secs", "websocket.heartbeat_interval_secs"), _timeouts),
    (("websocket.max_frame_size", "websocket.max_message_size"), _sizes),
    (("rate_limiting.custom_limits",), _custom_limits),
    (("rate_limiting.headers",), _rate_limit_headers),
    (("logging.level",), _log_level),
    (("security.cors",), _cors),
    (("monitoring.health_check.path",), _health_path),
    (("development",), _development),
    (("testing",), _testing),
)
