"""Keys of the schema that protect the server's port: CORS, TLS, headers. See `schema.py`."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from realtime_communication.config.keys import DAY_SECONDS, Section, Spec


class Cors(Section, frozen=True, kw_only=True):
    """Which web pages may talk to the server."""

    enabled: Annotated[bool, Spec("Check `Origin` of WebSocket upgrades and answer CORS preflights.", live=True)] = (
        False
    )
    allowed_origins: Annotated[
        tuple[str, ...],
        Spec("Origins, as `scheme://host[:port]`, or `*`; an upgrade from any other is answered 403.", live=True),
    ] = ()
    allowed_methods: Annotated[tuple[str, ...], Spec("Methods a preflight grants.", live=True)] = (
        "GET",
        "POST",
        "OPTIONS",
    )
    allowed_headers: Annotated[tuple[str, ...], Spec("Request headers a preflight grants.", live=True)] = (
        "Authorization",
        "Content-Type",
    )
    allow_credentials: Annotated[bool, Spec("Whether cookies and credentials may be sent.", live=True)] = False
    max_age_secs: Annotated[
        int,
        Spec(
            "How long a browser may keep a preflight's answer.",
            minimum=0,
            maximum=DAY_SECONDS,
            unit="seconds",
            live=True,
        ),
    ] = 86_400


class Tls(Section, frozen=True, kw_only=True):
    """HTTPS and WSS on the main port. The files are read again on SIGHUP."""

    enabled: Annotated[bool, Spec("Speak TLS on the main port.", aliases=("tls.enabled",))] = False
    cert_file: Annotated[
        str, Spec("PEM file of the certificate and its chain.", maximum=4096, aliases=("tls.cert_file",), live=True)
    ] = ""
    key_file: Annotated[
        str,
        Spec("PEM file of its private key, without a passphrase.", maximum=4096, aliases=("tls.key_file",), live=True),
    ] = ""
    ca_file: Annotated[
        str,
        Spec(
            "PEM file of the authorities that sign client certificates.",
            maximum=4096,
            aliases=("tls.ca_file",),
            live=True,
        ),
    ] = ""
    min_version: Annotated[
        Literal["1.2", "1.3"], Spec("Oldest version spoken.", aliases=("tls.min_version",), live=True)
    ] = "1.2"
    ciphers: Annotated[
        tuple[str, ...],
        Spec(
            "Cipher suites of TLS 1.2, by IANA or OpenSSL name, best first; empty: a modern list.",
            aliases=("tls.ciphers",),
            live=True,
        ),
    ] = ()
    verify_client: Annotated[
        bool, Spec("true: the same as client_auth `required`.", aliases=("tls.verify_client",), live=True)
    ] = False
    client_auth: Annotated[
        Literal["none", "optional", "required"],
        Spec(
            "Client certificates: not asked for, verified when given, or refused without.",
            aliases=("tls.client_auth",),
            live=True,
        ),
    ] = "none"


class Security(Section, frozen=True, kw_only=True):
    """Protection of the main port."""

    cors: Cors = msgspec.field(default_factory=Cors)
    tls: Tls = msgspec.field(default_factory=Tls)
    enforce_tls: Annotated[
        bool,
        Spec(
            "Answer 426 to whatever comes neither over TLS nor from a trusted proxy that took it over https.", live=True
        ),
    ] = False
    strict_transport_security: Annotated[
        bool, Spec("Send `Strict-Transport-Security` with answers over https.", live=True)
    ] = False
    content_security_policy: Annotated[
        str,
        Spec(
            "`Content-Security-Policy` of every answer that has none of its own; empty for none.",
            maximum=4096,
            live=True,
        ),
    ] = ""
    trusted_proxies: Annotated[
        tuple[str, ...],
        Spec(
            "Addresses or networks whose `X-Forwarded-*` headers are believed; `unix` for peers on a Unix socket.",
            live=True,
        ),
    ] = ()
