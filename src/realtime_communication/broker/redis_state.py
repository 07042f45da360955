"""The shared state in Redis: the names of `shared_state.py` get `redis.key_prefix` there."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from realtime_communication.broker.redis_link import RedisLink, Script
from realtime_communication.broker.shared_state import MAX_MEMBERS, Rotation

MAX_BATCH: Final = 500  # members in one command

_ROTATE: Final = Script(
    """
local held = redis.call('GET', KEYS[1])
local newest, attempt = 0, ''
if held then
    newest, attempt = string.match(held, '^(%d+):(.*)$')
    newest = tonumber(newest)
    if not newest then return 'revoked' end
end
local presented = tonumber(ARGV[1])
if presented == newest - 1 and attempt == ARGV[2] then return 'rotated' end
if presented < newest then
    redis.call('SET', KEYS[1], 'revoked', 'PX', ARGV[3])
    return 'reused'
end
redis.call('SET', KEYS[1], string.format('%d', presented + 1) .. ':' .. ARGV[2], 'PX', ARGV[3])
return 'rotated'
"""
)

_ADD: Final = Script(
    """
local most = tonumber(ARGV[1])
for i = 2, #ARGV, 2 do redis.call('ZADD', KEYS[1], 'GT', ARGV[i], ARGV[i + 1]) end
-- By the clock of Redis: a node whose own is ahead must not take from the others what holds for them.
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', redis.call('TIME')[1])
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -most - 1)
local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')
if last[2] then redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', math.ceil(tonumber(last[2]) * 1000))) end
return 1
"""
)

_LIST: Final = Script(
    "return redis.call('ZRANGE', KEYS[1], '(' .. ARGV[1], '+inf', 'BYSCORE', 'LIMIT', ARGV[2], ARGV[3], 'WITHSCORES')"
)


class RedisState:
    """The state in Redis. Each operation is one command or one script, on one key."""

    def __init__(self, link: RedisLink, now: Callable[[], float] = time.time) -> None:
        self._link = link
        self._now = now

    async def put(self, name: str, value: bytes, ttl_secs: float) -> None:
        await self._link.execute("SET", self._value(name), value, "PX", _milliseconds(ttl_secs), idempotent=True)

    async def get(self, name: str) -> bytes | None:
        found: bytes | None = await self._link.execute("GET", self._value(name), idempotent=True)
        return found

    async def delete(self, name: str) -> None:
        await self._link.execute("DEL", self._value(name), idempotent=True)

    async def compare_and_rotate(self, family: str, presented: int, attempt: str, ttl_secs: float) -> Rotation:
        arguments = (presented, attempt, _milliseconds(ttl_secs))
        reply = await self._link.run_script(_ROTATE, [self._family(family)], arguments, idempotent=True)
        return Rotation(reply.decode())

    async def revoke_family(self, family: str, ttl_secs: float) -> None:
        command = ("SET", self._family(family), "revoked", "PX", _milliseconds(ttl_secs))
        await self._link.execute(*command, idempotent=True)

    async def add_members(self, name: str, members: Sequence[tuple[bytes, float]]) -> None:
        for first in range(0, len(members), MAX_BATCH):
            arguments: list[object] = [MAX_MEMBERS]
            for member, expires_at in members[first : first + MAX_BATCH]:
                arguments += [expires_at, member]
            await self._link.run_script(_ADD, [self._set(name)], arguments, idempotent=True)

    async def members(self, name: str) -> list[tuple[bytes, float]]:
        found: dict[bytes, float] = {}
        now = self._now()
        # Page by page: Redis serves nobody else while it gathers one.
        while True:
            page = await self._link.run_script(_LIST, [self._set(name)], (now, len(found), MAX_BATCH), idempotent=True)
            before = len(found)
            found |= {page[i]: float(page[i + 1]) for i in range(0, len(page), 2)}
            if len(page) < 2 * MAX_BATCH or len(found) == before:
                return list(found.items())

    def _value(self, name: str) -> str:
        return self._link.key(f"value:{name}")

    def _family(self, name: str) -> str:
        return self._link.key(f"family:{name}")

    def _set(self, name: str) -> str:
        return self._link.key(f"set:{name}")


def _milliseconds(ttl_secs: float) -> int:
    return max(1, round(ttl_secs * 1000))
