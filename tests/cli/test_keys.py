"""`keys`: what it makes is fit for use, and nobody else can read it."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import jwt
import pytest
from click.testing import CliRunner, Result

from realtime_communication.auth.jwks import key_set
from realtime_communication.cli.keys import RSA_BITS, keys, thumbprint


def run(*words: str) -> Result:
    return CliRunner().invoke(keys, list(words), catch_exceptions=False)


@pytest.mark.parametrize(("algorithm", "size"), [("HS256", 32), ("HS384", 48), ("HS512", 64)])
def test_a_secret(algorithm: str, size: int) -> None:
    first, second = (run("secret", f"--algorithm={algorithm}").stdout.strip() for _ in range(2))
    assert len(first) >= size * 4 / 3 and first != second
    assert jwt.encode({}, first, algorithm=algorithm)


def test_a_secret_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    done = run("secret", f"--out={path}")
    assert done.stdout == "" and "JWT_SECRET" in done.stderr and path.read_text().strip() not in done.stderr
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "ES384", "EdDSA"])
def test_a_pair_signs_what_its_key_set_verifies(tmp_path: Path, algorithm: str) -> None:
    path = tmp_path / "key.pem"
    done = run("pair", f"--algorithm={algorithm}", f"--out={path}")
    (public,) = json.loads(done.stdout)["keys"]
    assert public["alg"] == algorithm and public["use"] == "sig" and public["kid"] == thumbprint(public)
    assert not {"d", "p", "q"} & public.keys()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    signed = jwt.encode({"sub": "alice"}, path.read_bytes(), algorithm=algorithm, headers={"kid": public["kid"]})
    assert jwt.decode(signed, jwt.PyJWK(public).key, algorithms=[algorithm]) == {"sub": "alice"}
    assert list(key_set(done.stdout.encode()).keys) == [public["kid"]]  # as the server reads it
    if algorithm == "RS256":
        assert jwt.PyJWK(public).key.key_size == RSA_BITS
    assert "[[auth.providers]]" in done.stderr and 'type = "oauth2"' in done.stderr


def test_a_name_of_ones_own(tmp_path: Path) -> None:
    done = run("pair", f"--out={tmp_path / 'key.pem'}", "--kid=mine")
    assert [key["kid"] for key in json.loads(done.stdout)["keys"]] == ["mine"]


def test_a_thumbprint_of_the_rfc() -> None:
    modulus = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3"
        "oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgd"
        "AZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCu"
        "r-kEgU8awapJzKnqDKgw"
    )
    example = {"kty": "RSA", "n": modulus, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"}  # RFC 7638 section 3.1
    assert thumbprint(example) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


def test_an_api_key() -> None:
    assert "sha256:" in run("api-key", "--user=backend").stdout


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_text("precious")
    done = run("pair", f"--out={path}")
    assert done.exit_code == 1 and "is there already" in done.stderr and path.read_text() == "precious"
    assert run("secret", f"--out={path}").exit_code == 1
    missing = run("secret", f"--out={tmp_path / 'none' / 'key'}")
    assert missing.exit_code == 1 and "No such file" in missing.stderr


def test_the_umask_takes_nothing_away(tmp_path: Path) -> None:
    old = os.umask(0o777)
    try:
        run("secret", f"--out={tmp_path / 'secret'}")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600


@pytest.mark.parametrize("words", [("pair",), ("pair", "--out=x", "--algorithm=none"), ("pair", "--out=x", "--kid=ü")])
def test_wrong_use(words: tuple[str, ...]) -> None:
    assert run(*words).exit_code == 2
