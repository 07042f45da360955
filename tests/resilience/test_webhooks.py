"""Webhooks, sent to a real receiver on the loopback."""

import asyncio
import hashlib
import hmac
import subprocess

import pytest

from realtime_communication.config.services import BreakerEvents
from realtime_communication.resilience import webhooks
from realtime_communication.resilience.breaker import BreakerSettings, BreakerState, CircuitBreaker
from realtime_communication.resilience.retry import RetryPolicy
from realtime_communication.resilience.webhooks import MAX_WAITING, Webhooks, origin_of, secret_of, signature
from serving.receiver import documented_check
from serving.sending import SECRET, Sending, until

QUICK = RetryPolicy(attempts=5, delay_secs=0.001, max_delay_secs=0.001)


class Sender(Sending):
    """Webhooks and their task, in the loop of the test."""

    def __init__(self, url, *, enabled=True, failures=1000, timeout=0.01, **options):
        super().__init__("webhooks", enabled=enabled, failures=failures, timeout=timeout)
        self.webhooks = Webhooks(url, SECRET, self.breaker, self.log, **({"retries": QUICK} | options))

    def post(self, *numbers):
        for number in numbers:
            self.webhooks.post({"number": number})


def numbers(receiver):
    return [event["number"] for event in receiver.events]


def send(receiver, events=1, **options):
    """What a sender was like after so many events."""

    async def sending():
        async with Sender(receiver.url, **options) as sender:
            sender.post(*range(events))
            await sender.settled(events)
            return sender

    return asyncio.run(sending())


class TestRequest:
    def test_a_receiver_can_check_it_as_documented(self, make_receiver):
        receiver = make_receiver().start()
        send(receiver)
        (request,) = receiver.requests
        is_genuine = documented_check()
        assert request.body == b'{"number":0}'
        assert request.headers["Content-Type"] == "application/json"
        assert is_genuine(SECRET.decode(), request.headers, request.body)
        assert not is_genuine("another secret", request.headers, request.body)
        assert not is_genuine(SECRET.decode(), request.headers, request.body + b" ")
        assert not is_genuine(SECRET.decode(), request.headers | {"X-RTC-Timestamp": "1"}, request.body)
        assert not is_genuine(SECRET.decode(), {}, request.body)

    def test_credentials_in_the_url_become_basic_authentication(self, make_receiver):
        receiver = make_receiver().start()

        async def sending():
            async with Sender(f"http://user:pass@127.0.0.1:{receiver.port}/x?key=k") as sender:
                sender.post(1)
                await sender.settled(1)

        asyncio.run(sending())
        (request,) = receiver.requests
        assert (request.path, request.headers["Authorization"]) == ("/x?key=k", "Basic dXNlcjpwYXNz")

    def test_events_come_in_their_order(self, make_receiver):
        receiver = make_receiver(204, 500, 204).start()
        send(receiver, 5)
        assert numbers(receiver) == [0, 1, 1, 2, 3, 4]
        assert len({request.headers["X-RTC-Delivery"] for request in receiver.requests}) == 5


