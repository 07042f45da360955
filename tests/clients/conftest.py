"""The TypeScript client, built once for all, and servers for it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.node_package import built
from serving.processes import ServerProcess, ended_cleanly, free_port


@pytest.fixture(scope="session")
def package() -> Path:
    """The package's folder, built."""
    return built()


@pytest.fixture(scope="session")
def server() -> Iterator[ServerProcess]:
    """A server for the whole run."""
    process = ServerProcess("product", free_port(), None, None)
    process.start()
    with ended_cleanly(process):
        yield process
