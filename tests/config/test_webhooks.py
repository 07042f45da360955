"""`[webhooks]`: what it may say."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from realtime_communication.config import LoadedConfig
from realtime_communication.config.webhooks import WEBHOOK_EVENTS
from realtime_communication.errors import ConfigurationProblem

Load = Callable[..., LoadedConfig]
Refuse = Callable[..., list[ConfigurationProblem]]


def test_defaults(load_config: Load) -> None:
    webhooks = load_config().config.webhooks
    assert (webhooks.url, webhooks.secret, webhooks.events) == ("", "", WEBHOOK_EVENTS)
    assert (webhooks.max_batch, webhooks.batch_wait_ms) == (100, 100.0)


def test_all_of_it(load_config: Load) -> None:
    text = '[webhooks]\nurl = "https://a.example/x"\nsecret = "s"\nevents = ["connect"]\nmax_batch = 5\n'
    webhooks = load_config(files={"config.toml": text}).config.webhooks
    assert (webhooks.url, webhooks.secret, webhooks.events, webhooks.max_batch) == (
        "https://a.example/x",
        "s",
        ("connect",),
        5,
    )
    assert "a.example" not in repr(webhooks)


@pytest.mark.parametrize(
    ("line", "key", "message"),
    [
        ('url = "ftp://a.example"', "webhooks.url", "must be an http or https URL"),
        ('url = "http://169.254.169.254/"', "webhooks.url", "must not be a link-local address"),
        ('events = ["connected"]', "webhooks.events", "must be a list of connect, disconnect, topic_occupied"),
        ('events = ["connect", "connect"]', "webhooks.events", "each once"),
        ("events = []", "webhooks.events", "at least one"),
        ("max_batch = 0", "webhooks.max_batch", "from 1 to 1000"),
        ("batch_wait_ms = -1", "webhooks.batch_wait_ms", "from 0 to 60000"),
        ('event = ["connect"]', "webhooks.event", "did you mean webhooks.events?"),
    ],
)
def test_what_is_wrong(line: str, key: str, message: str, refused: Refuse) -> None:
    (problem,) = refused(files={"config.toml": f"[webhooks]\n{line}\n"})
    assert problem.key == key
    assert message in problem.message
