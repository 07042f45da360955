"""Certificates for tests: an authority of their own, and what it signs for servers and clients."""

import datetime
import functools
import ipaddress
import ssl
import tempfile
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = datetime.timedelta(days=1)


class Pair(NamedTuple):
    """Files of a certificate and its key."""

    cert_file: Path
    key_file: Path


class Authority:
    """Signs certificates; their files lie in `folder`."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self.folder = folder
        self.name = name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.ca_file = folder / f"{name}.pem"
        usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        subject = _named(name)
        certificate = (
            _builder(subject, subject, self._key.public_key(), -DAY, DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.ca_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self,
        name: str = "server",
        *,
        starts: datetime.timedelta = -DAY,
        ends: datetime.timedelta = DAY,
        passphrase: bytes | None = None,
        rsa_bits: int = 0,
    ) -> Pair:
        """A certificate for `name`, good for servers on this machine and for clients, from and to so long from now."""
        key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey = (
            rsa.generate_private_key(65537, rsa_bits) if rsa_bits else ec.generate_private_key(ec.SECP256R1())
        )
        here = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        certificate = (
            _builder(_named(name), _named(self.name), key.public_key(), starts, ends)
            .add_extension(x509.SubjectAlternativeName(here), critical=False)
            .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        pair = Pair(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        pair.cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        pair.key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption(),
            )
        )
        return pair

    def client_context(self, pair: Pair | None = None) -> ssl.SSLContext:
        """Trusts this authority; shows the certificate of `pair` to servers that ask."""
        context = ssl.create_default_context(cafile=str(self.ca_file))
        if pair is not None:
            context.load_cert_chain(pair.cert_file, pair.key_file)
        return context

    def server_context(self, pair: Pair | None = None) -> ssl.SSLContext:
        """For a server that asks for no certificates."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*(pair or self.issue()))
        return context


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
    starts: datetime.timedelta,
    ends: datetime.timedelta,
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + starts)
        .not_valid_after(now + ends)
    )


class _Shared(NamedTuple):
    folder: tempfile.TemporaryDirectory[str]  # removed when the process ends
    authority: Authority
    server: Pair


@functools.cache
def _shared() -> _Shared:
    folder = tempfile.TemporaryDirectory(prefix="rtc-certificates-")
    authority = Authority(Path(folder.name))
    return _Shared(folder, authority, authority.issue())


def shared_authority() -> Authority:
    """One authority for all tests of the process that need no special one."""
    return _shared().authority


def shared_server() -> Pair:
    """Its certificate for servers on this machine."""
    return _shared().server


@functools.cache
def trusted(url: str) -> ssl.SSLContext | None:
    """What a client needs to connect to `url`: a context that trusts `shared_authority`, None without TLS.

    It is for clients that read in one thread and write in another, as `websockets.sync` does. CPython before 3.13 has
    no lock around that: a request written while the ticket of TLS 1.3 is read may never leave. TLS 1.2 sends none then.
    """
    if not url.startswith(("wss:", "https:")):
        return None
    context = shared_authority().client_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context
