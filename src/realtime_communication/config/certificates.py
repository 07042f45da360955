"""Certificate files: whether they can be used, told in words, and the TLS context they make.

The check and the context are in one place, so that what a check accepts is what the server starts with.
"""

from __future__ import annotations

import datetime
import ssl
from collections.abc import Generator, Iterator
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from realtime_communication.config.protection import Tls

MAX_FILE_BYTES = 1 << 20
"""A larger file is no certificate."""

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_MODES = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}

DEFAULT_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Suites of TLS 1.2 with forward secrecy and authenticated encryption (RFC 9325 section 4.2)."""

_OPENSSL_NAMES = {
    f"TLS_{exchange}_WITH_{cipher}": f"{exchange.replace('_', '-')}-{name}"
    for exchange in ("ECDHE_RSA", "ECDHE_ECDSA", "DHE_RSA")
    for cipher, name in (
        ("AES_128_GCM_SHA256", "AES128-GCM-SHA256"),
        ("AES_256_GCM_SHA384", "AES256-GCM-SHA384"),
        ("CHACHA20_POLY1305_SHA256", "CHACHA20-POLY1305"),
        ("AES_128_CBC_SHA256", "AES128-SHA256"),
        ("AES_256_CBC_SHA384", "AES256-SHA384"),
    )
}
_TLS_1_3_SUITES = frozenset({"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"})


def client_mode(tls: Tls) -> str:
    """`none`, `optional` or `required`, with `verify_client` taken into account."""
    return "required" if tls.verify_client else tls.client_auth


def problems(tls: Tls, now: datetime.datetime | None = None) -> Iterator[tuple[str, str]]:
    """What is wrong with the settings and their files: (name of the key below the section, what is allowed)."""
    found = list(_problems(tls, now or datetime.datetime.now(datetime.UTC)))
    yield from found
    if not found:
        try:
            make_context(tls)
        except (OSError, ValueError) as error:
            # OpenSSL has rules of its own, such as the least size of a key.
            reason = getattr(error, "reason", None) or str(error)
            yield "cert_file", f"cannot be used: {reason.replace('_', ' ').lower()}"


def _problems(tls: Tls, now: datetime.datetime) -> Iterator[tuple[str, str]]:
    if tls.verify_client and tls.client_auth == "optional":
        yield "verify_client", 'contradicts client_auth = "optional": true means "required"'
    certificate = yield from _certificate(tls, now)
    key = yield from _key(tls)
    if certificate is not None and key is not None and certificate.public_key() != key:
        yield "key_file", f"does not match the certificate in {tls.cert_file}: it is the key of another one"
    if client_mode(tls) != "none":
        yield from _authorities(tls)
    yield from _ciphers(tls)


def expires_at(tls: Tls) -> float:
    """When the first certificate of the chain expires, in seconds since the epoch. Raises ValueError."""
    return _certificates(_read(tls.cert_file))[0].not_valid_after_utc.timestamp()


def make_context(tls: Tls) -> ssl.SSLContext:
    """The server's TLS context. Raises ValueError or OSError for settings in which `problems` finds something."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[tls.min_version]
    context.set_ciphers(_openssl_list(tls.ciphers))
    context.load_cert_chain(tls.cert_file, tls.key_file)
    mode = client_mode(tls)
    if mode != "none":
        context.load_verify_locations(tls.ca_file)
    context.verify_mode = _MODES[mode]
    # Renegotiation lets a peer make the server work for nothing (CVE-2011-1473); TLS 1.3 has none.
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    return context


def _read(path: str) -> bytes:
    """Raises ValueError that says why the file cannot be used."""
    if not path:
        raise ValueError("is missing: TLS needs this PEM file")
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror or error}") from None
    except ValueError:
        raise ValueError("cannot be read: no such name can exist") from None
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"is larger than {MAX_FILE_BYTES >> 20} MiB")
    return data


def _certificate(tls: Tls, now: datetime.datetime) -> Generator[tuple[str, str], None, x509.Certificate | None]:
    try:
        chain = _certificates(_read(tls.cert_file))
    except ValueError as error:
        yield "cert_file", str(error)
        return None
    first = chain[0]
    if first.not_valid_after_utc <= now:
        yield "cert_file", f"holds a certificate that expired on {first.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    if first.not_valid_before_utc > now:
        yield (
            "cert_file",
            f"holds a certificate that is valid from {first.not_valid_before_utc:%Y-%m-%d %H:%M} UTC only",
        )
    return first


def _certificates(data: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError:
        raise ValueError("must hold a certificate in PEM form") from None


def _key(tls: Tls) -> Generator[tuple[str, str], None, object]:
    try:
        data = _read(tls.key_file)
    except ValueError as error:
        yield "key_file", str(error)
        return None
    try:
        return serialization.load_pem_private_key(data, password=None).public_key()
    except TypeError:
        yield "key_file", "must not be protected by a passphrase"
    except (ValueError, UnsupportedAlgorithm):
        yield "key_file", "must hold a private key in PEM form"
    return None


def _authorities(tls: Tls) -> Iterator[tuple[str, str]]:
    try:
        _certificates(_read(tls.ca_file))
    except ValueError as error:
        reason = str(error)
        yield "ca_file", reason if tls.ca_file else f'is missing: client_auth = "{client_mode(tls)}" needs it'


def _ciphers(tls: Tls) -> Iterator[tuple[str, str]]:
    for index, name in enumerate(tls.ciphers):
        if name in _TLS_1_3_SUITES:
            continue  # always on: OpenSSL's list for TLS 1.2 does not govern them
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).set_ciphers(_OPENSSL_NAMES.get(name, name))
        except (ssl.SSLError, ValueError):
            yield f"ciphers[{index}]", "must be a cipher suite this OpenSSL has, by its IANA or OpenSSL name"


def _openssl_list(ciphers: tuple[str, ...]) -> str:
    names = [_OPENSSL_NAMES.get(name, name) for name in ciphers if name not in _TLS_1_3_SUITES]
    return ":".join(names) or DEFAULT_CIPHERS
