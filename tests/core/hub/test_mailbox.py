"""Mailboxes against a plain list of frames: whole frames leave, each once, each lane in its order."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.hub.sans_io import Peer, Server, identity, make_hub, split_frames
from realtime_communication._core.hub.mailbox import MailboxProbe

thorough = settings(max_examples=200, deadline=None, derandomize=True)
SPANS = 64  # that may wait
sizes = st.one_of(st.integers(0, 20), st.integers(100, 140), st.sampled_from([125, 126, 127, 4000, 65535, 65536]))
steps = st.one_of(
    st.tuples(st.just("push"), sizes),
    st.tuples(st.just("push apart"), sizes),
    st.tuples(st.just("push priority"), sizes),
    st.tuples(st.just("advance"), st.one_of(st.integers(0, 10), st.integers(0, 100_000))),
    st.tuples(st.just("advance"), st.just(-1)),
    st.tuples(st.just("hold"), st.just(0)),
    st.tuples(st.just("new arena"), st.just(0)),
)


def text_frame(payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return bytes([0x81, size]) + payload
    if size < 65536:
        return b"\x81\x7e" + size.to_bytes(2, "big") + payload
    return b"\x81\x7f" + size.to_bytes(8, "big") + payload


class ModelMailbox:
    """Frames that wait, in two lists, and the rest of the one that has begun to leave."""

    def __init__(self) -> None:
        self.begun = b""
        self.priority: list[bytes] = []
        self.data: list[bytes] = []

    def gather(self) -> bytes:
        return b"".join([self.begun, *self.priority, *self.data])

    def advance(self, written: int) -> None:
        while written:
            if not self.begun:
                self.begun = self.priority.pop(0) if self.priority else self.data.pop(0)
            taken = min(written, len(self.begun))
            self.begun = self.begun[taken:]
            written -= taken


def push(box: MailboxProbe, model: ModelMailbox, payload: bytes, apart: bool) -> bool:
    """Whether there was room for it."""
    result = box.push(payload, apart)
    if result == 0:
        model.data.append(text_frame(payload))
        return True
    assert result == 1
    assert box.spans == SPANS
    return False


@thorough
@given(st.lists(steps, max_size=80))
def test_does_what_the_model_does(program: list[tuple[str, int]]) -> None:
    box, model = MailboxProbe(), ModelMailbox()
    left, pushed = b"", 0
    for number, (step, size) in enumerate(program):
        payload = (b"%d-" % number * (size // 2 + 1))[:size]
        if step == "push priority":
            box.push_priority(payload)
            model.priority.append(text_frame(payload))
            pushed += 1
        elif step.startswith("push"):
            pushed += push(box, model, payload, step == "push apart")
        elif step == "advance":
            waiting = box.gather()
            written = len(waiting) if size < 0 else min(size, len(waiting))
            box.advance(written)
            model.advance(written)
            left += waiting[:written]
        elif step == "hold":
            box.hold()
            assert box.spans == 0
        else:
            box.new_arena()
        assert box.gather() == model.gather()
        assert box.messages >= len(model.data)
    left += box.gather()
    box.advance(len(box.gather()))
    frames, rest = split_frames(left)
    assert rest == b""
    assert len(frames) == pushed
    assert (box.gather(), box.messages, box.spans) == (b"", 0, 0)
    box.new_arena()
    assert box.live_arenas == 0


class TestSpans:
    """Data frames in arenas."""

    def test_what_lies_side_by_side_is_one_span(self) -> None:
        box = MailboxProbe()
        for _ in range(100):
            box.push(b"hello")
        assert (box.spans, box.messages) == (1, 100)

    def test_no_more_than_sixty_four(self) -> None:
        box = MailboxProbe()
        for _ in range(SPANS):
            assert box.push(b"x", True) == 0
        assert box.push(b"y", True) == 1
        assert (box.spans, box.messages) == (SPANS, SPANS)
        box.advance(len(box.gather()))
        assert box.push(b"y", True) == 0

    def test_a_full_socket_pins_no_arena(self) -> None:
        box = MailboxProbe()
        for _ in range(5):
            box.push(b"x" * 100)
            box.new_arena()
        assert box.live_arenas == 5
        box.hold()
        assert (box.live_arenas, box.messages) == (0, 5)
        assert len(box.gather()) == 510

    def test_a_write_that_cuts_a_frame_pins_no_arena(self) -> None:
        box = MailboxProbe()
        for _ in range(5):
            box.push(b"x" * 100)
            box.new_arena()
        box.advance(250)
        assert box.live_arenas == 0
        assert len(box.gather()) == 260

    def test_whole_spans_let_their_arenas_go(self) -> None:
        box = MailboxProbe()
        for _ in range(3):
            box.push(b"x" * 100)
            box.new_arena()
        box.advance(102)
        assert (box.live_arenas, box.spans) == (2, 2)

    def test_what_was_never_sent_is_freed_with_the_mailbox(self) -> None:
        box = MailboxProbe()
        for _ in range(70):
            box.push(b"x" * 1000, True)
        box.push_priority(b"y")
        box.hold()
        box.push(b"z")
        assert box.messages == SPANS + 1


class TestCutFrames:
    """A frame that has begun to leave goes on before anything else."""

    @pytest.mark.parametrize("cut", range(15))
    def test_of_data(self, cut: int) -> None:
        box = MailboxProbe()
        for payload in (b"one", b"two", b"six"):
            box.push(payload)
        left = box.gather()[:cut]
        box.advance(cut)
        box.push_priority(b"reply")
        frames, rest = split_frames(left + box.gather())
        begun = -(-cut // 5)
        expected = [b"one", b"two", b"six"]
        expected.insert(begun, b"reply")
        assert ([payload for _, _, payload in frames], rest) == (expected, b"")

    def test_of_a_reply(self) -> None:
        box = MailboxProbe()
        box.push(b"data")
        box.push_priority(b"reply-1")
        first = box.gather()
        box.advance(4)
        box.push_priority(b"reply-2")
        box.hold()
        frames, rest = split_frames(first[:4] + box.gather())
        assert ([payload for _, _, payload in frames], rest) == ([b"reply-1", b"reply-2", b"data"], b"")


def slow_reader(messages: int, **changes: Any) -> tuple[Server, Peer, Peer]:
    """A server, a subscriber that stalled before so many messages came, and the sender."""
    server = make_hub(**changes)
    slow, sender = server.connect("slow"), server.connect("sender")
    slow.subscribe("room")
    slow.stall()
    for i in range(messages):
        sender.request({"type": "Broadcast", "id": i, "topic": "room", "payload": i})
    return server, slow, sender


def payloads(peer: Peer) -> list[object]:
    return [message["payload"] for message in peer.messages()]


class TestLast:
    """The close frame: behind all data when the socket takes bytes, next when it is full."""

    def test_behind_data_and_replies_of_the_same_turn(self) -> None:
        server = make_hub()
        peer, sender = server.connect("alice"), server.connect("sender")
        peer.subscribe("room")
        sender.send({"type": "Broadcast", "topic": "room", "payload": 1})
        server.hub.publish_request(b'{"topic":"room","payload":2}', identity("http"))
        assert server.hub.disconnect(user_id="alice", reason="bye") == 1
        server.flush()
        assert payloads(peer) == [1, 2]
        assert peer.close == (4403, "bye")

    def test_ahead_of_what_a_full_socket_left(self) -> None:
        server, slow, _ = slow_reader(50)
        server.hub.disconnect(user_id="slow")
        server.flush()
        slow.resume()
        assert payloads(slow) == []
        assert slow.close == (4403, "")

    @pytest.mark.parametrize("taken", range(1, 200, 9))
    def test_the_frame_that_has_begun_is_finished(self, taken: int) -> None:
        server, slow, _ = slow_reader(50)
        slow.resume(taken)
        received = payloads(slow)
        begun = len(received) + (slow.rest != b"")
        server.hub.disconnect(user_id="slow")
        server.flush()
        slow.resume()
        assert received + payloads(slow) == list(range(begun))
        assert slow.close == (4403, "")

    def test_replies_that_wait_go_first(self) -> None:
        server, slow, _ = slow_reader(3)
        slow.send({"type": "Ping", "id": 1})
        server.hub.disconnect(user_id="slow")
        server.flush()
        slow.resume()
        assert [message["type"] for message in slow.messages()] == ["Pong"]
        assert slow.close is not None

    def test_nothing_is_kept_for_the_dead(self) -> None:
        server, slow, sender = slow_reader(100)
        assert server.hub.queued() == 100
        slow.end()
        sender.end()
        stats = server.stats()
        assert server.hub.queued() == 0
        assert (stats["sessions"], stats["subscriptions"]) == (0, 0)
        assert stats["arenas"] == 1  # the one that is written to


class TestQueue:
    """Messages for a full socket: by reference, in order."""

    @thorough
    @given(st.lists(st.tuples(st.integers(0, 40), st.integers(-1, 3000)), max_size=12))
    def test_any_pace_of_reading(self, program: list[tuple[int, int]]) -> None:
        server, slow, sender = slow_reader(1)
        sent, received = 1, []
        for messages, taken in program:
            for _ in range(messages):
                sender.request({"type": "Broadcast", "id": sent, "topic": "room", "payload": sent})
                sent += 1
            slow.resume(taken)
            received += payloads(slow)
        slow.resume()
        received += payloads(slow)
        assert received == list(range(sent))
        assert server.hub.queued() == 0

    def test_arenas_go_while_the_consumer_sleeps(self) -> None:
        server, slow, _ = slow_reader(900)
        assert server.hub.queued() == 900
        assert server.stats()["arenas"] == 1
        slow.resume()
        assert payloads(slow) == list(range(900))
