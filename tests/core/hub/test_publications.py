"""Broadcast: who gets it, and the answer."""

from core.hub.sans_io import ADMIN, WALL_MS, make_hub


def test_everyone_subscribed_gets_it_and_the_publisher_an_ack() -> None:
    server = make_hub()
    alice, bob = server.connect("alice"), server.connect("bob")
    epoch = alice.subscribe("room")["epoch"]
    answer = bob.request({"type": "Broadcast", "id": "x", "topic": "room", "payload": {"a": 1}})
    assert answer == {"type": "Ack", "id": "x", "topic": "room", "epoch": epoch, "offset": 1}
    assert alice.messages() == [
        {
            "type": "Message",
            "topic": "room",
            "offset": 1,
            "ts": WALL_MS,
            "from": "bob",
            "payload": {"a": 1},
        }
    ]


def test_the_payload_is_relayed_as_its_very_bytes() -> None:
    server = make_hub()
    alice = server.connect("alice")
    alice.subscribe("room")
    sent = b'{"type":"Broadcast","topic":"room","payload": {"n" : 1.50e1,"u":"\\u00e9"} }'
    server.connect("bob").send_frame(sent)
    ((_, _, payload),) = alice.frames()
    assert payload.endswith(b'"payload":{"n" : 1.50e1,"u":"\\u00e9"}}')


def test_no_reply_without_an_id() -> None:
    server = make_hub()
    bob = server.connect("bob")
    bob.send({"type": "Broadcast", "topic": "room", "payload": 1})
    assert bob.messages() == []


def test_to_every_connection() -> None:
    server = make_hub()
    peers = [server.connect(f"user-{n}", protocol=p) for n, p in enumerate([None, "rtc.v1.msgpack", None])]
    root = server.connect("root", permissions=ADMIN)
    ack = root.request({"type": "Broadcast", "id": 1, "topic": "*", "payload": "all", "exclude_self": True})
    assert (ack["type"], ack["topic"], ack["offset"]) == ("Ack", "*", 1)
    later = server.connect("later")
    root.send({"type": "Broadcast", "topic": "*", "payload": "again"})
    assert [m["payload"] for m in root.messages()] == ["again"]
    assert [m["payload"] for m in later.messages()] == ["again"]
    for peer in peers:
        assert [(m["type"], m["topic"], m["payload"]) for m in peer.messages()] == [
            ("Message", "*", "all"),
            ("Message", "*", "again"),
        ]
