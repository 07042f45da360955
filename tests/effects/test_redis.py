"""`[redis]`: how Redis is reached and treated. Sentinel and Cluster are in `broker/test_redis_topology.py`."""

import asyncio
import contextlib
import http.client
import json
import socket
import time

import pytest

from broker.links import running, until
from realtime_communication.broker.redis_errors import RedisFailed
from realtime_communication.broker.redis_link import RedisLink
from realtime_communication.config.services import CircuitBreaker
from realtime_communication.resilience.breaker import Breakers
from serving.processes import free_port, merged
from serving.proxy import Proxy, scenario
from serving.redis import RedisServer

UNUSED = {"testing": {"use_in_memory_storage": False}}


@pytest.fixture(scope="module")
def server():
    with RedisServer(requirepass="hush", databases=4) as running_server:
        yield running_server


@pytest.fixture
def link_of(configure):
    """A link under `[redis]` settings: ``link_of(url=…)``; the breaker never opens. `times` as for RedisLink."""

    def make(*, times=None, **redis):
        config = configure(UNUSED | {"redis": merged({"pool": {"min_idle": 0}}, redis)}).config.redis
        return RedisLink(config, Breakers(CircuitBreaker(enabled=False))["redis"], **(times or {"probe_secs": 0.01}))

    return make


def pooled(server):
    """The ids of the connections to Redis that are in a pool: not the test's own, and none that subscribe."""
    own = server.client.client_id()
    return {row["id"] for row in server.client.client_list(_type="normal") if row["id"] != str(own)}


async def failing(command):
    with pytest.raises(RedisFailed) as caught:
        await command
    return caught.value.reply


@scenario
async def test_url(server, link_of):
    link = link_of(url=f"redis://default:hush@127.0.0.1:{server.port}/3")
    async with running(link):
        await link.joined()
        await link.execute("SET", "in three", "1")
        assert server.client.info("keyspace")["db3"]["keys"] == 1
        assert server.client.exists("in three") == 0


@scenario
async def test_pool_size(server, link_of):
    link = link_of(url=server.url, pool_size=3, pool={"max_size": 8}, times={"probe_secs": 3600})
    async with running(link):
        await link.joined()
        await asyncio.gather(*(link.execute("PING") for _ in range(50)))
        await until(lambda: len(pooled(server)) == 3)


