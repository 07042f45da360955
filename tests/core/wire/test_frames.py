"""Frames by the clauses of RFC 6455, against the plain-Python oracle, cut at every offset."""

import random
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Event,
    Limits,
    client_frame,
    close_payload,
    expected_events,
    masked,
)
from realtime_communication._core.wire import frames

attack = settings(max_examples=250, deadline=None, derandomize=True)


def reader(deflate: bool = False, limits: Limits | None = None) -> frames.FrameReader:
    limits = limits or Limits()
    return frames.FrameReader(deflate, limits.max_frame, limits.max_message, limits.max_fragments)


def without_text(events: list[tuple[object, ...]]) -> list[Event]:
    return [event[:2] if event[0] == "failed" else event for event in events]


def read(*pieces: bytes, deflate: bool = False, limits: Limits | None = None) -> list[Event]:
    parser = reader(deflate, limits)
    return without_text([event for piece in pieces for event in parser.feed(piece)])


def read_everyhow(stream: bytes, *, deflate: bool = False, limits: Limits | None = None) -> list[Event]:
    """Read `stream` whole, byte by byte and cut at every offset; all must agree with the oracle."""
    expected = expected_events(stream, deflate=deflate, limits=limits)
    assert read(stream, deflate=deflate, limits=limits) == expected
    assert read(*(stream[i : i + 1] for i in range(len(stream))), deflate=deflate, limits=limits) == expected
    for cut in range(len(stream) + 1):
        assert read(stream[:cut], stream[cut:], deflate=deflate, limits=limits) == expected, cut
    return expected


def failure_at(stream: bytes, *, deflate: bool = False, limits: Limits | None = None) -> tuple[int, int]:
    """The offset of the byte that made the parser fail, and the close code."""
    parser = reader(deflate, limits)
    for at in range(len(stream)):
        for event in without_text(parser.feed(stream[at : at + 1])):
            if event[0] == "failed":
                assert isinstance(event[1], int)
                return at, event[1]
    raise AssertionError("the parser did not fail")


