"""What each key of `[circuit_breaker]` does, from the loader to the log, the counts and a receiver of webhooks."""

import asyncio
import contextlib
import hashlib
import hmac
import logging

import pytest

from realtime_communication.config import load
from realtime_communication.errors import CircuitOpen
from realtime_communication.observability.logs import get_logger
from realtime_communication.resilience.breaker import Breakers, BreakerState
from realtime_communication.resilience.breaker_events import BreakerEvents
from realtime_communication.resilience.retry import RetryPolicy
from realtime_communication.resilience.webhooks import Webhooks, secret_of
from serving.receiver import Receiver, documented_check
from serving.tokens import SECRET

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
LOGGER = "realtime_communication.resilience"


class Parts:
    """What a worker makes of its configuration, on a clock that the test moves."""

    def __init__(self, config):
        self.time = 0.0
        self.breakers = Breakers(config.circuit_breaker, clock=lambda: self.time)
        events = config.circuit_breaker.events
        self.webhooks = Webhooks(
            events.webhook_url,
            secret_of(events, config.auth.jwt_secret),
            self.breakers["webhooks"],
            get_logger(LOGGER),
            retries=RetryPolicy(5, 0.001, 0.001),
            sleep=self._sleep,
        )
        self.events = BreakerEvents(self.breakers, events, get_logger(LOGGER), self.webhooks, "node-1")

    async def _sleep(self, seconds):
        self.time += seconds
        await asyncio.sleep(0)

    def state(self, service="redis"):
        return self.breakers[service].state

    def fail(self, times=1, service="redis"):
        for _ in range(times):
            with contextlib.suppress(OSError), self.breakers[service].guard():
                raise OSError

    def succeed(self, times=1, service="redis"):
        for _ in range(times):
            with self.breakers[service].guard():
                pass

    def trials(self, service="redis"):
        """How many calls are let in at once."""
        with contextlib.ExitStack() as calls:
            for number in range(100):
                try:
                    calls.enter_context(self.breakers[service].guard())
                except CircuitOpen:
                    return number
        return None

    def failures_until_open(self, service="redis"):
        return next(n for n in range(1, 100) if self.fail(1, service) or self.state(service) is OPEN)

    def successes_until_closed(self, service="redis"):
        return next(n for n in range(1, 100) if self.succeed(1, service) or self.state(service) is CLOSED)

    def wait_until_trial(self, service="redis"):
        """Seconds until calls are let in again."""
        seconds = self.breakers[service].status().retry_in_secs
        self.time += seconds - 0.25
        assert self.trials(service) == 0
        self.time += 0.25
        return seconds

    def send(self, events):
        """Run the webhooks until so many events are delivered or given up."""

        async def sending():
            task = asyncio.create_task(self.webhooks.run())
            async with asyncio.timeout(20):
                while self.webhooks.delivered + self.webhooks.failed < events:
                    await asyncio.sleep(0.002)
            task.cancel()
            await asyncio.wait([task])

        asyncio.run(sending())


@pytest.fixture
def parts(configure):
    """The parts under a `[circuit_breaker]`: ``parts(failure_threshold=3)``."""
    return lambda **section: Parts(configure({"circuit_breaker": section}).config)


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.close()


class TestThresholds:
    def test_enabled(self, parts):
        off = parts(enabled=False, failure_threshold=1)
        off.fail(20)
        assert off.state() is CLOSED
        on = parts(enabled=True, failure_threshold=1)
        on.fail()
        assert on.state() is OPEN

    def test_failure_threshold(self, parts):
        assert parts(failure_threshold=3).failures_until_open() == 3
        assert parts().failures_until_open() == 5

    def test_success_threshold(self, parts):
        for section, expected in (({"success_threshold": 4}, 4), ({}, 2)):
            some = parts(failure_threshold=1, **section)
            some.fail()
            some.wait_until_trial()
            assert some.successes_until_closed() == expected

    def test_timeout(self, parts):
        for section, expected in (({"timeout_secs": 2.5}, 2.5), ({}, 60)):
            some = parts(failure_threshold=1, **section)
            some.fail()
            assert some.wait_until_trial() == expected
            some.succeed()
            assert some.state() is HALF_OPEN

    @pytest.mark.parametrize("key", ["half_open_max_requests", "half_open_requests"])
    def test_half_open_requests(self, parts, key):
        some = parts(failure_threshold=1, success_threshold=50, **{key: 4})
        some.fail()
        some.wait_until_trial()
        assert some.trials() == 4

    def test_environment_variables(self, tmp_path):
        environ = {
            "JWT_SECRET": SECRET,
            "CIRCUIT_BREAKER_FAILURE_THRESHOLD": "2",
            "CIRCUIT_BREAKER_SUCCESS_THRESHOLD": "3",
            "CIRCUIT_BREAKER_TIMEOUT_SECS": "7",
            "CIRCUIT_BREAKER_HALF_OPEN_REQUESTS": "1",
        }
        some = Parts(load([], environ=environ, directory=tmp_path).config)
        assert some.failures_until_open() == 2
        assert some.wait_until_trial() == 7
        assert some.trials() == 1  # it ends as a success
        assert some.successes_until_closed() == 2
        off = Parts(load([], environ=environ | {"CIRCUIT_BREAKER_ENABLED": "false"}, directory=tmp_path).config)
        off.fail(20)
        assert off.state() is CLOSED

    def test_a_reload(self, parts, configure):
        some = parts(failure_threshold=1)
        some.fail()
        some.breakers.configure(configure({"circuit_breaker": {"timeout_secs": 5}}).config.circuit_breaker)
        assert some.wait_until_trial() == 5


