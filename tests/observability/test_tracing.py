"""Which tracer a configuration gets."""

from __future__ import annotations

import subprocess
import sys

import pytest

from realtime_communication.config.watching import Tracing
from realtime_communication.observability.spans import NO_TRACER
from realtime_communication.observability.tracing import tracer_of

# Nobody listens there; nothing is sent, since no span is made.
AWAY = Tracing(endpoint="http://127.0.0.1:9", sampling_rate=0.0)


@pytest.mark.parametrize(
    ("tracing", "telemetry"), [(Tracing(enabled=False), True), (Tracing(), False), (Tracing(enabled=False), False)]
)
def test_off(tracing: Tracing, telemetry: bool) -> None:
    assert tracer_of(tracing, telemetry=telemetry, node_id="n", version="1") is NO_TRACER


def test_on() -> None:
    tracer = tracer_of(AWAY, telemetry=True, node_id="n", version="1")
    assert tracer.enabled
    tracer.shutdown()


OFF = """
import sys
from realtime_communication.config.watching import Tracing
from realtime_communication.observability.tracing import tracer_of
import realtime_communication.http.app, realtime_communication.server.worker
tracer_of(Tracing(enabled=False), telemetry=True, node_id="n", version="1")
# The Redis client imports a part of the SDK by itself where it is installed.
heavy = ("opentelemetry.exporter", "opentelemetry.sdk.trace", "grpc", "google", "requests")
print([name for name in sys.modules if name.startswith(heavy)])
"""


def test_no_exporter_is_imported_when_it_is_off() -> None:
    done = subprocess.run([sys.executable, "-c", OFF], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


MISSING = """
import sys
from realtime_communication.config.watching import Tracing
from realtime_communication.observability import logs
from realtime_communication.observability.tracing import tracer_of
sys.modules["opentelemetry"] = None
logs.configure("info", "json")
print(tracer_of(Tracing(), telemetry=True, node_id="n", version="1").enabled)
"""


def test_without_the_extra_there_is_one_warning() -> None:
    done = subprocess.run([sys.executable, "-c", MISSING], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "False\n"
    (line,) = done.stderr.splitlines()
    assert '"level":"warn"' in line
    assert "no traces: OpenTelemetry is not installed" in line
    assert "realtime_communication[tracing]" in line


def test_settings_the_library_cannot_use_do_not_stop_the_server(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "no such thing")
    assert tracer_of(AWAY, telemetry=True, node_id="n", version="1") is NO_TRACER
    assert [record.message for record in caplog.records] == ["no traces: OpenTelemetry could not be set up"]
