"""The feed while masters die, stop, are demoted and lose slots; each rig is started once."""

import asyncio
import contextlib

import pytest

from broker.links import running, until
from realtime_communication.broker.redis_errors import RedisFailed
from serving.proxy import scenario
from serving.redis_cluster import cluster
from serving.redis_sentinel import sentinel_trio


@pytest.fixture(scope="module")
def trio():
    with sentinel_trio("sesame") as servers:
        yield servers


@pytest.fixture(scope="module")
def rig():
    with cluster() as made:
        yield made


@pytest.fixture
def sentinel_node(trio, node_at):
    addresses = [sentinel.address for sentinel in trio[2]]
    return node_at(sentinel={"enabled": True, "sentinels": addresses, "password": "sesame"})


@pytest.fixture
def cluster_node(rig, node_at):
    times = {"probe_secs": 0.2, "probe_back_secs": 2.0}  # the client for clusters needs time to leave a dead node
    return node_at(times=times, cluster={"enabled": True, "nodes": [node.url for node in rig.nodes]})


@scenario
async def test_sentinels_replace_a_master_that_has_stopped(trio, sentinel_node):
    """Its connections stay open. A master that dies is in test_redis_topology.py."""
    (old, (new,), sentinels), node = trio, sentinel_node
    async with running(*node.parts):
        await node.feed.subscribe(b"a")
        assert old.client.pubsub_numsub(b"a") == [(b"a", 1)]
        old.pause()
        await until(lambda: node.restored() == {b"a"})
        await until(lambda: all(sentinel.master_port() == new.port for sentinel in sentinels))
        new.client.publish(b"a", b"of the new master")
        await until(lambda: node.messages() == [(b"a", b"of the new master")])
        await until(lambda: node.link.health()[0])
        old.resume()


def spread(rig, count=30):
    """Channels of all masters, each with its owner."""
    names = [b"rtc:{t%d}" % number for number in range(count)]
    return {name: rig.owner_of(name) for name in names}


class TestCluster:
    @scenario
    async def test_each_channel_at_its_owner(self, rig, cluster_node):
        node, owners = cluster_node, spread(rig)
        assert set(owners.values()) == set(rig.masters)
        async with running(*node.parts):
            await asyncio.gather(*map(node.feed.subscribe, owners))
            for channel, owner in owners.items():
                assert owner.client.execute_command("SPUBLISH", channel, b"for " + channel) == 1
            await until(lambda: len(node.told) == len(owners))
            assert set(node.told) == {(channel, b"for " + channel) for channel in owners}
            assert node.feed.health() == (True, {"state": "up", "servers": 3, "servers_up": 3, "channels_waiting": 0})
            await node.link.publish_once(b"rtc:{t1}", b"by a command")
            await until(lambda: (b"rtc:{t1}", b"by a command") in node.told)
            for channel in owners:
                node.feed.unsubscribe(channel)
            await until(lambda: not any(sharded(master, b"rtc:{t*") for master in rig.masters))
            await until(lambda: node.feed.statistics()["lines"] == 1)  # what feeds nothing is closed, but for one
            assert node.feed.health()[0]

    @scenario
    async def test_slots_that_move(self, rig, cluster_node):
        """There and back again; what is published when the channel is restored comes, and nobody else is harmed."""
        node, channel, other = cluster_node, b"rtc:{moving}", b"rtc:{t1}"
        async with running(*node.parts):
            await asyncio.gather(node.feed.subscribe(channel), node.feed.subscribe(other))
            home = rig.owner_of(channel)
            for number, goal in enumerate([*(each for each in rig.masters if each is not home), home]):
                rig.move_slot(channel, goal)
                await until(lambda number=number: node.told.count(("restored", [channel])) == number + 1)
                assert goal.client.execute_command("SPUBLISH", channel, b"%d" % number) == 1
                await until(lambda number=number: len(node.messages()) == number + 1)
            assert node.messages() == [(channel, b"0"), (channel, b"1"), (channel, b"2")]
            assert node.restored() == {channel}
            assert "lost" not in node.told

    @scenario
    async def test_a_slot_that_moves_while_it_is_asked_for(self, rig, cluster_node):
        node = cluster_node
        async with running(*node.parts):
            await node.feed.subscribe(b"rtc:{t1}")
            for number in range(10):
                channel = b"rtc:{mv}%d" % number
                fed = node.feed.subscribe(channel)
                home = rig.owner_of(channel)
                rig.move_slot(channel, next(each for each in rig.masters if each is not home))
                await fed
                await until(lambda: node.feed.health()[0])

    @scenario
    async def test_a_master_steps_down(self, rig, cluster_node):
        node, owners = cluster_node, spread(rig)
        old = owners[b"rtc:{t1}"]
        mine = {channel for channel, owner in owners.items() if owner is old}
        async with running(*node.parts):
            await asyncio.gather(*map(node.feed.subscribe, owners))
            new = rig.fail_over(old)
            await until(lambda: node.restored() == mine)
            await until(lambda: new.client.execute_command("SPUBLISH", b"rtc:{t1}", b"of the new master"))
            await until(lambda: (b"rtc:{t1}", b"of the new master") in node.told)
            await until(lambda: node.feed.health()[0])
            assert "lost" not in node.told

    @pytest.mark.parametrize("harm", ["pause", "kill"])
    def test_z_a_master_is_lost(self, rig, cluster_node, harm):
        """The last of the class: each time a replica takes over, and the other masters' channels are fed on."""
        scenario(self.play)(rig, cluster_node, harm)

    async def play(self, rig, node, harm):
        owners = spread(rig)
        old = next(owner for owner in owners.values() if owner.client.info("replication")["connected_slaves"])
        mine = {channel for channel, owner in owners.items() if owner is old}
        async with running(*node.parts):
            await asyncio.gather(*map(node.feed.subscribe, owners))
            getattr(old, harm)()
            await until(lambda: node.restored() == mine)
            channel = next(iter(mine))
            while not node.messages():
                await asyncio.sleep(0.02)
                with contextlib.suppress(RedisFailed):
                    await node.link.publish_once(channel, b"of the new master")
            await until(lambda: node.feed.health()[0])
            assert "lost" not in node.told
        if harm == "pause":
            old.resume()
            await until(lambda: old.client.role()[0] == b"slave")


def sharded(server, pattern):
    return server.client.execute_command("PUBSUB", "SHARDCHANNELS", pattern)
