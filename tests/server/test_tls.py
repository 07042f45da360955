"""TLS on the main port: contexts out of a configuration, their renewal, and the log of failures."""

import ssl

import pytest
from cryptography import x509

from realtime_communication.config.protection import Tls
from realtime_communication.errors import EnvironmentFault
from realtime_communication.server import tls as tls_module
from realtime_communication.server.tls import FailureLog, certificate_end, server_context
from serving.certificates import Authority


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


def section(pair, **changes):
    return Tls(enabled=True, cert_file=str(pair.cert_file), key_file=str(pair.key_file), **changes)


def test_no_context_while_tls_is_off(tmp_path):
    assert server_context(Tls(cert_file=str(tmp_path / "missing"))) is None


def test_a_context_for_servers(authority):
    context = server_context(section(authority.issue()))
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION


def test_a_file_that_has_gone_since_the_check_is_named(authority):
    pair = authority.issue()
    pair.key_file.unlink()
    with pytest.raises(EnvironmentFault, match=r"security\.tls\.key_file cannot be read: No such file"):
        server_context(section(pair))


@pytest.mark.parametrize(
    ("error", "told"),
    [(ssl.SSLError(1, "[SSL] no start line"), "no start line"), (PermissionError(13, "Permission denied"), "denied")],
)
def test_what_openssl_refuses_is_a_fault_of_the_environment(authority, monkeypatch, error, told):
    def refuse(tls):
        raise error

    monkeypatch.setattr(tls_module, "make_context", refuse)
    with pytest.raises(EnvironmentFault, match=f"cannot be used: .*{told}"):
        server_context(section(authority.issue()))


def test_when_the_certificate_ends(authority):
    pair = authority.issue()
    leaf = x509.load_pem_x509_certificates(pair.cert_file.read_bytes())[0]
    assert certificate_end(section(pair)) == leaf.not_valid_after_utc.timestamp()
    assert certificate_end(Tls()) is None


def test_a_failure_has_a_line_with_the_peer_and_the_reason(monkeypatch):
    written = []
    monkeypatch.setattr(tls_module._log, "info", lambda event, **fields: written.append((event, fields)))
    FailureLog().failed("127.0.0.1:5", "no shared cipher")
    assert written == [("TLS ended a connection", {"peer": "127.0.0.1:5", "reason": "no shared cipher"})]
