"""What one worker answers for itself, and what becomes of the answers of several."""

import pytest

from realtime_communication.http.admin import merged_stats
from realtime_communication.http.directory import merged_connections, merged_topics
from realtime_communication.http.fleet import Gathered
from realtime_communication.http.health import merged_breakers, merged_dependencies
from realtime_communication.http.worker_answers import answers_of, matches, may_see


class Several:
    """A fleet of two workers with the answers of a test; what it was asked is kept."""

    def __init__(self, answers, missing=()):
        self.answers, self.missing = answers, missing
        self.asked = []

    async def gather(self, method, params=None, *, timeout_secs=2.0):
        self.asked.append((method, dict(params or {}), timeout_secs))
        return Gathered(self.answers[method], self.missing)


def health(draining=False, status="ok", required=False, connections=1, breaker=None):
    return {
        "connections": connections,
        "draining": draining,
        "uptime_secs": 5.0,
        "dependencies": {"redis": {"status": status, "required": required, "detail": {"latency_ms": 1}}},
        "circuit_breakers": {"redis": breaker} if breaker else {},
    }


@pytest.fixture
def several(make_server):
    """A server with two workers: ``several({method: {slot: answer}})``."""

    def make(answers, missing=()):
        fleet = Several(answers, missing)
        return make_server(fleet=fleet, workers=2), fleet

    return make


class TestHealth:
    def test_the_connections_of_all_and_the_worst_of_each_part(self, several):
        server, fleet = several({"health": {0: health(connections=3), 1: health(status="timeout", connections=4)}})
        answer = server.request("GET", "/health").json
        assert (answer["status"], answer["connections"]) == ("degraded", 7)
        assert answer["dependencies"]["redis"] == {
            "status": "timeout",
            "latency_ms": 1,
            "workers": {"0": "ok", "1": "timeout"},
        }
        ((method, params, timeout),) = fleet.asked
        assert method == "health"
        assert params["timeout_secs"] < timeout == 5.0

    def test_a_worker_that_is_missing(self, several):
        server, _ = several({"health": {0: health()}}, missing=(1,))
        answer = server.request("GET", "/health").json
        assert (answer["status"], answer["workers_missing"]) == ("degraded", [1])
        assert server.request("GET", "/health/ready").status == 200
        assert server.request("GET", "/health/live").status == 200

    @pytest.mark.parametrize(("drained", "status"), [((True, False), 200), ((True, True), 503)])
    def test_it_drains_when_all_do(self, several, drained, status):
        server, _ = several({"health": {slot: health(draining) for slot, draining in enumerate(drained)}})
        assert server.request("GET", "/health/ready").status == status
        assert server.request("GET", "/health").json["status"] == ("draining" if all(drained) else "ok")

    def test_what_one_worker_needs_and_lacks(self, several):
        server, _ = several({"health": {0: health(), 1: health(status="degraded", required=True)}})
        answer = server.request("GET", "/health/ready")
        assert (answer.status, answer.json) == (503, {"status": "unavailable", "dependencies": ["redis"]})

    def test_the_breaker_that_is_most_open(self):
        closed = {"state": "closed", "failures": 1, "successes": 2, "rejected": 3}
        opened = {"state": "open", "failures": 9, "successes": 0, "rejected": 4, "retry_in_secs": 2.0}
        for rows in ([closed, opened], [opened, closed]):
            merged = merged_breakers([{"redis": row} for row in rows])
            assert merged == {"redis": opened | {"rejected": 7}}

    def test_one_worker_alone_is_shown_as_it_is(self):
        assert merged_dependencies(Gathered({0: health()})) == {"redis": {"status": "ok", "latency_ms": 1}}


