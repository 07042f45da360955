"""Direct messages to inboxes of several homes: an inbox is a topic like others, and its user may be anywhere."""

import pytest

from core.hub.node import make_node, texts_of
from core.hub.sans_io import identity


@pytest.mark.parametrize("home", [0, 1, 2])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_to_a_user_at_another_worker(home: int, at: int) -> None:
    node = make_node(3)
    user = node.user_at(home)
    sender = node.workers[0].connect("sender")
    sessions = [node.workers[at].connect(user), node.workers[2].connect(user)]
    node.pump()
    for number in (1, 2):
        answer = node.ask(sender, {"type": "DirectMessage", "id": 1, "to": [user, "nobody"], "payload": number})
        assert (answer["type"], answer["delivered"], answer["offline"]) == ("Ack", [user], ["nobody"])
    for session in sessions:
        got = [(each["type"], each["offset"], each["from"], each["payload"]) for each in session.messages()]
        assert got == [("DirectMessage", 1, "sender", 1), ("DirectMessage", 2, "sender", 2)]
        session.end()
    node.pump()
    answer = node.ask(sender, {"type": "DirectMessage", "id": 1, "to": user, "payload": 3})
    assert (answer["delivered"], answer["offline"]) == ([], [user])
    back = node.workers[1].connect(user)
    node.pump()
    page = node.ask(back, {"type": "History", "id": 1, "topic": f"@{user}"})
    assert texts_of(page) == [(1, 1), (2, 2), (3, 3)]


def test_repeated_names_and_keys() -> None:
    node = make_node(2)
    near, far = node.user_at(0), node.user_at(1)
    peers = [node.workers[1].connect(user) for user in (near, far)]
    node.pump()
    message = {"type": "DirectMessage", "id": 1, "to": [far, near, far], "payload": 1, "idempotency_key": "k"}
    for slot in (0, 1, 0):
        answer = node.ask(node.workers[slot].connect("sender"), message)
        assert sorted(answer["delivered"]) == sorted([near, far])
    assert [len(peer.messages()) for peer in peers] == [1, 1]


def test_over_http() -> None:
    node = make_node(2)
    user = node.user_at(1)
    peer = node.workers[1].connect(user)
    node.pump()
    found: list = []
    body = b'{"to":"%b","payload":1}' % user.encode()
    server = node.workers[0]
    server.hub.send_request(body, identity("backend")).then(lambda value, error: found.append(value))
    node.pump()
    assert found == [{"delivered": [user], "offline": []}]
    assert len(peer.messages()) == 1
