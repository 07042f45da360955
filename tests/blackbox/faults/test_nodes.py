"""FAULTS.md: Redis and Cluster: two nodes that share their topics, while Redis and the nodes come and go."""

import pytest

from serving import continuity
from serving.deployments import StartDeployment, two_nodes, two_nodes_with_cluster, two_nodes_with_sentinel
from serving.proxy import scenario


@pytest.fixture(params=[two_nodes, two_nodes_with_sentinel, two_nodes_with_cluster], ids=lambda each: each.__name__)
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
