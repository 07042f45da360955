"""Which worker is home of which topic, and frames."""

import pytest

from realtime_communication._core.hub.peers import RingProbe, split_frames

TOPICS = [b"topic-%d" % number for number in range(2000)]


class TestRing:
    """Topics spread evenly, and only those move that have to."""

    def test_all_workers_get_their_share(self) -> None:
        for count in (1, 2, 3, 8, 64):
            ring = RingProbe(range(count))
            homes = [ring.home(topic) for topic in TOPICS]
            shares = [homes.count(slot) for slot in range(count)]
            assert sum(shares) == len(TOPICS)
            assert min(shares) > len(TOPICS) / count / 3
            assert max(shares) < len(TOPICS) / count * 2

    def test_all_agree(self) -> None:
        one, other = RingProbe([0, 3, 5]), RingProbe([5, 0, 3])
        assert [one.home(topic) for topic in TOPICS] == [other.home(topic) for topic in TOPICS]

    def test_who_leaves_moves_no_other_topic(self) -> None:
        before, after = RingProbe([0, 1, 2, 3]), RingProbe([0, 1, 3])
        for topic in TOPICS:
            if before.home(topic) != 2:
                assert after.home(topic) == before.home(topic)
        assert {after.home(topic) for topic in TOPICS if before.home(topic) == 2} == {0, 1, 3}


PUBLISH, MIGRATE, MIGRATED = 1, 32, 33
PLAIN, INBOX, ALL = 0, 1, 2


def frame(type: int, token: int, topic: bytes, rest: bytes, kind: int = 0) -> bytes:
    body = bytes([type, kind]) + len(topic).to_bytes(2, "little") + token.to_bytes(8, "little") + topic + rest
    return len(body).to_bytes(4, "little") + body


class TestFrames:
    """Whole frames only, whatever is behind them."""

    def test_at_every_cut(self) -> None:
        data = frame(1, 7, b"topic", b"rest") + frame(2, 1 << 60, b"", b"")
        for cut in range(len(data) + 1):
            frames, used = split_frames(data[:cut])
            assert len(frames) == (cut >= len(data)) + (cut >= len(frame(1, 7, b"topic", b"rest")))
            assert used <= cut
        assert split_frames(data) == ([(1, 0, 7, b"topic", b"rest"), (2, 0, 1 << 60, b"", b"")], len(data))

    @pytest.mark.parametrize(
        "data",
        [
            b"\x00\x00\x00\x00",
            b"\x0b\x00\x00\x00" + bytes(11),
            b"\xff\xff\xff\xff",
            b"\x0c\x00\x00\x00\x01\x00\xff\xff" + bytes(8),
        ],
        ids=["empty", "shorter than a head", "too large", "name longer than the frame"],
    )
    def test_nonsense(self, data: bytes) -> None:
        with pytest.raises(ValueError, match="no frame"):
            split_frames(data)

    @pytest.mark.parametrize(
        ("type", "kind", "name"),
        [
            (PUBLISH, PLAIN, b"t"),
            (PUBLISH, PLAIN, b"$events"),
            (PUBLISH, PLAIN, b"t" * 255),
            (PUBLISH, PLAIN, b""),
            (PUBLISH, INBOX, b"@u"),
            (PUBLISH, ALL, b"*"),
            (MIGRATE, PLAIN, b"@u"),
            (MIGRATED, PLAIN, b"*"),
        ],
    )
    def test_names_that_fit(self, type: int, kind: int, name: bytes) -> None:
        data = frame(type, 1, name, b"rest", kind)
        assert split_frames(data) == ([(type, kind, 1, name, b"rest")], len(data))

    @pytest.mark.parametrize(
        ("type", "kind", "name"),
        [
            (PUBLISH, PLAIN, b"t" * 256),
            (PUBLISH, PLAIN, b"@u"),
            (PUBLISH, PLAIN, b"*"),
            (PUBLISH, INBOX, b""),
            (PUBLISH, INBOX, b"u"),
            (PUBLISH, INBOX, b"@" + b"u" * 255),
            (PUBLISH, ALL, b""),
            (PUBLISH, ALL, b"t"),
            (PUBLISH, ALL, b"**"),
            (PUBLISH, 3, b"t"),
            (MIGRATE, PLAIN, b"u" * 256),
        ],
    )
    def test_names_that_do_not_fit_the_kind(self, type: int, kind: int, name: bytes) -> None:
        with pytest.raises(ValueError, match="no frame"):
            split_frames(frame(type, 1, name, b"rest", kind))
