"""Every fault test runs beside two users who must not notice anything."""

from collections.abc import Iterator

import pytest

from serving.processes import ServerProcess
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
