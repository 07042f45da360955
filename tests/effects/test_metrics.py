"""`[monitoring.prometheus]`, `[[monitoring.custom_metrics]]` and `logging.enable_metrics`, from real scrapes."""

import http.client
import json
import socket
import subprocess
import sys

import pytest

from serving.peer import unique
from serving.processes import ServerProcess, free_port
from serving.scrapes import PREFIX, scrape, scrape_until

OFTEN = {"update_interval_secs": 0.05}


def health(running):
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
    connection.request("GET", "/health")
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return answer


def services(running):
    return running.worker._supervisor.states()


@pytest.fixture
def metrics(serve):
    """Starts a worker with `settings` for its metrics: ``metrics({"port": 1}, custom=[…])``."""

    def start(prometheus=None, custom=(), **settings):
        monitoring = {"prometheus": prometheus or {}}
        if custom:
            monitoring["custom_metrics"] = list(custom)
        return serve({"monitoring": monitoring, **settings})

    return start


class TestOnAndOff:
    @pytest.mark.parametrize(
        "settings",
        [
            {"monitoring": {"prometheus": {"enabled": False}}},
            {"metrics": {"enabled": False}},
            {"logging": {"enable_metrics": False}},
        ],
    )
    def test_off(self, serve, settings):
        port = free_port()
        running = serve({**settings, "metrics": {"port": port, **settings.get("metrics", {})}})
        with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), 5):
            pass
        assert health(running)["metrics_port"] is None
        assert "metrics" not in [state.name for state in services(running)]
        assert running.worker.parts.services.metrics is None, "no middleware without it"

    def test_on(self, metrics):
        running = metrics({"enabled": True}, logging={"enable_metrics": True})
        assert "metrics" in [state.name for state in services(running)]
        assert scrape(running.metrics_port).status == 200