class TestLists:
    def test_connections_by_age(self):
        rows = [[{"session_id": str(age), "connected_ms": age} for age in ages] for ages in ((1, 5, 9), (2, 3))]
        found = Gathered({slot: {"count": 3, "rows": each, "complete": True} for slot, each in enumerate(rows)})
        merged = merged_connections(found, 4)
        assert [(row["session_id"], row["worker"]) for row in merged["connections"]] == [
            *(("1", 0), ("2", 1), ("3", 1), ("5", 0))
        ]
        assert (merged["count"], merged["complete"]) == (6, False)
        assert merged_connections(found, 5)["complete"]

    def test_topics_by_name(self):
        home = {"topic": "room", "epoch": "e", "offset": 9, "subscribers": 1, "cached": 9}
        mirror = {"topic": "room", "epoch": "e", "offset": 8, "subscribers": 4, "cached": 3}
        other = {"topic": "hall", "epoch": "e", "offset": 1, "subscribers": 1, "cached": 0}
        answers = {0: {"rows": [mirror, other], "complete": True}, 1: {"rows": [home], "complete": True}}
        merged = merged_topics(Gathered(answers), 10)
        assert merged == {"topics": [home | {"subscribers": 5}, other], "complete": True}
        assert merged_topics(Gathered(answers), 1)["complete"] is False
        assert merged_topics(Gathered(answers, (2,)), 10)["complete"] is False

    def test_stats(self):
        rows = [
            {
                "draining": slot == 0,
                "uptime_secs": slot * 2.0,
                "connections": 1,
                "rss_bytes": 5,
                "hub": {"deliveries": slot},
                "circuit_breakers": {},
            }
            for slot in range(3)
        ]
        merged = merged_stats(Gathered(dict(enumerate(rows))))
        assert (merged["draining"], merged["uptime_secs"], merged["connections"]) == (False, 4.0, 3)
        assert (merged["rss_bytes"], merged["hub"]) == (15, {"deliveries": 3})
        assert merged["per_worker"] == {str(slot): row for slot, row in enumerate(rows)}


class TestDrain:
    @pytest.fixture
    def post(self, admin_key):
        headers = admin_key | {"Content-Type": "application/json"}
        return lambda server, body=None: server.request("POST", "/admin/drain", body, headers)

    def test_one_worker(self, make_server, post):
        asked = []
        server = make_server(drain=lambda workers: asked.append(workers) or 3)
        for body in (None, b"{}", b'{"worker": 0}'):
            answer = post(server, body)
            assert (answer.status, answer.json) == (200, {"draining": [0], "connections": 3})
        assert asked == [1, 1, 1]

    def test_several(self, several, post):
        server, fleet = several({"drain": {0: 3, 1: 4}})
        assert post(server).json == {"draining": [0, 1], "connections": 7}
        server, fleet = several({"drain": {0: None, 1: 4}})
        assert post(server, b'{"worker": 1}').json == {"draining": [1], "connections": 4}
        assert fleet.asked[0][:2] == ("drain", {"worker": 1, "workers": 1})

    def test_a_worker_that_is_not_there(self, several, post):
        server, _ = several({"drain": {0: None}}, missing=(1,))
        assert post(server, b'{"worker": 1}').status == 503

    @pytest.mark.parametrize("worker", [b"2", b"-1", b"true", b'"0"', b"1.5", b"null"])
    def test_what_is_no_worker(self, several, post, worker):
        server, fleet = several({"drain": {}})
        answer = post(server, b'{"worker": ' + worker + b"}")
        assert (answer.status, answer.json["error"]["message"]) == (422, "worker: must be an integer from 0 to 1")
        assert fleet.asked == []

    def test_who_may(self, make_server, bearer):
        server = make_server(drain=lambda workers: 1 / 0)
        assert server.request("POST", "/admin/drain").status == 401
        assert server.request("POST", "/admin/drain", headers=bearer()).status == 403


def test_a_worker_drains_only_when_it_is_meant(server):
    services = server.services
    services.slot, services.drain = 1, lambda workers: 7
    drain = answers_of(services)["drain"]
    assert drain({"worker": None, "workers": 2}) == drain({"worker": 1, "workers": 1}) == 7
    assert drain({"worker": 0, "workers": 1}) is None


@pytest.mark.parametrize(
    ("patterns", "topic", "seen"),
    [
        (None, "room:1", True),
        (["room:*"], "room:1", True),
        (["room:2", "ha"], "hall", False),
        ([], "hall", False),
        (None, "@alice", False),
        (None, "$sys", False),
    ],
)
def test_which_topics_are_shown(patterns, topic, seen):
    assert may_see(patterns, topic) is seen
    assert matches(patterns, topic) is (seen or topic[0] in "@$")
