"""The metrics' port: one path, short-lived connections, nothing of the rest of the server."""

import asyncio
import contextlib
import gzip
import json
import re
import select
import socket
import threading
import time
from pathlib import Path

import msgspec
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from realtime_communication.auth.chain import AuthenticationChain
from realtime_communication.config.loader import LoadedConfig
from realtime_communication.config.metric_names import CUSTOM_METRICS
from realtime_communication.config.schema import Config
from realtime_communication.config.watching import CustomMetric, Monitoring
from realtime_communication.errors import EnvironmentFault
from realtime_communication.http.services import Services
from realtime_communication.observability.catalogue import WORKER_ROWS
from realtime_communication.observability.metrics import Metrics, Snapshot
from realtime_communication.server import metrics_server
from realtime_communication.server.listening import open_listeners
from realtime_communication.server.metrics_server import MetricsServer, accepts_gzip, open_metrics_listeners
from serving.processes import free_port
from serving.scrapes import PREFIX, full_sources, scrape, scrape_until

DASHBOARD = Path(__file__).parents[2] / "deploy" / "grafana" / "realtime_communication.json"
ALL_CUSTOM = tuple(CustomMetric(name=spec.name, type=spec.type, labels=spec.labels) for spec in CUSTOM_METRICS.values())


def with_prometheus(**changes):
    config = Config()
    monitoring = config.monitoring
    prometheus = msgspec.structs.replace(monitoring.prometheus, **changes)
    return msgspec.structs.replace(config, monitoring=msgspec.structs.replace(monitoring, prometheus=prometheus))


class Running:
    """The service in a thread of its own."""

    def __init__(self, path="/metrics", interval=3600.0, **sources):
        self._listeners = open_listeners("127.0.0.1", 0)
        self.port = self._listeners[0].port
        metrics = Metrics(Monitoring(custom_metrics=ALL_CUSTOM), full_sources(**sources))
        metrics.observe_http("GET", "/health", 200, 0.1)
        config = with_prometheus(path=path, update_interval_secs=interval)
        self._services = Services(hub=None, chain=AuthenticationChain([]), config=config, profile="test", node_id="n")
        self.server = MetricsServer(metrics, self._listeners, self._services)
        self._stopping = False
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        assert self._started.wait(10)

    async def _serve(self):
        self.loop = asyncio.get_running_loop()
        while not self._stopping:
            self._task = self.loop.create_task(self.server.run())
            self._started.set()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def reload(self, **changes):
        self._services.config = with_prometheus(**changes)

    def restart(self):
        """What the supervisor does after a crash."""
        self.loop.call_soon_threadsafe(self._task.cancel)

    def stop(self):
        self._stopping = True
        self.restart()
        self._thread.join(10)
        for listener in self._listeners:
            listener.close()


@pytest.fixture
def run():
    started = []

    def start(**arguments):
        started.append(Running(**arguments))
        return started[-1]

    yield start
    for running in started:
        running.stop()


def connect(port):
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def read_all(sock):
    answer = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := sock.recv(65536):
            answer += piece
    return answer


class TestAnswers:
    def test_the_text_of_prometheus(self, run):
        found = scrape(run().port)
        assert found.status == 200
        assert found.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert found.value("connections") == 1

    def test_openmetrics_when_asked(self, run):
        accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2"
        found = scrape(run().port, Accept=accept)
        assert found.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
        names = [family.name for family in parse_openmetrics(found.text)]
        assert len(names) == len(set(names)) and "realtime_comm_websocket_connections" in names

    @pytest.mark.parametrize("accept", ["application/openmetrics-text;version=nonsense", "*/*", "image/png", ""])
    def test_whatever_is_accepted_there_is_an_answer(self, run, accept):
        assert scrape(run().port, Accept=accept).status == 200

    def test_gzip_when_asked(self, run):
        port = run().port
        plain, packed = scrape(port), scrape(port, Accept_Encoding="gzip, deflate")
        assert packed.headers["Content-Encoding"] == "gzip" and "Content-Encoding" not in plain.headers
        assert len(packed.body) * 4 < len(plain.body)
        assert b"# TYPE process_open_fds gauge" in gzip.decompress(packed.body)

    def test_head(self, run):
        port = run().port
        found = scrape(port, method="HEAD")
        assert (found.status, found.body) == (200, b"")
        assert int(found.headers["Content-Length"]) > 1000

    def test_nothing_else(self, run):
        port = run(path="/m/x").port
        assert scrape(port, "/m/x").status == scrape(port, "/m/x?a=b").status == 200
        for path in ("/", "/metrics", "/m", "/m/x/", "/health", "/ws", "/admin/config", "/m/../m/x/y"):
            found = scrape(port, path)
            assert found.status == 404
            assert json.loads(found.body)["error"]["code"]
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            assert scrape(port, "/m/x", method).status == 405

    def test_headers_tell_no_more_than_needed(self, run):
        port = run().port
        for path in ("/metrics", "/nothing"):
            found = scrape(port, path)
            assert found.headers["Server"] == "realtime_communication"
            assert found.headers["X-Content-Type-Options"] == "nosniff"
            assert (found.headers["Cache-Control"], found.headers["Connection"]) == ("no-store", "close")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("gzip", True),
        ("br, GZIP;q=0.5", True),
        ("x-gzip", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("gzip;q=1.0", True),
        ("", False),
        ("identity", False),
        ("gzipped", False),
    ],
)
def test_accepting_gzip(header, expected):
    assert accepts_gzip(header) is expected


