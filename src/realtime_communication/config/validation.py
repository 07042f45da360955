"""Rules that one key's type and range cannot say.

Each rule names the keys or sections it reads, and is left out when any of them was already wrong. It yields complaints:
the key at fault and what is allowed. `RULES` is the whole list.
"""

from __future__ import annotations

import fnmatch
import ipaddress
import itertools
import re
from collections.abc import Callable, Collection, Iterator
from urllib.parse import SplitResult, urlsplit

import msgspec

from realtime_communication.config.authorization import authorization_problems
from realtime_communication.config.log_filter import parse_filter
from realtime_communication.config.metric_names import CUSTOM_METRICS, CustomMetricSpec
from realtime_communication.config.schema import AuthProvider, Config
from realtime_communication.config.services import BREAKER_NAMES
from realtime_communication.config.topics import topic_problems
from realtime_communication.config.values import did_you_mean
from realtime_communication.config.watching import CustomMetric
from realtime_communication.config.webhooks import event_problems

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

MAX_CUSTOM_FIELDS = 32
RESERVED_CLAIMS = frozenset(
    {
        *("iss", "sub", "aud", "exp", "nbf", "iat", "jti", "user_id", "session_id", "roles", "permissions", "topics"),
        *("refresh_threshold", "user_metadata", "device_info", "location"),
    }
)

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
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}\Z")
_METRIC_PART = re.compile(r"(?:[A-Za-z_][A-Za-z0-9_]*)?\Z")
_CALLABLE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*\Z")
MAX_BUCKETS = 64
_RESERVED_PATHS = ("/ws", "/api", "/auth", "/admin", "/debug", "/sse", "/openapi.json")


class Subject(msgspec.Struct, frozen=True):
    """What the rules look at. `secret_made` says that the signing secret was made for this run."""

    config: Config
    profile: str
    secret_made: bool = False


def check(subject: Subject, wrong: Collection[str] = (), changed: Collection[str] | None = None) -> Iterator[Complaint]:
    """Complaints of all rules that read none of the `wrong` keys; with `changed`, of those that read one of these."""
    for paths, rule in RULES:
        if not _reads(paths, wrong) and (changed is None or _reads(paths, changed)):
            yield from rule(subject)


def _reads(paths: tuple[str, ...], keys: Collection[str]) -> bool:
    return any(path == key or key.startswith(path + ".") for path in paths for key in keys)


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
        yield from _issuer(f"{place}.issuer", provider.issuer)
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


def _issuer(place: str, issuer: str) -> Iterator[Complaint]:
    """OpenID Connect Discovery 1.0 section 2: an https URL without query and fragment; http only on this machine."""
    url = _url(issuer)
    if url is None or url.scheme not in ("https", "http") or url.query or url.fragment or url.username is not None:
        yield place, "must be an https URL without user, query and fragment"
    elif url.scheme == "http" and not _is_loopback(url.hostname or ""):
        yield place, "must be an https URL; http only for an issuer on this machine"


def _url(text: str) -> SplitResult | None:
    """A URL with a host and a port in range, None for anything else."""
    try:
        url = urlsplit(text)
        good = bool(url.hostname) and (url.port is None or url.port > 0) and text.isprintable() and " " not in text
    except ValueError:
        return None
    return url if good else None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _called_url(place: str, text: str) -> Iterator[Complaint]:
    """The URL of a receiver of ours, which may be empty."""
    url = _url(text)
    if text and (url is None or url.scheme not in ("http", "https")):
        yield place, "must be an http or https URL"
    elif url is not None and _is_link_local(url.hostname or ""):
        yield place, "must not be a link-local address: clouds serve credentials there"


