"""A Redis Cluster of real servers whose slots move and whose masters die as the test wants it."""

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

from redis.crc import key_slot

from serving.processes import free_port
from serving.redis import RedisServer, until

SLOTS = 16384
NODE_TIMEOUT_MS = 1000  # of silence, after which the others take a node for dead


class Cluster:
    """``masters`` come first in ``nodes``; the replica of master i is ``nodes[len(masters) + i]``."""

    def __init__(self, nodes: list[RedisServer], masters: int) -> None:
        self.nodes = nodes
        self.masters = nodes[:masters]
        self.replicas = nodes[masters:]

    def owner_of(self, key: str | bytes) -> RedisServer:
        """The master that has the slot of a key or a channel, as the cluster sees it now."""
        slot = key_slot(key.encode() if isinstance(key, str) else key)
        for first, last, (_, port, *_), *_ in self._slots_seen_by(self.alive()):
            if first <= slot <= last:
                return next(node for node in self.nodes if node.port == port)
        raise AssertionError(f"nobody owns slot {slot}")

    def alive(self) -> RedisServer:
        """Some node that answers."""

        def answering() -> RedisServer | None:
            for node in self.nodes:
                with contextlib.suppress(Exception):
                    node.client.ping()
                    return node
            return None

        return until(answering)  # type: ignore[no-any-return]

    @contextlib.contextmanager
    def moving(self, key: str | bytes, goal: RedisServer) -> Iterator[RedisServer]:
        """The slot of ``key`` moves to another master: its keys before the block, the slot itself after it."""
        source = self.owner_of(key)
        slot = key_slot(key.encode() if isinstance(key, str) else key)
        ids = {node.port: raw(node, "CLUSTER", "MYID") for node in (source, goal)}
        raw(goal, "CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source.port])
        raw(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", ids[goal.port])
        keys = raw(source, "CLUSTER", "GETKEYSINSLOT", slot, 10_000)
        if keys:
            raw(source, "MIGRATE", "127.0.0.1", goal.port, "", 0, 5000, "KEYS", *keys)
        yield source
        others = [node for node in self.masters if node not in (source, goal)]
        for node in (goal, source, *others):
            raw(node, "CLUSTER", "SETSLOT", slot, "NODE", ids[goal.port])

    def move_slot(self, key: str | bytes, goal: RedisServer) -> None:
        """Give the slot of ``key``, with its keys, to another master."""
        with self.moving(key, goal):
            pass

    def fail_over(self, master: RedisServer) -> RedisServer:
        """Have the replica of a master take its place while both live; the replica."""
        replica = self.replicas[self.masters.index(master)]
        raw(replica, "CLUSTER", "FAILOVER")
        until(lambda: replica.client.role()[0] == b"master")
        return replica

    @staticmethod
    def _slots_seen_by(node: RedisServer) -> Any:
        return raw(node, "CLUSTER", "SLOTS")


@contextlib.contextmanager
def cluster(masters: int = 3, replicas: bool = True) -> Iterator[Cluster]:
    """A cluster that has all its slots, each node of which knows all others."""
    with contextlib.ExitStack() as stack:
        nodes, buses = [], {}
        for _ in range(masters * (2 if replicas else 1)):
            bus = free_port()
            node = RedisServer(
                cluster_enabled="yes",
                cluster_node_timeout=NODE_TIMEOUT_MS,
                cluster_port=bus,
                cluster_replica_validity_factor=0,
                repl_diskless_sync_delay=0,
            )
            stack.callback(node.dispose)
            node.start(ready=False)
            nodes.append(node)
            buses[node] = bus
        for node in nodes:
            until(node.client.ping)
        made = Cluster(nodes, masters)
        for index, node in enumerate(nodes):
            raw(node, "CLUSTER", "SET-CONFIG-EPOCH", index + 1)
        for index, node in enumerate(made.masters):
            raw(node, "CLUSTER", "ADDSLOTSRANGE", index * SLOTS // masters, (index + 1) * SLOTS // masters - 1)
        for one, other in itertools.combinations(nodes, 2):  # all pairs: by hearsay it takes seconds
            raw(one, "CLUSTER", "MEET", "127.0.0.1", other.port, buses[other])
        for master, replica in zip(made.masters, made.replicas, strict=False):
            name = raw(master, "CLUSTER", "MYID")
            until(lambda each=replica, of=name: raw(each, "CLUSTER", "REPLICATE", of))
        for master, replica in zip(made.masters, made.replicas, strict=False):
            until(lambda each=replica: each.client.info("replication")["master_link_status"] == "up")
            raw(master, "FLUSHALL")  # the others are told of a replica once it has got something
        for node in nodes:
            until(lambda each=node: _is_complete(each, nodes))
        yield made


def _is_complete(node: RedisServer, nodes: list[RedisServer]) -> bool:
    rows = raw(node, "CLUSTER", "SLOTS")
    known = {server[1] for row in rows for server in row[2:]}
    return b"cluster_state:ok" in raw(node, "CLUSTER", "INFO") and known == {each.port for each in nodes}


def raw(node: RedisServer, *command: Any) -> Any:
    """A reply as the node gives it, not as redis-py understands it."""
    connection = node.client.connection_pool.get_connection()
    try:
        connection.send_command(*command)
        return connection.read_response()
    finally:
        node.client.connection_pool.release(connection)
