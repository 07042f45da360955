"""Nothing is lost, doubled or out of order unsaid for a swarm of clients: restarts, cut connections, slow readers.

What is counted here every deployment must stand; each is a ``start`` of `serving.deployments`.
"""

import pytest

from serving import continuity
from serving.deployments import StartDeployment, one_worker, two_workers
from serving.proxy import scenario


@pytest.fixture(params=[one_worker, two_workers])
def start(request: pytest.FixtureRequest) -> StartDeployment:
    """Each deployment."""
    chosen: StartDeployment = request.param
    return chosen


@pytest.mark.parametrize("graceful", [True, False], ids=["SIGTERM", "SIGKILL"])
@scenario
async def test_restart_under_load(start: StartDeployment, graceful: bool) -> None:
    await continuity.restart_under_load(start, graceful=graceful)


@scenario
async def test_connections_are_cut(start: StartDeployment) -> None:
    await continuity.cut_connections(start)


@pytest.mark.parametrize("strategy", ["drop_oldest", "drop_newest", "block", "backpressure"])
@scenario
async def test_slow_readers(start: StartDeployment, strategy: str) -> None:
    await continuity.slow_readers(start, strategy)


@scenario
async def test_workers_are_replaced() -> None:
    await continuity.rolling_restart(two_workers)


@scenario
async def test_a_worker_is_killed() -> None:
    await continuity.worker_killed(two_workers)
