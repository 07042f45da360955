"""permessage-deflate (RFC 7692) without context takeover."""

def negotiate(header: bytes) -> tuple[bytes, int] | None:
    """The answer's header value and the window in bits, or None when no offer in `header` is acceptable."""

def inflate(data: bytes, limit: int) -> bytes | int:
    """The message in `data`, or the close code."""

def deflate(data: bytes, window_bits: int = 15) -> bytes:
    """`data` as a compressed message; raises ValueError for a window outside 9..15."""

def encoder() -> str:
    """The name of the module that compresses."""
