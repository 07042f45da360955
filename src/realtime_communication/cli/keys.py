"""`keys`: make what signs tokens, a secret or a key pair, and API keys."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
from pathlib import Path
from typing import Any, Final

import click

from realtime_communication.cli.credentials import api_key

KEY_MODE: Final = 0o600
RSA_BITS: Final = 3072  # NIST SP 800-57 part 1, table 2: 128 bits of security
_SECRET_BYTES: Final = {"HS256": 32, "HS384": 48, "HS512": 64}  # RFC 7518 section 3.2: as long as the hash
_CURVES: Final = {"ES256": "SECP256R1", "ES384": "SECP384R1"}
_PAIRS: Final = ("RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA")
_THUMBPRINT: Final = {"EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x"), "RSA": ("e", "kty", "n")}
_OUT = click.Path(dir_okay=False, path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def keys() -> None:
    """Make a signing secret, a key pair or an API key.

    \b
    export JWT_SECRET="$(rtc keys secret)"
    rtc keys pair --algorithm=ES256 --out=issuer.pem > jwks.json
    rtc keys api-key --user=backend
    """


@keys.command()
@click.option("--algorithm", type=click.Choice(list(_SECRET_BYTES)), default="HS256", show_default=True)
@click.option(
    "--out", type=_OUT, help="Write it to this new file, which only its owner may read, and not to the output."
)
def secret(algorithm: str, out: Path | None) -> None:
    """Make a secret that signs tokens: auth.jwt_secret, or the variable JWT_SECRET.

    \b
    rtc keys secret --out=/etc/rtc/jwt.secret
    JWT_SECRET="$(cat /etc/rtc/jwt.secret)" rtc serve
    """
    made = secrets.token_urlsafe(_SECRET_BYTES[algorithm])
    if out is None:
        click.echo(made)
    else:
        write_private(out, made.encode() + b"\n")
        click.echo(f'JWT_SECRET="$(cat {out})"  # for the server, and wherever tokens are made', err=True)


@keys.command()
@click.option("--algorithm", type=click.Choice(_PAIRS), default="ES256", show_default=True)
@click.option("--out", type=_OUT, required=True, help="New file for the private key in PEM form; mode 0600.")
@click.option("--kid", help="Name of the key; default: its thumbprint (RFC 7638).")
@click.option("--issuer", default="https://sso.example.com", show_default=True, help="For the lines of configuration.")
def pair(algorithm: str, out: Path, kid: str | None, issuer: str) -> None:
    """Make a key pair for an issuer of tokens; prints the public half as a key set (JWKS).

    The issuer signs with the private key and serves the key set at its jwks_uri; the server takes its tokens by a
    provider of type oauth2, whose lines are shown on standard error.

    \b
    rtc keys pair --algorithm=RS256 --out=issuer.pem > jwks.json
    """
    from cryptography.hazmat.primitives import serialization

    if kid is not None and not (kid.isascii() and kid.isprintable() and 0 < len(kid) <= 255):
        raise click.BadParameter("must be 1 to 255 printable ASCII characters", param_hint="'--kid'")
    key = _generate(algorithm)
    public = _public(key, algorithm)
    name = kid or thumbprint(public)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_private(out, pem)
    click.echo(json.dumps({"keys": [public | {"kid": name, "alg": algorithm, "use": "sig"}]}, indent=2))
    from realtime_communication.config.reference import toml

    click.echo(f"# {out} signs; put `kid` = {name} into the head of each token. The server's configuration:", err=True)
    click.echo(f'[[auth.providers]]\ntype = "oauth2"\nissuer = {toml(issuer)}', err=True)


keys.add_command(api_key)


def write_private(path: Path, data: bytes) -> None:
    """Write a new file that only its owner may read. Raises click.ClickException; nothing is ever overwritten."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, KEY_MODE)
    except FileExistsError:
        raise click.ClickException(f"{path} is there already: move it away, or name another file") from None
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error.strerror}") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, KEY_MODE)  # whatever the umask has taken away
            file.write(data)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise click.ClickException(f"{path} cannot be written: {error.strerror}") from None


def thumbprint(public: dict[str, Any]) -> str:
    """RFC 7638: the hash of a public key's necessary members."""
    members = {name: public[name] for name in _THUMBPRINT[public["kty"]]}
    text = json.dumps(members, separators=(",", ":"), sort_keys=True)
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def _generate(algorithm: str) -> Any:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    if algorithm in _CURVES:
        return ec.generate_private_key(getattr(ec, _CURVES[algorithm])())
    return rsa.generate_private_key(65537, RSA_BITS)


def _public(key: Any, algorithm: str) -> dict[str, Any]:
    """The public half as a JSON Web Key (RFC 7517)."""
    from jwt.algorithms import get_default_algorithms

    made = json.loads(get_default_algorithms()[algorithm].to_jwk(key.public_key()))
    return {name: made[name] for name in _THUMBPRINT[made["kty"]]}