def _is_link_local(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_link_local


def _custom_claims(subject: Subject) -> Iterator[Complaint]:
    fields = subject.config.auth.custom_claims.custom_fields
    taken = sorted(fields.keys() & RESERVED_CLAIMS)
    if taken:
        yield "auth.custom_claims.custom_fields", f"must not name claims the server gives itself: {', '.join(taken)}"
    if len(fields) > MAX_CUSTOM_FIELDS or sum(len(name) + len(value) for name, value in fields.items()) > 4096:
        yield "auth.custom_claims.custom_fields", f"must have at most {MAX_CUSTOM_FIELDS} fields and 4096 characters"


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


def _redis(subject: Subject) -> Iterator[Complaint]:
    redis = subject.config.redis
    yield from _redis_url("redis.url", redis.url)
    cluster, sentinel = redis.cluster, redis.sentinel
    if cluster.enabled and sentinel.enabled:
        yield "redis.sentinel.enabled", "must be false while redis.cluster.enabled is true"
    if cluster.enabled and not cluster.nodes:
        yield "redis.cluster.nodes", "is missing: a cluster needs the URL of a node at least"
    for index, node in enumerate(cluster.nodes):
        yield from _redis_url(f"redis.cluster.nodes[{index}]", node)
    if cluster.enabled and urlsplit(redis.url).path.strip("/") not in ("", "0"):
        yield "redis.url", "must name no database: a cluster has only number 0"
    if sentinel.enabled and not sentinel.sentinels:
        yield "redis.sentinel.sentinels", "is missing: must be a list of host:port"
    for index, address in enumerate(sentinel.sentinels):
        if not _ADDRESS.match(address) or not 1 <= int(address.rpartition(":")[2]) <= 65_535:
            yield f"redis.sentinel.sentinels[{index}]", "must be host:port"
    if not redis.key_prefix.isprintable() or "{" in redis.key_prefix or "}" in redis.key_prefix:
        yield "redis.key_prefix", "must have no braces and no control characters"
    pool = redis.pool
    if pool.max_size < redis.pool_size:
        yield "redis.pool.max_size", f"must be at least redis.pool_size ({redis.pool_size})"
    if pool.min_idle > redis.pool_size:
        yield "redis.pool.min_idle", f"must be at most redis.pool_size ({redis.pool_size})"


def _redis_url(place: str, text: str) -> Iterator[Complaint]:
    try:
        url = urlsplit(text)
        database = url.path.strip("/")
        good = url.scheme == "unix" or (
            url.scheme in ("redis", "rediss")
            and url.hostname is not None
            and (url.port is None or url.port > 0)
            and (not database or (database.isascii() and database.isdigit()))
        )
    except ValueError:
        good = False
    if not good:
        yield place, "must be redis://, rediss:// or unix:// and an address, such as redis://:password@host:6379/0"


def _breakers(subject: Subject) -> Iterator[Complaint]:
    breaker = subject.config.circuit_breaker
    seen: set[str] = set()
    for index, service in enumerate(breaker.services):
        place = f"circuit_breaker.services[{index}].name"
        if service.name not in BREAKER_NAMES:
            yield place, f"must be one of {', '.join(BREAKER_NAMES)}{did_you_mean(service.name, BREAKER_NAMES)}"
        if service.name in seen:
            yield place, "must be unique: the service is listed before"
        seen.add(service.name)
    yield from _called_url("circuit_breaker.events.webhook_url", breaker.events.webhook_url)


def _tls(subject: Subject) -> Iterator[Complaint]:
    tls = subject.config.security.tls
    if tls.enabled:
        from realtime_communication.config import certificates  # pulls in cryptography: only where it is needed

        for name, message in certificates.problems(tls):
            yield f"security.tls.{name}", message


def _trusted_proxies(subject: Subject) -> Iterator[Complaint]:
    for index, text in enumerate(subject.config.security.trusted_proxies):
        try:
            if text != "unix":
                ipaddress.ip_network(text)
        except ValueError:
            yield (
                f"security.trusted_proxies[{index}]",
                "must be an address, a network such as 10.0.0.0/8, or unix",
            )


def _policy(subject: Subject) -> Iterator[Complaint]:
    policy = subject.config.security.content_security_policy
    if not policy.isascii() or not policy.isprintable():
        yield "security.content_security_policy", "must be printable ASCII on one line"


def _prometheus(subject: Subject) -> Iterator[Complaint]:
    prometheus, server = subject.config.monitoring.prometheus, subject.config.server
    if not prometheus.enabled:
        return
    if prometheus.port == 0 and subject.profile != "test":
        yield "monitoring.prometheus.port", "must be an integer from 1 to 65535; 0 only in the test profile"
    if prometheus.port == server.port and prometheus.port and not server.host.startswith("unix:"):
        yield "monitoring.prometheus.port", "must be another port than server.port"
    if not _PATH.match(prometheus.path):
        yield "monitoring.prometheus.path", "must be an absolute path of plain characters"
    for name in ("namespace", "subsystem"):
        if not _METRIC_PART.match(getattr(prometheus, name)):
            yield f"monitoring.prometheus.{name}", "must have only letters, digits and _, and not begin with a digit"
    buckets = prometheus.buckets
    rising = all(low < high for low, high in itertools.pairwise(buckets))
    if not buckets or not rising or buckets[0] <= 0 or len(buckets) > MAX_BUCKETS:
        yield "monitoring.prometheus.buckets", f"must be 1 to {MAX_BUCKETS} numbers above 0, rising"


def _custom_metrics(subject: Subject) -> Iterator[Complaint]:
    seen: set[str] = set()
    for index, metric in enumerate(subject.config.monitoring.custom_metrics):
        place = f"monitoring.custom_metrics[{index}]"
        spec = CUSTOM_METRICS.get(metric.name)
        if spec is None:
            hint = did_you_mean(metric.name, CUSTOM_METRICS)
            yield f"{place}.name", f"must be one of {', '.join(CUSTOM_METRICS)}{hint}"
            continue
        if metric.name in seen:
            yield f"{place}.name", "must be unique: the metric is listed before"
        seen.add(metric.name)
        yield from _custom_metric(place, metric, spec)


def _custom_metric(place: str, metric: CustomMetric, spec: CustomMetricSpec) -> Iterator[Complaint]:
    if metric.type != spec.type:
        yield f"{place}.type", f"must be {spec.type}: that is what {spec.name} is"
    if not set(metric.labels) <= set(spec.labels) or len(set(metric.labels)) < len(metric.labels):
        offered = f"a list of {', '.join(spec.labels)}, each once" if spec.labels else "empty"
        yield f"{place}.labels", f"must be {offered}: {spec.name} offers no others"
    if not metric.help.isprintable():
        yield f"{place}.help", "must be one line without control characters"


def _tracing(subject: Subject) -> Iterator[Complaint]:
    url = _url(subject.config.tracing.endpoint)
    if url is None or url.scheme not in ("http", "https"):
        yield "tracing.endpoint", "must be an http or https URL, such as http://localhost:4317"


def _transforms(subject: Subject) -> Iterator[Complaint]:
    for index, transform in enumerate(subject.config.message_routing.transforms):
        place = f"message_routing.transforms[{index}]"
        if "*" in transform.topic[:-1]:
            yield f"{place}.topic", "must be a topic, or a prefix and * at its end"
        if not _CALLABLE.match(transform.callable):
            yield f"{place}.callable", "must be package.module:function"


def _topics(subject: Subject) -> Iterator[Complaint]:
    yield from topic_problems(subject.config.topics, subject.config.message_routing)


def _authorization(subject: Subject) -> Iterator[Complaint]:
    authorization = subject.config.authorization
    yield from _called_url("authorization.url", authorization.url)
    if authorization.callable and not _CALLABLE.match(authorization.callable):
        yield "authorization.callable", "must be package.module:function"
    yield from authorization_problems(authorization)


def _webhooks(subject: Subject) -> Iterator[Complaint]:
    webhooks = subject.config.webhooks
    yield from _called_url("webhooks.url", webhooks.url)
    yield from event_problems(webhooks)


def _development(subject: Subject) -> Iterator[Complaint]:
    development = subject.config.development
    for name in ("enable_debug_endpoints", "enable_profiling", "mock_external_services"):
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
    (("auth.custom_claims",), _custom_claims),
    (("websocket.client_timeout_secs", "websocket.heartbeat_interval_secs"), _timeouts),
    (("websocket.max_frame_size", "websocket.max_message_size"), _sizes),
    (("rate_limiting.custom_limits",), _custom_limits),
    (("rate_limiting.headers",), _rate_limit_headers),
    (("logging.level",), _log_level),
    (("security.cors",), _cors),
    (("monitoring.health_check.path",), _health_path),
    (("redis",), _redis),
    (("circuit_breaker",), _breakers),
    (("security.tls",), _tls),
    (("security.trusted_proxies",), _trusted_proxies),
    (("security.content_security_policy",), _policy),
    (("monitoring.prometheus", "server.port", "server.host"), _prometheus),
    (("monitoring.custom_metrics",), _custom_metrics),
    (("tracing.endpoint",), _tracing),
    (("message_routing.transforms",), _transforms),
    (("topics", "message_routing.max_cache_entries", "message_routing.cache_ttl_secs"), _topics),
    (("authorization",), _authorization),
    (("webhooks",), _webhooks),
    (("development",), _development),
    (("testing",), _testing),
)


def advice(subject: Subject) -> Iterator[str]:
    """Warnings about settings that are allowed, and still seldom what somebody means."""
    config = subject.config
    for name in ("validate_issuer", "validate_audience", "validate_exp", "validate_nbf"):
        if not getattr(config.auth, name):
            yield f"auth.{name} is false: tokens are accepted that should not be"
    security = config.security
    if security.enforce_tls and not security.tls.enabled and not security.trusted_proxies:
        yield "security.enforce_tls without security.tls or security.trusted_proxies: every request is answered 426"
    if security.strict_transport_security and not security.tls.enabled and not security.trusted_proxies:
        yield "security.strict_transport_security has no effect: nothing comes over https (security.tls is off)"
