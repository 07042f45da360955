"""Strict UTF-8 validation (RFC 3629)."""

def is_valid(data: bytes | bytearray | memoryview) -> bool:
    """Whether `data` is complete, strict UTF-8."""

def is_ascii(data: bytes | bytearray | memoryview) -> bool:
    """Whether every byte of `data` is below 0x80."""

def prefix(data: bytes | bytearray | memoryview, limit: int) -> int:
    """Length of the longest prefix of valid text `data` within `limit` bytes that cuts no code point."""

class Utf8Reader:
    """A validation state, so that text can be fed in pieces."""

    def feed(self, data: bytes | bytearray | memoryview) -> bool:
        """Take the next piece; False once a byte was bad."""

    @property
    def complete(self) -> bool:
        """Whether the text could end here."""