class TestBounds:
    def test_a_connection_carries_one_scrape(self, run):
        with connect(run().port) as sock:
            sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n" * 2)
            assert read_all(sock).count(b"HTTP/1.1 200") == 1

    @pytest.mark.parametrize("sent", [b"", b"GET /metr", b"GET /metrics HTTP/1.1\r\nHost: h\r\nX: "])
    def test_who_sends_nothing_is_cut_off(self, run, monkeypatch, sent):
        monkeypatch.setattr(metrics_server, "MAX_SCRAPE_SECS", 0.2)
        with connect(run().port) as sock:
            sock.sendall(sent)
            assert b"200" not in read_all(sock)

    def test_who_does_not_read_is_cut_off_and_holds_up_nobody(self, run, monkeypatch):
        monkeypatch.setattr(metrics_server, "MAX_SCRAPE_SECS", 0.5)
        huge = 32 << 20  # more than the buffers of a socket take
        monkeypatch.setattr(Snapshot, "text", lambda self, **_: b"x" * huge)
        port = run().port
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.settimeout(20)
            sock.connect(("127.0.0.1", port))
            sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n")
            assert sock.recv(9) == b"HTTP/1.1 "
            assert scrape(port, "/nothing").status == 404
            hung_up = select.poll()
            hung_up.register(sock, 0)
            assert hung_up.poll(20_000), "the connection was reset"
            assert len(read_all(sock)) < huge

    def test_too_many_at_once(self, run, monkeypatch):
        monkeypatch.setattr(metrics_server, "MAX_SCRAPERS", 4)
        port = run().port
        with contextlib.ExitStack() as stack:
            first = [stack.enter_context(connect(port)) for _ in range(4)]
            with connect(port) as fifth:
                assert read_all(fifth) == b""
            first[0].sendall(b"GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n")
            assert read_all(first[0]).startswith(b"HTTP/1.1 200")
        assert scrape_until(port, lambda found: found.status == 200)

    @pytest.mark.parametrize(
        "head",
        [b"GET /metrics HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: h\r\nX:" + b"a" * 20_000, b"\x00\x00\r\n\r\n"],
    )
    def test_malformed_requests_end_the_connection(self, run, head):
        port = run().port
        with connect(port) as sock:
            sock.sendall(head)
            assert re.match(rb"HTTP/1.1 4\d\d |\Z", read_all(sock))
        assert scrape(port).status == 200

    def test_a_body_is_refused(self, run):
        with connect(run().port) as sock:
            sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: h\r\nContent-Length: 100000000\r\n\r\n")
            assert read_all(sock).startswith(b"HTTP/1.1 413")


