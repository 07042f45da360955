"""The frame parser beside the sans-I/O server protocol of the `websockets` package, on valid and damaged streams.

The two differ by intent in four ways, and only in these: `websockets` reports what it sees at a frame's end, we at the
first byte that shows it; it accepts lengths that are not in their shortest form; it refuses a close frame inside a
fragmented message; it leaves UTF-8 of messages to the layer above, so `reference` below decodes them.
"""

import itertools
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN, SERVER, Protocol

from model.frames import CLOSE, PING, PONG, TEXT, Event, client_frame, close_payload
from realtime_communication._core.wire.frames import FrameReader

LIMIT = 1000
attack = settings(max_examples=400, deadline=None, derandomize=True)


@dataclass
class Seen:
    """What a parser made of a stream."""

    events: list[Event] = field(default_factory=list)
    failure: int | None = None


def ours(stream: bytes, cuts: list[int]) -> Seen:
    reader = FrameReader(False, LIMIT, LIMIT, 100)
    seen = Seen()
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        for event in reader.feed(stream[start:end]):
            if event[0] == "failed":
                assert isinstance(event[1], int)
                seen.failure = event[1]
            else:
                seen.events.append(event)
    return seen


class Reference:
    """Messages out of the frames that `websockets` reads."""

    def __init__(self) -> None:
        self.protocol = Protocol(SERVER, state=OPEN, max_size=LIMIT)
        self.seen = Seen()
        self.opcode = 0
        self.message = bytearray()

    def take(self, frame: Frame) -> None:
        """Add a frame to what was seen."""
        data = bytes(frame.data)
        if frame.opcode is Opcode.CLOSE:
            code = int.from_bytes(data[:2], "big") if data else 1005
            self.seen.events.append(("close", code, data[2:]))
        elif frame.opcode in (Opcode.PING, Opcode.PONG):
            self.seen.events.append((frame.opcode.name.lower(), data))
        else:
            self.opcode = self.opcode if frame.opcode is Opcode.CONT else int(frame.opcode)
            self.message += data
            if frame.fin:
                self.finish()

    def finish(self) -> None:
        """Hand out the message, unless it is text that is no text."""
        try:
            if self.opcode == TEXT:
                self.message.decode()
            self.seen.events.append(("message", self.opcode, False, bytes(self.message)))
        except UnicodeDecodeError:
            self.seen.failure = 1007
        self.message.clear()

    def read(self, stream: bytes) -> Seen:
        """What `websockets` makes of `stream`."""
        self.protocol.receive_data(stream)
        for frame in self.protocol.events_received():
            assert isinstance(frame, Frame)
            if self.seen.failure is None:
                self.take(frame)
        if self.seen.failure is None and self.protocol.parser_exc is not None:
            assert self.protocol.close_sent is not None
            self.seen.failure = int(self.protocol.close_sent.code)
        return self.seen


def compare(stream: bytes, cuts: list[int]) -> None:
    mine, theirs = ours(stream, cuts), Reference().read(stream)
    if mine.failure is None:
        if mine.events and mine.events[-1][0] == "close" and theirs.failure == 1002:
            assert mine.events[:-1] == theirs.events  # the close frame lay inside a fragmented message
            return
        assert theirs.failure is None
        assert mine.events == theirs.events
    else:  # they may wait for the frame's end, or not mind
        assert theirs.events[: len(mine.events)] == mine.events
        if theirs.failure is not None:
            assert {mine.failure, theirs.failure} <= {1002, 1007, 1009}


def test_the_codes_of_single_faults() -> None:
    faults = [
        client_frame(TEXT, b"x", rsv=1),
        client_frame(TEXT, b"x", rsv=4),
        client_frame(3, b"x"),
        client_frame(12, b"x"),
        client_frame(TEXT, b"x", mask=None),
        client_frame(0, b"x"),
        client_frame(TEXT, b"x", fin=False) + client_frame(TEXT, b"y"),
        client_frame(PING, b"x" * 126),
        client_frame(PING, b"x", fin=False),
        client_frame(CLOSE, b"x"),
        client_frame(CLOSE, close_payload(1000, b"\xff")),
        *(client_frame(CLOSE, close_payload(code)) for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000)),
        client_frame(TEXT, b"\xff"),
        client_frame(TEXT, bytes(LIMIT + 1)),
        client_frame(2, bytes(LIMIT), fin=False) + client_frame(0, b"x"),
    ]
    for stream in faults:
        mine, theirs = ours(stream, []), Reference().read(stream)
        assert mine == theirs, stream[:20].hex()
        assert mine.failure is not None


def fragmented(opcode: int, payload: bytes, cuts: list[int], between: list[bytes]) -> bytes:
    """A message in fragments, with whole control frames in between."""
    borders = [0, *sorted(min(cut, len(payload)) for cut in cuts), len(payload)]
    out = b""
    for number, (start, end) in enumerate(itertools.pairwise(borders)):
        last = number == len(borders) - 2
        out += client_frame(0 if number else opcode, payload[start:end], fin=last)
        if not last and between:
            out += between[number % len(between)]
    return out


controls = st.builds(client_frame, st.sampled_from([PING, PONG]), st.binary(max_size=125))
cut_points = st.lists(st.integers(0, 200), max_size=4)
between = st.lists(controls, max_size=2)
messages = st.one_of(
    st.builds(fragmented, st.just(TEXT), st.text(max_size=150).map(str.encode), cut_points, between),
    st.builds(fragmented, st.just(2), st.binary(max_size=200), cut_points, between),
)
codes = st.sampled_from([1000, 1001, 1003, 1011, 1014, 3000, 4999])
reasons = st.text(alphabet="aé€😀", max_size=30).map(str.encode)
closes = st.builds(close_payload, codes, reasons).map(lambda payload: client_frame(CLOSE, payload))
valid = st.builds(
    lambda parts, end: b"".join(parts) + end, st.lists(st.one_of(messages, controls), max_size=6), closes | st.just(b"")
)


@attack
@given(valid, st.data())
def test_valid_streams(stream: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    mine = ours(stream, cuts)
    assert mine.failure is None
    assert mine == Reference().read(stream)


@attack
@given(valid.filter(bool), st.data())
def test_damaged_streams(stream: bytes, data: st.DataObject) -> None:
    damaged = bytearray(stream)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    compare(bytes(damaged), cuts)


@settings(attack, max_examples=60)
@given(st.lists(st.one_of(messages, controls), min_size=1, max_size=2).map(b"".join), st.data())
def test_at_every_offset(stream: bytes, data: st.DataObject) -> None:
    damaged = bytearray(stream)
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.sampled_from([0, 1, 8, 64, 128]))
    whole = ours(bytes(damaged), [])
    for cut in range(len(stream) + 1):
        assert ours(bytes(damaged), [cut]) == whole
    compare(bytes(damaged), [])
