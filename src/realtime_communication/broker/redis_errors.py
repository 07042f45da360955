"""What went wrong with Redis, and what helps.

`RedisFailed` has a stable code, a text of our own, and the `Remedy`, which is all a caller decides by. What redis-py
raises becomes one in `redis_replies.py`; here nothing of redis-py is imported, so that who catches a failure need not
load it::

    the command                             codes                                             remedy
    never left this process                 CONNECT, POOL                                     REPEAT
    was refused for now                     LOADING, BUSY, TRYAGAIN, CLUSTERDOWN, MASTERDOWN  REPEAT
    was refused by a node of another role   READONLY, MOVED, ASK                              REBUILD
    got no answer                           LOST, TIMEOUT                                     UNSURE
    was refused for good                    OOM, NOAUTH, WRONGPASS, NOPERM, NOSCRIPT, …       GIVE_UP

Source of the codes: https://redis.io/docs/latest/develop/reference/protocol-spec/#simple-errors and the replies of
redis 7. A code that is not in the table gives up.
"""

from __future__ import annotations

import enum
from typing import Final

from realtime_communication.errors import PeerError


class Remedy(enum.Enum):
    """What a caller does about a failure."""

    REPEAT = "nothing was done: repeat it after a pause"
    REBUILD = "nothing was done: find out anew who is the master, then repeat it"
    UNSURE = "it may have been done: repeat only what may be done twice"
    GIVE_UP = "repeating changes nothing"


MEANINGS: Final[dict[str, tuple[Remedy, str]]] = {
    "CONNECT": (Remedy.REPEAT, "Redis cannot be reached"),
    "POOL": (Remedy.REPEAT, "all connections to Redis are in use (redis.pool.max_size)"),
    "LOADING": (Remedy.REPEAT, "Redis is loading its data"),
    "BUSY": (Remedy.REPEAT, "Redis is busy with a script"),
    "TRYAGAIN": (Remedy.REPEAT, "the keys are being moved between nodes of the cluster"),
    "CLUSTERDOWN": (Remedy.REPEAT, "the Redis cluster is incomplete"),
    "MASTERDOWN": (Remedy.REPEAT, "the replica has lost its master"),
    "READONLY": (Remedy.REBUILD, "the node is a replica, not the master"),
    "MOVED": (Remedy.REBUILD, "the key has moved to another node of the cluster"),
    "ASK": (Remedy.REBUILD, "the key is moving to another node of the cluster"),
    "LOST": (Remedy.UNSURE, "the connection to Redis was lost before the answer came"),
    "TIMEOUT": (Remedy.UNSURE, "Redis did not answer in time (redis.response_timeout_ms)"),
    "OOM": (Remedy.GIVE_UP, "Redis has no memory left (maxmemory)"),
    "MISCONF": (Remedy.GIVE_UP, "Redis refuses writes: it cannot save to its disk"),
    "NOREPLICAS": (Remedy.GIVE_UP, "Redis refuses writes: too few replicas are connected"),
    "NOAUTH": (Remedy.GIVE_UP, "Redis wants a password"),
    "WRONGPASS": (Remedy.GIVE_UP, "Redis refuses the user or the password"),
    "NOPERM": (Remedy.GIVE_UP, "the Redis user may not do this"),
    "NOSCRIPT": (Remedy.GIVE_UP, "Redis does not know the script"),
    "CROSSSLOT": (Remedy.GIVE_UP, "the keys lie on different nodes of the cluster"),
    "ERR": (Remedy.GIVE_UP, "Redis refuses the command"),
    "GARBAGE": (Remedy.UNSURE, "what answers does not speak Redis's protocol"),
    "INTERNAL": (Remedy.UNSURE, "the Redis client failed"),
}
"""Code → remedy and the text people read. The keys are all codes there are: fit for labels of a metric."""

# Failures that say nothing about how Redis is: the command was at fault, or this process was at its own bound.
_OUR_OWN: Final = frozenset({"POOL", "NOSCRIPT", "CROSSSLOT", "ERR", "MOVED", "ASK", "TRYAGAIN"})


class RedisFailed(PeerError):
    """A command had no success. `reply` is a key of MEANINGS; the text holds nothing of what Redis sent."""

    code = "unavailable"

    def __init__(self, reply: str) -> None:
        self.reply = reply if reply in MEANINGS else "ERR"
        self.remedy, meaning = MEANINGS[self.reply]
        super().__init__(f"{meaning} [{self.reply}]")

    def may_repeat(self, idempotent: bool) -> bool:
        """Whether to try again: `idempotent` says that the command may be done twice."""
        return self.remedy in (Remedy.REPEAT, Remedy.REBUILD) or (self.remedy is Remedy.UNSURE and idempotent)


def counts_against_redis(error: BaseException) -> bool:
    """Whether a failure should open a circuit breaker: not one that the command itself was to blame for."""
    return not (isinstance(error, RedisFailed) and error.reply in _OUR_OWN)
