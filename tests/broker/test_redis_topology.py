"""Sentinel and Cluster, each started once; a single server is in test_redis_link.py."""

import asyncio
import contextlib
import datetime
import ipaddress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from broker.links import down, running, until
from realtime_communication.broker.redis_errors import RedisFailed
from realtime_communication.broker.redis_link import Script
from realtime_communication.broker.redis_topology import topology_of
from realtime_communication.config.services import CircuitBreaker
from realtime_communication.errors import ConfigurationError
from realtime_communication.resilience.breaker import Breakers
from serving.processes import free_port
from serving.proxy import scenario
from serving.redis import RedisServer
from serving.redis_cluster import cluster
from serving.redis_sentinel import sentinel_trio


@pytest.fixture(scope="module")
def trio():
    with sentinel_trio("sesame") as servers:
        yield servers


@pytest.fixture(scope="module")
def nodes():
    with cluster() as made:
        yield made


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A key and a certificate for 127.0.0.1 that is its own authority."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "redis of the tests")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "cert").write_bytes(made.public_bytes(pem))
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key").write_bytes(private)
    return folder


@pytest.mark.parametrize(
    ("parameters", "state", "warnings"),
    [("ssl_ca_certs={}/cert", "up", 0), ("", "down", 0), ("ssl_cert_reqs=none&ssl_check_hostname=false", "up", 1)],
)
def test_tls(certificate, link_to, caplog, parameters, state, warnings):
    @scenario
    async def play():
        tls = {"tls_cert_file": certificate / "cert", "tls_key_file": certificate / "key", "tls_auth_clients": "no"}
        with RedisServer(tls_port=(port := free_port()), **tls):
            link = link_to(url=f"rediss://127.0.0.1:{port}?{parameters.format(certificate)}")
            async with running(link):
                await (link.joined() if state == "up" else down(link))
                assert link.health()[1]["state"] == state
        assert sum("is not verified" in record.getMessage() for record in caplog.records) == warnings

    play()


def sentinel_of(trio, **changes):
    _, _, sentinels = trio
    addresses = [sentinel.address for sentinel in sentinels]
    return {"enabled": True, "master_name": "mymaster", "sentinels": addresses, "password": "sesame"} | changes


class TestSentinel:
    @scenario
    async def test_the_master_they_name_is_used(self, trio, link_to):
        link = link_to(sentinel=sentinel_of(trio))
        async with running(link):
            await link.joined()
            await link.execute("SET", link.key("a"), "b")
            assert trio[0].client.get("rtc:a") == b"b"
            assert link.health()[1]["topology"] == "sentinel"

    @scenario
    async def test_user_password_and_database_of_the_url_hold(self, trio, link_to):
        sentinel = sentinel_of(trio, password="")
        link = link_to(url="redis://:sesame@nowhere.invalid:1/3", sentinel=sentinel)
        async with running(link):
            await link.joined()
            await link.execute("SET", "in three", "b")
            assert trio[0].client.execute_command("EXISTS", "in three") == 0

    @pytest.mark.parametrize(
        ("changes", "reply"), [({"master_name": "nobody"}, "CONNECT"), ({"password": "wrong"}, "WRONGPASS")]
    )
    def test_a_name_or_a_password_that_is_wrong(self, trio, link_to, changes, reply):
        @scenario
        async def play():
            link = link_to(sentinel=sentinel_of(trio, **changes))
            async with running(link):
                await down(link)
                assert link.last_error == reply

        play()

    @scenario
    async def test_z_failover(self, trio, node_at):
        """The last of the class: the roles are changed afterwards. The old master stays down, so dials to it fail."""
        master, (replica,), sentinels = trio
        dead = sentinels[0]
        node = node_at(sentinel=sentinel_of(trio))
        async with running(*node.parts):
            await node.feed.subscribe(b"news")
            dead.kill()  # the first to be asked: two are a majority still
            master.kill()
            await down(node.link)
            await until(lambda: node.told == ["lost", ("restored", [b"news"])])
            assert replica.client.role()[0] == b"master"
            replica.client.publish(b"news", b"again")
            await until(lambda: node.messages() == [(b"news", b"again")])
            await node.link.execute("SET", "a", "after", idempotent=True)
            assert replica.client.get("a") == b"after"


def cluster_of(nodes, **changes):
    return {"enabled": True, "nodes": [node.url for node in nodes.masters[:2]]} | changes


