"""The engine through a failover: it goes on with the new master, and nobody is left without knowing what is missing."""

from broker.links import running, until
from serving.proxy import scenario
from serving.redis_sentinel import NAME, sentinel_trio


@scenario
async def test_a_failover(engine_node):
    with sentinel_trio() as (master, (replica,), sentinels):
        options = {
            "url": "redis://:sesame@ignored:1",
            "sentinel": {
                "enabled": True,
                "master_name": NAME,
                "sentinels": [f"127.0.0.1:{sentinel.port}" for sentinel in sentinels],
            },
        }
        one, two = (engine_node(name, times={"patience_secs": 0.5}, **options) for name in ("one", "two"))
        async with running(*one.parts, *two.parts):
            for node in (one, two):
                await node.joined()
            _, epoch, _, _, _, _ = await one.subscribed(b"t")
            await two.published(b"t", "1", "2")
            await until(lambda: replica.client.xlen("rtc:{t}:s") == 2)
            master.kill()
            for node in (one, two):
                await until(lambda hub=node.hub: hub.lost == 2)
            await until(lambda: replica.client.role()[0] == b"master")
            for node in (one, two):
                await node.joined()
            # The history is that of before: who was away for the failover is recovered.
            await two.published(b"t", "3")
            token = one.hub.subscribe(b"t", (epoch, 1))
            answer = await one.answer(token)
            assert answer[1:4] == (epoch, 3, True)
            await two.published(b"t", "4")
            await until(lambda: one.hub.delivered(b"t")[-1] == "4")
