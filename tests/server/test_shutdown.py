"""The steps of a shutdown, in order, and what ends the waiting."""

import asyncio

import pytest

from realtime_communication.server.shutdown import (
    GOING_AWAY,
    MAX_SPREAD_MS,
    MIN_SPREAD_MS,
    RESTARTING,
    shut_down,
    spread_ms,
)


class Hub:
    """Has `queued` messages that leave one by one, and clients that leave after being told, if they do."""

    def __init__(self, queued=0, clients=1, polite=True):
        self._queued = queued
        self.clients = clients
        self.closing = 0
        self.polite = polite
        self.steps = []

    def connection_count(self):
        return self.clients

    def closing_count(self):
        return self.closing

    def queued(self):
        self._queued = max(0, self._queued - 1)
        return self._queued

    def begin_drain(self, spread_ms, reason, code):
        self.steps.append(("drain", spread_ms, reason, code))

    def close_all(self, code, reason):
        self.steps.append(("close", code, reason, self._queued))
        self.clients, self.closing = 0, 0 if self.polite else self.clients


def run(hub, drain_secs=30.0, close_secs=30.0, signal_again=False, farewell=GOING_AWAY):
    async def main():
        at_once = asyncio.Event()
        if signal_again:
            asyncio.get_running_loop().call_later(0.05, at_once.set)
        await asyncio.wait_for(
            shut_down(
                hub,
                lambda: hub.steps.append(("refuse",)),
                drain_secs=drain_secs,
                close_secs=close_secs,
                at_once=at_once,
                farewell=farewell,
            ),
            20,
        )

    asyncio.run(main())


def test_the_order():
    hub = Hub(queued=5)
    run(hub)
    text = "server shutting down"
    assert hub.steps == [("refuse",), ("drain", MIN_SPREAD_MS, text, 1001), ("close", 1001, text, 0)]


def test_what_clients_are_told_when_another_process_takes_over():
    hub = Hub()
    run(hub, farewell=RESTARTING)
    text = "worker restarting"
    assert hub.steps == [("refuse",), ("drain", MIN_SPREAD_MS, text, 1012), ("close", 1012, text, 0)]


def test_what_does_not_drain_is_given_up():
    hub = Hub(queued=10**9)
    run(hub, drain_secs=0.1)
    assert hub.steps[-1][0] == "close"


def test_clients_that_stay_are_given_up():
    hub = Hub(polite=False)
    run(hub, close_secs=0.1)
    assert hub.closing == 1


def test_a_second_signal_ends_all_waiting():
    hub = Hub(queued=10**9, polite=False)
    run(hub, signal_again=True)
    assert [step[0] for step in hub.steps] == ["refuse", "drain", "close"]


@pytest.mark.parametrize(
    ("connections", "tls", "spread"),
    [
        (0, False, MIN_SPREAD_MS),
        (50_000, False, 5000),
        (50_000, True, 50_000),
        (10**7, False, MAX_SPREAD_MS),
    ],
)
def test_the_spread_follows_the_number_of_clients_and_what_each_costs(connections, tls, spread):
    assert spread_ms(connections, tls=tls) == spread
