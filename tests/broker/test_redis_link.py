"""The link against real servers that die, stall, load, refuse and come back."""

import asyncio

import pytest

from broker.links import down, running, until
from realtime_communication.broker.redis_errors import RedisFailed
from realtime_communication.broker.redis_link import LinkState, Script, ScriptCall
from realtime_communication.config.services import CircuitBreaker
from realtime_communication.errors import CircuitOpen
from realtime_communication.observability.spans import Span, Tracer
from realtime_communication.resilience.breaker import Breakers, BreakerState
from serving.processes import free_port
from serving.proxy import Proxy, scenario
from serving.redis import RedisServer

COUNT = Script("return redis.call('INCR', KEYS[1])")


@pytest.fixture
def own_server():
    with RedisServer() as server:
        yield server


async def refused(command):
    """The code with which a command fails."""
    with pytest.raises(RedisFailed) as caught:
        await command
    return caught.value.reply


@scenario
async def test_up_and_commands(redis_server, link_to):
    link = link_to(url=redis_server.url)
    assert link.health() == (
        False,
        {
            "state": "connecting",
            "topology": "single",
            "latency_ms": None,
            "last_error": None,
            "buffered_events": 0,
        },
    )
    async with running(link):
        assert await link.joined() == 1
        assert await link.execute("SET", link.key("a"), "b") is True
        assert await link.execute("GET", "rtc:a") == b"b"
        ok, detail = link.health()
        assert (ok, detail["state"], detail["topology"], detail["last_error"]) == (True, "up", "single", None)


@scenario
async def test_a_socket_and_a_password(link_to):
    with RedisServer(requirepass="hush/hush") as server:
        link = link_to(url=f"unix://{server.socket}?password=hush%2Fhush")
        async with running(link):
            await link.joined()
            assert await link.execute("PING") is True


@scenario
async def test_down_at_start_and_then_there(link_to, caplog):
    caplog.set_level("INFO")
    port = free_port()
    breakers = Breakers(CircuitBreaker(enabled=False))
    link = link_to(breakers=breakers, url=f"redis://alice:hush@127.0.0.1:{port}")
    async with running(link):
        await down(link)
        assert link.health()[1]["last_error"] == "CONNECT"
        assert await refused(link.execute("PING")) == "CONNECT"
        await until(lambda: link.errors["CONNECT"] > 3)
        with RedisServer(port=port) as server:
            server.client.execute_command("ACL", "SETUSER", "alice", "on", ">hush", "~*", "&*", "+@all")
            await link.joined()
    lines = [record.getMessage() for record in caplog.records if "Redis link is" in record.getMessage()]
    assert lines == ["Redis link is down", "Redis link is up"]
    assert "hush" not in str([vars(record) for record in caplog.records])


@scenario
async def test_dies_and_is_back(own_server, link_to):
    link, told = link_to(url=own_server.url), []
    link.observers.append(lambda: told.append(link.state))
    async with running(link):
        await link.joined()
        own_server.kill()
        await down(link)
        assert link.health()[0] is False
        own_server.start(ready=False)
        assert await link.joined(1) == 2
        assert told == [LinkState.UP, LinkState.DOWN, LinkState.UP]
        await link.publish_once(link.key("news"), b"again")


@scenario
async def test_a_stalled_link_is_found_out_and_made_anew(redis_server, link_to):
    async with Proxy(redis_server.port) as proxy:
        link = link_to(url=f"redis://127.0.0.1:{proxy.port}", response_timeout_ms=100, times={"probe_secs": 0.05})
        async with running(link):
            await link.joined()
            proxy.stall()
            await down(link)
            assert link.last_error == "TIMEOUT"
            proxy.flow()
            assert await link.joined(1) == 2


@scenario
async def test_whoever_finds_out_that_it_leads_astray_has_it_made_anew(redis_server, link_to):
    link = link_to(url=redis_server.url)
    async with running(link):
        await link.joined()
        before = link.topology
        link.rebuild()
        assert await link.joined(1) == 2
        assert link.topology is not before


