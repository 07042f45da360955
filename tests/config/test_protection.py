"""Keys about the main port's protection, beyond what the tables of the schema's tests show."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from realtime_communication.config import LoadedConfig
from realtime_communication.config.protection import Cors, Tls
from realtime_communication.errors import ConfigurationProblem

Load = Callable[..., LoadedConfig]
Refuse = Callable[..., list[ConfigurationProblem]]


def test_nothing_is_open_by_default() -> None:
    assert Cors().allowed_origins == () and not Cors().allow_credentials
    assert Tls().min_version == "1.2"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('trusted_proxies = ["10.0.0.1", "10.0.0.1/8"]', "security.trusted_proxies[1]"),
        ('trusted_proxies = ["proxy"]', "security.trusted_proxies[0]"),
        ('content_security_policy = "a\\nb"', "security.content_security_policy"),
        ('cors.allowed_origins = ["app.example.com"]', "security.cors.allowed_origins[0]"),
        ('cors = { allowed_origins = ["*"], allow_credentials = true }', "security.cors.allow_credentials"),
    ],
)
def test_what_is_refused(text: str, key: str, refused: Refuse) -> None:
    assert [problem.key for problem in refused(files={"config.toml": f"[security]\n{text}\n"})] == [key]


def test_files_of_tls_that_is_off_are_not_looked_at(load_config: Load) -> None:
    assert load_config(files={"config.toml": 'tls.cert_file = "/no/such/file"\n'}).warnings == ()


def test_what_is_wrong_with_tls_is_told_all_at_once(refused: Refuse) -> None:
    text = 'tls = { enabled = true, cert_file = "/no/such", client_auth = "required", ciphers = ["ROT13"] }\n'
    problems = refused(files={"config.toml": text})
    assert {problem.key for problem in problems} >= {
        "security.tls.cert_file",
        "security.tls.key_file",
        "security.tls.ca_file",
        "security.tls.ciphers[0]",
    }
