"""Collectors of OpenTelemetry traces: OTLP over gRPC and over HTTP, in a thread of the test."""

import http.server
import os
import threading
import time
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any, Self

os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)

WAIT_SECS = 60.0
KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")


@dataclass(frozen=True)
class Received:
    """One span as it came in. Ids are hexadecimal, times are ns since the epoch."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    state: str
    start_ns: int
    end_ns: int
    failed: bool
    attributes: dict[str, Any]
    resource: dict[str, Any]
    events: list[str] = field(default_factory=list)


class Collector:
    """Keeps what it is sent: ``spans``, and the raw bytes of every request in ``bodies``."""

    def __init__(self) -> None:
        self.spans: list[Received] = []
        self.bodies: list[bytes] = []
        self.requests: list[dict[str, str]] = []
        self._arrived = threading.Condition()

    def take(self, request: ExportTraceServiceRequest, headers: dict[str, str]) -> None:
        with self._arrived:
            self.bodies.append(request.SerializeToString())
            self.requests.append(headers)
            for group in request.resource_spans:
                resource = _plain(group.resource.attributes)
                for scope in group.scope_spans:
                    self.spans += [_received(span, resource) for span in scope.spans]
            self._arrived.notify_all()

    def wait(self, name: str, count: int = 1) -> list[Received]:
        """The spans of this name, once there are ``count`` of them."""
        deadline = time.monotonic() + WAIT_SECS
        with self._arrived:
            while len(found := self.named(name)) < count:
                left = deadline - time.monotonic()
                assert left > 0 and self._arrived.wait(left), f"{len(found)} of {count} {name!r} in {self.spans}"
            return found

    def named(self, name: str) -> list[Received]:
        return [span for span in self.spans if span.name == name]


def _received(span: Any, resource: dict[str, Any]) -> Received:
    return Received(
        name=span.name,
        kind=KINDS[span.kind],
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        state=span.trace_state,
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        failed=span.status.code == 2,
        attributes=_plain(span.attributes),
        resource=resource,
        events=[event.name for event in span.events],
    )


def _plain(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


class GrpcCollector(Collector):
    """Listens on ``port``, a free one when it is 0. ``refusing`` answers UNAVAILABLE, ``stuck`` not at all."""

    def __init__(self, port: int = 0) -> None:
        super().__init__()
        self.refusing = False
        self.stuck = threading.Event()
        self.stuck.set()
        self._server = grpc.server(futures.ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
        add_TraceServiceServicer_to_server(_Service(self), self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        assert self.port, f"port {port} is taken"

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stuck.set()
        self._server.stop(None).wait()


class _Service(TraceServiceServicer):
    def __init__(self, collector: GrpcCollector) -> None:
        self._collector = collector

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
        self._collector.stuck.wait(WAIT_SECS)
        if self._collector.refusing:
            context.abort(grpc.StatusCode.UNAVAILABLE, "told to refuse")
        self._collector.take(request, dict(context.invocation_metadata()))
        return ExportTraceServiceResponse()


class HttpCollector(Collector):
    """Listens on ``host`` and ``port``, a free one when it is 0; ``paths`` are those that were asked for."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__()
        self.paths: list[str] = []
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.paths.append(self.path)
                collector.take(ExportTraceServiceRequest.FromString(body), dict(self.headers))
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: Any) -> None:
                return

        self._server = http.server.ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
