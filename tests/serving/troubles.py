"""What can befall a Redis while others use it. Each is a generator: trouble from its start to where it goes on."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator

import redis

from serving.processes import free_port
from serving.redis import RedisServer, until

Trouble = Callable[[RedisServer], Iterator[None]]


def stop_and_go(store: RedisServer) -> Iterator[None]:
    """No answer, with the connections open: as when the packets are dropped."""
    pid = store.client.info("server")["process_id"]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def kill(store: RedisServer) -> Iterator[None]:
    """It dies, and comes back empty."""
    store.kill()
    yield
    store.start()


def demote(store: RedisServer) -> Iterator[None]:
    """It is a replica of nobody who answers from now on: READONLY."""
    store.client.replicaof("127.0.0.1", free_port())
    yield
    store.client.replicaof("NO", "ONE")


def lock(store: RedisServer) -> Iterator[None]:
    """It wants a password that nobody was told: NOAUTH."""
    store.client.config_set("requirepass", "hush")
    with contextlib.suppress(redis.RedisError):
        store.client.execute_command("CLIENT", "KILL", "SKIPME", "yes", "TYPE", "normal")
    with contextlib.suppress(redis.RedisError):
        store.client.execute_command("CLIENT", "KILL", "SKIPME", "yes", "TYPE", "pubsub")
    yield
    with redis.Redis(port=store.port, password="hush", socket_timeout=5) as client:
        client.config_set("requirepass", "")


def busy(store: RedisServer) -> Iterator[None]:
    """A script runs that does not end: BUSY."""
    store.client.config_set("busy-reply-threshold", 1)
    looping = redis.Redis(port=store.port, socket_timeout=0.2)
    with contextlib.suppress(redis.RedisError):
        looping.eval("while true do end", 0)
    looping.close()
    yield
    with contextlib.suppress(redis.RedisError):
        store.client.script_kill()


def fill_up(store: RedisServer) -> Iterator[None]:
    """It has no memory left for writes: OOM."""
    store.client.config_set("maxmemory", 1)
    yield
    store.client.config_set("maxmemory", 0)


def adopt(store: RedisServer) -> Iterator[None]:
    """It becomes the replica of an empty master, and is a master again after it has taken that one's emptiness over."""
    with RedisServer(repl_diskless_sync_delay=0) as empty:
        store.client.replicaof("127.0.0.1", empty.port)
        until(lambda: store.client.info("replication")["master_link_status"] == "up")
        yield
        store.client.replicaof("NO", "ONE")


def flush(store: RedisServer) -> Iterator[None]:
    """It loses all it has, and no connection."""
    store.client.flushall()
    yield


def restart(store: RedisServer) -> Iterator[None]:
    """It dies and is back at once, empty."""
    store.kill()
    store.start()
    yield
