"""Messages of the past: each as it was, as many as a reply holds, those that can be read."""

import pytest

from core.hub.sans_io import WALL_MS, make_hub, offsets


def test_each_message_of_the_past() -> None:
    server = make_hub()
    server.connect("bob").request({"type": "Broadcast", "id": 1, "topic": "room", "payload": {"a": [1, "é"]}})
    for protocol in ("rtc.v1.json", "rtc.v1.msgpack"):
        answer = server.connect("alice", protocol=protocol).subscribe("room", history=1)
        assert answer["messages"] == [{"offset": 1, "ts": WALL_MS, "from": "bob", "payload": {"a": [1, "é"]}}]


def test_more_than_a_reply_holds_is_not_recovered() -> None:
    server = make_hub()
    server.fill("room", 10, size=1 << 20)
    epoch = server.hub.topics()[0]["epoch"]
    answer = server.connect().subscribe("room", recover={"epoch": epoch, "offset": 0})
    assert (answer["recovered"], answer["messages"]) == (False, [])
    assert offsets(server.connect().subscribe("room", recover={"epoch": epoch, "offset": 4})) == [5, 6, 7, 8, 9, 10]


@pytest.mark.parametrize("reverse", [False, True])
def test_a_page_has_a_bound_in_bytes(reverse: bool) -> None:
    server = make_hub()
    server.fill("room", 20, size=1 << 20)
    found = offsets(server.connect().request({"type": "History", "id": 1, "topic": "room", "reverse": reverse}))
    assert 4 <= len(found) <= 8
    start = 20 if reverse else 1
    assert found == [start - n if reverse else start + n for n in range(len(found))]


def test_the_encoding_that_cannot_be_read_is_left_out() -> None:
    server = make_hub(enable_message_transformation=False)
    text, packed = server.connect("a"), server.connect("b", protocol="rtc.v1.msgpack")
    for number in range(6):
        (packed if number % 2 else text).send({"type": "Broadcast", "topic": "room", "payload": number})
    history = {"type": "History", "id": 1, "topic": "room"}
    assert [m["payload"] for m in text.request(history)["messages"]] == [0, 2, 4]
    assert [m["payload"] for m in packed.request(history)["messages"]] == [1, 3, 5]
