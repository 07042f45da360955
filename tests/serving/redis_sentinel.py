"""A Redis master with replicas, and three Sentinels that watch it and soon put a replica in its place."""

import contextlib
from collections.abc import Iterator

import redis

from serving.redis import RedisServer, until

NAME = "mymaster"
DOWN_MS = 500  # of silence, after which a Sentinel takes the master for dead


class SentinelServer(RedisServer):
    """One Sentinel that watches ``master`` as ``mymaster``."""

    mode = ("--sentinel",)

    def __init__(self, master: RedisServer, quorum: int) -> None:
        super().__init__()
        self._options = {}
        self._master, self._quorum = master, quorum

    def more(self) -> list[str]:
        lines = [
            f"sentinel monitor {NAME} 127.0.0.1 {self._master.port} {self._quorum}",
            f"sentinel down-after-milliseconds {NAME} {DOWN_MS}",
            f"sentinel failover-timeout {NAME} 2000",
        ]
        if self._master.password:
            lines.append(f"sentinel auth-pass {NAME} {self._master.password}")
        return lines

    def master_port(self) -> int:
        """The port of the master it names now."""
        return int(self.client.sentinel_get_master_addr_by_name(NAME)[1])


@contextlib.contextmanager
def sentinel_trio(
    password: str = "sesame", replicas: int = 1
) -> Iterator[tuple[RedisServer, list[RedisServer], list[SentinelServer]]]:
    """A master, its replicas, and three Sentinels that know all of them and each other."""
    with contextlib.ExitStack() as stack:
        options = {"repl_diskless_sync_delay": 0, "replica_serve_stale_data": "yes"}
        if password:
            options |= {"requirepass": password, "masterauth": password}
        master = stack.enter_context(RedisServer(**options))
        followers = [
            stack.enter_context(RedisServer(replicaof=f"127.0.0.1 {master.port}", **options)) for _ in range(replicas)
        ]
        for follower in followers:
            until(lambda each=follower: each.client.info("replication")["master_link_status"] == "up")
        sentinels = [stack.enter_context(SentinelServer(master, 2)) for _ in range(3)]
        for sentinel in sentinels:
            until(lambda each=sentinel: _knows_all(each.client, replicas))
        yield master, followers, sentinels


def _knows_all(sentinel: redis.Redis, replicas: int) -> bool:
    state = sentinel.sentinel_master(NAME)
    return bool(state["num-other-sentinels"] == 2 and state["num-slaves"] == replicas)
