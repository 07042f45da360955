"""`token` and `api-key`."""

from __future__ import annotations

import hashlib
import time
import tomllib
from pathlib import Path
from typing import Any

import jwt
import pytest
from click.testing import CliRunner

from realtime_communication.cli.credentials import api_key, token
from realtime_communication.config import load
from realtime_communication.errors import MisuseError

SECRET = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.chdir(tmp_path)
    return CliRunner(env={"JWT_SECRET": SECRET})


def _claims(runner: CliRunner, *words: str, algorithm: str = "HS256") -> dict[str, Any]:
    made = runner.invoke(token, list(words), catch_exceptions=False).stdout.strip()
    claims: dict[str, Any] = jwt.decode(
        made, SECRET, algorithms=[algorithm], issuer="ai-system-rust", audience="realtime-communication"
    )
    return claims


def test_a_token_of_the_configured_secret(runner: CliRunner) -> None:
    claims = _claims(runner, "--user=alice")
    assert (claims["sub"], claims["user_id"]) == ("alice", "alice")
    assert claims["exp"] - claims["iat"] == 24 * 3600
    assert claims["permissions"] == ["read", "write", "subscribe"]


def test_everything_that_can_be_said(runner: CliRunner) -> None:
    words = "--user=ops --role=admin --role=user --permission=read --subscribe=room:* --publish=room:1"
    claims = _claims(
        runner, *words.split(), "--login=l1", "--hours=0.5", "--auth.jwt_algorithms=HS512", algorithm="HS512"
    )
    assert (claims["roles"], claims["permissions"]) == (["admin", "user"], ["read"])
    assert claims["topics"] == {"subscribe": ["room:*"], "publish": ["room:1"]}
    assert claims["session_id"] == "l1"
    assert time.time() < claims["exp"] <= time.time() + 1800


@pytest.mark.parametrize("words", [[], ["--user=alice", "--permission=fly"], ["--user=alice", "--hours=0"]])
def test_bad_usage(runner: CliRunner, words: list[str]) -> None:
    assert runner.invoke(token, words).exit_code == 2


@pytest.mark.parametrize("user", ["", "x" * 129, "a\nb"])
def test_no_user(runner: CliRunner, user: str) -> None:
    with pytest.raises(MisuseError):
        runner.invoke(token, ["--user", user], catch_exceptions=False)


def test_the_dev_profile_has_no_secret_to_sign_with(runner: CliRunner) -> None:
    with pytest.raises(MisuseError, match="JWT_SECRET"):
        runner.invoke(token, ["--user=alice", "--profile=dev"], env={"JWT_SECRET": ""}, catch_exceptions=False)


def test_an_api_key_and_the_lines_that_accept_it(runner: CliRunner, tmp_path: Path) -> None:
    output = runner.invoke(api_key, ["--user=backend", "--role=admin"], catch_exceptions=False).stdout
    key = output.splitlines()[0].rpartition(" ")[2]
    Path("config.toml").write_text(f'[[auth.providers]]\ntype = "api_key"\n{output}')
    ((stored,),) = (provider.keys for provider in load([], {"JWT_SECRET": SECRET}, tmp_path).config.auth.providers)
    assert stored.key == "sha256:" + hashlib.sha256(key.encode()).hexdigest()
    assert (stored.user, stored.roles) == ("backend", ("admin",))
    assert key not in str(tomllib.loads(output))