@contextlib.contextmanager
def silent_port():
    """A port whose connections are never accepted by anybody: connecting takes for ever."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, contextlib.ExitStack() as stack:
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(listener.getsockname())
        yield listener.getsockname()[1]


@pytest.mark.parametrize(
    "spelling",
    [{"timeout_secs": 0.05}, {"connection_timeout_ms": 50}, {"pool": {"connection_timeout_ms": 50}}],
    ids=["timeout_secs", "connection_timeout_ms", "pool.connection_timeout_ms"],
)
def test_timeout(link_of, spelling):
    @scenario
    async def play():
        with silent_port() as port:
            hasty = link_of(url=f"redis://127.0.0.1:{port}", retry_attempts=0, response_timeout_ms=60_000, **spelling)
            patient = link_of(url=f"redis://127.0.0.1:{port}", retry_attempts=0, timeout_secs=60)
            waiting = asyncio.create_task(patient.execute("PING"))
            assert await failing(hasty.execute("PING")) == "CONNECT"
            assert not waiting.done()
            waiting.cancel()
            await asyncio.wait([waiting])

    play()


@scenario
async def test_response_timeout(server, link_of):
    async with Proxy(server.port) as proxy:
        url = f"redis://:hush@127.0.0.1:{proxy.port}"
        hasty, patient = (
            link_of(url=url, retry_attempts=0, response_timeout_ms=secs * 1000, times={"probe_secs": 3600})
            for secs in (0.1, 60)
        )
        async with running(hasty, patient):
            await hasty.joined()
            await patient.joined()
            proxy.stall()
            waiting = asyncio.create_task(patient.execute("PING"))
            assert await failing(hasty.execute("PING")) == "TIMEOUT"
            assert not waiting.done()
            proxy.flow()
            assert await waiting is True


@pytest.mark.parametrize("name", ["retry_attempts", "max_retry_attempts"])
def test_retry_attempts(server, link_of, name):
    @scenario
    async def play():
        async with Proxy(server.port) as proxy:
            proxy.refusing = True
            for attempts in (0, 3):
                link = link_of(url=f"redis://127.0.0.1:{proxy.port}", retry_delay_ms=1, **{name: attempts})
                before = proxy.accepted
                await failing(link.execute("PING"))
                assert proxy.accepted - before == 1 + attempts

    play()


@scenario
async def test_retry_delay(link_of):
    longest = []

    def drawn(low, high):
        longest.append(round(high, 6))
        return 0.0

    url = f"redis://127.0.0.1:{free_port()}"
    link = link_of(url=url, retry_attempts=4, retry_delay_ms=20, times={"uniform": drawn})
    await failing(link.execute("PING"))
    assert longest == [0.02, 0.04, 0.08, 0.16]


def test_key_prefix(server, serve):
    running_worker = serve(UNUSED | {"redis": {"url": server.url, "key_prefix": "mine:"}})
    wait_for(lambda: health(running_worker)["dependencies"]["redis"]["status"] == "ok")
    channels = server.client.pubsub_channels()
    assert b"mine:events" in channels
    assert all(channel.startswith(b"mine:") for channel in channels)


class TestPool:
    @scenario
    async def test_max_size(self, server, link_of):
        async with Proxy(server.port) as proxy:
            url = f"redis://:hush@127.0.0.1:{proxy.port}"
            link = link_of(url=url, pool_size=2, pool={"max_size": 2}, times={"probe_secs": 3600})
            async with running(link):
                await link.joined()
                await asyncio.gather(*(link.execute("PING") for _ in range(20)))
                assert proxy.accepted == 2

    @scenario
    async def test_min_idle(self, server, link_of):
        link = link_of(url=server.url, pool={"min_idle": 4})
        async with running(link):
            await until(lambda: len(pooled(server)) == 4)
            server.client.client_kill_filter(_type="normal", skipme=True)
            await until(lambda: len(pooled(server)) == 4)

    @scenario
    async def test_idle_timeout(self, server, link_of):
        link = link_of(url=server.url, pool={"min_idle": 1, "idle_timeout_secs": 0.05})
        async with running(link):
            await link.joined()
            await asyncio.gather(*(link.execute("PING") for _ in range(6)))
            await until(lambda: len(pooled(server)) == 1)

    @scenario
    async def test_max_lifetime(self, server, link_of):
        link = link_of(url=server.url, pool={"min_idle": 1, "max_lifetime_secs": 0.05})
        async with running(link):
            await link.joined()
            first = await until(lambda: pooled(server))
            await until(lambda: pooled(server) and not pooled(server) & first)


@pytest.mark.parametrize("spelling", [{"enable_cluster": True}, {"cluster": {"enabled": True}}])
def test_cluster(link_of, spelling):
    redis = merged({"cluster": {"nodes": ["redis://127.0.0.1:1"]}}, spelling)
    assert link_of(**redis).health()[1]["topology"] == "cluster"


def test_sentinel(link_of):
    redis = {"sentinel": {"enabled": True, "sentinels": ["127.0.0.1:1"]}}
    assert link_of(**redis).health()[1]["topology"] == "sentinel"
    assert link_of().health()[1]["topology"] == "single"


def get(worker, path):
    connection = http.client.HTTPConnection("127.0.0.1", worker.port, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def health(worker):
    status, report = get(worker, "/health")
    assert status == 200
    return report


def wait_for(reached, secs=20):
    deadline = time.monotonic() + secs
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_without_redis_the_server_serves_on_and_joins_by_itself(serve):
    port = free_port()
    worker = serve(UNUSED | {"redis": {"url": f"redis://127.0.0.1:{port}", "retry_delay_ms": 10}})
    wait_for(lambda: health(worker)["circuit_breakers"]["redis"]["state"] == "open")
    report = health(worker)
    assert report["status"] == "degraded"
    assert report["dependencies"]["redis"]["state"] == "down"
    assert get(worker, "/health/ready")[0] == 200
    with worker.peer() as peer:
        peer.ok("Subscribe", topic="room")
    with RedisServer(port=port):
        wait_for(lambda: health(worker)["dependencies"]["redis"]["state"] == "up")


def test_required(serve):
    port = free_port()
    redis = {"url": f"redis://127.0.0.1:{port}", "required": True, "retry_delay_ms": 10}
    worker = serve(UNUSED | {"redis": redis})
    assert get(worker, "/health/ready") == (503, {"status": "unavailable", "dependencies": ["redis"]})
    assert get(worker, "/health/live")[0] == 200
    with RedisServer(port=port):
        wait_for(lambda: get(worker, "/health/ready")[0] == 200)


@pytest.mark.parametrize(
    ("profile", "settings"),
    [
        ("test", {}),
        ("test", UNUSED | {"development": {"mock_external_services": True}}),
        ("dev", UNUSED | {"logging": {"level": "info"}}),
    ],
    ids=["use_in_memory_storage", "mock_external_services", "dev"],
)
def test_where_redis_is_never_looked_for(serve, profile, settings):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        port = free_port() if profile == "dev" else 0
        redis = {"url": f"redis://127.0.0.1:{listener.getsockname()[1]}", "required": True}
        worker = serve(settings | {"redis": redis, "server": {"host": "127.0.0.1", "port": port}}, profile)
        assert "redis" not in health(worker)["dependencies"]
        assert get(worker, "/health/ready")[0] == 200
        worker.stop()
        with pytest.raises(BlockingIOError):
            listener.accept()