class TestCluster:
    @scenario
    async def test_keys_on_all_nodes(self, nodes, link_to):
        link = link_to(cluster=cluster_of(nodes))
        async with running(link):
            await link.joined()
            for number in range(50):
                await link.execute("SET", link.key(f"{number}"), number)
            assert [await link.execute("GET", link.key(f"{number}")) for number in range(50)] == [
                b"%d" % number for number in range(50)
            ]
            assert all(node.client.dbsize() > 0 for node in nodes.masters)
            assert await link.run_script(Script("return redis.call('GET', KEYS[1])"), [link.key("7")], []) == b"7"
            assert link.health()[1]["topology"] == "cluster"

    @scenario
    async def test_one_node_of_those_named_is_enough(self, nodes, link_to):
        link = link_to(cluster=cluster_of(nodes) | {"nodes": ["redis://127.0.0.1:1", nodes.masters[2].url]})
        async with running(link):
            await link.joined()
            assert await link.execute("SET", "a", "b") is True

    @pytest.mark.parametrize("replicas", [False, True])
    def test_read_from_replicas(self, nodes, link_to, replicas):
        def reads(server):
            return server.client.info("commandstats").get("cmdstat_get", {"calls": 0})["calls"]

        @scenario
        async def play():
            link = link_to(cluster=cluster_of(nodes, read_from_replicas=replicas))
            async with running(link):
                await link.joined()
                before = sum(reads(node) for node in nodes.replicas)
                for _ in range(10):
                    await link.execute("GET", "a")
                assert (sum(reads(node) for node in nodes.replicas) > before) is replicas

        play()

    @scenario
    async def test_no_more_commands_at_once_than_max_size(self, nodes, link_to):
        link = link_to(cluster=cluster_of(nodes), pool_size=1, pool={"max_size": 2}, timeout_secs=20)
        async with running(link):
            await link.joined()
            await link.execute("SET", "a", "b")
            home = nodes.owner_of("a")
            before = home.connections()
            await asyncio.gather(*(link.execute("GET", "a") for _ in range(50)))
            assert home.connections() <= before + 2

    @scenario
    async def test_a_slot_that_moves_is_followed(self, nodes, link_to):
        link = link_to(cluster=cluster_of(nodes))
        async with running(link):
            await link.joined()
            await link.execute("SET", "{moving}a", "1")
            goal = next(node for node in nodes.masters if node is not nodes.owner_of("{moving}a"))
            with nodes.moving("{moving}a", goal):
                assert await link.execute("GET", "{moving}a") == b"1"  # by ASK
            assert await link.execute("INCR", "{moving}a") == 2  # by MOVED
            assert link.generation == 1

    @scenario
    async def test_keys_of_two_slots_in_one_script(self, nodes, link_to):
        link = link_to(cluster=cluster_of(nodes))
        async with running(link):
            await link.joined()
            with pytest.raises(RedisFailed) as caught:
                await link.run_script(Script("return 1"), ["a", "b"], [])
            assert caught.value.reply in ("CROSSSLOT", "CONNECT")

    @scenario
    async def test_z_a_master_dies(self, nodes, link_to):
        """The last of the class: a replica takes over."""
        breakers = Breakers(CircuitBreaker(enabled=False))
        link = link_to(breakers=breakers, cluster=cluster_of(nodes), retry_attempts=0)
        async with running(link):
            await link.joined()
            await link.execute("SET", "a", "b")
            home = nodes.owner_of("a")
            home.kill()
            found = None
            while found is None:
                with contextlib.suppress(RedisFailed):
                    found = await link.execute("GET", "a")
                await asyncio.sleep(0.05)
            assert found == b"b"
            await link.joined()


@pytest.mark.parametrize(
    ("redis", "key"),
    [
        ({"url": "redis://h?no_such=1"}, "redis.url"),
        ({"url": "redis://h?db=x"}, "redis.url"),
        (
            {"cluster": {"enabled": True, "nodes": ["redis://h", "redis://h?password=hush&x=1"]}},
            "redis.cluster.nodes[1]",
        ),
    ],
)
def test_parameters_of_a_url_that_mean_nothing(redis_config, redis, key):
    with pytest.raises(ConfigurationError) as caught:
        topology_of(redis_config(**redis).redis)
    assert [problem.key for problem in caught.value.problems] == [key]
    assert "hush" not in str(caught.value)