class TestUpdates:
    def test_what_costs_something_is_taken_once_in_an_interval(self, run):
        asked = iter(range(10_000))
        running = run(queued=lambda: next(asked))
        assert [scrape(running.port).value("queued_messages") for _ in range(5)] == [0] * 5

    def test_the_interval_can_change(self, run):
        asked = iter(range(10_000))
        running = run(queued=lambda: next(asked))
        running.reload(update_interval_secs=0.05)
        assert scrape_until(running.port, lambda found: found.value("queued_messages") >= 2)

    def test_a_figure_that_cannot_be_had_stops_nothing(self, run, caplog):
        running = run(interval=0.05, queued=lambda: 1 // 0)
        deadline = time.monotonic() + 10
        while len(caplog.records) < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert {record.exc_info[0] for record in caplog.records} == {ZeroDivisionError}
        assert scrape(running.port).value("connections") == 1

    def test_the_lag_of_the_loop(self, run, monkeypatch):
        noted = []
        monkeypatch.setattr(metrics_server, "LAG_PROBE_SECS", 0.01)
        monkeypatch.setattr(Metrics, "note_lag", lambda self, seconds: noted.append(seconds))
        running = run()
        scrape(running.port)
        running.loop.call_soon_threadsafe(time.sleep, 0.3)
        assert scrape_until(running.port, lambda _: max(noted, default=0) > 0.1)

    def test_it_can_start_again(self, run):
        running = run()
        assert scrape(running.port).status == 200
        running._started.clear()
        running.restart()
        assert running._started.wait(10)
        assert scrape(running.port).status == 200


class TestPort:
    @staticmethod
    def loaded(profile="prod", host="127.0.0.1", port=0, enabled=True, enable_metrics=True):
        config, replace = with_prometheus(port=port, enabled=enabled), msgspec.structs.replace
        config = replace(
            config,
            server=replace(config.server, host=host),
            logging=replace(config.logging, enable_metrics=enable_metrics),
        )
        return LoadedConfig(config=config, profile=profile, origins={}, files=(), warnings=())

    def opened(self, **arguments):
        listeners = open_metrics_listeners(self.loaded(**arguments))
        for listener in listeners:
            listener.close()
        return [listener.sock for listener in listeners]

    def test_the_address_of_the_server(self):
        (listener,) = open_metrics_listeners(self.loaded(host="127.0.0.2"))
        assert listener.url.startswith("http://127.0.0.2:")
        listener.close()

    def test_this_machine_alone_beside_a_unix_socket(self):
        (listener,) = open_metrics_listeners(self.loaded(host="unix:/run/rtc.sock"))
        assert listener.url.startswith("http://127.0.0.1:")
        listener.close()

    def test_off(self):
        assert self.opened(enabled=False) == self.opened(enable_metrics=False) == []

    def test_in_use(self, caplog):
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            for profile in ("prod", "test"):
                with pytest.raises(EnvironmentFault, match=rf"127.0.0.1:{port}.*in use.*monitoring.prometheus.port"):
                    self.opened(port=port, profile=profile)
            assert self.opened(port=port, profile="dev") == []
        assert "no metrics: their port cannot be had" in caplog.text
        assert len(self.opened(port=free_port(), profile="dev")) == 1


class TestDashboard:
    dashboard = json.loads(DASHBOARD.read_text())
    panels = tuple(panel for panel in dashboard["panels"] if panel["type"] != "row")

    def test_every_metric_in_it_is_served(self, run):
        of_workers = {f"{PREFIX}{name}{'_total' * (row.type == 'counter')}" for name, row in WORKER_ROWS.items()}
        served = scrape(run().port).names | of_workers
        for panel in self.panels:
            for target in panel["targets"]:
                used = set(re.findall(r"\b(?:realtime_comm_websocket|process|python)_\w+", target["expr"]))
                assert used and used <= served, panel["title"]

    def test_it_has_what_grafana_needs(self):
        assert self.dashboard["title"] and self.dashboard["uid"] and self.dashboard["schemaVersion"] >= 36
        assert {"from", "to"} <= self.dashboard["time"].keys()
        variables = {each["name"]: each for each in self.dashboard["templating"]["list"]}
        assert variables["datasource"]["type"] == "datasource" and variables["datasource"]["query"] == "prometheus"
        identifiers = [panel["id"] for panel in self.dashboard["panels"]]
        assert len(identifiers) == len(set(identifiers))
        for panel in self.panels:
            assert panel["title"] and panel["description"] and panel["fieldConfig"]["defaults"]["unit"]
            assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            assert [target["refId"] for target in panel["targets"]] == list("ABCDEF"[: len(panel["targets"])])

    def test_panels_do_not_overlap(self):
        taken = set()
        for panel in self.dashboard["panels"]:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert place["x"] + place["w"] <= 24 and not cells & taken
            taken |= cells

    def test_expressions_are_balanced(self):
        for panel in self.panels:
            for target in panel["targets"]:
                for left, right in ("()", "{}", "[]"):
                    assert target["expr"].count(left) == target["expr"].count(right)
