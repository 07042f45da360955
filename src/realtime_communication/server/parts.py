"""The parts of one worker, made from the configuration and joined to each other. Nothing runs yet.

Order: what is below others is made first. `Parts.services` are the tasks that `worker.py` supervises, in the order in
which they start; `Parts.live` tells every part of a configuration that changes.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final

from realtime_communication import __version__
from realtime_communication._core.base.shared import Shared
from realtime_communication._core.hub.hub import Hub
from realtime_communication._core.hub.settings import describe
from realtime_communication._core.hub.stream import Stream
from realtime_communication._core.io.reactor import Reactor
from realtime_communication.auth.authority import issuer_of
from realtime_communication.broker.broker import Broker, broker_of
from realtime_communication.config import Config, LoadedConfig
from realtime_communication.http.nodes import Nodes, Told
from realtime_communication.http.orders import Orders
from realtime_communication.http.services import Check, Services
from realtime_communication.http.worker_answers import answers_of
from realtime_communication.observability import logs, recent_troubles
from realtime_communication.observability.metrics import Metrics
from realtime_communication.observability.process import resident_bytes
from realtime_communication.observability.publication_window import PublicationWindow
from realtime_communication.observability.sources import RedisReading, ReloadReading, Sample, Sources
from realtime_communication.observability.tracing import tracer_of
from realtime_communication.resilience.breaker import Breakers, BreakerStatus, CircuitBreaker
from realtime_communication.resilience.breaker_events import BreakerEvents
from realtime_communication.resilience.event_webhooks import EventWebhooks
from realtime_communication.resilience.supervision import Service, ServiceState
from realtime_communication.resilience.webhooks import Webhooks, key_of, secret_of
from realtime_communication.server.admission import Admission
from realtime_communication.server.authorization import authorizer_of
from realtime_communication.server.collector import Collector
from realtime_communication.server.control import ControlChannel
from realtime_communication.server.core_settings import core_settings
from realtime_communication.server.credentials import Credentials
from realtime_communication.server.draining import Draining
from realtime_communication.server.event_feed import EventFeed
from realtime_communication.server.fleet import ChannelFleet
from realtime_communication.server.listening import Listener
from realtime_communication.server.live import LiveConfiguration
from realtime_communication.server.metrics_server import MetricsServer
from realtime_communication.server.neighbours import Neighbours
from realtime_communication.server.node_metrics import numbers
from realtime_communication.server.node_state import between_workers
from realtime_communication.server.place import ALONE, Place, made_node_id
from realtime_communication.server.rebalancing import Rebalancing
from realtime_communication.server.samples import SampleFeed
from realtime_communication.server.tls import FailureLog, certificate_end, server_context
from realtime_communication.server.watchdog import Watchdog

if TYPE_CHECKING:
    from realtime_communication.broker.redis_calls import StreamBounds
    from realtime_communication.broker.redis_engine import RedisEngine

JOIN_SECS: Final = 3.0  # for Redis to be there, before connections are taken without it
LEAVE_SECS: Final = 1.0  # for Redis, and for the receiver of webhooks, to take what was said last
LATENCY_SAMPLES: Final = 1.0  # share of the publications whose latency is noted, where that metric is asked for
LEAST_CLOSE_CODE: Final = 1000  # RFC 6455 section 7.4; what is below are statuses of HTTP

_log = logs.get_logger(__name__)


class Parts:
    """See the head of this module. `states` tells how the supervised services are.

    `channel` leads to the supervisor of a worker that is not alone.

    Raises ConfigurationError and EnvironmentFault for what only shows now, such as a transform that cannot be imported
    or a certificate that has changed since the configuration was checked.
    """

    def __init__(
        self,
        loaded: LoadedConfig,
        listeners: Sequence[Listener],
        metrics_listeners: Sequence[Listener],
        states: Callable[[], list[ServiceState]],
        place: Place = ALONE,
        channel: ControlChannel | None = None,
    ) -> None:
        config = loaded.config
        self._states = states
        self.live = LiveConfiguration(loaded)
        self.place = place
        self.node_id = place.node_id or made_node_id(config)
        self.tls_context = server_context(config.security.tls)
        self.certificate_end = certificate_end(config.security.tls)
        self.tls_failures = FailureLog()
        self.hub = Hub(self.node_id)
        self.hub.configure(core_settings(config))
        self.hub.report_faults(_tell_fault)
        self.rebalancing: Rebalancing | None = None
        if place.shared_memory >= 0:
            shared = Shared(place.shared_memory)
            self.hub.use_shared(shared, place.seat)
            if config.performance.actors.use_work_stealing and channel is not None:
                tell = functools.partial(_tell_load, channel, place.seat)
                self.rebalancing = Rebalancing(self.hub, place.seat, shared.connections_of, tell)
        self.breakers = Breakers(config.circuit_breaker)
        events = config.circuit_breaker.events
        secret = secret_of(events, config.auth.jwt_secret)
        self.webhooks = Webhooks(events.webhook_url, secret, self.breakers["webhooks"], _log)
        self.breaker_events = BreakerEvents(self.breakers, events, _log, self.webhooks, self.node_id)
        key = key_of(config.webhooks.secret, config.auth.jwt_secret)
        breaker = self.breakers["event_webhooks"]
        self.event_webhooks = EventWebhooks(config.webhooks, key, breaker, _log, self.node_id)
        self.event_feed = EventFeed(self.hub, self.event_webhooks)
        self.event_feed.configure(config)
        self.authorizer = authorizer_of(config, self.hub, self.breakers["authorization"], self.node_id)
        self.broker = broker_of(config, self.node_id, self.breakers, server=place.run)
        if channel is not None:
            self.broker = between_workers(self.broker, channel)
        name = f"{self.node_id}:{place.seat}"
        self.engine = _engine_of(config, self.hub, self.broker, self.breakers["message_queue"], name)
        self.neighbours: Neighbours | None = None
        self.credentials = Credentials(
            config, self.hub, self.broker, self.breakers["auth_service"], mock_keys=place.mock_keys
        )
        self.tracer = tracer_of(
            config.tracing, telemetry=config.logging.enable_telemetry, node_id=self.node_id, version=__version__
        )
        if self.broker.link is not None:
            self.broker.link.tracer = self.tracer
        self.services = Services(
            hub=self.hub,
            chain=self.credentials.chain,
            config=config,
            profile=loaded.profile,
            node_id=self.node_id,
            issuer=issuer_of(config.auth) if loaded.profile == "dev" else None,
            authority=self.credentials.authority,
            revocations=self.credentials.revocations,
            mock_issuer=self.credentials.mock,
            streams=functools.partial(Stream, self.hub),
            port=listeners[0].port,
            metrics_port=metrics_listeners[0].port if metrics_listeners else place.metrics_port,
            workers=place.workers,
            slot=place.slot,
            tracer=self.tracer,
            checks=self._checks(),
            breakers=self.breakers,
            control=self.live,
            authorizer=self.authorizer,
            troubles=recent_troubles.attach(),
            nodes=Nodes(self.broker.events, self._of_itself, self._reaches_others),
        )
        metrics = self.services.metrics = None
        if metrics_listeners or place.metrics_port is not None:
            metrics = self.services.metrics = Metrics(config.monitoring, self._sources())
        self.draining = Draining(self.hub, self.services, lambda: self.live.config.production.drain_timeout_secs)
        self.services.drain = self.draining.begin
        answers = answers_of(self.services)
        self.services.orders = Orders(self.broker.events, self.node_id, answers, self._reaches_others)
        if channel is not None:
            self.services.fleet = ChannelFleet(channel, place.slot, place.workers, answers)
        wanted = LATENCY_SAMPLES if metrics is not None and metrics.wants_samples else 0.0
        window = self.services.window = PublicationWindow()
        self.samples = SampleFeed(self.hub, self.tracer, metrics_rate=wanted, window=window)
        self.admission = Admission(self.services)
        self.hub.set_echo_callback(self.admission.echo)
        self.hub.set_token_callback(self.admission.token)
        memory = config.performance.memory
        self.collector = Collector(memory.gc_interval_secs, memory.gc_threshold_mb, resident_bytes)
        self.tasks = [
            *self.broker.services,
            *(self.engine.services() if self.engine is not None else ()),
            Service("revocations", self.credentials.shared.run),
            Service("issuer keys", self.credentials.run_keys),
            Service("webhooks", self.webhooks.run),
            Service("event webhooks", self.event_webhooks.run),
            Service("garbage collector", self.collector.run),
            Service("watchdog", Watchdog().run),
            Service("draining", self.draining.run),
        ]
        if self.rebalancing is not None:
            self.tasks.append(Service("rebalancing", self.rebalancing.run))
        self.tasks.append(Service("samples", self.samples.run))
        if metrics is not None:
            self.tasks.append(Service("metrics", MetricsServer(metrics, metrics_listeners, self.services).run))
        self._follow_changes()

    async def join(self) -> None:
        """Join the other nodes, before the first client comes: it would find other epochs here while Redis is away."""
        if self.engine is not None and not await self.engine.joined(JOIN_SECS):
            _log.warning("this node begins alone: Redis cannot be reached")

    async def leave(self) -> None:
        """Tell the other nodes, and who hears of it by webhook, that the sessions have gone: the last thing a worker
        does."""
        await self.event_feed.drain(LEAVE_SECS)
        if self.authorizer is not None:
            await self.authorizer.close()
        if self.engine is not None:
            await self.engine.drain(LEAVE_SECS)

    def follow(self, reactor: Reactor) -> None:
        """Let the certificates of `reactor` be read again with the configuration."""

        def certificates(config: Config) -> Callable[[], None]:
            tls = config.security.tls
            context = server_context(tls) if self.tls_context is not None else None

            def renew() -> None:
                if context is not None:
                    reactor.set_context(context)
                    self.certificate_end = certificate_end(tls)

            return renew

        self.live.add(certificates, only_at_reload=True)

    def forget_secrets(self) -> None:
        """Put out of use the earlier signing secrets whose tokens have expired."""
        end = self.credentials.earliest_end
        if end is not None and end <= self.services.clock():
            self._change_credentials(self.live.config)()

    # What a changed configuration changes

    def _follow_changes(self) -> None:
        for part in (self._change_core, self._change_credentials, self._change_breakers, self._change_services):
            self.live.add(part)
        self.live.add(lambda config: functools.partial(self.event_feed.configure, config))

    def _change_core(self, config: Config) -> Callable[[], None]:
        settings = core_settings(config)
        describe(settings)  # complains about what is out of range, and changes nothing
        bounds = None if self.engine is None else _bounds_of(config)

        def put_into_force() -> None:
            self.hub.configure(settings)
            if self.engine is not None and bounds is not None:
                self.engine.configure(bounds)

        return put_into_force

    def _change_credentials(self, config: Config) -> Callable[[], None]:
        commit = self.credentials.prepare(config)

        def put_into_force() -> None:
            commit()
            self.services.chain, self.services.authority = self.credentials.chain, self.credentials.authority
            if self.services.issuer is not None:
                self.services.issuer = issuer_of(config.auth)

        return put_into_force

    def _change_breakers(self, config: Config) -> Callable[[], None]:
        def put_into_force() -> None:
            self.breakers.configure(config.circuit_breaker)
            self.breaker_events.configure(config.circuit_breaker.events, config.auth.jwt_secret)

        return put_into_force

    def _change_services(self, config: Config) -> Callable[[], None]:
        def put_into_force() -> None:
            before, self.services.config = self.services.config.logging, config
            if before.level != config.logging.level:
                logs.set_level(config.logging.level)
            if before.format != config.logging.format:
                logs.set_format(config.logging.format)

        return put_into_force

    # What the parts tell of themselves

    def _checks(self) -> dict[str, Callable[[], Awaitable[Check]]]:
        checks: dict[str, Callable[[], Awaitable[Check]]] = {"services": self._check_services, "log": _check_log}
        return checks if self.broker.link is None else {**checks, "redis": self._check_redis}

    async def _check_services(self) -> Check:
        states = self._states()
        return Check(
            ok=all(state.running for state in states),
            detail={state.name: {"running": state.running, "restarts": state.restarts} for state in states},
        )

    async def _check_redis(self) -> Check:
        assert self.broker.link is not None
        ok, detail = self.broker.link.health()
        if self.engine is not None:
            joined, engine = self.engine.health()
            ok, detail = ok and joined, {**detail, "engine": engine}
        return Check(ok=ok, detail=detail, required=self.services.config.redis.required)

    def _sources(self) -> Sources:
        services, hub = self.services, self.hub
        return Sources(
            stats=self._stats,
            build={"version": __version__, "node_id": self.node_id, "profile": services.profile},
            max_connections=lambda: services.config.websocket.max_connections,
            draining=lambda: services.draining,
            queued=hub.queued,
            topic_counts=hub.topic_counts,
            take_samples=self._take_samples,
            services=self._states,
            breakers=self._breaker_statuses,
            breaker_transitions=self._breaker_transitions,
            dropped_log_lines=logs.dropped_lines,
            last_reload=self._last_reload,
            certificate_expiry=lambda: self.certificate_end,
            tls_failures=lambda: None if self.tls_context is None else self.tls_failures.count,
            redis=self._redis_reading if self.broker.link is not None else None,
            told=lambda: {
                "event_streams": services.open_streams,
                **numbers(self.engine, self.broker.feed, self.neighbours),
                **self.event_webhooks.numbers(),
                **({} if self.authorizer is None else {"authorization_failures": self.authorizer.failures}),
            },
        )

    def _stats(self) -> dict[str, int]:
        """What the hub counted, and of its kind what HTTP did."""
        stats = self.hub.stats()
        stats["crowded_out"] += self.services.crowded_out
        return stats

    def _of_itself(self) -> tuple[Told, int, int]:
        """What the other nodes are told of this worker."""
        stats = self.hub.stats()
        told = Told(
            node_id=self.node_id,
            worker=self.place.slot,
            version=__version__,
            draining=self.services.draining,
            uptime_secs=round(self.services.uptime_secs, 1),
            connections=self.hub.connection_count(),
            rss_bytes=resident_bytes(),
            publications=None,
            deliveries=None,
        )
        return told, stats["publications"], stats["deliveries"]

    def _reaches_others(self) -> bool:
        return self.broker.link is not None and self.broker.link.health()[0]

    def _take_samples(self) -> list[Sample]:
        return self.samples.take()

    def _breaker_statuses(self) -> list[BreakerStatus]:
        return self.breakers.statuses() if self.services.config.circuit_breaker.events.emit_metrics else []

    def _breaker_transitions(self) -> dict[tuple[str, str], int]:
        shown = self.services.config.circuit_breaker.events.emit_metrics
        return self.breaker_events.transitions if shown else {}

    def _last_reload(self) -> ReloadReading | None:
        last = self.live.last_reload
        return None if last is None else ReloadReading(*last)

    def _redis_reading(self) -> RedisReading:
        link, events = self.broker.link, self.broker.events
        assert link is not None
        ok, _ = link.health()
        return RedisReading(
            up=ok,
            latency_secs=None if link.latency_ms is None else link.latency_ms / 1000,
            buffered_events=link.buffered(),
            dropped_events=getattr(events, "dropped", 0),
            skipped_events={why.value: count for why, count in getattr(events, "skipped", {}).items()},
            skipped_messages=self.engine.skipped if self.engine is not None else {},
        )


def _engine_of(config: Config, hub: Hub, broker: Broker, breaker: CircuitBreaker, name: str) -> RedisEngine | None:
    """What joins this worker, of that name among all nodes' workers, to the others; None without Redis."""
    if broker.link is None or broker.feed is None:
        return None
    from realtime_communication.broker.redis_engine import RedisEngine  # late for the reason told in broker_of

    bounds = _bounds_of(config)
    return RedisEngine(hub, broker.link, breaker, broker.feed, node_id=name, bounds=bounds, tells_own_presence=True)


def _bounds_of(config: Config) -> StreamBounds:
    from realtime_communication.broker.redis_calls import bounds_of

    return bounds_of(config.message_routing)


def _tell_fault(peer: str, code: int, reason: str, untold: int) -> None:
    """A line for a peer that the data plane refused or closed; the data plane bounds how often this is called."""
    more = {"not_logged": untold} if untold else {}
    if code < LEAST_CLOSE_CODE:
        _log.info("request refused", peer=peer, status=code, reason=reason, **more)
    else:
        _log.info("connection closed for a fault", peer=peer, code=code, reason=reason, **more)


async def _check_log() -> Check:
    dropped = logs.dropped_lines()
    return Check(ok=dropped == 0, detail={"dropped_lines": dropped})


def _tell_load(channel: ControlChannel, seat: int, cpu: float) -> None:
    channel.notify("load", {"seat": seat, "cpu": cpu})
