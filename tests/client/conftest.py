"""Servers for the client to talk to."""

from collections.abc import Iterator
from typing import Any

import pytest

from serving.processes import ServerProcess, StartServer, free_port


@pytest.fixture(scope="session", params=("product", "baseline"))
def server(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    """A server for the whole run."""
    process = ServerProcess(request.param, free_port(), None, None)
    process.start()
    try:
        yield process
        assert "Traceback (most recent call last)" not in process.log
    finally:
        process.dispose()


@pytest.fixture(params=("product", "baseline"))
def own_server(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    """A server the test may kill and start again."""
    process = ServerProcess(request.param, free_port(), None, None)
    process.start()
    try:
        yield process
    finally:
        process.dispose()


@pytest.fixture
def start_server() -> Iterator[StartServer]:
    """Starts a server with settings of the test's own."""
    started: list[ServerProcess] = []

    def start(settings: dict[str, Any] | None = None, *, target: str = "product") -> ServerProcess:
        process = ServerProcess(target, free_port(), settings, None)
        started.append(process)
        process.start()
        return process

    yield start
    for process in started:
        process.dispose()
