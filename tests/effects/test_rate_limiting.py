"""`[rate_limiting]`: each key changes what a client may do."""

import http.client
import json

import pytest

from core.hub.sans_io import PONG
from serving.asking import admin, ask, bearer
from serving.tokens import token

SLOW = 0.001  # requests per second: nothing comes back while a test runs


def limits(**changes):
    return {"rate_limiting": {"enabled": True, **changes}}


def pings(peer, count):
    """The replies to so many requests."""
    return [peer.request({"type": "Ping", "id": number}) for number in range(count)]


def allowed(peer, most=30):
    """How many requests get through, and the error after them."""
    for count in range(most):
        (reply,) = pings(peer, 1)
        if reply["type"] == "Error":
            return count, reply
    raise AssertionError("no limit was met")


@pytest.mark.parametrize("enabled", [True, False])
def test_enabled(hub, enabled):
    settings = limits(enabled=enabled, connection={"requests_per_second": SLOW, "burst_size": 1})
    replies = pings(hub(settings).connect(), 3)
    assert [reply["type"] for reply in replies] == (["Pong", "Error", "Error"] if enabled else ["Pong"] * 3)


@pytest.mark.parametrize("scope", ["connection", "user", "global"])
class TestEachBucket:
    @pytest.mark.parametrize("burst", [1, 7])
    def test_burst(self, hub, scope, burst):
        peer = hub(limits(**{scope: {"requests_per_second": SLOW, "burst_size": burst}})).connect()
        count, error = allowed(peer)
        assert (count, error["code"], error["scope"]) == (burst, "rate_limited", scope)

    @pytest.mark.parametrize(("rate", "wait"), [(0.01, 100_000), (0.1, 10_000)])
    def test_rate(self, hub, scope, rate, wait):
        server = hub(limits(**{scope: {"requests_per_second": rate, "burst_size": 1}}))
        peer = server.connect()
        assert wait - 100 < allowed(peer)[1]["retry_after_ms"] <= wait  # refills come every 100 ms
        for _ in range(wait // 10_000):
            server.advance(10_000)
            peer.send_frame(b"", PONG)
        assert pings(peer, 1)[0]["type"] == "Pong"

    @pytest.mark.parametrize(("window", "depth"), [(1, 2), (20, 10)])
    def test_window(self, hub, scope, window, depth):
        bucket = {"requests_per_second": 0.5, "burst_size": 2, "window_size_secs": window}
        assert allowed(hub(limits(**{scope: bucket})).connect())[0] == depth


def test_who_shares_a_bucket(hub):
    for scope, users, shared in (
        ("connection", ("alice", "alice"), False),
        ("user", ("alice", "alice"), True),
        ("user", ("alice", "bob"), False),
        ("global", ("alice", "bob"), True),
    ):
        server = hub(limits(**{scope: {"requests_per_second": SLOW, "burst_size": 3}}))
        first, second = (server.connect(user) for user in users)
        pings(first, 3)
        assert (pings(second, 1)[0]["type"] == "Error") is shared, (scope, users)


class TestTokenBucket:
    @pytest.mark.parametrize(("interval", "wait"), [(1, 1000), (700, 1400), (60_000, 60_000)])
    def test_refill_interval(self, hub, interval, wait):
        settings = limits(
            connection={"requests_per_second": 1, "burst_size": 1}, token_bucket={"refill_interval_ms": interval}
        )
        assert allowed(hub(settings).connect())[1]["retry_after_ms"] == wait

    @pytest.mark.parametrize(("precision", "wait"), [(0.1, 1000), (0.3, 1200)])
    def test_precision(self, hub, precision, wait):
        settings = limits(
            connection={"requests_per_second": 1, "burst_size": 2},
            token_bucket={"refill_interval_ms": 1, "token_precision": precision},
        )
        assert allowed(hub(settings).connect())[1]["retry_after_ms"] == wait

    @pytest.mark.parametrize(("interval", "threshold"), [(10, 100), (100, 10), (50, 50)])
    def test_idle_buckets_go(self, hub, interval, threshold):
        settings = limits(
            user={"requests_per_second": SLOW, "burst_size": 5},
            token_bucket={"cleanup_interval_secs": interval, "cleanup_threshold_secs": threshold},
        )
        server = hub(settings)
        peer = server.connect()
        pings(peer, 1)
        peer.end()
        assert server.stats()["users"] == 1
        # Not before it has been idle for the threshold, and a sweep comes only every interval.
        server.advance(threshold * 1000 - 100)
        assert server.stats()["users"] == 1
        for _ in range(3):
            server.advance(max(interval, threshold) * 1000)
        assert server.stats()["users"] == 0

    def test_sweeps_come_as_often_as_configured(self, hub):
        gone = {}
        for interval in (1, 1000):
            settings = limits(
                user={"requests_per_second": SLOW, "burst_size": 5},
                token_bucket={"cleanup_interval_secs": interval, "cleanup_threshold_secs": 1},
            )
            server = hub(settings)
            peer = server.connect()
            pings(peer, 1)
            peer.end()
            for _ in range(50):
                server.advance(100)
            gone[interval] = server.stats()["users"] == 0
        assert gone == {1: True, 1000: False}


LIMIT = {"name": "subscription", "pattern": "Sub*", "requests_per_second": SLOW, "burst_size": 2}


class TestCustomLimits:
    def subscribe(self, peer, count):
        return [peer.request({"type": "Subscribe", "id": 1, "topic": f"t{number}"}) for number in range(count)]

    def test_name_and_burst(self, hub):
        replies = self.subscribe(hub(limits(custom_limits=[LIMIT])).connect(), 3)
        assert [reply["type"] for reply in replies] == ["Subscribed", "Subscribed", "Error"]
        assert (replies[2]["code"], replies[2]["scope"]) == ("rate_limited", "subscription")

    def test_pattern(self, hub):
        peer = hub(limits(custom_limits=[LIMIT])).connect()
        self.subscribe(peer, 3)
        assert pings(peer, 1)[0]["type"] == "Pong"
        other = hub(limits(custom_limits=[LIMIT | {"pattern": "Ping"}])).connect()
        assert [reply["type"] for reply in self.subscribe(other, 3)] == ["Subscribed"] * 3
        assert pings(other, 3)[2]["scope"] == "subscription"

    def test_rate(self, hub):
        limit = LIMIT | {"requests_per_second": 0.1, "burst_size": 1}
        assert self.subscribe(hub(limits(custom_limits=[limit])).connect(), 2)[1]["retry_after_ms"] == 10_000


HEADERS = {
    "limit_header": "X-Depth",
    "remaining_header": "X-Left",
    "reset_header": "X-Full-At",
    "retry_after_header": "X-Wait",
}


def publish(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        headers = {"Authorization": "Bearer " + token("alice"), "Content-Type": "application/json"}
        connection.request("POST", "/api/publish", json.dumps({"topic": "t", "payload": 1}), headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status, dict(answer.getheaders())
    finally:
        connection.close()


def test_headers_and_their_names(serve):
    bucket = {"requests_per_second": SLOW, "burst_size": 2}
    for names in ({}, HEADERS):
        limit, left, reset, wait = names.values() or (
            "X-RateLimit-Limit",
            "X-RateLimit-Remaining",
            "X-RateLimit-Reset",
            "Retry-After",
        )
        running = serve(limits(user=bucket, headers=names))
        answers = [publish(running.port) for _ in range(3)]
        assert [status for status, _ in answers] == [200, 200, 429]
        assert [(headers[limit], headers[left]) for _, headers in answers] == [("2", "1"), ("2", "0"), ("2", "0")]
        assert all(int(headers[reset]) > 0 for _, headers in answers)
        assert int(answers[2][1][wait]) >= 1


def test_reading_over_http_counts_and_looking_after_the_server_does_not(serve):
    running = serve(limits(user={"requests_per_second": SLOW, "burst_size": 3}))
    paths = ("/api/topics", "/api/topics/room/presence", "/api/topics/room/history")
    answers = [ask(running.port, "GET", path, bearer()) for path in (*paths, paths[0])]
    assert [answer.status for answer in answers] == [200, 200, 200, 429]
    assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == ["2", "1", "0", "0"]
    assert [ask(running.port, "GET", "/admin/stats", admin()).status for _ in range(5)] == [200] * 5


def test_headers_can_be_off(serve):
    running = serve(limits(user={"requests_per_second": SLOW, "burst_size": 1}, headers={"enabled": False}))
    for _ in range(2):
        _, headers = publish(running.port)
        assert not [name for name in headers if name.startswith("X-RateLimit")]
