"""One server for all that the documentation shows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from serving.processes import ServerProcess, ended_cleanly, free_port
from serving.tokens import ADMIN_KEYS


@pytest.fixture(scope="session")
def server() -> Iterator[ServerProcess]:
    """It takes tokens and the administrator's API key, and has the stand-ins of the dev profile."""
    providers = [{"type": "jwt", "priority": 1}, {"type": "api_key", "keys": ADMIN_KEYS, "priority": 2}]
    settings = {"auth": {"providers": providers}, "development": {"mock_external_services": True}}
    process = ServerProcess("product", free_port(), settings, None)
    process.start()
    with ended_cleanly(process):
        yield process
