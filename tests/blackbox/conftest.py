"""A server of each kind for the whole run, and one of its own for a test that needs special settings."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.peer import JSON, MSGPACK, Connect, Peer, unique, unique_user
from serving.processes import TARGETS, ServerProcess, StartServer, assert_clean, ended_cleanly, free_port
from serving.workers import all_ready

THROUGH_THE_EXCHANGE = (
    "test_encodings.py",
    "test_presence.py",
    "test_recovery.py",
    "test_requests.py",
    "test_topics.py",
)
"""What two workers do otherwise than one: the target ``workers`` runs these files only."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what would only run once more."""
    repeated = [item for item in items if is_repeated(item)]
    if repeated:
        config.hook.pytest_deselected(items=repeated)
        items[:] = [item for item in items if item not in set(repeated)]


def is_repeated(item: pytest.Item) -> bool:
    chosen = getattr(item, "callspec", None)
    return (
        item.path.is_relative_to(Path(__file__).parent)
        and chosen is not None
        and chosen.params.get("server") == "workers"
        and item.path.name not in THROUGH_THE_EXCHANGE
    )


def running(
    target: str, settings: dict[str, Any] | None = None, open_files: int | None = None, **options: Any
) -> ServerProcess:
    server = ServerProcess(target, free_port(), settings, open_files, **options)
    server.start()
    if target == "workers":
        all_ready(server)  # the port is open before any of them serves
    return server


@pytest.fixture(scope="session", params=TARGETS)
def server(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    """Each target, with the settings that all share."""
    process = running(request.param)
    with ended_cleanly(process):
        yield process


@pytest.fixture(scope="session")
def product() -> Iterator[ServerProcess]:
    """The product with the tests' settings."""
    process = running("product")
    with ended_cleanly(process):
        yield process


@pytest.fixture
def start_server() -> Iterator[StartServer]:
    """Starts a server of the test's own: ``start_server(settings, target="product")``. Its log must be clean."""
    started: list[ServerProcess] = []

    def start(
        settings: dict[str, Any] | None = None,
        *,
        target: str = "product",
        open_files: int | None = None,
        **options: Any,
    ) -> ServerProcess:
        process = running(target, settings, open_files, **options)
        started.append(process)
        return process

    try:
        yield start
        for process in started:
            assert_clean(process)
    finally:
        for process in started:
            process.dispose()


@pytest.fixture(params=[JSON, MSGPACK])
def subprotocol(request: pytest.FixtureRequest) -> str:
    """Each encoding."""
    encoding: str = request.param
    return encoding


@pytest.fixture
def join(server: ServerProcess, subprotocol: str) -> Iterator[Connect]:
    """Connects users to ``server`` in ``subprotocol``; a name is made up when none is given."""
    peers: list[Peer] = []

    def connect(user: str | None = None, **options: Any) -> Peer:
        options.setdefault("subprotocol", subprotocol)
        plain = options.keys() == {"subprotocol"}
        peer = Peer(server.url, user or unique_user(), **options)
        peers.append(peer)
        if plain and server.target == "workers":
            # Its inbox's home has heard of the user by the time that it answers: a direct message from another worker
            # could come there before.
            peer.ok("History", topic=f"@{peer.user}")
        return peer

    yield connect
    for peer in peers:
        peer.close()


@pytest.fixture
def topic() -> str:
    """A topic of the test's own."""
    return unique()