@scenario
async def test_its_health_is_that_of_its_feed_too(redis_server, link_to):
    link = link_to(url=redis_server.url)
    async with running(link):
        await link.joined()
        link.feed_health = lambda: (False, {"state": "partial"})
        ok, detail = link.health()
        assert (ok, detail["state"], detail["feed"]) == (False, "up", {"state": "partial"})


@scenario
async def test_a_demoted_master_is_left(own_server, link_to):
    link = link_to(url=own_server.url, times={"probe_secs": 0.05}, retry_attempts=0)
    async with running(link):
        await link.joined()
        own_server.client.replicaof("127.0.0.1", free_port())
        await down(link)
        assert link.last_error == "READONLY"
        assert await refused(link.execute("SET", "a", "b")) == "READONLY"
        own_server.client.replicaof("NO", "ONE")
        await link.joined(1)


@scenario
async def test_a_write_refused_by_a_demoted_master_tears_the_link_at_once(own_server, link_to):
    breakers = Breakers(CircuitBreaker(enabled=False))
    times = {"probe_secs": 3600}
    link = link_to(breakers=breakers, url=own_server.url, times=times, retry_attempts=100, retry_delay_ms=20)
    async with running(link):
        await link.joined()
        own_server.client.replicaof("127.0.0.1", free_port())
        writing = asyncio.create_task(link.execute("SET", "a", "b"))
        await down(link)
        own_server.client.replicaof("NO", "ONE")
        assert await writing is True
        await link.joined(1)


@scenario
async def test_loading(link_to):
    with RedisServer(
        key_load_delay=2000, loading_process_events_interval_bytes=1024, enable_debug_command="yes"
    ) as server:
        for number in range(2000):
            server.client.set(f"key:{number}", "x" * 100)
        server.client.save()
        server.kill()
        server.start(ready=False)
        link = link_to(url=server.url)
        async with running(link):
            await until(lambda: link.last_error == "LOADING")
            assert link.state is LinkState.DOWN
            server.client.config_set("key-load-delay", 0)
            await link.joined()


@scenario
async def test_no_memory_left(own_server, link_to, caplog):
    link = link_to(url=own_server.url)
    async with running(link):
        await link.joined()
        own_server.client.config_set("maxmemory", 1)
        for _ in range(3):
            assert await refused(link.execute("SET", "a", "b", idempotent=True)) == "OOM"
        assert link.errors["OOM"] == 3  # no repeats
        assert link.state is LinkState.UP
        assert [record.getMessage() for record in caplog.records].count("a Redis command failed") == 1


@pytest.mark.parametrize(
    ("url", "reply"), [("redis://127.0.0.1:{}", "NOAUTH"), ("redis://:wrong@127.0.0.1:{}", "WRONGPASS")]
)
def test_passwords_that_are_refused(link_to, url, reply, caplog):
    @scenario
    async def play():
        with RedisServer(requirepass="hush") as server:
            link = link_to(url=url.format(server.port))
            async with running(link):
                await down(link)
                assert link.last_error == reply
                assert await refused(link.execute("PING")) == reply
                assert "wrong" not in str([vars(record) for record in caplog.records])
                server.client.config_set("requirepass", "wrong" if "wrong" in url else "")
                await link.joined()

    play()


@scenario
async def test_a_script_that_redis_has_forgotten(redis_server, link_to):
    link = link_to(url=redis_server.url)
    async with running(link):
        await link.joined()
        redis_server.client.script_flush()
        redis_server.client.delete("rtc:counter")
        assert [await link.run_script(COUNT, [link.key("counter")], []) for _ in range(2)] == [1, 2]
        redis_server.client.script_flush()
        assert await link.run_script(COUNT, [link.key("counter")], []) == 3


@scenario
async def test_busy_with_a_script(own_server, link_to):
    own_server.client.config_set("busy-reply-threshold", 1)
    breakers = Breakers(CircuitBreaker(enabled=False))
    link = link_to(breakers=breakers, url=own_server.url, retry_attempts=100, response_timeout_ms=2000)
    async with running(link):
        await link.joined()
        forever = asyncio.create_task(asyncio.to_thread(spin, own_server))
        await until(lambda: link.errors["BUSY"] > 0 or link.state is LinkState.DOWN)
        setting = asyncio.create_task(link.execute("SET", "a", "b", idempotent=True))
        await until(lambda: link.errors["BUSY"] > 2)
        own_server.client.script_kill()
        assert await setting is True
        await forever