class TestRetries:
    @pytest.mark.parametrize("status", [408, 425, 429, 500, 503, 599])
    def test_what_may_get_better_is_tried_again_under_the_same_id(self, make_receiver, status):
        receiver = make_receiver(*[status] * 4).start()
        sender = send(receiver)
        assert (sender.webhooks.delivered, sender.webhooks.failed, sender.log) == (1, 0, [])
        assert len(receiver.requests) == 5
        assert len({request.headers["X-RTC-Delivery"] for request in receiver.requests}) == 1

    def test_after_five_attempts_it_is_given_up_and_the_next_one_sent(self, make_receiver):
        receiver = make_receiver(*[500] * 5).start()
        sender = send(receiver, 2)
        assert numbers(receiver) == [0] * 5 + [1]
        ((level, event, fields),) = sender.log
        assert (level, event) == ("warning", "a webhook was not delivered")
        assert (fields["receiver"], fields["reason"]) == ("http://127.0.0.1", "HTTP 500")
        assert fields["delivery"] == receiver.requests[0].headers["X-RTC-Delivery"]

    @pytest.mark.parametrize("status", [300, 304, 400, 401, 404, 410, 422])
    def test_a_refusal_for_good_is_not_tried_again(self, make_receiver, status):
        receiver = make_receiver(status).start()
        sender = send(receiver)
        assert (sender.webhooks.failed, len(receiver.requests)) == (1, 1)

    def test_the_waits_between(self, make_receiver):
        waits = []

        async def sleep(seconds):
            waits.append(seconds)

        receiver = make_receiver(*[503] * 5).start()
        send(receiver, retries=webhooks.RETRIES, sleep=sleep, uniform=lambda low, high: high)
        assert waits == [1, 2, 4, 8]

    def test_each_attempt_is_signed_anew(self, make_receiver):
        seconds = iter([1000.9, 2000.0])
        receiver = make_receiver(500).start()
        send(receiver, now=lambda: next(seconds))
        first, second = receiver.requests
        assert (first.headers["X-RTC-Timestamp"], second.headers["X-RTC-Timestamp"]) == ("1000", "2000")
        assert second.headers["X-RTC-Signature"] == signature(SECRET, "2000", second.body)

    def test_a_receiver_that_is_down_gets_it_once_it_is_up(self, make_receiver):
        receiver = make_receiver()

        async def sending():
            async with Sender(receiver.url, retries=RetryPolicy(10**6, 0.001, 0.001)) as sender:
                sender.post(1)
                await until(lambda: sender.breaker.status().failures > 2)
                receiver.start()
                await sender.settled(1)

        asyncio.run(sending())
        assert numbers(receiver) == [1]

    def test_a_receiver_that_does_not_answer_is_left(self, make_receiver, monkeypatch):
        monkeypatch.setattr(webhooks, "TIMEOUT_SECS", 0.05)
        receiver = make_receiver().start()
        receiver.silent = True
        sender = send(receiver)
        assert len(receiver.requests) == 5
        assert sender.log[0][2]["reason"] == "TimeoutError"


class TestDistrust:
    def test_redirects_are_not_followed(self, make_receiver):
        receiver = make_receiver(307, headers={"Location": "/elsewhere"}).start()
        sender = send(receiver)
        assert [request.path for request in receiver.requests] == ["/hook"]
        assert sender.log[0][2]["reason"] == "HTTP 307"

    def test_cookies_are_not_kept(self, make_receiver):
        receiver = make_receiver(headers={"Set-Cookie": "a=b; Path=/"}).start()
        send(receiver, 2)
        assert all("Cookie" not in request.headers for request in receiver.requests)

    def test_the_body_of_an_answer_is_not_read(self, make_receiver):
        receiver = make_receiver(200, body=bytes(64 << 20)).start()
        sender = send(receiver)
        asyncio.run(until(lambda: receiver.cut_off == 1))
        assert sender.webhooks.delivered == 1

    def test_nothing_of_the_url_but_scheme_and_host_is_logged(self, make_receiver):
        async def sending():
            async with Sender(f"http://user:hidden@127.0.0.1:{make_receiver().port}/hidden?token=hidden") as sender:
                sender.post(*range(MAX_WAITING + 1))
                await sender.settled(1)
                return sender

        log = asyncio.run(sending()).log
        assert len(log) >= 2
        assert "hidden" not in repr(log)
        assert {fields["receiver"] for _, _, fields in log} == {"http://127.0.0.1"}

    def test_a_host_that_cannot_be_is_an_event_given_up(self):
        async def sending():
            async with Sender("http://user:hidden@a..b/hidden") as sender:
                sender.post(1)
                await sender.settled(1)
                return sender

        ((_, _, fields),) = asyncio.run(sending()).log
        assert (fields["receiver"], fields["reason"]) == ("http://a..b", "UnicodeError")


class TestBreaker:
    def test_while_it_is_open_events_wait_and_no_attempt_is_lost(self, make_receiver):
        receiver = make_receiver(500, 500, 500).start()
        sender = send(receiver, 3, failures=1)
        assert (sender.webhooks.delivered, sender.webhooks.failed) == (3, 0)
        assert numbers(receiver) == [0, 0, 0, 0, 1, 2]
        assert sender.breaker.state is BreakerState.CLOSED
        assert sender.breaker.status().rejected >= 3

    def test_it_is_asked_how_long_to_wait(self, make_receiver):
        time, waits = 0.0, []

        async def sleep(seconds):
            nonlocal time
            waits.append(seconds)
            time += seconds

        receiver = make_receiver(500).start()

        async def sending():
            sender = Sender(receiver.url, sleep=sleep, uniform=lambda low, high: 0.0)
            settings = BreakerSettings(True, 1, 1, 60.0, 1)
            sender.webhooks._breaker = CircuitBreaker("webhooks", settings, lambda change: None, lambda: time)
            async with sender:
                sender.post(1)
                await sender.settled(1)

        asyncio.run(sending())
        assert waits == [0.0, 60.0]

    def test_a_refusal_for_good_is_no_failure_of_the_receiver(self, make_receiver):
        receiver = make_receiver(404, 404).start()
        assert send(receiver, 2, failures=1).breaker.state is BreakerState.CLOSED


