"""FAULTS.md: Network, Process: calls to the system that are refused, a disk that fills up, names nobody resolves."""

import resource
from typing import Any

import pytest

from serving.asking import health, redis_of, until
from serving.checker import Checker
from serving.continuity import acknowledged
from serving.deployments import started, with_redis
from serving.kernels import unwilling_kernel
from serving.notices import total
from serving.oidc_issuer import OidcIssuer
from serving.peer import Peer, unique, unique_user
from serving.processes import ServerProcess, StartServer, free_port
from serving.proxy import scenario
from serving.raw import RawSocket, exchange, upgrade
from serving.redis import RedisServer
from serving.swarm import Swarm
from serving.witness import Witness

SHARE = 150
"""Of a thousand calls that meet trouble."""


@pytest.mark.parametrize("workers", [1, 2])
@scenario
async def test_calls_that_are_refused_or_done_in_part_lose_nothing(workers: int) -> None:
    """Sends, receives and accepts, of clients' sockets and of those between the workers."""
    checker, topics = Checker(), [unique() for _ in range(4)]
    with (
        unwilling_kernel() as kernel,
        started(1, {"server": {"workers": workers}}, environment=kernel.environment) as (server,),
    ):
        kernel.refuse(SHARE)
        async with Swarm([server.url], checker) as swarm:
            await swarm.subscribe(12, topics)
            await swarm.publish(4, topics, 400, padding_bytes=3000)
            await acknowledged(swarm, 400)
            await swarm.until(lambda: kernel.refused > 500)
            await swarm.settle()
            assert all(client.closes == [] for client in swarm.clients)
        assert kernel.refused > 500
        kernel.refuse(0)
    totals = checker.totals
    assert totals.resets == totals.gaps_told == totals.refused == 0, checker.report()
    assert totals.deliveries == 12 * totals.acknowledged, checker.report()


def test_a_disk_that_fills_up_and_is_emptied(start_server: StartServer) -> None:
    """Lines that find no room are counted, and the count is logged where there is room again."""
    server = start_server({"metrics": {"enabled": True, "port": free_port()}})
    with Witness(server.url) as witness:
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (len(server.log) + 100, resource.RLIM_INFINITY))
        exchange(server.port, upgrade(sec_websocket_version="8"))
        exchange(server.port, upgrade(sec_websocket_version="8"))
        until(lambda: total(server, "log_lines_dropped") > 0, lambda: server.log[-2000:])
        assert health(server.port)["status"] == "degraded"
        witness.check()
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

        def written_again() -> bool:
            exchange(server.port, upgrade(sec_websocket_version="8"))
            return health(server.port)["status"] == "ok"

        until(written_again, lambda: server.log[-2000:])
        witness.check()
    assert server.stop() == 0


class TestNames:
    """No name can be resolved for a while."""

    def test_of_redis(self, start_server: StartServer) -> None:
        with unwilling_kernel() as kernel, RedisServer() as store:
            named = with_redis({"redis": QUICK}, url=f"redis://localhost:{store.port}")
            server = start_server(named, environment=kernel.environment)
            until(lambda: is_joined(server), lambda: server.log[-2000:])
            with Witness(server.url, store=True) as witness:
                kernel.forget_names()
                cut(store)
                until(lambda: kernel.asked_in_vain > 2 and not is_joined(server), lambda: server.log[-2000:])
                assert health(server.port)["status"] == "degraded"
                with Peer(server.url, unique_user()) as peer:
                    assert peer.ok("Broadcast", topic=unique(), payload=1)["offset"] == 1
                kernel.know_names()
                until(lambda: is_joined(server), lambda: server.log[-2000:])
                witness.check()

    def test_of_an_issuer(self, start_server: StartServer) -> None:
        with unwilling_kernel() as kernel, OidcIssuer() as issuer:
            url = issuer.url.replace("127.0.0.1", "localhost")
            issuer.control(discovery={"issuer": url, "jwks_uri": f"{url}/jwks"})
            kernel.forget_names()
            server = start_server(oidc(url), environment=kernel.environment)
            with Witness(server.url) as witness:
                until(lambda: kernel.asked_in_vain > 0, lambda: server.log[-2000:])
                token = issuer.token("bob", iss=url)
                assert answer_to(server, token) == 503
                witness.check()
                kernel.know_names()
                until(lambda: answer_to(server, token) == 101, lambda: server.log[-2000:])
                kernel.forget_names()
                assert answer_to(server, token) == 101, "a key that is known needs no name"
                witness.check()


QUICK = {"retry_delay_ms": 10, "response_timeout_ms": 500}


def is_joined(server: ServerProcess) -> bool:
    return bool(redis_of(server)["engine"]["state"] == "here")


def cut(store: RedisServer) -> None:
    """All connections to it end."""
    store.client.client_kill_filter(_type="pubsub", skipme=True)
    store.client.client_kill_filter(_type="normal", skipme=True)


def oidc(url: str) -> dict[str, Any]:
    provider = {"type": "oauth2", "name": "named", "priority": 2, "issuer": url}
    return {"auth": {"providers": [{"type": "jwt", "priority": 1}, provider]}}


def answer_to(server: ServerProcess, token: str) -> int:
    """The status of an upgrade with that token."""
    with RawSocket(server.port) as raw:
        raw.send(upgrade(user=None, extra=(f"Authorization: Bearer {token}",)))
        return raw.answer().status