class TestPort:
    @pytest.mark.parametrize("section", ["metrics", "prometheus"])
    def test_port(self, serve, section):
        port = free_port()
        setting = {"port": port}
        running = serve({"metrics": setting} if section == "metrics" else {"monitoring": {"prometheus": setting}})
        assert scrape(port).status == 200
        assert health(running)["metrics_port"] == port

    def test_it_is_another_one_than_the_main_port(self, metrics):
        running = metrics()
        assert running.metrics_port != running.port
        assert scrape(running.port, "/metrics").status == 404

    def test_the_real_port_is_logged(self):
        server = ServerProcess("product", free_port(), {"metrics": {"enabled": True, "port": 0}}, None)
        try:
            server.start()
            port = health(server)["metrics_port"]
            assert scrape(port).value("connections") == 0
            assert server.stop() == 0
            lines = [json.loads(line) for line in server.log.splitlines() if line.startswith("{")]
            (line,) = [line for line in lines if line["event"] == "metrics listening"]
            assert (line["port"], line["url"]) == (port, f"http://127.0.0.1:{port}/metrics")
        finally:
            server.dispose()

    def test_in_use(self):
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            command = [sys.executable, "-m", "realtime_communication.cli.main", "serve", "--profile=test"]
            command += ["--auth.jwt_secret=" + "s" * 32, f"--metrics.port={port}", f"--port={free_port()}"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 71
        assert "monitoring.prometheus.port" in done.stderr and f"127.0.0.1:{port}" in done.stderr
        assert "listening on http" not in done.stdout and "Traceback" not in done.stderr

    def test_in_use_in_the_dev_profile(self, serve, caplog):
        with socket.create_server(("127.0.0.1", 0)) as other:
            running = serve({"metrics": {"port": other.getsockname()[1]}, "server": {"port": free_port()}}, "dev")
            assert health(running)["metrics_port"] is None
        assert "no metrics: their port cannot be had" in caplog.text


@pytest.mark.parametrize("section", ["metrics", "prometheus"])
def test_path(serve, section):
    setting = {"path": "/internal/prometheus"}
    running = serve({"metrics": setting} if section == "metrics" else {"monitoring": {"prometheus": setting}})
    assert scrape(running.metrics_port, "/internal/prometheus").status == 200
    assert scrape(running.metrics_port, "/metrics").status == 404


@pytest.mark.parametrize("section", ["metrics", "prometheus"])
@pytest.mark.parametrize(
    ("setting", "name"),
    [
        ({"namespace": "team"}, "team_websocket_connections"),
        ({"subsystem": "chat"}, "realtime_comm_chat_connections"),
        ({"namespace": "", "subsystem": ""}, "connections"),
    ],
)
def test_names(serve, section, setting, name):
    running = serve({"metrics": setting} if section == "metrics" else {"monitoring": {"prometheus": setting}})
    names = scrape(running.metrics_port).names
    assert name in names and "process_resident_memory_bytes" in names
    assert PREFIX + "connections" not in names


@pytest.mark.parametrize("section", ["metrics", "prometheus"])
def test_buckets(serve, section):
    setting = {"buckets": [0.25, 30.0]}
    running = serve({"metrics": setting} if section == "metrics" else {"monitoring": {"prometheus": setting}})
    with running.peer():
        found = scrape(running.metrics_port).families[PREFIX + "authentication_duration_seconds"]
    accepted = [each.labels for each in found.samples if each.labels.get("outcome") == "accepted"]
    assert [labels["le"] for labels in accepted if "le" in labels] == ["0.25", "30.0", "+Inf"]


class TestUpdateInterval:
    @pytest.mark.parametrize("section", ["metrics", "prometheus"])
    def test_short(self, serve, section):
        running = serve({"metrics": OFTEN} if section == "metrics" else {"monitoring": {"prometheus": OFTEN}})
        first = scrape(running.metrics_port).value("process_cpu_seconds_total")
        assert scrape_until(running.metrics_port, lambda found: found.value("process_cpu_seconds_total") > first)

    def test_long(self, metrics):
        running = metrics({"update_interval_secs": 3600})
        first = scrape(running.metrics_port)
        with running.peer() as peer:
            peer.ok("Subscribe", topic=unique())
            second = scrape(running.metrics_port)
        name = "process_cpu_seconds_total"
        assert first.value(name) == second.value(name), "served from memory"
        assert (first.value("subscriptions"), second.value("subscriptions")) == (0, 1), "read at the scrape"


def test_what_happens_is_counted(metrics):
    running = metrics()
    topic = unique()
    with running.peer("alice") as alice, running.peer("bob") as bob:
        alice.ok("Subscribe", topic=topic)
        for _ in range(3):
            bob.ok("Broadcast", topic=topic, payload="x")
        health(running)
        found = scrape(running.metrics_port)
    assert found.value("connections") == 2 and found.value("upgrades_total") == 2
    assert found.value("publications_total") == found.value("deliveries_total") == 3
    assert found.value("requests_total") == 4
    assert found.value("authentication_duration_seconds_count", outcome="accepted") == 2
    assert found.value("http_request_duration_seconds_count", route="/health", status="2xx") == 1
    assert found.value("build_info", profile="test", node_id=running.worker.parts.services.node_id) == 1


def test_no_secret_and_no_user_is_told(metrics):
    running = metrics(OFTEN, [{"name": "topic_messages", "type": "gauge", "labels": ["topic"]}])
    with running.peer("a-very-private-user") as peer:
        peer.ok("DirectMessage", to="a-very-private-user", payload="private words")
        found = scrape_until(running.metrics_port, lambda found: found.value("topic_messages", topic="other") == 1)
    assert "private" not in found.text and "secret" not in found.text.lower()


class TestCustomMetrics:
    def test_only_what_is_asked_for_is_served(self, metrics):
        running = metrics(custom=[{"name": "connected_users", "type": "gauge"}])
        with running.peer("alice"), running.peer("alice"), running.peer("bob"):
            found = scrape(running.metrics_port)
        assert found.value("connected_users") == 2
        assert "presence_members" not in found.text

    def test_name_and_labels_of_those_in_the_guide(self, metrics):
        wanted = [
            {"name": "message_latency", "type": "histogram", "labels": ["message_type", "topic"]},
            {"name": "active_subscriptions", "type": "gauge", "labels": ["topic"]},
        ]
        running = metrics(OFTEN, wanted)
        with running.peer("alice") as alice, running.peer("bob") as bob:
            for peer in (alice, bob):
                peer.ok("Subscribe", topic="room")
            bob.ok("Subscribe", topic="hall")
            alice.ok("Broadcast", topic="room", payload=1)
            found = scrape_until(
                running.metrics_port, lambda found: found.value("message_latency_count", topic="room") == 1
            )
        assert found.values("active_subscriptions", "topic") == {"room": 2, "hall": 1}
        labels = {"topic": "room", "message_type": "Broadcast"}
        assert found.value("message_latency_bucket", **labels, le="+Inf") == 1
        assert found.value("message_latency_sum", **labels) > 0

    def test_labels_that_are_not_asked_for(self, metrics):
        wanted = [{"name": "message_latency", "type": "histogram"}, {"name": "active_subscriptions", "type": "gauge"}]
        running = metrics(OFTEN, wanted)
        with running.peer() as peer:
            peer.ok("Subscribe", topic="room")
            peer.ok("Broadcast", topic="room", payload=1)
            found = scrape_until(running.metrics_port, lambda found: found.value("message_latency_count") == 1)
        assert found.value("active_subscriptions") == 1
        assert "room" not in found.text

    def test_type_and_help(self, metrics):
        wanted = [
            {"name": "published_messages", "type": "counter", "help": "What was said"},
            {"name": "topic_messages", "type": "gauge"},
        ]
        running = metrics(custom=wanted)
        text = scrape(running.metrics_port).text
        assert f"# HELP {PREFIX}published_messages_total What was said\n" in text
        assert f"# TYPE {PREFIX}published_messages_total counter\n" in text
        assert f"# TYPE {PREFIX}topic_messages gauge\n" in text

    def test_samples_are_only_taken_when_somebody_asks(self, metrics):
        for custom, taken in ([], 0), ([{"name": "message_latency", "type": "histogram"}], 1):
            running = metrics({"update_interval_secs": 3600}, custom)
            with running.peer() as peer:
                peer.ok("Broadcast", topic="room", payload=1)
            assert len(running.ask(running.worker.parts.hub.take_samples)) == taken

    def test_many_topics_have_few_labels(self, metrics):
        running = metrics(OFTEN, [{"name": "active_subscriptions", "type": "gauge", "labels": ["topic"]}])
        with running.peer() as peer:
            for number in range(300):
                peer.ok("Subscribe", topic=f"room:{number}")
            running.ask(running.worker.parts.services.metrics.update)
            counts = scrape(running.metrics_port).values("active_subscriptions", "topic")
        assert len(counts) == 100 + 1
        assert sum(counts.values()) == 300 and counts["other"] == 200
