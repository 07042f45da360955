"""Counters: every field of the contract is told, under its own name."""

import re
from pathlib import Path

from core.hub.sans_io import make_hub
from realtime_communication._core.base.counters import counter_names
from realtime_communication._core.hub.pending import Pending

CONTRACT = Path(__file__).parents[3] / "_core" / "base" / "counters.pxd"


def test_names_are_those_of_the_contract() -> None:
    fields = re.findall(r"^    uint64_t (\w+)", CONTRACT.read_text(), re.MULTILINE)
    assert fields
    assert counter_names() == fields


def test_a_hub_tells_each_from_zero() -> None:
    stats = make_hub().stats()
    assert {name: stats[name] for name in counter_names()} == dict.fromkeys(counter_names(), 0)


def test_each_event_counts_under_its_own_name() -> None:
    server = make_hub(overflow_strategy="drop_newest", mailbox_capacity=2)
    alice, bob = server.connect("alice"), server.connect("bob")
    alice.subscribe("room")
    alice.stall()
    for i in range(5):
        bob.request({"type": "Broadcast", "id": i, "topic": "room", "payload": 1, "idempotency_key": str(i)})
    bob.request({"type": "Broadcast", "id": 9, "topic": "room", "payload": 1, "idempotency_key": "0"})
    bob.request({"type": "Nothing", "id": 10})
    bob.send_raw(b"\xff\xff")
    server.connect("carol", path="/nowhere")
    server.connect("carol", protocol="soap")
    server.connect(None)
    server.advance(10_000)
    counted = {name: value for name, value in server.stats().items() if name in counter_names() and value}
    assert counted.pop("bytes_received") > 500
    assert counted == {
        "closed": 2,
        "connections": 1,
        "subscriptions": 1,
        "accepted": 5,
        "handed_over": 1,
        "refused": 1,
        "upgraded": 3,
        "protocol_errors": 1,
        "timed_out": 1,
        "requests": 8,
        "invalid": 1,
        "publications": 5,
        "deliveries": 5,
        "dropped": 3,
        "duplicates": 1,
    }


def test_what_callbacks_say_counts() -> None:
    server = make_hub(transforms=[("yes", lambda topic, payload: payload), ("no", lambda topic, payload: 1)])
    alice = server.connect("alice")
    for topic in ("yes", "no", "other"):
        alice.send({"type": "Broadcast", "topic": topic, "payload": 1})
    alice.send({"type": "Refresh", "token": "wrong"})
    server.connect(None).send({"type": "Authenticate", "token": "wrong"})
    server.hub.set_callbacks(lambda *_: (401, "unauthorized", "no", []), None)
    server.connect("alice")
    server.hub.set_callbacks(lambda *_: Pending(), None)
    server.connect("alice")
    stats = server.stats()
    names = ("auth_failures", "pending", "transformed", "transform_errors")
    assert [stats[name] for name in names] == [3, 1, 1, 1]
