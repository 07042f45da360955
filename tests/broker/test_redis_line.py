"""A line without a server: replies go in, what it sends and tells comes out."""

import asyncio

import hiredis
import pytest

from realtime_communication.broker.redis_errors import RedisFailed
from realtime_communication.broker.redis_line import COMMAND_CHANNELS, Events, Line, Refusal
from serving.proxy import scenario


class Wire:
    """In place of a connection of redis-py: keeps what is written."""

    def __init__(self):
        self.sent = b""
        self.is_connected = True
        self._reader = asyncio.StreamReader()
        self._writer = self

    def write(self, data):
        self.sent += data

    async def disconnect(self, nowait):
        self.is_connected = not nowait

    def commands(self):
        """The commands that were written since the last call."""
        reader = hiredis.Reader()
        reader.feed(self.sent)
        self.sent = b""
        return list(iter(reader.gets, False))


class Played:
    """A line, and what it told."""

    def __init__(self, *, sharded=False):
        self.told, self.wire = [], Wire()
        events = Events(
            lambda channel, data: self.told.append((channel, data)),
            lambda line, channels: self.told.append(("confirmed", *channels)),
            lambda line, channels: self.told.append(("lost", *channels)),
            lambda line, channels, refusals: self.told.append(("refused", channels, refusals)),
            lambda line: self.told.append("joined"),
        )
        self.line = Line("h:1", self.wire, sharded=sharded, events=events, clock=lambda: 7.0)

    def says(self, *replies):
        """What the server sends, in one piece; what the line told of it."""
        self.told.clear()
        self.line.receive_data(b"".join(map(encoded, replies)))
        return self.told


def encoded(reply):
    match reply:
        case list():
            return b"*%d\r\n" % len(reply) + b"".join(map(encoded, reply))
        case int():
            return b":%d\r\n" % reply
        case str():
            return b"-%b\r\n" % reply.encode()
    return b"$%d\r\n%b\r\n" % (len(reply), reply)


@pytest.fixture
def loop():
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield loop
    asyncio.set_event_loop(None)
    loop.close()


@pytest.fixture
def played(loop):
    return Played()


@pytest.fixture
def sharded(loop):
    return Played(sharded=True)


def confirmed(channel, number=1):
    return [b"subscribe", channel, number]


def pong(number):
    return [b"pong", b"%d" % number]


def test_asked_confirmed_joined(played):
    played.line.subscribe([b"a", b"b"])
    assert played.wire.commands() == [[b"SUBSCRIBE", b"a", b"b"], [b"PING", b"1"]]
    assert played.line.waiting_since == 7.0
    assert played.says(confirmed(b"a"), confirmed(b"b"), pong(1)) == [("confirmed", b"a", b"b"), "joined"]
    assert played.line.is_confirmed(b"a")
    assert played.line.waiting_since is None
    played.line.check()
    assert played.says(pong(2)) == []


def test_a_fence_while_nothing_is_subscribed(played):
    played.line.check()
    assert played.wire.commands() == [[b"PING", b"1"]]
    assert played.says(b"1") == ["joined"]


def test_what_comes_is_told_in_order(played):
    played.line.subscribe([b"a"])
    first = [b"message", b"a", b"1"]
    assert played.says(confirmed(b"a"), first, pong(1), [b"message", b"a", b"\r\n"]) == [
        ("confirmed", b"a"),
        (b"a", b"1"),
        "joined",
        (b"a", b"\r\n"),
    ]
    assert played.line.messages == 2


def test_in_pieces(played):
    data = encoded([b"message", b"a", b"123"])
    for at in range(len(data)):
        played.line.receive_data(data[at : at + 1])
    assert played.told == [(b"a", b"123")]


def test_many_channels_take_many_commands(played):
    played.line.subscribe([b"%d" % number for number in range(COMMAND_CHANNELS + 1)])
    assert [len(command) for command in played.wire.commands()] == [COMMAND_CHANNELS + 1, 2, 2]


def test_channels_of_a_slot_are_asked_for_together(sharded):
    sharded.line.subscribe([b"{x}1", b"y", b"{x}2"])
    assert sharded.wire.commands() == [[b"SSUBSCRIBE", b"{x}1", b"{x}2"], [b"SSUBSCRIBE", b"y"], [b"PING", b"1"]]
    sharded.line.unsubscribe([b"y", b"unknown"])
    assert sharded.wire.commands() == [[b"SUNSUBSCRIBE", b"y"], [b"PING", b"2"]]
    assert sharded.says([b"smessage", b"{x}1", b"1"]) == [(b"{x}1", b"1")]


def test_some_are_refused(sharded):
    sharded.line.subscribe([b"a", b"b", b"c"])
    replies = ["MOVED 15495 10.0.0.1:7001", [b"ssubscribe", b"b", 1], "CLUSTERDOWN The cluster is down", pong(1)]
    refusals = [Refusal("MOVED", 15495, "10.0.0.1:7001"), Refusal("CLUSTERDOWN")]
    assert sharded.says(*replies) == [("confirmed", b"b"), "joined", ("refused", [b"a", b"c"], refusals)]
    assert list(sharded.line.channels) == [b"b"]


def test_refused_without_a_reason(played):
    played.line.subscribe([b"a"])
    assert played.says(pong(1)) == ["joined", ("refused", [b"a"], [Refusal("ERR")])]


def test_a_slot_moves_away(sharded):
    sharded.line.subscribe([b"a", b"b"])
    sharded.says([b"ssubscribe", b"a", 1], [b"ssubscribe", b"b", 2], pong(1))
    assert sharded.says([b"sunsubscribe", b"a", 1], [b"smessage", b"b", b"1"]) == [("lost", b"a"), (b"b", b"1")]
    assert list(sharded.line.channels) == [b"b"]


def test_given_up_and_asked_for_again(sharded):
    sharded.line.subscribe([b"a"])
    sharded.says([b"ssubscribe", b"a", 1], pong(1))
    sharded.line.unsubscribe([b"a"])
    sharded.line.subscribe([b"a"])
    assert sharded.says([b"sunsubscribe", b"a", 0], pong(2)) == []
    assert sharded.says([b"ssubscribe", b"a", 1], pong(3)) == [("confirmed", b"a")]


def test_to_give_up_what_has_moved_is_no_mistake(sharded):
    sharded.line.subscribe([b"a", b"b"])
    sharded.says([b"ssubscribe", b"a", 1], [b"ssubscribe", b"b", 2], pong(1))
    sharded.line.unsubscribe([b"a"])
    assert sharded.says([b"sunsubscribe", b"a", 1], "MOVED 15495 10.0.0.1:7001", pong(2)) == []


@pytest.mark.parametrize("reply", [pong(9), b"9", 1, [b"pong"]])
def test_replies_that_make_no_sense(played, reply):
    played.line.subscribe([b"a"])
    with pytest.raises(RedisFailed) as caught:
        played.says(reply)
    assert caught.value.reply == "GARBAGE"


def test_an_error_that_nobody_caused(played):
    with pytest.raises(RedisFailed) as caught:
        played.says("NOAUTH Authentication required.")
    assert caught.value.reply == "NOAUTH"


@scenario
async def test_reading_ends_with_the_connection():
    for data, reply in [(b"", "LOST"), (b"HTTP/1.1 400\r\n", "GARBAGE")]:
        played = Played()
        played.wire._reader.feed_data(data)
        played.wire._reader.feed_eof()
        with pytest.raises(RedisFailed) as caught:
            await played.line.read()
        assert caught.value.reply == reply
        await played.line.close()
        assert not played.line.connected
