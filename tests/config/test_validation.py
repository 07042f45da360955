"""Rules over more than a key's own type and range."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from realtime_communication.config import LoadedConfig
from realtime_communication.config.catalogue import KEYS
from realtime_communication.config.validation import RULES
from realtime_communication.errors import ConfigurationProblem

Load = Callable[..., LoadedConfig]
Refuse = Callable[..., list[ConfigurationProblem]]
HASH = "sha256:" + "0a" * 32


def _one(problems: list[ConfigurationProblem]) -> ConfigurationProblem:
    (problem,) = problems
    return problem


def test_rules_read_keys_that_exist() -> None:
    for paths, _ in RULES:
        for path in paths:
            assert path in KEYS or any(known.startswith(path + ".") for known in KEYS)


class TestHost:
    @pytest.mark.parametrize(
        "host", ["0.0.0.0", "127.0.0.1", "::", "::1", "[::1]", "localhost", "rtc-1.example.com", "unix:/run/rtc.sock"]
    )
    def test_good(self, host: str, load_config: Load) -> None:
        assert load_config(f"--host={host}").config.server.host == host

    @pytest.mark.parametrize(
        "host",
        ["256.0.0.1", "1.2.3", "a b", "http://x", "-x.example", "unix:", "unix:relative", "unix:/" + "x" * 107, "x:80"],
    )
    def test_bad(self, host: str, refused: Refuse) -> None:
        assert _one(refused(f"--host={host}")).key == "server.host"


class TestPort:
    def test_zero_is_for_tests(self, load_config: Load, refused: Refuse) -> None:
        assert "test profile" in _one(refused("--port=0")).message
        assert "test profile" in _one(refused("--port=0", "--profile=dev")).message
        assert load_config("--port=0", "--profile=test").config.server.port == 0


class TestSecret:
    @pytest.mark.parametrize("profile", ["prod", "test"])
    def test_missing(self, profile: str, refused: Refuse) -> None:
        problem = _one(refused(f"--profile={profile}", secret=False))
        assert problem.key == "auth.jwt_secret"
        assert "JWT_SECRET" in problem.message and "32" in problem.message

    def test_empty_counts_as_missing(self, refused: Refuse) -> None:
        assert "missing" in _one(refused(secret=False, environ={"JWT_SECRET": ""})).message

    @pytest.mark.parametrize("secret", ["x" * 31, "é" * 15])
    def test_short(self, secret: str, refused: Refuse) -> None:
        problem = _one(refused(environ={"JWT_SECRET": secret}))
        assert "32 bytes" in problem.message and secret not in str(problem)

    def test_bytes_count_not_characters(self, load_config: Load) -> None:
        assert load_config(environ={"JWT_SECRET": "é" * 16}).config.auth.jwt_secret == "é" * 16

    @pytest.mark.parametrize("kind", ["PUBLIC KEY", "RSA PRIVATE KEY", "CERTIFICATE"])
    def test_pem(self, kind: str, refused: Refuse) -> None:
        pem = f"-----BEGIN {kind}-----\n{'A' * 64}\n-----END {kind}-----"
        problem = _one(refused(environ={"JWT_SECRET": pem}))
        assert "PEM" in problem.message and "AAAA" not in str(problem)

    def test_dev_makes_one_for_the_run(self, load_config: Load) -> None:
        first, second = (load_config("--profile=dev", secret=False) for _ in range(2))
        assert first.secret_made and len(first.config.auth.jwt_secret) >= 32
        assert first.config.auth.jwt_secret != second.config.auth.jwt_secret
        assert str(first.origins["auth.jwt_secret"]) == "made for this run"

    def test_dev_takes_the_one_that_is_set(self, load_config: Load) -> None:
        assert not load_config("--profile=dev").secret_made

    def test_a_bad_one_is_bad_in_dev_too(self, refused: Refuse) -> None:
        assert _one(refused("--profile=dev", environ={"JWT_SECRET": "short"})).key == "auth.jwt_secret"

    def test_bypassed_authentication_needs_none(self, load_config: Load) -> None:
        assert load_config("--profile=test", "--testing.bypass_auth", secret=False).secret_made


class TestAlgorithms:
    @pytest.mark.parametrize("algorithms", ["none", "HS256,none", "RS256", "hs256", "[]"])
    def test_bad(self, algorithms: str, refused: Refuse) -> None:
        assert _one(refused(f"--auth.jwt_algorithms={algorithms}")).key == "auth.jwt_algorithms"


class TestProviders:
    @pytest.mark.parametrize(
        ("providers", "place"),
        [
            ('{type="oauth2", issuer="http://x"}', "[0].issuer"),
            ('{type="jwt"}, {type="jwt"}', "[1].name"),
            ('{type="jwt", name="a"}, {type="api_key", name="a"}', "[1].name"),
            ('{type="api_key", header="X Key"}', "[0].header"),
            ('{type="api_key", header="X-Key\\r\\nEvil"}', "[0].header"),
            ('{type="api_key", query_param="a&b"}', "[0].query_param"),
            (f'{{type="jwt", keys=[{{key="{HASH}", user="a"}}]}}', "[0].keys"),
            ('{type="jwt", issuer="https://x"}', "[0].issuer"),
            ('{type="api_key", keys=[{key="plain", user="a"}]}', "[0].keys[0].key"),
            (f'{{type="api_key", keys=[{{key="{HASH}", user="a", permissions=["fly"]}}]}}', "[0].keys[0].permissions"),
            (f'{{type="api_key", keys=[{{key="{HASH}", user="a\\n"}}]}}', "[0].keys[0].user"),
            (
                f'{{type="api_key", keys=[{{key="{HASH}", user="a"}}, {{key="{HASH}", user="b"}}]}}',
                "[0].keys[1].key",
            ),
            ("", ""),
            ('{type="jwt", enabled=false}', ""),
        ],
    )
    def test_bad(self, providers: str, place: str, refused: Refuse) -> None:
        problem = _one(refused(files={"config.toml": f"[auth]\nproviders = [{providers}]\n"}))
        assert problem.key == "auth.providers" + place
        assert "plain" not in problem.value and HASH not in str(problem)

    def test_disabled_oauth2_asks_for_nothing(self, load_config: Load) -> None:
        text = '[[auth.providers]]\ntype="jwt"\n[[auth.providers]]\ntype="oauth2"\nenabled=false\nissuer="https://x"\n'
        assert len(load_config(files={"config.toml": text}).config.auth.providers) == 2

    def test_keys(self, load_config: Load) -> None:
        text = f'[[auth.providers]]\ntype="api_key"\n[[auth.providers.keys]]\nkey="{HASH}"\nuser="a"\nroles=["admin"]\n'
        ((key,),) = (provider.keys for provider in load_config(files={"config.toml": text}).config.auth.providers)
        assert (key.user, key.roles, key.permissions) == ("a", ("admin",), ("read", "write", "subscribe"))


class TestContradictions:
    @pytest.mark.parametrize(
        "words",
        [
            ["--heartbeat-interval-secs=60"],
            ["--heartbeat-interval-secs=61"],
            ["--heartbeat-interval-secs=5", "--client-timeout-secs=5"],
            ["--heartbeat-interval-secs=5", "--client-timeout-secs=1"],
        ],
    )
    def test_heartbeat_and_timeout(self, words: list[str], refused: Refuse) -> None:
        problem = _one(refused(*words))
        assert problem.key == "websocket.heartbeat_interval_secs"
        assert "websocket.client_timeout_secs" in problem.message

    @pytest.mark.parametrize(
        "words", [["--max-frame-size=2000000"], ["--max-frame-size=1001", "--max-message-size=1000"]]
    )
    def test_frame_and_message(self, words: list[str], refused: Refuse) -> None:
        problem = _one(refused(*words))
        assert problem.key == "websocket.max_frame_size"
        assert "websocket.max_message_size" in problem.message

    def test_equal_sizes_are_fine(self, load_config: Load) -> None:
        assert load_config("--max-frame-size=1000", "--max-message-size=1000").config.websocket.max_frame_size == 1000

    def test_a_faulty_value_makes_no_second_problem(self, refused: Refuse) -> None:
        problems = refused("--max-frame-size=2000000", "--max-message-size=none")
        assert [problem.key for problem in problems] == ["websocket.max_message_size"]


class TestCustomLimits:
    @pytest.mark.parametrize(
        ("limits", "place"),
        [
            ('{name="a", pattern="Subscrib"}', "[0].pattern"),
            ('{name="user", pattern="*"}', "[0].name"),
            ('{name="a", pattern="*"}, {name="a", pattern="Ping"}', "[1].name"),
        ],
    )
    def test_bad(self, limits: str, place: str, refused: Refuse) -> None:
        filled = limits.replace("}", ", requests_per_second=1, burst_size=1}")
        text = f"rate_limiting.custom_limits = [{filled}]"
        assert _one(refused(files={"config.toml": text})).key == "rate_limiting.custom_limits" + place

    def test_a_misspelt_type_is_recognised(self, refused: Refuse) -> None:
        text = 'rate_limiting.custom_limits=[{name="a",pattern="Subscrbe",requests_per_second=1,burst_size=1}]'
        assert "did you mean Subscribe?" in _one(refused(files={"config.toml": text})).message

    @pytest.mark.parametrize("pattern", ["Subscribe", "*Message", "Pin?", "[BD]*", "*"])
    def test_globs(self, pattern: str, load_config: Load) -> None:
        text = f'rate_limiting.custom_limits=[{{name="a",pattern="{pattern}",requests_per_second=0.5,burst_size=1}}]'
        (limit,) = load_config(files={"config.toml": text}).config.rate_limiting.custom_limits
        assert limit.pattern == pattern


@pytest.mark.parametrize("name", ["limit", "remaining", "reset", "retry_after"])
@pytest.mark.parametrize("value", ["X Limit", "X-Limit:", "X\r\nEvil: 1", "é"])
def test_header_names(name: str, value: str, refused: Refuse) -> None:
    key = f"rate_limiting.headers.{name}_header"
    assert _one(refused(f"--{key}={value}")).key == key


@pytest.mark.parametrize("level", ["inof", "a::b=loud", "info/x"])
def test_log_level(level: str, refused: Refuse) -> None:
    problem = _one(refused(environ={"RUST_LOG": level}))
    assert (problem.key, problem.origin) == ("logging.level", "environment variable RUST_LOG")


class TestCors:
    @pytest.mark.parametrize(
        "origin", ["app.example.com", "https://app.example.com/", "https://", "https://a b", "https://x:port", "null"]
    )
    def test_bad_origin(self, origin: str, refused: Refuse) -> None:
        problem = _one(refused("--security.cors.allowed_origins", f'["https://good.example", "{origin}"]'))
        assert problem.key == "security.cors.allowed_origins[1]" and origin in problem.value

    @pytest.mark.parametrize("origin", ["*", "https://app.example.com", "http://localhost:3000", "http://[::1]:80"])
    def test_good_origin(self, origin: str, load_config: Load) -> None:
        assert load_config(f"--security.cors.allowed_origins={origin}").config.security.cors.allowed_origins == (
            origin,
        )

    def test_credentials_for_everybody(self, refused: Refuse) -> None:
        problem = _one(refused("--security.cors.allowed_origins=*", "--security.cors.allow_credentials"))
        assert problem.key == "security.cors.allow_credentials"

    @pytest.mark.parametrize("key", ["allowed_methods", "allowed_headers"])
    def test_names(self, key: str, refused: Refuse) -> None:
        assert _one(refused(f"--security.cors.{key}=GET,P OST")).key == f"security.cors.{key}"


@pytest.mark.parametrize("path", ["health", "/", "/health/", "/a b", "/a?b", "/ws", "/api/health", "/debug/x", "//x"])
def test_health_path(path: str, refused: Refuse) -> None:
    assert _one(refused(f"--monitoring.health_check.path={path}")).key == "monitoring.health_check.path"


@pytest.mark.parametrize("name", ["enable_debug_endpoints", "enable_profiling", "mock_external_services"])
def test_development_is_refused_in_prod(name: str, refused: Refuse, load_config: Load) -> None:
    assert "prod" in _one(refused(f"--development.{name}")).message
    assert getattr(load_config("--profile=dev").config.development, name) is True
    assert getattr(load_config("--profile=test", f"--development.{name}").config.development, name) is True


@pytest.mark.parametrize("name", ["enable_test_mode", "bypass_auth", "use_in_memory_storage", "deterministic_ids"])
@pytest.mark.parametrize("profile", ["prod", "dev"])
def test_testing_is_refused_outside_the_test_profile(name: str, profile: str, refused: Refuse) -> None:
    problem = _one(refused(f"--profile={profile}", f"--testing.{name}"))
    assert problem.key == f"testing.{name}" and "test profile" in problem.message


def test_testing_keys_need_the_master_switch(refused: Refuse) -> None:
    problems = refused("--profile=test", "--testing.enable_test_mode=false", "--testing.bypass_auth", "--port=1")
    assert [problem.key for problem in problems] == ["testing.bypass_auth"]


class TestCustomMetrics:
    @staticmethod
    def _table(**changes: object) -> str:
        fields = {"name": "message_latency", "type": "histogram", **changes}
        inner = ", ".join(f"{name} = {json.dumps(value)}" for name, value in fields.items())
        return f"{{ {inner} }}"

    def test_those_of_the_guide(self, load_config: Load) -> None:
        tables = [
            self._table(labels=["message_type", "topic"], help="Message delivery latency in seconds"),
            self._table(name="active_subscriptions", type="gauge", labels=["topic"]),
        ]
        loaded = load_config(f"--monitoring.custom_metrics=[{', '.join(tables)}]")
        assert [metric.name for metric in loaded.config.monitoring.custom_metrics] == [
            "message_latency",
            "active_subscriptions",
        ]

    @pytest.mark.parametrize(
        ("changes", "key", "allowed"),
        [
            ({"name": "message_latncy"}, "name", "did you mean"),
            ({"name": "nothing_like_it"}, "name", "active_subscriptions"),
            ({"type": "gauge"}, "type", "histogram"),
            ({"labels": ["user"]}, "labels", "message_type, topic"),
            ({"labels": ["topic", "topic"]}, "labels", "each once"),
            ({"name": "connected_users", "type": "gauge", "labels": ["topic"]}, "labels", "empty"),
            ({"help": "two\nlines"}, "help", "one line"),
        ],
    )
    def test_bad(self, changes: dict[str, object], key: str, allowed: str, refused: Refuse) -> None:
        problem = _one(refused(f"--monitoring.custom_metrics=[{self._table(**changes)}]"))
        assert problem.key == f"monitoring.custom_metrics[0].{key}"
        assert allowed in problem.message

    def test_each_only_once(self, refused: Refuse) -> None:
        table = self._table()
        problem = _one(refused(f"--monitoring.custom_metrics=[{table}, {table}]"))
        assert problem.key == "monitoring.custom_metrics[1].name"


class TestWebhooks:
    @pytest.mark.parametrize(
        "url",
        [
            "file:///etc/passwd",
            "ftp://example.com/",
            "gopher://127.0.0.1:6379/_FLUSHALL",
            "unix:///run/docker.sock",
            "//example.com/",
            "example.com",
            "https://",
            "http://169.254.169.254/latest/meta-data/",
            "http://[::ffff:169.254.169.254]/",
            "http://[fe80::1]/hook",
        ],
    )
    def test_urls_that_are_no_receiver(self, refused: Refuse, url: str) -> None:
        problem = _one(refused(f"--circuit_breaker.events.webhook_url={url}"))
        assert problem.key == "circuit_breaker.events.webhook_url"

    @pytest.mark.parametrize("url", ["https://alerts.example.com/hook?key=1", "http://10.0.0.7:8080/", "http://[::1]/"])
    def test_receivers(self, load_config: Load, url: str) -> None:
        loaded = load_config(f"--circuit_breaker.events.webhook_url={url}")
        assert loaded.config.circuit_breaker.events.webhook_url == url