def spin(server):
    with pytest.raises(Exception, match="killed"):
        server.client.eval("while true do end", 0)


@scenario
async def test_the_breaker_opens_and_closes_when_the_link_has_joined_again(own_server, link_to, redis_config):
    breakers = Breakers(redis_config().circuit_breaker, clock=lambda: 0.0)  # the breaker's own time never passes
    changes = []
    breakers.listeners.append(lambda change: changes.append(change.after))
    link = link_to(breakers=breakers, url=own_server.url, times={"probe_secs": 0.02})
    async with running(link):
        await link.joined()
        own_server.kill()
        await until(lambda: breakers["redis"].state is BreakerState.OPEN)
        with pytest.raises(CircuitOpen):
            await link.execute("PING")
        own_server.start(ready=False)
        await link.joined(1)
        await until(lambda: breakers["redis"].state is BreakerState.CLOSED)
        assert await link.execute("PING")
    assert changes == [BreakerState.OPEN, BreakerState.HALF_OPEN, BreakerState.CLOSED]


@scenario
async def test_probes_close_the_breaker_again(own_server, link_to, redis_config):
    now = [0.0]
    breakers = Breakers(redis_config().circuit_breaker, clock=lambda: now[0])
    link = link_to(breakers=breakers, url=own_server.url, times={"probe_secs": 0.02})
    async with running(link):
        await link.joined()
        for _ in range(redis_config().circuit_breaker.failure_threshold):
            with pytest.raises(OSError), breakers["redis"].guard():  # of others, while the link stays up
                raise OSError
        assert breakers["redis"].state is BreakerState.OPEN
        now[0] += 60
        await until(lambda: breakers["redis"].state is BreakerState.CLOSED)


@scenario
async def test_mistakes_of_a_command_do_not_open_the_breaker(redis_server, link_to, redis_config):
    breakers = Breakers(redis_config().circuit_breaker)
    link = link_to(breakers=breakers, url=redis_server.url)
    async with running(link):
        await link.joined()
        for _ in range(20):
            assert await refused(link.execute("NO-SUCH-COMMAND", "hush")) == "ERR"
        assert breakers["redis"].state is BreakerState.CLOSED


@scenario
async def test_a_cancelled_command_takes_its_connection_with_it(redis_server, link_to):
    async with Proxy(redis_server.port) as proxy:
        pool = {"max_size": 1}
        link = link_to(url=f"redis://127.0.0.1:{proxy.port}", pool_size=1, pool=pool, times={"probe_secs": 3600})
        async with running(link):
            await link.joined()
            await link.execute("SET", "mine", "old")
            proxy.stall()
            asking = asyncio.create_task(link.execute("GET", "mine"))
            await asyncio.sleep(0.05)  # the answer is in the proxy by now
            asking.cancel()
            await asyncio.wait([asking])
            assert asking.cancelled()
            proxy.flow()
            for number in range(20):
                assert await link.execute("ECHO", f"{number}") == b"%d" % number


@scenario
async def test_what_may_have_been_done_is_only_repeated_where_that_is_harmless(redis_server, link_to):
    async with Proxy(redis_server.port) as proxy:
        link = link_to(url=f"redis://127.0.0.1:{proxy.port}", response_timeout_ms=100, times={"probe_secs": 3600})
        async with running(link):
            await link.joined()
            redis_server.client.delete("counter")
            redis_server.client.client_pause(300)
            assert await refused(link.execute("INCR", "counter")) == "TIMEOUT"
            redis_server.client.client_unpause()
            await until(lambda: redis_server.client.get("counter") is not None)
            assert await link.execute("INCR", "counter") == 2
            redis_server.client.client_pause(250)
            assert await link.execute("SET", "counter", "7", idempotent=True) is True
            assert link.errors["TIMEOUT"] > 1


