"""Every key: its type, default, range and effect.

This is the one source. The loader, `config show`, the JSON Schema and docs/configuration.md are made from it, and the
rest of the program reads the frozen `Config`. A key stands here, or in the modules this one puts together, only if
something happens when it changes.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from realtime_communication.config.authorization import Authorization
from realtime_communication.config.keys import DAY_SECONDS, MAX_BYTES, Section, Spec
from realtime_communication.config.protection import Security
from realtime_communication.config.services import CircuitBreaker, Redis
from realtime_communication.config.topics import TopicRule
from realtime_communication.config.traffic import ActorSystem, MessageRouting, Performance, RateLimiting
from realtime_communication.config.watching import Logging, Monitoring, Tracing
from realtime_communication.config.webhooks import Webhooks

MAX_WORKERS: Final = 63  # of one server, which has 64 seats: one is kept for a worker that replaces another


class Server(Section, frozen=True, kw_only=True):
    """Where and with how many processes the server listens."""

    host: Annotated[
        str,
        Spec(
            "Address to listen on: IPv4, IPv6, a host name (all its addresses), or `unix:/path` for a Unix socket.",
            minimum=1,
            maximum=255,
            variables=("HOST",),
        ),
    ] = "0.0.0.0"
    port: Annotated[
        int,
        Spec(
            "TCP port for WebSocket and HTTP. 0, only in the test profile, takes a free one and prints it.",
            minimum=0,
            maximum=65_535,
            variables=("PORT",),
        ),
    ] = 8081
    workers: Annotated[
        int,
        Spec(
            "Worker processes; 0 means one per core.",
            minimum=0,
            maximum=MAX_WORKERS,
            variables=("WORKERS",),
        ),
    ] = 0


class ApiKey(Section, frozen=True, kw_only=True):
    """One API key, stored as its SHA-256; `rtc api-key` makes both."""

    key: Annotated[
        str,
        Spec(
            "`sha256:` and the 64 hexadecimal digits of the key's SHA-256.",
            minimum=1,
            maximum=128,
            secret=True,
            live=True,
        ),
    ]
    user: Annotated[str, Spec("User the key stands for.", minimum=1, maximum=128, live=True, aliases=("user_id",))]
    roles: Annotated[tuple[str, ...], Spec("Roles of the key; `admin` may do everything.", live=True)] = ()
    permissions: Annotated[tuple[str, ...], Spec("Any of `read`, `write`, `subscribe`, `admin`.", live=True)] = (
        "read",
        "write",
        "subscribe",
    )


class AuthProvider(Section, frozen=True, kw_only=True):
    """One way to prove who one is; the enabled ones are tried in the order of `priority`."""

    type: Annotated[Literal["jwt", "api_key", "oauth2"], Spec("Kind of credentials.", live=True)]
    name: Annotated[str, Spec("Name in logs.", maximum=128, live=True)] = ""
    enabled: Annotated[bool, Spec("Whether these credentials are accepted.", live=True)] = True
    priority: Annotated[int, Spec("Order of trying, lowest first.", minimum=0, maximum=1000, live=True)] = 100
    header: Annotated[
        str, Spec("`api_key`: request header that carries the key.", minimum=1, maximum=128, live=True)
    ] = "X-API-Key"
    query_param: Annotated[
        str, Spec("`api_key`: query parameter that carries the key.", minimum=1, maximum=128, live=True)
    ] = "api_key"
    keys: Annotated[tuple[ApiKey, ...], Spec("`api_key`: the keys that are accepted.", live=True)] = ()
    issuer: Annotated[
        str,
        Spec(
            "`oauth2`: URL of the OIDC issuer, exactly as in its tokens; its keys are found by discovery.",
            maximum=2048,
            live=True,
        ),
    ] = ""
    audience: Annotated[
        str, Spec("`oauth2`: `aud` of its tokens; empty: auth.jwt_audience.", maximum=255, live=True)
    ] = ""


class CustomClaims(Section, frozen=True, kw_only=True):
    """What issued tokens, and the presence of their users, say beyond the user's name and rights."""

    include_user_metadata: Annotated[
        bool, Spec("`user_metadata`: the object of that name in the request for the token.", live=True)
    ] = False
    include_device_info: Annotated[
        bool, Spec("`device_info`: the user agent of the request, and of the connection in presence.", live=True)
    ] = False
    include_location: Annotated[
        bool, Spec("`location`: the client's address, from a trusted proxy's header where there is one.", live=True)
    ] = False
    custom_fields: Annotated[dict[str, str], Spec("Further claims and their values.", live=True)] = msgspec.field(
        default_factory=dict
    )


