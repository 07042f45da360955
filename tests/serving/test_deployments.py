"""The deployments come up with servers that serve, and go without leaving anything."""

import pytest

from serving.checker import Checker
from serving.deployments import kill_worker, two_nodes
from serving.peer import unique
from serving.processes import ServerProcess, assert_clean, free_port
from serving.proxy import scenario
from serving.swarm import Swarm


@scenario
async def test_two_nodes_serve_beside_their_store() -> None:
    with two_nodes({}) as deployment:
        (store,) = deployment.stores
        assert store.client.ping()
        assert deployment.keeps_history
        for url in deployment.urls:
            async with Swarm([url], Checker()) as swarm:
                await swarm.subscribe(2, [unique()])
                await swarm.settle()
        with pytest.raises(AssertionError, match="no worker processes"):
            kill_worker(deployment.servers[0])


def test_a_trace_in_the_log_is_a_failure() -> None:
    server = ServerProcess("product", free_port(), None, None)
    server._log_path.write_text("started\nTraceback (most recent call last)\n")
    with pytest.raises(AssertionError, match="Traceback"):
        assert_clean(server)
    server.dispose()