class TestServices:
    """Each field of `services[]` holds for its service alone; what is left out is as for all."""

    def only(self, parts, **fields):
        return parts(
            failure_threshold=4, success_threshold=1, timeout_secs=30, services=[{"name": "auth_service", **fields}]
        )

    def test_name(self, parts):
        some = self.only(parts, failure_threshold=2)
        assert some.failures_until_open("auth_service") == 2
        for other in ("redis", "message_queue", "webhooks"):
            assert some.failures_until_open(other) == 4

    def test_failure_threshold(self, parts):
        assert self.only(parts, failure_threshold=7).failures_until_open("auth_service") == 7

    def test_success_threshold(self, parts):
        some = self.only(parts, success_threshold=3)
        for service, expected in (("auth_service", 3), ("redis", 1)):
            some.fail(4, service)
            some.wait_until_trial(service)
            assert some.successes_until_closed(service) == expected

    def test_timeout(self, parts):
        some = self.only(parts, timeout_secs=8)
        for service, expected in (("auth_service", 8), ("redis", 30)):
            some.fail(4, service)
            assert some.wait_until_trial(service) == expected

    @pytest.mark.parametrize("key", ["half_open_requests", "half_open_max_requests"])
    def test_half_open_requests(self, parts, key):
        some = self.only(parts, success_threshold=50, **{key: 6})
        some.fail(4, "auth_service")
        some.wait_until_trial("auth_service")
        assert some.trials("auth_service") == 6


class TestEvents:
    def test_log_state_changes(self, parts, caplog):
        caplog.set_level(logging.INFO, LOGGER)
        parts(failure_threshold=1, events={"log_state_changes": False}).fail()
        assert caplog.records == []
        some = parts(failure_threshold=1, success_threshold=1)
        some.fail()
        some.wait_until_trial()
        some.succeed()
        told = [(r.levelname, r.event_fields["from"], r.event_fields["to"]) for r in caplog.records]
        assert told == [
            ("WARNING", "closed", "open"),
            ("INFO", "open", "half_open"),
            ("INFO", "half_open", "closed"),
        ]
        assert {record.event_fields["service"] for record in caplog.records} == {"redis"}

    def test_emit_metrics(self, parts):
        off = parts(failure_threshold=1, events={"emit_metrics": False})
        off.fail()
        assert (off.events.transitions["redis", "open"], off.events.states()) == (0, {})
        on = parts(failure_threshold=1)
        on.fail()
        assert (on.events.transitions["redis", "open"], on.events.states()["redis"]) == (1, "open")

    def test_webhook_url(self, parts, receiver):
        receiver.start()
        some = parts(failure_threshold=1, success_threshold=1, events={"webhook_url": receiver.url})
        some.fail(1, "message_queue")
        some.wait_until_trial("message_queue")
        some.succeed(1, "message_queue")
        some.send(3)
        assert [(event["from"], event["to"]) for event in receiver.events] == [
            ("closed", "open"),
            ("open", "half_open"),
            ("half_open", "closed"),
        ]
        first = receiver.events[0]
        assert first.pop("at").endswith("Z")
        assert first == {
            "event": "circuit_breaker.state_change",
            "service": "message_queue",
            "from": "closed",
            "to": "open",
            "reason": "failures in a row: 1, the last one OSError",
            "failures": 1,
            "node_id": "node-1",
        }

    def test_webhook_secret(self, parts, receiver):
        receiver.start()
        some = parts(failure_threshold=1, events={"webhook_url": receiver.url, "webhook_secret": "of the receiver"})
        some.fail()
        some.send(1)
        (request,) = receiver.requests
        assert documented_check()("of the receiver", request.headers, request.body)

    def test_the_secret_that_is_derived(self, parts, receiver):
        receiver.start()
        some = parts(failure_threshold=1, events={"webhook_url": receiver.url})
        some.fail()
        some.send(1)
        (request,) = receiver.requests
        derived = hmac.new(SECRET.encode(), b"realtime_communication webhook", hashlib.sha256).hexdigest()
        assert documented_check()(derived, request.headers, request.body)
        assert not documented_check()(SECRET, request.headers, request.body)

    def test_a_receiver_that_fails_some_times(self, parts, receiver):
        receiver.answers = [500, 503, 429]
        receiver.start()
        some = parts(failure_threshold=1, events={"webhook_url": receiver.url})
        some.fail()
        some.send(1)
        assert (some.webhooks.delivered, len(receiver.requests)) == (1, 4)
        # Its own breaker opened and closed meanwhile, which nobody is told of by webhook.
        assert {event["service"] for event in receiver.events} == {"redis"}
        assert some.events.transitions["webhooks", "open"] == 3

    def test_a_receiver_that_is_down(self, parts, receiver, caplog):
        url = receiver.url.replace("http://", "http://user:hidden@")
        some = parts(failure_threshold=1, events={"webhook_url": url})
        some.fail()
        some.fail(1, "auth_service")
        some.send(2)
        assert (some.webhooks.failed, some.state("webhooks")) == (2, OPEN)
        given_up = [record for record in caplog.records if record.getMessage() == "a webhook was not delivered"]
        assert [record.event_fields["receiver"] for record in given_up] == ["http://127.0.0.1"] * 2
        assert "hidden" not in repr([record.event_fields for record in caplog.records])