class TestHeader52:
    """5.2, the base framing protocol."""

    @pytest.mark.parametrize("size", [0, 1, 3, 4, 7, 8, 9, 125, 126, 127, 1000])
    @pytest.mark.parametrize("opcode", [TEXT, BINARY])
    def test_whole_message(self, opcode: int, size: int) -> None:
        payload = b"payload!" * (size // 8 + 1)
        events = read_everyhow(client_frame(opcode, payload[:size]))
        assert events == [("message", opcode, False, payload[:size])]

    @pytest.mark.parametrize("size", [65535, 65536, 70000])
    def test_large_message(self, size: int) -> None:
        payload = random.Random(size).randbytes(size)
        stream = client_frame(BINARY, payload)
        for cut in (0, 1, 2, 5, 9, 10, 13, 14, 15, 1000, len(stream) - 1):
            assert read(stream[:cut], stream[cut:]) == [("message", BINARY, False, payload)]

    @pytest.mark.parametrize("rsv", range(1, 8))
    @pytest.mark.parametrize("opcode", [CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG])
    def test_reserved_bits_without_extension(self, rsv: int, opcode: int) -> None:
        assert failure_at(client_frame(opcode, rsv=rsv)) == (0, 1002)

    @pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
    def test_reserved_opcodes(self, opcode: int) -> None:
        assert failure_at(client_frame(opcode)) == (0, 1002)
        assert failure_at(client_frame(TEXT, fin=False) + client_frame(opcode)) == (6, 1002)

    @pytest.mark.parametrize(
        ("declared", "form", "at", "code"),
        [
            (2**63, 64, 2, 1002),
            (2**64 - 1, 64, 2, 1002),
            (2**63 - 1, 64, 2, 1009),
            (2**32 + 1, 64, 5, 1009),
            (2**30, 64, 6, 1009),
            (1, 16, 3, 1002),
            (125, 16, 3, 1002),
            (125, 64, 7, 1002),
            (65535, 64, 7, 1002),
        ],
    )
    def test_lengths_fail_at_the_first_byte_that_shows_it(self, declared: int, form: int, at: int, code: int) -> None:
        stream = client_frame(BINARY, b"0123456789", declared=declared, form=form)
        assert failure_at(stream) == (at, code)
        read_everyhow(stream)
        parser = reader()
        parser.feed(stream)
        assert parser.held == 0

    def test_frame_limit(self) -> None:
        limits = Limits(max_frame=300, max_message=1000)
        assert read_everyhow(client_frame(BINARY, bytes(300)), limits=limits)[0][0] == "message"
        assert failure_at(client_frame(BINARY, bytes(301)), limits=limits) == (3, 1009)
        small = Limits(max_frame=10, max_message=1000)
        assert read_everyhow(client_frame(BINARY, bytes(10)), limits=small)[0][0] == "message"
        assert failure_at(client_frame(BINARY, bytes(11)), limits=small) == (1, 1009)
        assert failure_at(client_frame(BINARY, bytes(500)), limits=small) == (2, 1009)

    def test_control_frames_do_not_count_for_data_limits(self) -> None:
        limits = Limits(max_frame=10, max_message=10)
        assert read_everyhow(client_frame(PING, bytes(125)), limits=limits) == [("ping", bytes(125))]


class TestMasking53:
    """5.1 and 5.3: a client masks every frame."""

    @pytest.mark.parametrize("opcode", [TEXT, BINARY, CLOSE, PING, PONG])
    def test_unmasked_frame(self, opcode: int) -> None:
        assert failure_at(client_frame(opcode, b"", mask=None)) == (1, 1002)
        assert failure_at(client_frame(opcode, close_payload(1000), mask=None)) == (1, 1002)
        read_everyhow(client_frame(opcode, close_payload(1000), mask=None))

    @attack
    @given(st.binary(max_size=100), st.binary(min_size=4, max_size=4))
    def test_unmask(self, data: bytes, mask: bytes) -> None:
        assert frames.unmasked(data, mask) == masked(data, mask)

    @pytest.mark.parametrize("cut", range(1, 40))
    def test_the_mask_goes_on_over_a_cut(self, cut: int) -> None:
        payload = bytes(range(64))
        stream = client_frame(BINARY, payload, mask=b"\x01\x02\x04\x80")
        assert read(stream[:cut], stream[cut : cut + 7], stream[cut + 7 :]) == [("message", BINARY, False, payload)]


class TestFragmentation54:
    """5.4"""

    def test_message_in_fragments(self) -> None:
        stream = (
            client_frame(TEXT, "hé".encode()[:2], fin=False)
            + client_frame(CONTINUATION, b"", fin=False)
            + client_frame(CONTINUATION, "hé€".encode()[2:5], fin=False)
            + client_frame(CONTINUATION, "hé€".encode()[5:])
            + client_frame(BINARY, b"next")
        )
        assert read_everyhow(stream) == [("message", TEXT, False, "hé€".encode()), ("message", BINARY, False, b"next")]

    def test_control_frames_between_fragments(self) -> None:
        stream = (
            client_frame(BINARY, b"one ", fin=False)
            + client_frame(PING, b"a" * 125)
            + client_frame(CONTINUATION, b"two ", fin=False)
            + client_frame(PONG, b"")
            + client_frame(CONTINUATION, b"three")
            + client_frame(TEXT, b"open", fin=False)
            + client_frame(CLOSE, close_payload(1000, b"bye"))
        )
        events = read_everyhow(stream)
        assert events == [
            ("ping", b"a" * 125),
            ("pong", b""),
            ("message", BINARY, False, b"one two three"),
            ("close", 1000, b"bye"),
        ]

    def test_a_cut_control_frame_leaves_the_text_state_alone(self) -> None:
        stream = client_frame(TEXT, b"\xe2\x82", fin=False) + client_frame(PING, b"\xff\xfe")
        stream += client_frame(CONTINUATION, b"\xac")
        assert read_everyhow(stream) == [("ping", b"\xff\xfe"), ("message", TEXT, False, "€".encode())]

    def test_continuation_first(self) -> None:
        assert failure_at(client_frame(CONTINUATION, b"x")) == (0, 1002)
        assert failure_at(client_frame(CONTINUATION, b"x", fin=False)) == (0, 1002)
        whole = client_frame(TEXT, b"x")
        assert failure_at(whole + client_frame(CONTINUATION, b"x")) == (len(whole), 1002)

    @pytest.mark.parametrize("opcode", [TEXT, BINARY])
    def test_new_message_inside_a_message(self, opcode: int) -> None:
        start = client_frame(BINARY, b"", fin=False)
        assert failure_at(start + client_frame(opcode, b"x")) == (len(start), 1002)
        read_everyhow(start + client_frame(opcode, b"x"))

    @pytest.mark.parametrize("size", [0, 1])
    def test_fragments_without_end(self, size: int) -> None:
        parser = reader(limits=Limits(max_fragments=1000))
        piece = client_frame(CONTINUATION, bytes(size), fin=False)
        assert parser.feed(client_frame(BINARY, bytes(size), fin=False)) == []
        for _ in range(999):
            assert parser.feed(piece) == []
        assert parser.held <= 2048
        assert without_text(parser.feed(piece)) == [("failed", 1009)]
        assert parser.held == 0

    def test_exactly_the_fragments_allowed(self) -> None:
        limits = Limits(max_fragments=3)
        two = client_frame(BINARY, b"1", fin=False) + client_frame(CONTINUATION, b"2", fin=False)
        assert read_everyhow(two + client_frame(CONTINUATION, b"3"), limits=limits) == [("message", 2, False, b"123")]
        three = two + client_frame(CONTINUATION, b"3", fin=False)
        assert failure_at(three + client_frame(CONTINUATION, b"4"), limits=limits) == (len(three), 1009)

    @pytest.mark.parametrize("pieces", [1, 2, 7, 100])
    def test_total_at_the_limit(self, pieces: int) -> None:
        limits = Limits(max_frame=1000, max_message=1000)
        share = [bytes(1000 // pieces)] * (pieces - 1)
        share.append(bytes(1000 - sum(map(len, share))))
        stream = b"".join(
            client_frame(BINARY if i == 0 else CONTINUATION, piece, fin=i == pieces - 1)
            for i, piece in enumerate(share)
        )
        assert read(stream, limits=limits) == [("message", BINARY, False, bytes(1000))]
        share[-1] += b"!"
        stream = b"".join(
            client_frame(BINARY if i == 0 else CONTINUATION, piece, fin=i == pieces - 1)
            for i, piece in enumerate(share)
        )
        assert read(stream, limits=limits) == [("failed", 1009)]


class TestControl55:
    """5.5"""

    @pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
    @pytest.mark.parametrize("size", [126, 127, 65536])
    def test_too_big(self, opcode: int, size: int) -> None:
        assert failure_at(client_frame(opcode, close_payload(1000) + bytes(size - 2))) == (1, 1002)

    @pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
    def test_fragmented(self, opcode: int) -> None:
        assert failure_at(client_frame(opcode, fin=False)) == (0, 1002)

    @pytest.mark.parametrize("size", [0, 1, 124, 125])
    def test_ping_and_pong(self, size: int) -> None:
        stream = client_frame(PING, b"p" * size) + client_frame(PONG, b"q" * size)
        assert read_everyhow(stream) == [("ping", b"p" * size), ("pong", b"q" * size)]

    def test_a_cut_ping_holds_memory_only_while_it_is_cut(self) -> None:
        parser = reader()
        stream = client_frame(PING, b"x" * 100)
        assert parser.feed(stream[:50]) == []
        assert 0 < parser.held <= 256
        assert parser.feed(stream[50:]) == [("ping", b"x" * 100)]
        assert parser.held == 0


class TestClose551:
    """5.5.1 and 7.4"""

    def test_without_code(self) -> None:
        assert read_everyhow(client_frame(CLOSE)) == [("close", 1005, b"")]

    def test_half_a_code(self) -> None:
        assert failure_at(client_frame(CLOSE, b"\x03")) == (1, 1002)

    ALLOWED = (1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4999)

    @pytest.mark.parametrize("code", ALLOWED)
    def test_allowed_codes(self, code: int) -> None:
        assert read_everyhow(client_frame(CLOSE, close_payload(code, b"why"))) == [("close", code, b"why")]

    @pytest.mark.parametrize("code", [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535])
    def test_codes_not_allowed(self, code: int) -> None:
        assert read_everyhow(client_frame(CLOSE, close_payload(code))) == [("failed", 1002)]
        at, close_code = failure_at(client_frame(CLOSE, close_payload(code, b"why")))
        assert at <= 7
        assert close_code == 1002

    def test_every_code(self) -> None:
        allowed = [code for code in range(65536) if read(client_frame(CLOSE, close_payload(code)))[0][0] == "close"]
        assert allowed == [1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)]

    @pytest.mark.parametrize("reason", [b"\xff", b"ok\xc0\xaf", b"\xed\xa0\x80", b"\xe2\x82", b"a" * 122 + b"\xc3"])
    def test_reason_that_is_not_utf8(self, reason: bytes) -> None:
        assert read_everyhow(client_frame(CLOSE, close_payload(1000, reason))) == [("failed", 1007)]

    def test_a_bad_reason_fails_before_the_frame_ends(self) -> None:
        assert failure_at(client_frame(CLOSE, close_payload(1000, b"ab\xffcd"))) == (10, 1007)

    def test_longest_reason(self) -> None:
        reason = "é".encode() * 61 + b"x"
        assert read_everyhow(client_frame(CLOSE, close_payload(1000, reason))) == [("close", 1000, reason)]

    def test_nothing_is_read_behind_it(self) -> None:
        stream = client_frame(CLOSE, close_payload(1000)) + client_frame(TEXT, b"late") + b"\xff" * 100
        assert read_everyhow(stream) == [("close", 1000, b"")]
        parser = reader()
        parser.feed(stream)
        assert parser.feed(stream) == []
        assert parser.held == 0


class TestText81:
    """8.1: text is UTF-8, and a bad byte is seen at once."""

    BAD = (
        b"\xc0\xaf",
        b"\xe0\x80\xaf",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xf5",
        b"\x80",
        b"\xfe",
        b"\xe2\x28\xa1",
    )

    @pytest.mark.parametrize("bad", BAD)
    @pytest.mark.parametrize("before", [0, 1, 7, 8, 40, 130])
    def test_bad_text(self, bad: bytes, before: int) -> None:
        text = b"a" * before + bad + b"b" * 20
        assert read_everyhow(client_frame(TEXT, text)) == [("failed", 1007)]
        assert read_everyhow(client_frame(TEXT, text[: before + 1], fin=False) + client_frame(0, text[before + 1 :]))

    def test_fails_within_an_unfinished_frame(self) -> None:
        stream = client_frame(TEXT, b"abc\xffdef" + b"x" * 1000)
        assert failure_at(stream) == (8 + 3, 1007)

    def test_surrogate_fails_at_its_second_byte(self) -> None:
        assert failure_at(client_frame(TEXT, b"a\xed\xa0\x80", fin=False)) == (6 + 2, 1007)

    def test_text_ending_inside_a_code_point(self) -> None:
        assert read_everyhow(client_frame(TEXT, b"a\xe2\x82")) == [("failed", 1007)]
        stream = client_frame(TEXT, b"a\xe2\x82", fin=False) + client_frame(CONTINUATION, b"")
        assert read_everyhow(stream) == [("failed", 1007)]

    def test_the_state_does_not_leak_into_the_next_message(self) -> None:
        stream = client_frame(BINARY, b"\xe2\x82", fin=False) + client_frame(CONTINUATION, b"\xff")
        stream += client_frame(TEXT, b"fine", fin=False) + client_frame(CONTINUATION, "€".encode())
        assert len(read_everyhow(stream)) == 2

    def test_binary_is_not_checked(self) -> None:
        assert read_everyhow(client_frame(BINARY, b"\xff\x80")) == [("message", BINARY, False, b"\xff\x80")]


class TestCompressedBit7692:
    """RFC 7692, 6: RSV1 on the first frame of a data message only."""

    def test_compressed_message(self) -> None:
        stream = client_frame(TEXT, b"\xff\x00\xff", rsv=4) + client_frame(TEXT, b"plain")
        assert read_everyhow(stream, deflate=True) == [
            ("message", 1, True, b"\xff\x00\xff"),
            ("message", 1, False, b"plain"),
        ]

    def test_compressed_fragments(self) -> None:
        stream = client_frame(TEXT, b"\xff", rsv=4, fin=False) + client_frame(CONTINUATION, b"\xfe")
        stream += client_frame(TEXT, b"p", fin=False) + client_frame(CONTINUATION, b"q")
        assert read_everyhow(stream, deflate=True) == [("message", 1, True, b"\xff\xfe"), ("message", 1, False, b"pq")]

    @pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
    def test_on_a_control_frame(self, opcode: int) -> None:
        assert failure_at(client_frame(opcode, rsv=4), deflate=True) == (0, 1002)

    def test_on_a_continuation(self) -> None:
        start = client_frame(TEXT, b"x", rsv=4, fin=False)
        assert failure_at(start + client_frame(CONTINUATION, rsv=4), deflate=True) == (len(start), 1002)

    @pytest.mark.parametrize("rsv", [1, 2, 3, 5, 6, 7])
    def test_other_bits_stay_reserved(self, rsv: int) -> None:
        assert failure_at(client_frame(TEXT, rsv=rsv), deflate=True) == (0, 1002)


class TestMemory:
    """What a peer can make the parser hold."""

    def test_size_of_the_parser(self) -> None:
        assert frames.parser_size() <= 64

    def test_nothing_is_allocated_from_a_declared_length(self) -> None:
        limits = Limits(max_frame=1 << 40, max_message=1 << 40)
        parser = reader(limits=limits)
        assert parser.feed(client_frame(BINARY, b"0123456789", declared=1 << 30)) == []
        assert parser.held <= 128

    def test_a_megabyte_in_single_bytes(self) -> None:
        stream = client_frame(BINARY, bytes(1 << 20))
        parser = reader()
        for at in range(len(stream) - 1):
            assert parser.feed(stream[at : at + 1]) == []
            assert parser.held <= 2 * at + 64
        assert parser.feed(stream[-1:]) == [("message", BINARY, False, bytes(1 << 20))]
        assert parser.held == 0

    def test_whole_messages_hold_nothing(self) -> None:
        parser = reader()
        parser.feed(client_frame(BINARY, bytes(1000)) * 10 + client_frame(PING, b"x"))
        assert parser.held == 0
        parser.feed(client_frame(BINARY, bytes(1000))[:3])
        assert parser.held == 0

    def test_a_failure_frees_what_was_gathered(self) -> None:
        parser = reader()
        parser.feed(client_frame(BINARY, bytes(1000), fin=False))
        assert parser.held >= 1000
        parser.feed(b"\xff")
        assert parser.held == 0
        assert parser.feed(client_frame(TEXT, b"late")) == []

    def test_no_memory_fails_the_connection_only(self) -> None:
        """In a process of its own, whose address space ends soon."""
        script = """
import resource
from realtime_communication._core.wire.frames import FrameReader
pages = int(open("/proc/self/statm").read().split()[0])
ceiling = pages * resource.getpagesize() + (64 << 20)
resource.setrlimit(resource.RLIMIT_AS, (ceiling, ceiling))
reader = FrameReader(False, 1 << 40, 1 << 40, 10)
events = reader.feed(bytes.fromhex("82ff000000400000000000000000"))
piece = bytes(1 << 20)
for _ in range(64):
    events += reader.feed(piece)
print(events, reader.held, FrameReader().feed(bytes.fromhex("81810000000061")))
"""
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
        assert done.stderr == ""
        assert done.stdout == "[('failed', 1011, 'out of memory')] 0 [('message', 1, False, b'a')]\n"


payloads = st.one_of(
    st.binary(max_size=20),
    st.text(max_size=20).map(str.encode),
    st.integers(100, 300).map(lambda size: b"z" * size),
    st.sampled_from(
        [close_payload(1000), close_payload(1006), close_payload(3000, b"ok"), close_payload(1001, b"\xff")]
    ),
)


@st.composite
def some_frame(draw: st.DrawFn) -> bytes:
    return client_frame(
        draw(st.sampled_from([0, 0, 0, 1, 1, 2, 2, 8, 9, 10, 3, 11])),
        draw(payloads),
        fin=draw(st.booleans()),
        rsv=draw(st.sampled_from([0, 0, 0, 0, 0, 0, 4, 1])),
        mask=draw(st.one_of(st.binary(min_size=4, max_size=4), st.just(b"\0\0\0\0"))),
    )


class TestAgainstTheModel:
    """Whatever comes, the parser says what the plain-Python oracle says, wherever the stream is cut."""

    LIMITS = Limits(max_frame=200, max_message=250, max_fragments=4)

    @attack
    @given(st.lists(some_frame(), max_size=6).map(b"".join), st.booleans(), st.data())
    def test_random_frames(self, stream: bytes, deflate: bool, data: st.DataObject) -> None:
        expected = expected_events(stream, deflate=deflate, limits=self.LIMITS)
        cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
        pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
        assert read(*pieces, deflate=deflate, limits=self.LIMITS) == expected
        assert read(stream, deflate=deflate, limits=self.LIMITS) == expected

    @attack
    @given(st.lists(some_frame(), min_size=1, max_size=3).map(b"".join), st.data())
    def test_mutated_frames_at_every_offset(self, stream: bytes, data: st.DataObject) -> None:
        mutated = bytearray(stream)
        for _ in range(data.draw(st.integers(0, 3))):
            mutated[data.draw(st.integers(0, len(mutated) - 1))] = data.draw(st.integers(0, 255))
        read_everyhow(bytes(mutated[:120]), deflate=True, limits=self.LIMITS)

    @attack
    @given(st.binary(max_size=60))
    def test_noise(self, stream: bytes) -> None:
        read_everyhow(stream, deflate=True, limits=self.LIMITS)

    @attack
    @given(st.lists(some_frame(), min_size=1, max_size=3).map(b"".join))
    def test_a_prefix_fails_no_later_than_the_model(self, stream: bytes) -> None:
        parser = reader(True, self.LIMITS)
        events: list[Event] = []
        for end in range(1, min(len(stream), 150) + 1):
            events += without_text(parser.feed(stream[end - 1 : end]))
            assert events == expected_events(stream[:end], deflate=True, limits=self.LIMITS)


class TestBuilder:
    """What the server sends."""

    @pytest.mark.parametrize("opcode", [TEXT, BINARY, PING, PONG])
    @pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 2**32, 2**40 + 5])
    def test_header(self, opcode: int, size: int) -> None:
        header = frames.frame_header(opcode, False, size)
        assert header[0] == 0x80 | opcode
        assert header == client_frame(opcode, b"", declared=size, mask=None)
        assert frames.frame_header(opcode, True, size) == bytes([header[0] | 0x40]) + header[1:]

    def test_close(self) -> None:
        assert frames.close_frame(1000, b"") == b"\x88\x02\x03\xe8"
        assert frames.close_frame(4408, b"timed out") == b"\x88\x0b\x11\x38timed out"

    @pytest.mark.parametrize("code", [0, 1005])
    def test_close_without_code(self, code: int) -> None:
        assert frames.close_frame(code, b"ignored") == b"\x88\x00"

    @attack
    @given(st.text(max_size=130))
    def test_long_reason_is_cut_between_code_points(self, text: str) -> None:
        frame = frames.close_frame(1008, text.encode())
        assert frame[1] == len(frame) - 2 <= 125
        reason = frame[4:].decode()
        assert text.startswith(reason)
        assert reason == text or len(reason.encode()) >= 120

    def test_reason_that_is_not_utf8_is_left_out(self) -> None:
        assert frames.close_frame(1002, b"\xff\xfe") == b"\x88\x02\x03\xea"
        assert frames.close_frame(1002, b"\x80" * 200) == b"\x88\x02\x03\xea"
