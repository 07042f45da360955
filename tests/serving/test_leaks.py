"""The look through the logs of all servers fails a test when it should."""

import importlib.util
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from serving import leaks
from serving.processes import ServerProcess, free_port
from serving.tokens import ADMIN_KEY, SECRET, token

WEBHOOK = "the-secret-of-a-webhook"
SETTINGS = {
    "auth": {"jwt_secret": "a-signing-secret", "providers": [{"type": "api_key", "keys": [{"key": "sha256:12345"}]}]},
    "circuit_breaker": {"events": {"webhook_secret": WEBHOOK, "webhook_url": "https://me:pass%20word@example.com/"}},
    "redis": {"url": "redis://:redis-password@localhost/0"},
    "server": {"port": 8081, "host": "localhost.localdomain"},
}


def test_secrets_of_a_configuration() -> None:
    assert leaks.secrets_of(SETTINGS) >= {"a-signing-secret", WEBHOOK, "redis-password", "pass word"}
    assert "localhost.localdomain" not in leaks.secrets_of(SETTINGS)
    assert leaks.secrets_of({"auth": {"jwt_secret": "short"}}) == set()
    assert leaks.secrets_of({"auth": {"jwt_secret": "${JWT_SECRET}"}}) == set()


@pytest.mark.parametrize("text", [SECRET, ADMIN_KEY, WEBHOOK, token(), f"?token={token('bob')}&x=1"])
def test_what_is_written_is_found(text: str) -> None:
    leaks.look(f'fine\n{{"event":"{text}"}}\nfine', {WEBHOOK}, "a server")
    with pytest.raises(AssertionError) as failure:
        leaks.raise_found()
    assert "a server wrote" in str(failure.value)
    assert text not in str(failure.value)
    leaks.raise_found()


def test_what_is_no_secret_is_not() -> None:
    leaks.look("token of 'demo': " + token() + '\n{"event":"eyJhbGc"}\n[redacted]', {WEBHOOK}, "a server")
    leaks.raise_found()


def test_a_server_that_writes_one_fails_the_test_that_ends_it(tmp_path: Path) -> None:
    """With the hook that every test ends with."""
    server = ServerProcess("product", free_port(), {"circuit_breaker": {"events": {"webhook_secret": WEBHOOK}}}, None)
    server.configure()
    (server.configuration.parent / "log").write_text(f"oh, {WEBHOOK}\n")
    server.dispose()
    with pytest.raises(AssertionError, match="wrote a secret"):
        end_of_a_test()
    end_of_a_test()


def end_of_a_test() -> None:
    """What the hook does when a test's fixtures have ended."""
    spec = importlib.util.spec_from_file_location("conftest_of_all", Path(__file__).parents[1] / "conftest.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    hook: Callable[[], Generator[None, Any, Any]] = module.pytest_runtest_teardown
    running = hook()
    next(running)
    with pytest.raises(StopIteration):
        running.send(None)