class TestQueue:
    def test_it_is_bounded_and_the_oldest_are_dropped_and_counted(self, make_receiver):
        receiver = make_receiver().start()

        async def sending():
            sender = Sender(receiver.url)
            sender.post(*range(MAX_WAITING + 10))
            assert (sender.webhooks.dropped, receiver.requests) == (10, [])
            async with sender:
                await sender.settled(MAX_WAITING)
            assert sender.log == [
                (
                    "warning",
                    "webhooks are dropped: too many wait",
                    {"receiver": "http://127.0.0.1", "limit": MAX_WAITING},
                )
            ]

        asyncio.run(sending())
        assert numbers(receiver) == list(range(10, MAX_WAITING + 10))

    def test_a_restarted_task_sends_what_was_being_sent(self, make_receiver, monkeypatch):
        receiver = make_receiver().start()
        receiver.silent = True

        async def sending():
            sender = Sender(receiver.url)
            async with sender:
                sender.post(1, 2)
                await until(lambda: receiver.requests)
            receiver.silent = False
            async with sender:
                await sender.settled(2)

        asyncio.run(sending())
        assert numbers(receiver) == [1, 1, 2]

    def test_a_bug_costs_one_event_not_the_task(self, make_receiver):
        receiver = make_receiver().start()
        clock = iter([ZeroDivisionError(), 1.0])

        def now():
            value = next(clock)
            if isinstance(value, Exception):
                raise value
            return value

        sender = send(receiver, 2, now=now)
        assert numbers(receiver) == [1]
        assert sender.log[0][2]["reason"] == "ZeroDivisionError"


class TestConfigure:
    def test_without_a_url_nothing_is_kept(self):
        sender = Sender("")
        sender.post(*range(MAX_WAITING * 2))
        assert (sender.webhooks.dropped, len(sender.webhooks._waiting)) == (0, 0)

    def test_another_url_and_secret(self, make_receiver):
        first, second = make_receiver(*[500] * 10**4).start(), make_receiver().start()

        async def sending():
            async with Sender(first.url, retries=RetryPolicy(10**6, 0.001, 0.001)) as sender:
                sender.post(1)
                await until(lambda: first.requests)
                sender.webhooks.configure(second.url, b"new")
                await sender.settled(1)

        asyncio.run(sending())
        (request,) = second.requests
        assert documented_check()("new", request.headers, request.body)

    def test_taking_the_url_away_forgets_what_waits(self, make_receiver):
        receiver = make_receiver(*[500] * 10**4).start()

        async def sending():
            async with Sender(receiver.url, retries=RetryPolicy(10**6, 0.001, 0.001)) as sender:
                sender.post(1, 2, 3)
                await until(lambda: receiver.requests)
                sender.webhooks.configure("", b"")
                await until(lambda: not sender.webhooks._arrived.is_set())
                sender.webhooks.configure(receiver.url, SECRET)
                receiver.answers.clear()
                sender.post(4)
                await sender.settled(1)
                return sender

        assert asyncio.run(sending()).webhooks.delivered == 1
        assert set(numbers(receiver)) == {1, 4}


class TestSecret:
    def test_its_own(self):
        assert secret_of(BreakerEvents(webhook_secret="Zürich"), "other") == "Zürich".encode()

    def test_derived_as_documented(self):
        key = "a secret of the tests, 32 bytes or longer"
        derived = secret_of(BreakerEvents(), key)
        assert derived == hmac.new(key.encode(), b"realtime_communication webhook", hashlib.sha256).hexdigest().encode()
        command = "printf %s 'realtime_communication webhook' | openssl dgst -sha256 -hmac \"$KEY\" -r | cut -d' ' -f1"
        environment = {"KEY": key, "PATH": "/usr/bin:/bin"}
        assert subprocess.check_output(["bash", "-c", command], env=environment).strip() == derived


def test_origin_of():
    assert origin_of("https://u:p@hooks.example:8443/path?token=t#f") == "https://hooks.example"