class Auth(Section, frozen=True, kw_only=True):
    """Who may connect."""

    jwt_secret: Annotated[
        str,
        Spec(
            "Secret that signs tokens: at least 32 bytes, never a PEM. Required; the dev profile makes one.",
            maximum=4096,
            secret=True,
            live=True,
            variables=("JWT_SECRET",),
        ),
    ] = ""
    jwt_algorithms: Annotated[
        tuple[str, ...],
        Spec(
            "Accepted signature algorithms, any of HS256, HS384 and HS512; the first one signs issued tokens.",
            live=True,
        ),
    ] = ("HS256", "HS384", "HS512")
    jwt_issuer: Annotated[
        str,
        Spec(
            "`iss` of issued tokens, and of accepted ones.",
            minimum=1,
            maximum=255,
            variables=("JWT_ISSUER",),
            live=True,
        ),
    ] = "ai-system-rust"
    jwt_audience: Annotated[
        str,
        Spec(
            "`aud` of issued tokens, and of accepted ones.",
            minimum=1,
            maximum=255,
            variables=("JWT_AUDIENCE",),
            live=True,
        ),
    ] = "realtime-communication"
    access_token_expiry_hours: Annotated[
        float,
        Spec(
            "Life of an issued access token.",
            above=0,
            maximum=87_600,
            unit="hours",
            variables=("JWT_EXPIRY_HOURS",),
            aliases=("auth.jwt_expiry_hours",),
            live=True,
        ),
    ] = 24.0
    refresh_token_expiry_days: Annotated[
        float,
        Spec(
            "Life of an issued refresh token.",
            above=0,
            maximum=3650,
            unit="days",
            variables=("JWT_REFRESH_EXPIRY_DAYS",),
            aliases=("auth.jwt_refresh_expiry_days",),
            live=True,
        ),
    ] = 30.0
    validate_issuer: Annotated[bool, Spec("Refuse a token whose `iss` is not `jwt_issuer`.", live=True)] = True
    validate_audience: Annotated[bool, Spec("Refuse a token whose `aud` is not `jwt_audience`.", live=True)] = True
    validate_exp: Annotated[bool, Spec("Refuse a token that has expired or has no `exp`.", live=True)] = True
    validate_nbf: Annotated[bool, Spec("Refuse a token before its `nbf`.", live=True)] = True
    providers: Annotated[
        tuple[AuthProvider, ...],
        Spec("Accepted kinds of credentials; a list here replaces the default one.", live=True),
    ] = (AuthProvider(type="jwt", name="jwt", priority=1),)
    custom_claims: CustomClaims = msgspec.field(default_factory=CustomClaims)


class Websocket(Section, frozen=True, kw_only=True):
    """Connections and their bounds."""

    max_connections: Annotated[
        int,
        Spec(
            "Most connections at once; the next upgrade is answered 503 with Retry-After.",
            minimum=1,
            maximum=10_000_000,
            variables=("MAX_CONNECTIONS",),
            live=True,
        ),
    ] = 10_000
    max_unauthenticated: Annotated[
        int,
        Spec(
            "Most connections of a worker that have not authenticated yet; the oldest makes room for the next.",
            minimum=1,
            maximum=10_000_000,
            live=True,
        ),
    ] = 10_000
    max_unauthenticated_per_address: Annotated[
        int,
        Spec(
            "Most of them from one address or IPv6 network of 64 bits; not from this machine or trusted proxies.",
            minimum=1,
            maximum=10_000_000,
            live=True,
        ),
    ] = 4000
    heartbeat_interval_secs: Annotated[
        float,
        Spec(
            "A connection silent for this long is sent a ping.",
            minimum=0.05,
            maximum=3600,
            unit="seconds",
            variables=("HEARTBEAT_INTERVAL_SECS",),
            live=True,
        ),
    ] = 30.0
    client_timeout_secs: Annotated[
        float,
        Spec(
            "A connection from which nothing came for this long is closed with 4408.",
            minimum=0.1,
            maximum=DAY_SECONDS,
            unit="seconds",
            variables=("CLIENT_TIMEOUT_SECS",),
            live=True,
        ),
    ] = 60.0
    auth_timeout_secs: Annotated[
        float,
        Spec(
            "A connection without credentials must authenticate within this time, or is closed with 4408.",
            minimum=0.05,
            maximum=3600,
            unit="seconds",
            live=True,
        ),
    ] = 10.0
    max_frame_size: Annotated[
        int,
        Spec(
            "Largest frame from a client, else 1009. Left out, it shrinks to max_message_size.",
            minimum=125,
            maximum=MAX_BYTES,
            unit="bytes",
            variables=("MAX_FRAME_SIZE",),
            live=True,
        ),
    ] = 65_536
    max_message_size: Annotated[
        int,
        Spec(
            "Largest message from a client, reassembled and decompressed, else 1009.",
            minimum=125,
            maximum=MAX_BYTES,
            unit="bytes",
            variables=("MAX_MESSAGE_SIZE",),
            live=True,
        ),
    ] = 1_048_576


