"""`[authorization]`: what it may say."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from realtime_communication.config import LoadedConfig
from realtime_communication.config.authorization import AUTHORIZED_ACTIONS, Authorization
from realtime_communication.errors import ConfigurationProblem

Load = Callable[..., LoadedConfig]
Refuse = Callable[..., list[ConfigurationProblem]]


def test_defaults(load_config: Load) -> None:
    authorization = load_config().config.authorization
    assert authorization == Authorization()
    assert (authorization.callable, authorization.url, authorization.on_failure) == ("", "", "deny")
    assert authorization.actions == AUTHORIZED_ACTIONS


def test_all_of_it(load_config: Load) -> None:
    text = (
        '[authorization]\nurl = "https://u:p@a.example/x"\nsecret = "s"\nactions = ["publish"]\ntimeout_ms = 50\n'
        'cache_ttl_secs = 5\ncache_size = 6\nmax_pending = 7\non_failure = "allow"\n'
    )
    authorization = load_config(files={"config.toml": text}).config.authorization
    assert authorization == Authorization(
        url="https://u:p@a.example/x",
        secret="s",
        actions=("publish",),
        timeout_ms=50.0,
        cache_ttl_secs=5.0,
        cache_size=6,
        max_pending=7,
        on_failure="allow",
    )
    assert "a.example" not in repr(authorization)


@pytest.mark.parametrize(
    ("line", "key", "message"),
    [
        ('url = "file:///etc/passwd"', "authorization.url", "must be an http or https URL"),
        ('url = "http://a"\ncallable = "a:b"', "authorization.url", "must be empty while authorization.callable"),
        ('url = "http://[fe80::1]/"', "authorization.url", "must not be a link-local address"),
        ('callable = "a.b"', "authorization.callable", "must be package.module:function"),
        ("actions = []", "authorization.actions", "at least one"),
        ('actions = ["connect"]', "authorization.actions", "must be a list of subscribe and publish"),
        ('actions = ["publish", "publish"]', "authorization.actions", "each once"),
        ("timeout_ms = 9001", "authorization.timeout_ms", "from 10 to 9000"),
        ("cache_ttl_secs = 0", "authorization.cache_ttl_secs", "from 0.1 to"),
        ("cache_size = 0", "authorization.cache_size", "from 1 to"),
        ('on_failure = "ask"', "authorization.on_failure", '"deny", "allow"'),
        ('function = "a:b"', "authorization.function", "unknown key"),
    ],
)
def test_what_is_wrong(line: str, key: str, message: str, refused: Refuse) -> None:
    (problem,) = refused(files={"config.toml": f"[authorization]\n{line}\n"})
    assert problem.key == key
    assert message in problem.message
