"""Who is asked, how often, and what counts when there is no answer."""

import asyncio
import logging

import pytest

from realtime_communication.auth.authorizer import FAILURE_MS, Authorizer
from realtime_communication.auth.call_out import CallOut
from realtime_communication.config.authorization import Authorization
from realtime_communication.errors import RequestRefused
from realtime_communication.resilience.breaker import BreakerSettings, BreakerState, CircuitBreaker
from serving.receiver import Receiver

QUESTION = ("publish", "alice", "t")
TTL_MS = 60_000


class Hub:
    """Remembers what was decided, without a clock."""

    def __init__(self):
        self.told = []
        self.answers = {}

    def ask_about(self, actions, ask, most, pending, ttl_ms):
        self.settings = (actions, most, pending, ttl_ms)

    def verdict(self, *question):
        return self.answers.get(question)

    def decided(self, action, user, topic, allowed, ttl_ms):
        self.told.append((action, user, topic, allowed, ttl_ms))
        self.answers[action, user, topic] = allowed


def breaker(failures=1000):
    return CircuitBreaker("authorization", BreakerSettings(True, failures, 1, 3600, 1), lambda change: None)


def made(function=None, *, hub=None, failures=1000, call_out=None, **settings):
    return Authorizer(Authorization(**settings), hub or Hub(), breaker(failures), function=function, call_out=call_out)


def decided(authorizer, *questions):
    async def deciding():
        try:
            return await asyncio.gather(*(authorizer.decide(*question) for question in questions))
        finally:
            await authorizer.close()

    return asyncio.run(deciding())


def test_what_the_hub_is_told():
    hub = Hub()
    made(lambda *question: True, hub=hub, cache_ttl_secs=1.5, cache_size=7, max_pending=3, actions=("publish",))
    assert hub.settings == (("publish",), 7, 3, 1500)


class TestPlainFunctions:
    @pytest.mark.parametrize("allowed", [True, False])
    def test_the_answer_comes_at_once(self, allowed):
        calls = []
        hub = Hub()
        authorizer = made(lambda *question: calls.append(question) or allowed, hub=hub)
        assert authorizer.ask(*QUESTION) is allowed
        assert decided(authorizer, QUESTION) == [allowed]
        assert calls == [QUESTION] * 2
        assert hub.told == [(*QUESTION, allowed, TTL_MS)]

    @pytest.mark.parametrize("answer", [None, 1, "yes", ()])
    def test_what_is_no_answer(self, answer, caplog):
        authorizer = made(lambda *question: answer)
        assert authorizer.ask(*QUESTION) is False
        assert authorizer.failures == 1
        assert "must be true or false" in caplog.records[0].event_fields["reason"]

    @pytest.mark.parametrize(("on_failure", "allowed"), [("deny", False), ("allow", True)])
    @pytest.mark.parametrize("error", [RuntimeError("secret"), SystemExit("secret")])
    def test_a_failure(self, on_failure, allowed, error, caplog):
        def fail(*question):
            raise error

        assert made(fail, on_failure=on_failure).ask(*QUESTION) is allowed
        assert "secret" not in caplog.text
        assert caplog.records[0].event_fields["counts_as"] == on_failure

    def test_failures_are_not_a_line_each(self, caplog):
        authorizer = made(lambda *question: None)
        for _ in range(50):
            authorizer.ask(*QUESTION)
        assert (authorizer.failures, len(caplog.records) < 5) == (50, True)