@scenario
async def test_it_ends_whenever_it_is_told_to(redis_server, link_to):
    for steps in range(60):
        link = link_to(url=redis_server.url, pool={"min_idle": 2}, times={"probe_secs": 0.001})
        task = asyncio.create_task(link.run())
        if steps % 2:
            await link.joined()
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()


@scenario
async def test_garbage_for_replies(link_to):
    async def answer(reader, writer):
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read(100)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    link = link_to(url=f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    async with running(link):
        await until(lambda: sum(link.errors.values()) > 3)
        assert link.state is LinkState.DOWN
        assert set(link.errors) <= {"GARBAGE", "CONNECT", "LOST"}
    server.close()
    await server.wait_closed()


def incremented(link, *names, script=COUNT):
    return [ScriptCall(script, [link.key(name).encode()], ()) for name in names]


@scenario
async def test_scripts_together_also_those_that_redis_forgot(redis_server, link_to):
    link = link_to(url=redis_server.url)
    async with running(link):
        await link.joined()
        redis_server.client.script_flush()
        redis_server.client.set("rtc:text", "text")
        for expected in (1, 2):
            *counts, failed = await link.run_scripts(incremented(link, "t1", "t2", "t3", "text"))
            assert counts == [expected] * 3
            assert failed.reply == "ERR"
        assert await link.run_scripts([]) == []
        assert await link.run_scripts(incremented(link, "t1")) == [3]


@scenario
async def test_scripts_together_are_repeated_and_fail_without_raising(link_to):
    link = link_to(url=f"redis://127.0.0.1:{free_port()}", retry_attempts=2)
    replies = await link.run_scripts(incremented(link, "a", "b"))
    assert [reply.reply for reply in replies] == ["CONNECT", "CONNECT"]
    assert link.errors == {"CONNECT": 3}


@scenario
async def test_scripts_together_are_tried_although_the_breaker_is_open(redis_server, link_to):
    breakers = Breakers(CircuitBreaker(failure_threshold=1, timeout_secs=60.0))
    async with Proxy(redis_server.port) as proxy:
        link = link_to(url=f"redis://127.0.0.1:{proxy.port}", breakers=breakers, retry_attempts=0)
        proxy.refusing = True
        (failed,) = await link.run_scripts(incremented(link, "open"))
        assert failed.reply == "CONNECT"
        assert breakers["redis"].state is BreakerState.OPEN
        proxy.refusing = False
        assert await link.run_scripts(incremented(link, "open")) == [1]


@scenario
async def test_a_connection_whose_scripts_were_cut_short_is_not_used_again(redis_server, link_to):
    link = link_to(url=redis_server.url, pool={"max_size": 1})
    redis_server.client.delete("rtc:cut")
    calls = incremented(link, *["cut"] * 50)
    await link.run_scripts(calls[:1])
    for turns in range(30):
        task = asyncio.create_task(link.run_scripts(calls))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        before = int(redis_server.client.get("rtc:cut"))
        (count,) = await link.run_scripts(calls[:1])
        assert count > before
        assert await link.execute("ECHO", str(turns)) == str(turns).encode()
    await link._close(link.topology)


class RecordingTracer(Tracer):
    """Keeps the names of spans, with the error of each that failed."""

    def __init__(self):
        self.spans = []

    def span(self, name, *, kind="internal", attributes=None):
        assert (kind, attributes["db.system"]) == ("client", "redis")
        spans = self.spans

        class Recording(Span):
            def __init__(self):
                self.error = None

            def fail(self, error_type):
                self.error = error_type

            def end(self):
                spans.append((name, self.error))

        return Recording()


@scenario
async def test_commands_and_scripts_are_traced_without_their_operands(redis_server, link_to):
    link = link_to(url=redis_server.url)
    link.tracer = RecordingTracer()
    async with running(link):
        await link.joined()
        await link.execute("SET", link.key("secret"), "b")
        await link.run_scripts([ScriptCall(COUNT, [b"rtc:counted"], [])])
        assert await refused(link.execute("LPUSH", link.key("secret"), "b")) == "ERR"
    assert link.tracer.spans == [("redis SET", None), ("redis scripts", None), ("redis LPUSH", "RedisFailed")]
