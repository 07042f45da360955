"""RFC 6455 frames: bytes in, messages and control frames out."""

class FrameReader:
    """A frame parser: bytes in, a list of events out."""

    def __init__(
        self, deflate: bool = False, max_frame: int = 1048576, max_message: int = 1048576, max_fragments: int = 1024
    ) -> None: ...
    def feed(self, data: bytes) -> list[tuple[object, ...]]:
        """Read `data`; return the events in it.

        An event is ("message", opcode, compressed, payload), ("ping", payload), ("pong", payload),
        ("close", code, reason) or ("failed", close code, text); nothing follows the last two.
        """

    @property
    def held(self) -> int:
        """Heap bytes the parser holds."""

def parser_size() -> int:
    """Bytes of one parser's state."""

def frame_header(opcode: int, rsv1: bool, payload: int) -> bytes:
    """The header of a server's frame with `payload` bytes."""

def close_frame(code: int, reason: bytes) -> bytes:
    """A server's close frame."""

def unmasked(data: bytes, mask: bytes) -> bytes:
    """`data` with the four bytes of `mask` XORed over it; raises ValueError for another size of mask."""
