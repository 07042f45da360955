"""Every fault test runs beside two users who must not notice anything."""

from collections.abc import Iterator

import pytest

from serving.processes import ServerProcess, assert_clean, free_port
from serving.tokens import ADMIN_KEYS
from serving.witness import Witness


@pytest.fixture(scope="session")
def standing_witness(product: ServerProcess) -> Iterator[Witness]:
    """On the shared server, for the whole run."""
    with Witness(product.url) as witness:
        yield witness


@pytest.fixture
def victim(product: ServerProcess, standing_witness: Witness) -> Iterator[ServerProcess]:
    """The shared server, to be mistreated; afterwards the others must have lost nothing."""
    yield product
    standing_witness.check()


@pytest.fixture(scope="session")
def standing_watched() -> Iterator[tuple[ServerProcess, Witness]]:
    """A server with metrics, limits, short times and an administrator, and its witness."""
    settings = {
        "metrics": {"enabled": True, "port": free_port()},
        "auth": {"providers": [{"type": "jwt", "priority": 1}, {"type": "api_key", "priority": 2, "keys": ADMIN_KEYS}]},
        "security": {"cors": {"enabled": True, "allowed_origins": ["https://app.example.com"]}},
        "websocket": {"auth_timeout_secs": 1, "max_message_size": 65_536, "max_frame_size": 65_536},
    }
    process = ServerProcess("product", settings=settings, port=free_port(), open_files=None)
    process.start()
    try:
        with Witness(process.url) as witness:
            yield process, witness
        process.stop()
        assert_clean(process)
    finally:
        process.dispose()


@pytest.fixture
def watched(standing_watched: tuple[ServerProcess, Witness]) -> Iterator[ServerProcess]:
    """That server, to be mistreated; afterwards the others must have lost nothing."""
    process, witness = standing_watched
    yield process
    witness.check()
