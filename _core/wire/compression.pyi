"""Whole messages as one zstd, lz4 or gzip frame."""

def detect(data: bytes) -> int:
    """The form of a message: 0 none, 1 zstd, 2 lz4, 3 gzip."""

def compress(form: int, data: bytes) -> bytes:
    """One frame that holds `data`; raises ValueError for an unknown form."""

def decompress(form: int, data: bytes, limit: int) -> bytes | int:
    """What the frame holds, or the close code."""
