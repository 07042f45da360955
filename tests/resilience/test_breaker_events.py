"""What a change of state brings about: log, counts, webhook."""

import contextlib

import msgspec
import pytest

from realtime_communication.config.services import BREAKER_NAMES
from realtime_communication.config.services import BreakerEvents as EventsConfig
from realtime_communication.config.services import CircuitBreaker as Section
from realtime_communication.resilience.breaker import Breakers, BreakerState, Change
from realtime_communication.resilience.breaker_events import BreakerEvents, webhook_event
from realtime_communication.resilience.webhooks import Webhooks, secret_of

URL = "http://user:hidden@127.0.0.1:9/hidden"


class Stage:
    def __init__(self, **config):
        self.time = 0.0
        self.lines = []
        self.config = EventsConfig(**({"webhook_url": URL} | config))
        self.breakers = Breakers(Section(failure_threshold=1, success_threshold=1), clock=lambda: self.time)
        self.webhooks = Webhooks(self.config.webhook_url, b"secret", self.breakers["webhooks"], self)
        self.events = BreakerEvents(self.breakers, self.config, self, self.webhooks, "node-1")

    def info(self, event, /, **fields):
        self.lines.append(("info", event, fields))

    def warning(self, event, /, **fields):
        self.lines.append(("warning", event, fields))

    @property
    def posted(self):
        return [msgspec.json.decode(delivery.body) for delivery in self.webhooks._waiting]

    def fail(self, service="redis"):
        with contextlib.suppress(OSError), self.breakers[service].guard():
            raise OSError("hidden")

    def recover(self, service="redis"):
        self.time += 60
        with self.breakers[service].guard():
            pass


@pytest.fixture
def stage():
    return Stage()


def test_one_line_for_each_change_and_a_warning_when_it_opens(stage):
    stage.fail()
    stage.recover()
    event = "a circuit breaker changed its state"
    assert stage.lines == [
        (
            "warning",
            event,
            {
                "service": "redis",
                "from": "closed",
                "to": "open",
                "reason": "failures in a row: 1, the last one OSError",
                "failures": 1,
            },
        ),
        (
            "info",
            event,
            {"service": "redis", "from": "open", "to": "half_open", "reason": "60 s have passed", "failures": 1},
        ),
        (
            "info",
            event,
            {
                "service": "redis",
                "from": "half_open",
                "to": "closed",
                "reason": "successful trials in a row: 1",
                "failures": 0,
            },
        ),
    ]


def test_transitions_are_counted_and_states_shown(stage):
    assert set(stage.events.transitions.values()) == {0}
    assert len(stage.events.transitions) == len(BREAKER_NAMES) * 3
    stage.fail()
    stage.recover()
    stage.fail()
    counted = {key: count for key, count in stage.events.transitions.items() if count}
    assert counted == {("redis", "open"): 2, ("redis", "half_open"): 1, ("redis", "closed"): 1}
    assert stage.events.states() == dict.fromkeys(BREAKER_NAMES, "closed") | {"redis": "open"}


def test_each_can_be_switched_off():
    stage = Stage(log_state_changes=False, emit_metrics=False, webhook_url="")
    stage.fail()
    assert (stage.lines, stage.posted, stage.events.states()) == ([], [], {})
    assert set(stage.events.transitions.values()) == {0}


def test_a_reload_changes_it():
    stage = Stage(log_state_changes=False, emit_metrics=False, webhook_url="")
    config = EventsConfig(webhook_url=URL)
    stage.events.configure(config, "jwt secret")
    stage.fail()
    assert len(stage.lines) == len(stage.posted) == 1
    assert stage.events.transitions["redis", "open"] == 1
    assert stage.webhooks._secret == secret_of(config, "jwt secret")


def test_changes_are_posted_but_never_those_of_the_webhooks_themselves(stage):
    stage.fail("webhooks")
    stage.fail("auth_service")
    assert [event["service"] for event in stage.posted] == ["auth_service"]
    assert [fields["service"] for _, _, fields in stage.lines] == ["webhooks", "auth_service"]


def test_the_event():
    change = Change("redis", BreakerState.CLOSED, BreakerState.OPEN, "failures in a row: 5", 1764065121.25, 5)
    assert webhook_event(change, "node-1") == {
        "event": "circuit_breaker.state_change",
        "service": "redis",
        "from": "closed",
        "to": "open",
        "reason": "failures in a row: 5",
        "failures": 5,
        "at": "2025-11-25T10:05:21.250Z",
        "node_id": "node-1",
    }
