"""Who is asked what users may do: the function that is imported, or the service."""

import sys

import pytest

from core.hub.sans_io import make_hub
from realtime_communication.config.authorization import Authorization
from realtime_communication.config.schema import Config
from realtime_communication.errors import ConfigurationError
from realtime_communication.resilience.breaker import BreakerSettings, CircuitBreaker
from realtime_communication.server.authorization import authorizer_of

MODULE = """
def may(action, user, topic):
    return topic != "closed"

async def may_later(action, user, topic):
    return True

def of_two(action, user):
    return True

number = 1
"""


@pytest.fixture
def rules(tmp_path, monkeypatch):
    (tmp_path / "authorization_rules.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield "authorization_rules"
    sys.modules.pop("authorization_rules", None)


def made(hub=None, **settings):
    breaker = CircuitBreaker("authorization", BreakerSettings(True, 5, 1, 1, 1), lambda change: None)
    config = Config(authorization=Authorization(**settings))
    return authorizer_of(config, (hub or make_hub()).hub, breaker, "n-1")


def test_nobody():
    server = make_hub()
    assert made(server) is None
    assert server.connect().subscribe("closed")


def test_a_function(rules):
    server = make_hub()
    made(server, callable=f"{rules}:may")
    peer = server.connect()
    peer.refused("forbidden", {"type": "Subscribe", "topic": "closed"})
    assert peer.subscribe("open")


@pytest.mark.parametrize("settings", [{"callable": "authorization_rules:may_later"}, {"url": "http://127.0.0.1:9/"}])
def test_what_answers_later(rules, settings):
    assert made(**settings) is not None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("of_two", "must be callable with 3 arguments, the action, the user and the topic"),
        ("number", "must name a function"),
        ("missing", "cannot be imported: AttributeError"),
    ],
)
def test_what_cannot_be_used(rules, name, message):
    with pytest.raises(ConfigurationError) as caught:
        made(callable=f"{rules}:{name}")
    (problem,) = caught.value.problems
    assert problem.key == "authorization.callable"
    assert message in problem.message