class Development(Section, frozen=True, kw_only=True):
    """Help for developers; refused in the prod profile."""

    enable_debug_endpoints: Annotated[
        bool, Spec("Serve `/debug/*`, the echo endpoint among them, and the demo page.")
    ] = False
    enable_profiling: Annotated[
        bool, Spec("Serve `/debug/profile`, which samples the server and draws a flame graph.")
    ] = False
    mock_external_services: Annotated[
        bool, Spec("Stand-ins inside the process take the place of Redis and of the OIDC issuer.")
    ] = False


class Testing(Section, frozen=True, kw_only=True):
    """For tests only; refused outside the test profile."""

    enable_test_mode: Annotated[
        bool, Spec("Master switch: port 0 and the other keys of this section need it. On in the test profile.")
    ] = False
    bypass_auth: Annotated[bool, Spec("A connection is the user named in `?user_id=`, without credentials.")] = False
    use_in_memory_storage: Annotated[bool, Spec("Never look for Redis: everything stays in this process.")] = False
    deterministic_ids: Annotated[bool, Spec("Session ids and epochs count up from 1.")] = False


class Production(Section, frozen=True, kw_only=True):
    """How the server stops."""

    enable_graceful_shutdown: Annotated[
        bool, Spec("On SIGTERM tell every client, drain the mailboxes, then close. false: close at once.")
    ] = True
    shutdown_timeout_secs: Annotated[
        float,
        Spec(
            "Longest time from the end of draining to the end of the process.",
            minimum=0,
            maximum=3600,
            unit="seconds",
            live=True,
        ),
    ] = 30.0
    drain_timeout_secs: Annotated[
        float,
        Spec("Longest time to drain mailboxes after SIGTERM.", minimum=0, maximum=3600, unit="seconds", live=True),
    ] = 60.0


class Config(Section, frozen=True, kw_only=True):
    """The whole configuration, checked. Frozen: a reload makes a new one."""

    server: Server = msgspec.field(default_factory=Server)
    auth: Auth = msgspec.field(default_factory=Auth)
    websocket: Websocket = msgspec.field(default_factory=Websocket)
    redis: Redis = msgspec.field(default_factory=Redis)
    rate_limiting: RateLimiting = msgspec.field(default_factory=RateLimiting)
    circuit_breaker: CircuitBreaker = msgspec.field(default_factory=CircuitBreaker)
    message_routing: MessageRouting = msgspec.field(default_factory=MessageRouting)
    topics: Annotated[tuple[TopicRule, ...], Spec("What is allowed and kept on single topics.", live=True)] = ()
    authorization: Authorization = msgspec.field(default_factory=Authorization)
    webhooks: Webhooks = msgspec.field(default_factory=Webhooks)
    actor_system: ActorSystem = msgspec.field(default_factory=ActorSystem)
    performance: Performance = msgspec.field(default_factory=Performance)
    logging: Logging = msgspec.field(default_factory=Logging)
    security: Security = msgspec.field(default_factory=Security)
    monitoring: Monitoring = msgspec.field(default_factory=Monitoring)
    tracing: Tracing = msgspec.field(default_factory=Tracing)
    development: Development = msgspec.field(default_factory=Development)
    testing: Testing = msgspec.field(default_factory=Testing)
    production: Production = msgspec.field(default_factory=Production)
