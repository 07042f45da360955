"""The certificate of the main port: how long it lasts, what it is for, who signed it, and who can read its key."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import os
import ssl
import stat
import warnings
from collections.abc import Iterator, Sequence
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.x509.oid import ExtensionOID

from realtime_communication.cli.doctor.finding import Finding, fail, ok, warn
from realtime_communication.config.protection import Tls

DAYS_LEFT: Final = 30
_SUBJECT: Final = "certificate"


def findings(tls: Tls, name: str | None, now: datetime.datetime) -> Iterator[Finding]:
    """All of them; `name` is the host that clients connect to, where it is known."""
    if not tls.enabled:
        yield ok(_SUBJECT, "TLS is off: a proxy in front may speak it (security.tls.enabled)")
        return
    try:
        with open(tls.cert_file, "rb") as file:
            chain = x509.load_pem_x509_certificates(file.read())
    except (OSError, ValueError) as error:
        yield fail(_SUBJECT, f"{tls.cert_file} cannot be read: {error}", "security.tls.cert_file = a PEM file")
        return
    yield _expiry(tls, chain[0], now)
    yield _names(tls, chain[0], name)
    yield _chain(tls, chain)
    yield _permissions(tls)


def _expiry(tls: Tls, first: x509.Certificate, now: datetime.datetime) -> Finding:
    ends = first.not_valid_after_utc
    days = (ends - now).days
    mend = f"renew {tls.cert_file}, then `kill -HUP` the server: it reads it again"
    if ends <= now:
        return fail(_SUBJECT, f"expired on {ends:%Y-%m-%d}", mend)
    if first.not_valid_before_utc > now:
        return fail(_SUBJECT, f"is valid from {first.not_valid_before_utc:%Y-%m-%d} on", "check the machine's clock")
    if days < DAYS_LEFT:
        return warn(_SUBJECT, f"expires in {days} days, on {ends:%Y-%m-%d}", mend)
    return ok(_SUBJECT, f"is valid for {days} more days")


def _names(tls: Tls, first: x509.Certificate, wanted: str | None) -> Finding:
    subject = "certificate name"
    try:
        found = first.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value
    except x509.ExtensionNotFound:
        return fail(subject, "there is no subjectAltName: no client accepts it", f"make {tls.cert_file} anew with one")
    assert isinstance(found, x509.SubjectAlternativeName)
    hosts = found.get_values_for_type(x509.DNSName)
    names = [*hosts, *map(str, found.get_values_for_type(x509.IPAddress))]
    if wanted is None:
        return ok(subject, f"is for {', '.join(names)}")
    if wanted in names or any(_covers(host, wanted) for host in hosts):
        return ok(subject, f"is for {wanted}")
    return fail(
        subject, f"is for {', '.join(names)}, not for {wanted}", f"make {tls.cert_file} anew with the name {wanted}"
    )


def _covers(pattern: str, name: str) -> bool:
    """RFC 6125 section 6.4.3: `*` stands for one label."""
    return pattern.startswith("*.") and name.partition(".")[2].lower() == pattern[2:].lower()


def _chain(tls: Tls, chain: Sequence[x509.Certificate]) -> Finding:
    subject = "certificate chain"
    for below, above in itertools.pairwise(chain):
        try:
            below.verify_directly_issued_by(above)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            return fail(
                subject,
                f"{above.subject.rfc4514_string()} has not signed {below.subject.rfc4514_string()}",
                f"put the certificates of {tls.cert_file} in order: the server's, then who signed it, and so on",
            )
    last = chain[-1]
    if last.issuer == last.subject or last.issuer.public_bytes() in _known_authorities():
        return ok(subject, f"{len(chain)} certificates, up to {last.issuer.rfc4514_string()}")
    return warn(
        subject,
        f"ends with {last.issuer.rfc4514_string()}, which this machine does not know: clients have to trust it, or an"
        " intermediate certificate is missing",
        f"append the intermediate certificates to {tls.cert_file}; private authorities: `--ca-file` on the clients",
    )


def _known_authorities() -> set[bytes]:
    """Names of the authorities that this machine trusts."""
    known = ssl.create_default_context().get_ca_certs(binary_form=True)
    names: set[bytes] = set()
    for data in known:
        with contextlib.suppress(ValueError), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some of old break a rule, and are complained about
            names.add(x509.load_der_x509_certificate(data).subject.public_bytes())
    return names


def _permissions(tls: Tls) -> Finding:
    subject = "private key"
    try:
        mode = stat.S_IMODE(os.stat(tls.key_file).st_mode)
    except OSError as error:
        return fail(subject, f"{tls.key_file} cannot be read: {error.strerror}", "security.tls.key_file = a PEM file")
    if mode & 0o027:
        return fail(
            subject,
            f"{tls.key_file} has mode {mode:04o}: others than its owner and readers in its group get at it",
            f"chmod 600 {tls.key_file}",
        )
    return ok(subject, f"{tls.key_file} has mode {mode:04o}")
