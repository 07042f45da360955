"""What is said of certificate files and ciphers, and the context they make."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path
from typing import Any

import pytest

from realtime_communication.config.certificates import (
    DEFAULT_CIPHERS,
    MAX_FILE_BYTES,
    client_mode,
    make_context,
    problems,
)
from realtime_communication.config.protection import Tls
from serving.certificates import DAY, Authority, Pair


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def section(pair: Pair, **changes: Any) -> Tls:
    return Tls(**{"enabled": True, "cert_file": str(pair.cert_file), "key_file": str(pair.key_file), **changes})


def complaints(pair: Pair, **changes: Any) -> dict[str, str]:
    found = list(problems(section(pair, **changes)))
    assert len(dict(found)) == len(found)
    return dict(found)


class TestFiles:
    @pytest.mark.parametrize("rsa_bits", [0, 2048], ids=["EC", "RSA"])
    def test_good_ones(self, authority: Authority, rsa_bits: int) -> None:
        assert complaints(authority.issue(rsa_bits=rsa_bits)) == {}

    def test_a_key_that_openssl_finds_too_small(self, authority: Authority) -> None:
        assert complaints(authority.issue(rsa_bits=1024)) == {"cert_file": "cannot be used: ee key too small"}

    @pytest.mark.parametrize("key", ["cert_file", "key_file"])
    def test_not_named(self, authority: Authority, key: str) -> None:
        assert complaints(authority.issue(), **{key: ""}) == {key: "is missing: TLS needs this PEM file"}

    @pytest.mark.parametrize("key", ["cert_file", "key_file"])
    def test_not_there(self, authority: Authority, tmp_path: Path, key: str) -> None:
        found = complaints(authority.issue(), **{key: str(tmp_path / "none.pem")})
        assert found == {key: "cannot be read: No such file or directory"}

    @pytest.mark.parametrize("key", ["cert_file", "key_file"])
    def test_a_folder(self, authority: Authority, tmp_path: Path, key: str) -> None:
        assert complaints(authority.issue(), **{key: str(tmp_path)}) == {key: "cannot be read: Is a directory"}

    @pytest.mark.parametrize("key", ["cert_file", "key_file"])
    def test_a_name_that_no_file_can_have(self, authority: Authority, key: str) -> None:
        assert complaints(authority.issue(), **{key: "a\0b"}) == {key: "cannot be read: no such name can exist"}

    @pytest.mark.parametrize("key", ["cert_file", "key_file"])
    def test_too_large(self, authority: Authority, tmp_path: Path, key: str) -> None:
        large = tmp_path / "large"
        large.write_bytes(b"x" * (MAX_FILE_BYTES + 1))
        assert complaints(authority.issue(), **{key: str(large)}) == {key: "is larger than 1 MiB"}

    @pytest.mark.parametrize(
        ("key", "message"),
        [("cert_file", "must hold a certificate in PEM form"), ("key_file", "must hold a private key in PEM form")],
    )
    @pytest.mark.parametrize("text", ["", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
    def test_not_pem(self, authority: Authority, tmp_path: Path, key: str, message: str, text: str) -> None:
        file = tmp_path / "broken"
        file.write_text(text)
        assert complaints(authority.issue(), **{key: str(file)}) == {key: message}

    def test_swapped(self, authority: Authority) -> None:
        pair = authority.issue()
        assert set(complaints(Pair(pair.key_file, pair.cert_file))) == {"cert_file", "key_file"}

    def test_expired(self, authority: Authority) -> None:
        found = complaints(authority.issue(starts=-2 * DAY, ends=-DAY))
        assert set(found) == {"cert_file"}
        assert found["cert_file"].startswith("holds a certificate that expired on 20")

    def test_not_valid_yet(self, authority: Authority) -> None:
        found = complaints(authority.issue(starts=DAY, ends=2 * DAY))
        assert set(found) == {"cert_file"}
        assert found["cert_file"].startswith("holds a certificate that is valid from 20")

    def test_validity_is_that_of_the_given_time(self, authority: Authority) -> None:
        tls = section(authority.issue())
        assert len(list(problems(tls, datetime.datetime.now(datetime.UTC) + 2 * DAY))) == 1

    def test_the_key_of_another_certificate(self, authority: Authority) -> None:
        pair = authority.issue()
        message = f"does not match the certificate in {pair.cert_file}: it is the key of another one"
        assert complaints(Pair(pair.cert_file, authority.issue("other").key_file)) == {"key_file": message}

    def test_a_passphrase(self, authority: Authority) -> None:
        found = complaints(authority.issue(passphrase=b"secret"))
        assert found == {"key_file": "must not be protected by a passphrase"}

    def test_a_chain_is_judged_by_its_first_certificate(self, authority: Authority) -> None:
        pair = authority.issue()
        pair.cert_file.write_bytes(pair.cert_file.read_bytes() + authority.ca_file.read_bytes())
        assert complaints(pair) == {}


class TestClients:
    @pytest.mark.parametrize("mode", ["optional", "required"])
    def test_authorities_are_needed(self, authority: Authority, mode: str) -> None:
        pair = authority.issue()
        assert complaints(pair, client_auth=mode) == {"ca_file": f'is missing: client_auth = "{mode}" needs it'}
        assert complaints(pair, client_auth=mode, ca_file=str(authority.ca_file)) == {}
        assert complaints(pair, client_auth=mode, ca_file=str(pair.key_file)) == {
            "ca_file": "must hold a certificate in PEM form"
        }

    def test_without_client_certificates_the_file_is_not_looked_at(self, authority: Authority) -> None:
        assert complaints(authority.issue(), ca_file="/does/not/exist") == {}

    def test_verify_client_means_required(self, authority: Authority) -> None:
        assert client_mode(Tls(verify_client=True)) == "required"
        assert client_mode(Tls(client_auth="optional")) == "optional"
        assert client_mode(Tls()) == "none"

    def test_verify_client_contradicts_optional(self, authority: Authority) -> None:
        found = complaints(
            authority.issue(), verify_client=True, client_auth="optional", ca_file=str(authority.ca_file)
        )
        assert found == {"verify_client": 'contradicts client_auth = "optional": true means "required"'}


class TestCiphers:
    @pytest.mark.parametrize(
        ("name", "suites"),
        [
            ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", {"ECDHE-RSA-AES256-GCM-SHA384"}),
            ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", {"ECDHE-ECDSA-CHACHA20-POLY1305"}),
            ("TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256", {"ECDHE-RSA-AES128-SHA256"}),
            ("ECDHE-ECDSA-AES128-GCM-SHA256", {"ECDHE-ECDSA-AES128-GCM-SHA256"}),
        ],
    )
    def test_both_kinds_of_names(self, authority: Authority, name: str, suites: set[str]) -> None:
        pair = authority.issue()
        assert complaints(pair, ciphers=(name,)) == {}
        assert _suites_of_1_2(make_context(section(pair, ciphers=(name,)))) == suites

    def test_an_unknown_one_is_named_by_its_place(self, authority: Authority) -> None:
        found = complaints(authority.issue(), ciphers=("TLS_AES_128_GCM_SHA256", "TLS_NO_SUCH", "ALSO-NOT"))
        assert set(found) == {"ciphers[1]", "ciphers[2]"}

    def test_those_of_tls_1_3_leave_the_list_of_1_2_as_it_is(self, authority: Authority) -> None:
        pair = authority.issue()
        plain = make_context(section(pair))
        named = make_context(section(pair, ciphers=("TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")))
        assert _suites_of_1_2(named) == _suites_of_1_2(plain)

    def test_the_default_has_forward_secrecy_and_authenticated_encryption_only(self, authority: Authority) -> None:
        suites = _suites_of_1_2(make_context(section(authority.issue())))
        assert suites and all(
            suite.startswith("ECDHE-") and ("GCM" in suite or "CHACHA20" in suite) for suite in suites
        ), DEFAULT_CIPHERS


def _suites_of_1_2(context: ssl.SSLContext) -> set[str]:
    return {suite["name"] for suite in context.get_ciphers() if suite["protocol"] != "TLSv1.3"}


class TestContext:
    @pytest.mark.parametrize(("version", "found"), [("1.2", ssl.TLSVersion.TLSv1_2), ("1.3", ssl.TLSVersion.TLSv1_3)])
    def test_the_oldest_version(self, authority: Authority, version: str, found: ssl.TLSVersion) -> None:
        assert make_context(section(authority.issue(), min_version=version)).minimum_version is found

    @pytest.mark.parametrize(
        ("mode", "found"),
        [("none", ssl.CERT_NONE), ("optional", ssl.CERT_OPTIONAL), ("required", ssl.CERT_REQUIRED)],
    )
    def test_client_certificates(self, authority: Authority, mode: str, found: ssl.VerifyMode) -> None:
        tls = section(authority.issue(), client_auth=mode, ca_file=str(authority.ca_file))
        assert make_context(tls).verify_mode is found

    def test_renegotiation_and_compression_are_off(self, authority: Authority) -> None:
        context = make_context(section(authority.issue()))
        assert context.options & ssl.OP_NO_RENEGOTIATION
        assert context.options & ssl.OP_NO_COMPRESSION

    def test_what_problems_tells_is_an_error(self, authority: Authority) -> None:
        pair = authority.issue()
        with pytest.raises((OSError, ValueError)):
            make_context(section(Pair(pair.cert_file, authority.issue("other").key_file)))

    def test_a_passphrase_is_never_asked_for(self, authority: Authority) -> None:
        with pytest.raises((OSError, ValueError)):
            make_context(section(authority.issue(passphrase=b"secret")))
