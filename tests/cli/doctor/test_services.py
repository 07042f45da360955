"""Redis, issuers, the clock and libraries."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from realtime_communication.cli.doctor import services
from realtime_communication.cli.doctor.finding import Finding, Level
from realtime_communication.config import Config
from realtime_communication.config.schema import Auth, AuthProvider, Testing
from realtime_communication.config.services import Redis
from realtime_communication.config.watching import Tracing
from serving.processes import ServerProcess, free_port
from serving.redis import RedisServer
from serving.web import Handler, web_server


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def config(url: str, *, required: bool = False) -> Config:
    return Config(redis=Redis(url=url, timeout_secs=2.0, required=required))


def levels(found: list[Finding]) -> dict[str, Level]:
    assert all(finding.mend for finding in found if finding.level is not Level.OK)
    return {finding.subject: finding.level for finding in found}


def test_a_redis_that_is_fit(redis: RedisServer) -> None:
    found = list(services.redis(config(redis.url)))
    assert levels(found) == dict.fromkeys(("redis", "redis maxmemory-policy", "clock of Redis"), Level.OK)
    assert "version 7" in found[0].text


def test_a_redis_that_forgets(redis: RedisServer) -> None:
    redis.client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        assert levels(list(services.redis(config(redis.url))))["redis maxmemory-policy"] is Level.WARN
        redis.client.config_set("maxmemory", "100mb")
        assert levels(list(services.redis(config(redis.url))))["redis maxmemory-policy"] is Level.FAIL
    finally:
        redis.client.config_set("maxmemory", "0")
        redis.client.config_set("maxmemory-policy", "noeviction")


def test_an_old_redis() -> None:
    (old, _) = services._about_redis("here", {"redis_version": "6.2.1"}, {})
    assert old.level is Level.FAIL and "Redis 7 or newer" in old.mend


def test_another_time(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    monkeypatch.setattr(services.time, "time", lambda: real() - 10)
    (*_, found) = services.redis(config(redis.url))
    assert found.level is Level.FAIL and "10.0 s behind" in found.text


@pytest.mark.parametrize(("required", "level"), [(False, Level.WARN), (True, Level.FAIL)])
def test_no_redis(required: bool, level: Level) -> None:
    url = f"redis://user:very-secret@127.0.0.1:{free_port()}"
    (found,) = services.redis(config(url, required=required))
    assert found.level is level and "very-secret" not in found.text + found.mend


def test_redis_is_not_used() -> None:
    (found,) = services.redis(Config(testing=Testing(use_in_memory_storage=True)))
    assert found.level is Level.OK


def test_a_clock_behind_the_files(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("")
    assert all(found.level is not Level.FAIL for found in services.clock([path, tmp_path / "none"]))
    os.utime(path, (time.time() + 3600,) * 2)
    (found,) = services.clock([path])
    assert found.level is Level.FAIL and str(path) in found.text


@pytest.mark.parametrize(("state", "level"), [(True, Level.OK), (False, Level.WARN)])
def test_a_clock_that_is_kept_or_not(monkeypatch: pytest.MonkeyPatch, state: bool, level: Level) -> None:
    assert services._is_synchronised() in (True, False)
    monkeypatch.setattr(services, "_is_synchronised", lambda: state)
    assert [found.level for found in services.clock([])] == [level]


def issuer(url: str) -> list[Finding]:
    provider = AuthProvider(type="oauth2", issuer=url)
    other = AuthProvider(type="jwt")
    return list(services.issuers(Config(auth=Auth(providers=(provider, other)))))


def test_issuers(live_server: ServerProcess) -> None:
    (unreachable,) = issuer(f"http://127.0.0.1:{free_port()}")
    assert unreachable.level is Level.FAIL and "curl -v" in unreachable.mend
    (wrong,) = issuer(live_server.http_url)
    assert wrong.level is Level.FAIL and "404" in wrong.text


def test_an_issuer_and_its_clock() -> None:
    class Answering(Handler):
        ahead = 0

        def answer(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

        def date_time_string(self, timestamp: float | None = None) -> str:
            return super().date_time_string(int(time.time()) + self.ahead)

    with web_server(Answering) as url:
        assert [found.level for found in issuer(url)] == [Level.OK, Level.OK]
        Answering.ahead = 60
        assert [found.level for found in issuer(url)] == [Level.OK, Level.FAIL]


def test_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    traced = Config(tracing=Tracing(enabled=True))
    assert all(found.level is Level.OK for found in services.libraries(traced))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    found = {finding.subject: finding for finding in services.libraries(traced)}
    assert {name: finding.level.value for name, finding in found.items()} == {
        "opentelemetry": "fail",
        "isal": "warn",
        "hiredis": "warn",
        "uvloop": "fail",
    }
    assert "realtime_communication[tracing]" in found["opentelemetry"].mend
