"""Batches of events, sent to a real receiver on the loopback."""

import asyncio

import pytest

from realtime_communication.config.webhooks import Webhooks
from realtime_communication.resilience import event_webhooks
from realtime_communication.resilience.breaker import BreakerState
from realtime_communication.resilience.event_webhooks import EventWebhooks
from realtime_communication.resilience.retry import RetryPolicy
from serving.receiver import documented_check
from serving.sending import SECRET, Sending, until

QUICK = RetryPolicy(attempts=3, delay_secs=0.001, max_delay_secs=0.001)
LONG_MS = 60_000


class Sender(Sending):
    """Batches and their task, in the loop of the test."""

    def __init__(self, url, *, failures=1000, timeout=0.01, **settings):
        super().__init__("event_webhooks", enabled=True, failures=failures, timeout=timeout)
        self.url = url
        self.webhooks = EventWebhooks(self.settings(**settings), SECRET, self.breaker, self.log, "n-1", retries=QUICK)

    def settings(self, **changes):
        return Webhooks(**({"url": self.url, "batch_wait_ms": 0} | changes))

    def post(self, *numbers):
        self.webhooks.post({"number": number} for number in numbers)


def numbers(receiver):
    return [[event["number"] for event in body["events"]] for body in receiver.events]


def send(receiver, events, **options):
    async def sending():
        async with Sender(receiver.url, **options) as sender:
            sender.post(*range(events))
            await sender.settled(events)
            return sender

    return asyncio.run(sending())


class TestBatches:
    def test_one(self, make_receiver):
        receiver = make_receiver().start()
        send(receiver, 3)
        (request,) = receiver.requests
        assert request.body == b'{"node_id":"n-1","events":[{"number":0},{"number":1},{"number":2}]}'
        assert documented_check()(SECRET.decode(), request.headers, request.body)

    def test_their_size(self, make_receiver):
        receiver = make_receiver().start()
        send(receiver, 5, max_batch=2)
        assert numbers(receiver) == [[0, 1], [2, 3], [4]]

    def test_a_full_one_does_not_wait(self, make_receiver):
        receiver = make_receiver().start()
        send(receiver, 4, max_batch=2, batch_wait_ms=LONG_MS)
        assert numbers(receiver) == [[0, 1], [2, 3]]

    def test_what_comes_meanwhile_goes_along(self, make_receiver):
        receiver = make_receiver().start()

        async def sending():
            async with Sender(receiver.url, max_batch=3, batch_wait_ms=LONG_MS) as sender:
                for number in range(3):
                    sender.post(number)
                    await asyncio.sleep(0)
                await sender.settled(3)

        asyncio.run(sending())
        assert numbers(receiver) == [[0, 1, 2]]

    def test_the_last_ones_are_sent_at_the_end(self, make_receiver):
        receiver = make_receiver().start()

        async def sending():
            async with Sender(receiver.url, batch_wait_ms=LONG_MS) as sender:
                sender.post(1, 2)
                await asyncio.sleep(0)
                await sender.webhooks.drain(20)

        asyncio.run(sending())
        assert numbers(receiver) == [[1, 2]]

    def test_the_end_waits_only_so_long(self, make_receiver):
        receiver = make_receiver()
        receiver.silent = True
        receiver.start()

        async def sending():
            async with Sender(receiver.url) as sender:
                sender.post(1)
                await until(lambda: receiver.requests)
                await sender.webhooks.drain(0.01)
                assert sender.webhooks.delivered == 0

        asyncio.run(sending())


class TestFaults:
    def test_a_batch_is_tried_again_under_its_id(self, make_receiver):
        receiver = make_receiver(500, 429).start()
        sender = send(receiver, 2)
        assert (sender.webhooks.delivered, sender.webhooks.failed) == (2, 0)
        assert numbers(receiver) == [[0, 1]] * 3
        assert len({request.headers["X-RTC-Delivery"] for request in receiver.requests}) == 1

    def test_one_that_is_given_up_is_counted_and_the_next_one_sent(self, make_receiver):
        receiver = make_receiver(500, 500, 500).start()
        sender = send(receiver, 4, max_batch=2)
        assert (sender.webhooks.delivered, sender.webhooks.failed) == (2, 2)
        assert sender.told == ["a webhook was not delivered"]

    @pytest.mark.parametrize("status", [301, 307, 400, 404])
    def test_one_that_is_refused_is_given_up_at_once(self, make_receiver, status):
        receiver = make_receiver(status, headers={"Location": "http://127.0.0.1:1/"}).start()
        sender = send(receiver, 1)
        assert (sender.webhooks.failed, len(receiver.requests)) == (1, 1)

    def test_an_answer_that_is_huge_is_not_read(self, make_receiver):
        receiver = make_receiver(200, body=b"x" * (32 << 20)).start()
        sender = send(receiver, 1)
        assert sender.webhooks.delivered == 1
        asyncio.run(until(lambda: receiver.cut_off == 1))

    def test_nothing_is_sent_while_the_breaker_is_open(self, make_receiver):
        receiver = make_receiver(500).start()

        async def sending():
            async with Sender(receiver.url, failures=1, timeout=3600) as sender:
                sender.post(1)
                await until(lambda: sender.breaker.state is BreakerState.OPEN)
                sender.post(2)
                await asyncio.sleep(0.02)
                assert (len(receiver.requests), sender.webhooks.failed) == (1, 0)

        asyncio.run(sending())

    def test_the_oldest_ones_give_way(self, monkeypatch):
        monkeypatch.setattr(event_webhooks, "MAX_EVENTS", 3)
        sender = Sender("http://127.0.0.1:1/")
        sender.post(*range(5))
        sender.post(5)
        sender.webhooks.post([], lost=4)
        assert sender.webhooks.dropped == 7
        assert [event["number"] for event in sender.webhooks._waiting] == [3, 4, 5]
        assert sender.told == ["events for a webhook are dropped: too many wait"]

    def test_a_batch_under_way_stays_when_the_task_is_cancelled(self, make_receiver):
        receiver = make_receiver()
        receiver.silent = True
        receiver.start()

        async def sending():
            sender = Sender(receiver.url)
            async with sender:
                sender.post(1, 2)
                await until(lambda: receiver.requests)
            assert [event["number"] for event in sender.webhooks._waiting] == [1, 2]

        asyncio.run(sending())


class TestConfigure:
    def test_another_receiver(self, make_receiver):
        first, second = make_receiver().start(), make_receiver().start()

        async def sending():
            async with Sender(first.url) as sender:
                sender.post(1)
                await sender.settled(1)
                sender.webhooks.configure(Webhooks(url=second.url, batch_wait_ms=0), b"another")
                sender.post(2)
                await sender.settled(2)

        asyncio.run(sending())
        assert (numbers(first), numbers(second)) == ([[1]], [[2]])
        (request,) = second.requests
        assert documented_check()("another", request.headers, request.body)

    def test_none(self):
        sender = Sender("http://127.0.0.1:1/")
        sender.post(1)
        sender.webhooks.configure(Webhooks(), SECRET)
        sender.post(2)
        assert not sender.webhooks._waiting

    def test_numbers(self):
        sender = Sender("")
        assert sender.webhooks.numbers() == {}
        sender.webhooks.configure(Webhooks(url="http://127.0.0.1:1/"), SECRET)
        assert sender.webhooks.numbers() == {
            "webhook_events_delivered": 0,
            "webhook_events_failed": 0,
            "webhook_events_dropped": 0,
        }
