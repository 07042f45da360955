"""What the server depends on: Redis, and the issuers of tokens; and the clock, which must agree with theirs."""

from __future__ import annotations

import asyncio
import ctypes
import email.utils
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from realtime_communication.cli.doctor.finding import Finding, fail, ok, warn
from realtime_communication.config.schema import Config

OLDEST_REDIS: Final = 7
CLOCK_SECS: Final = 2.0  # between hosts that keep time
FILE_SECS: Final = 60.0
ISSUER_SECS: Final = 5.0
_TIME_ERROR: Final = 5  # adjtimex(2): the clock is not synchronised
_TIMEX_BYTES: Final = 512


def redis(config: Config) -> Iterator[Finding]:
    """Whether Redis is there and fit for the server's use."""
    from realtime_communication.broker.broker import uses_redis

    if not uses_redis(config):
        yield ok("redis", "is not used (testing.use_in_memory_storage or development.mock_external_services)")
        return
    yield from asyncio.run(_redis(config))


async def _redis(config: Config) -> list[Finding]:
    from redis.exceptions import RedisError

    from realtime_communication.broker.redis_topology import topology_of

    topology = topology_of(config.redis)
    address = topology.address
    try:
        await topology.check()
        server = _info(await topology.execute("INFO", "server"))
        memory = _info(await topology.execute("INFO", "memory"))
        asked = time.time()
        seconds, micros = await topology.execute("TIME")
        middle = (asked + time.time()) / 2
    except (RedisError, OSError, TimeoutError) as error:
        mend = "redis.url = redis://HOST:PORT, or start it: `systemctl start redis-server`"
        finding = fail if config.redis.required else warn
        return [finding("redis", f"{address} cannot be used: {str(error) or type(error).__name__}", mend)]
    finally:
        await topology.close()
    return [
        *_about_redis(address, server, memory),
        _difference("clock of Redis", int(seconds) + int(micros) / 1e6 - middle),
    ]


def _about_redis(address: str, server: dict[str, str], memory: dict[str, str]) -> Iterator[Finding]:
    version = server.get("redis_version", "?")
    if version.partition(".")[0].isdigit() and int(version.partition(".")[0]) >= OLDEST_REDIS:
        yield ok("redis", f"{address} answers, version {version}")
    else:
        yield fail("redis", f"{address} has version {version}", f"install Redis {OLDEST_REDIS} or newer")
    policy = memory.get("maxmemory_policy", "noeviction")
    bounded = memory.get("maxmemory", "0") != "0"
    if policy == "noeviction":
        yield ok("redis maxmemory-policy", policy)
    elif bounded:
        yield fail(
            "redis maxmemory-policy",
            f"{policy}: when its memory is full, Redis forgets histories and revocations at will",
            "redis-cli CONFIG SET maxmemory-policy noeviction",
        )
    else:
        yield warn(
            "redis maxmemory-policy",
            f"{policy}, without effect as long as maxmemory is 0",
            "redis-cli CONFIG SET maxmemory-policy noeviction",
        )


def _info(reply: Any) -> dict[str, str]:
    """The fields of INFO, which a client may have parsed already; of a cluster, those of one node."""
    if isinstance(reply, dict):
        if reply and all(isinstance(value, dict) for value in reply.values()):
            reply = next(iter(reply.values()))
        return {str(name): str(value) for name, value in reply.items()}
    text = reply.decode() if isinstance(reply, bytes) else str(reply)
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


def _difference(subject: str, secs: float) -> Finding:
    if abs(secs) <= CLOCK_SECS:
        return ok(subject, f"differs by {abs(secs):.3f} s")
    ahead = "behind" if secs > 0 else "ahead"
    return fail(subject, f"this machine is {abs(secs):.1f} s {ahead}: tokens and histories end at wrong times", _SYNC)


_SYNC: Final = "timedatectl set-ntp true"


def clock(files: Sequence[Path], now: float | None = None) -> Iterator[Finding]:
    """Whether the clock is behind what was written here already, and whether something keeps it right."""
    now = time.time() if now is None else now
    for path in files:
        try:
            written = path.stat().st_mtime
        except OSError:
            continue
        if written > now + FILE_SECS:
            yield fail("clock", f"it is behind: {path} was written {written - now:.0f} s from now", _SYNC)
            return
    if _is_synchronised():
        yield ok("clock", "is kept right, and behind no file")
    else:
        yield warn("clock", "nothing keeps it right: tokens and histories end by it", _SYNC)


def _is_synchronised() -> bool:
    """adjtimex(2), which NTP daemons tell of; an answer that it may not be asked counts as yes."""
    library = ctypes.CDLL(None, use_errno=True)
    state = library.adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))  # zeros: asks, and sets nothing
    return int(state) != _TIME_ERROR


def issuers(config: Config) -> Iterator[Finding]:
    """Whether the issuers can be asked for their keys, and agree with this machine on the time."""
    if config.development.mock_external_services:
        return
    for provider in config.auth.providers:
        if provider.enabled and provider.type == "oauth2":
            yield from _issuer(provider.issuer)


def _issuer(issuer: str) -> Iterator[Finding]:
    url = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
    subject = f"issuer {issuer}"
    try:
        with urllib.request.urlopen(url, timeout=ISSUER_SECS) as answer:  # noqa: S310 the configuration allows http(s)
            answer.read(1)
            date = answer.headers.get("Date")
    except urllib.error.HTTPError as error:
        yield fail(
            subject, f"answers {url} with {error.code}", "auth.providers.issuer = exactly what tokens have as iss"
        )
        return
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        yield fail(subject, f"cannot be reached: {reason}", f"curl -v {url}")
        return
    yield ok(subject, "answers")
    if date is not None:
        try:
            yield _difference(f"clock of {issuer}", _whole_secs(email.utils.parsedate_to_datetime(date).timestamp()))
        except ValueError:
            return


def _whole_secs(there: float) -> float:
    """The difference to a time that was cut to whole seconds."""
    secs = there - time.time()
    return 0.0 if -1 < secs <= 0 else secs


def libraries(config: Config) -> Iterator[Finding]:
    """What makes the server faster, or what a part of the configuration needs."""
    import importlib.util

    def has(name: str) -> bool:
        return importlib.util.find_spec(name) is not None

    if config.tracing.enabled:
        if has("opentelemetry.sdk") if has("opentelemetry") else False:
            yield ok("opentelemetry", "is installed")
        else:
            yield fail("opentelemetry", "tracing.enabled needs it", "pip install 'realtime_communication[tracing]'")
    for name, use in (("isal", "compresses faster"), ("hiredis", "reads Redis faster"), ("uvloop", "runs the server")):
        if has(name):
            yield ok(name, "is installed")
        elif name == "uvloop":
            yield fail(name, f"is missing: it {use}", f"pip install {name}")
        else:
            yield warn(name, f"is missing: it {use}", f"pip install {name}")
