"""Every number that the parts between workers and nodes count has its metric."""

from realtime_communication._core.hub.hub import Hub
from realtime_communication._core.io.bus import Bus
from realtime_communication.broker.redis_calls import StreamBounds
from realtime_communication.broker.redis_engine import RedisEngine
from realtime_communication.broker.redis_feed import Feed
from realtime_communication.broker.redis_link import RedisLink
from realtime_communication.config.services import CircuitBreaker, Redis
from realtime_communication.observability.catalogue import ROWS
from realtime_communication.resilience.breaker import Breakers
from realtime_communication.server.node_metrics import BUS, ENGINE, FEED, numbers


class Counts:
    def __init__(self, **counts):
        self.statistics = lambda: counts


def test_names_are_those_of_the_parts_and_of_the_catalogue(tmp_path):
    breakers = Breakers(CircuitBreaker())
    link = RedisLink(Redis(), breakers["redis"])
    feed = Feed(link)
    hub = Hub("n")
    engine = RedisEngine(hub, link, breakers["message_queue"], feed, node_id="n", bounds=StreamBounds(1, 1.0))
    assert engine.statistics().keys() == ENGINE.keys()
    assert feed.statistics().keys() == FEED.keys()
    bus = Bus(hub, 0, 1, str(tmp_path))
    assert bus.stats().keys() == BUS.keys()
    bus.close()
    told = {name for name, row in ROWS.items() if row.told} - {"event_streams"}  # of the HTTP application
    told -= {name for name in told if name.startswith(("webhook_events_", "authorization_"))}  # of what calls others
    assert told == {*ENGINE.values(), *FEED.values(), *BUS.values()}


def test_only_parts_that_are_there_tell():
    assert numbers(None, None, None) == {}
    assert numbers(Counts(joined=1, new=2), None, Counts(links=3)) == {"redis_joined": 1, "bus_links": 3}
