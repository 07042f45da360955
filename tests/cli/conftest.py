"""A server for the commands to talk to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from serving.processes import ServerProcess, free_port


@pytest.fixture(scope="session")
def live_server() -> Iterator[ServerProcess]:
    """One with metrics, for all tests of commands."""
    settings = {"metrics": {"enabled": True, "port": free_port()}}
    process = ServerProcess("product", free_port(), settings, None)
    process.start()
    try:
        yield process
        assert "Traceback (most recent call last)" not in process.log
    finally:
        process.dispose()
