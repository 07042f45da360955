"""The messages of rtc.v1 as types, held against what the data plane sends and takes."""

import json

import jsonschema
import msgspec
import pytest

from core.hub.sans_io import READ, SUBSCRIBE, WRITE, identity, make_hub
from realtime_communication.client import encoding
from realtime_communication.http import envelopes
from realtime_communication.http.schemas import described_types


def schema_of(kind):
    (schema,), components = described_types([kind])
    return {**schema, "components": {"schemas": components}}


def check(envelope, *kinds):
    """Whether one of `kinds` fits, and knows every field of it."""
    failures = []
    for kind in kinds:
        try:
            jsonschema.validate(envelope, schema_of(kind))
        except jsonschema.ValidationError as error:
            failures.append(error.message)
            continue
        unknown = envelope.keys() - schema_of(kind)["components"]["schemas"][kind.__name__]["properties"].keys()
        assert not unknown, (kind, unknown)
        return
    pytest.fail(f"{envelope}: {failures}")


@pytest.fixture
def talk():
    """Everything that a busy session gets, by what it asked; key None is what came unasked."""
    server = make_hub(mailbox_capacity=4)
    alice = server.connect(identity("alice", READ | WRITE | SUBSCRIBE, presence_info=b'{"a":1}'), welcome=False)
    seen = [(None, message) for message in alice.messages()]
    bob = server.connect("bob")

    def ask(**request):
        alice.send({"id": 1, **request})
        for message in alice.messages():
            seen.append((request["type"] if "id" in message else None, message))

    ask(type="Subscribe", topic="t", presence=True)
    bob.subscribe("t")
    bob.send(
        {"type": "Broadcast", "topic": "t", "payload": [1]}, {"type": "DirectMessage", "to": "alice", "payload": 2}
    )
    ask(type="Broadcast", topic="t", payload={"b": None}, idempotency_key="k")
    ask(type="DirectMessage", to=["bob", "carol"], payload=1)
    ask(type="Presence", topic="t")
    ask(type="History", topic="t", limit=2, reverse=True)
    ask(type="Subscribe", topic="t", recover={"epoch": "0" * 16, "offset": 0}, history=2)
    ask(type="Ping")
    server.identities["fresh"] = identity("alice", expires_at=1_767_220_000 + 5000, refresh_at=1_767_220_000 + 10)
    ask(type="Refresh", token="fresh")
    ask(type="Broadcast", topic="$s", payload=1)
    ask(type="Unsubscribe", topic="t")
    ask(type="Subscribe", topic="t", presence=True)
    bob.send({"type": "Unsubscribe", "topic": "t", "id": 2})
    server.hub.subscribe_user("alice", "u")
    server.flush()
    alice.stall()
    server.fill("t", 100)
    alice.resume()
    server.advance(20_000)
    server.hub.begin_drain(1000)
    server.flush()
    seen += [(None, message) for message in alice.messages()]
    return seen


def test_what_is_sent_is_as_described(talk):
    replies = {kind.__struct_config__.tag: answers for kind, answers in envelopes.REQUESTS}
    for asked, message in talk:
        if asked is None:
            check(message, *envelopes.UNASKED, envelopes.Subscribed, envelopes.Unsubscribed)
        else:
            check(message, *replies[asked], envelopes.Error)


def test_all_of_it_was_seen(talk):
    seen = {message["type"] for _, message in talk}
    told = {kind.__struct_config__.tag for _, answers in envelopes.REQUESTS for kind in answers}
    assert seen == told | {kind.__struct_config__.tag for kind in envelopes.UNASKED}


@pytest.mark.parametrize("example", envelopes.EXAMPLES, ids=lambda example: type(example).__name__)
def test_examples_fit_their_own_schema(example):
    check(json.loads(msgspec.json.encode(example)), type(example))


def test_there_is_an_example_of_each():
    told = {kind for request, answers in envelopes.REQUESTS for kind in (request, *answers)} | set(envelopes.UNASKED)
    assert {type(example) for example in envelopes.EXAMPLES} == told


def test_the_data_plane_takes_the_examples():
    server = make_hub()
    peer = server.connect("alice")
    requests = {kind for kind, _ in envelopes.REQUESTS} - {envelopes.Authenticate, envelopes.Refresh}
    for example in envelopes.EXAMPLES:
        if type(example) in requests:
            peer.send_frame(msgspec.json.encode(example))
            assert [message["type"] for message in peer.messages() if "id" in message] != ["Error"], example


def test_the_client_of_this_project_reads_the_examples():
    codec = encoding.Codec("json", None, 1 << 20)
    requests = {kind for kind, _ in envelopes.REQUESTS}
    for example in envelopes.EXAMPLES:
        if type(example) not in requests:
            assert codec.decode(msgspec.json.encode(example)) is not None