class TestAsyncFunctions:
    def test_the_answer_comes_later(self):
        async def may(action, user, topic):
            await asyncio.sleep(0)
            return topic == "t"

        hub = Hub()
        authorizer = made(may, hub=hub)

        async def asking():
            assert authorizer.ask(*QUESTION) is None
            assert authorizer.ask("publish", "alice", "u") is None
            while len(hub.told) < 2:
                await asyncio.sleep(0)

        asyncio.run(asking())
        assert hub.told == [(*QUESTION, True, TTL_MS), ("publish", "alice", "u", False, TTL_MS)]

    def test_one_question_for_all_who_ask(self):
        calls = []

        async def may(*question):
            calls.append(question)
            await asyncio.sleep(0.01)
            return True

        hub = Hub()
        authorizer = made(may, hub=hub)
        assert decided(authorizer, QUESTION, QUESTION) == [True, True]
        assert calls == [QUESTION]
        assert decided(authorizer, QUESTION) == [True], "remembered"
        assert len(calls) == 1

    def test_who_goes_away_does_not_end_the_question(self):
        async def may(*question):
            await asyncio.sleep(0.02)
            return True

        hub = Hub()
        authorizer = made(may, hub=hub)

        async def asking():
            impatient = asyncio.create_task(authorizer.decide(*QUESTION))
            await asyncio.sleep(0)
            impatient.cancel()
            return await authorizer.decide(*QUESTION)

        assert asyncio.run(asking()) is True

    @pytest.mark.parametrize(("on_failure", "allowed"), [("deny", False), ("allow", True)])
    def test_one_that_takes_too_long(self, on_failure, allowed, caplog):
        async def may(*question):
            await asyncio.sleep(3600)

        hub = Hub()
        authorizer = made(may, hub=hub, timeout_ms=10, on_failure=on_failure)
        assert decided(authorizer, QUESTION) == [allowed]
        assert hub.told == [(*QUESTION, allowed, FAILURE_MS)]
        assert caplog.records[0].event_fields["reason"] == "TimeoutError"

    def test_an_open_breaker_asks_nobody(self):
        calls = []

        async def may(*question):
            calls.append(question)
            raise RuntimeError

        authorizer = made(may, failures=1)
        assert decided(authorizer, ("publish", "alice", "a")) == [False]
        assert authorizer._breaker.state is BreakerState.OPEN
        assert decided(authorizer, ("publish", "alice", "b")) == [False]
        assert len(calls) == 1

    def test_too_many_at_a_time(self):
        async def may(*question):
            await asyncio.sleep(0.02)
            return True

        authorizer = made(may, max_pending=1)

        async def asking():
            first = asyncio.create_task(authorizer.decide(*QUESTION))
            await asyncio.sleep(0)
            with pytest.raises(RequestRefused, match="too many") as caught:
                await authorizer.decide("publish", "alice", "another")
            assert (caught.value.code, caught.value.retry_after_ms) == ("unavailable", 1000)
            assert await first

        asyncio.run(asking())

    def test_the_end(self):
        async def may(*question):
            await asyncio.sleep(3600)

        hub = Hub()
        authorizer = made(may, hub=hub)

        async def ending():
            authorizer.ask(*QUESTION)
            await asyncio.sleep(0)
            await authorizer.close()
            await asyncio.sleep(0)

        asyncio.run(ending())
        assert hub.told == []


def test_what_is_not_asked_about():
    assert decided(made(lambda *question: False, actions=("subscribe",)), QUESTION) == [True]


def test_a_service(caplog):
    caplog.set_level(logging.WARNING)
    service = Receiver(200, 500, body=b'{"allowed":true}').start()
    url = service.url.replace("http://", "http://user:hidden@")
    try:
        hub = Hub()
        authorizer = made(hub=hub, call_out=CallOut(url, b"key", "n-1"))
        questions = [("publish", "alice", "a"), ("publish", "alice", "b")]

        async def asking():
            answers = [await authorizer.decide(*question) for question in questions]
            await authorizer.close()
            return answers

        assert asyncio.run(asking()) == [True, False]
    finally:
        service.close()
    assert hub.told == [(*questions[0], True, TTL_MS), (*questions[1], False, FAILURE_MS)]
    assert caplog.records[0].event_fields["reason"] == "HTTP 500"
    assert "hidden" not in caplog.text
