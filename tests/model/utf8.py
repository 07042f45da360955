"""UTF-8 read off the grammar of RFC 3629, 4. (Python's own incremental decoder notices surrogates a byte late.)"""

TAIL = range(0x80, 0xC0)
SEQUENCES = [
    (range(0x80),),
    (range(0xC2, 0xE0), TAIL),
    (range(0xE0, 0xE1), range(0xA0, 0xC0), TAIL),
    (range(0xE1, 0xED), TAIL, TAIL),
    (range(0xED, 0xEE), range(0x80, 0xA0), TAIL),
    (range(0xEE, 0xF0), TAIL, TAIL),
    (range(0xF0, 0xF1), range(0x90, 0xC0), TAIL, TAIL),
    (range(0xF1, 0xF4), TAIL, TAIL, TAIL),
    (range(0xF4, 0xF5), range(0x80, 0x90), TAIL, TAIL),
]


class BadText(Exception):
    """The byte just pushed cannot belong to any text."""


class TextModel:
    """Takes text byte by byte."""

    def __init__(self) -> None:
        self.open: list[int] = []

    def push(self, byte: int) -> None:
        """Take one byte; raises BadText at the first that no valid text has there."""
        self.open.append(byte)
        fitting = [
            sequence
            for sequence in SEQUENCES
            if len(self.open) <= len(sequence)
            and all(part in allowed for part, allowed in zip(self.open, sequence, strict=False))
        ]
        if not fitting:
            raise BadText
        if len(fitting[0]) == len(self.open):
            self.open = []

    def end(self) -> None:
        """The text ends here; raises BadText inside a code point."""
        if self.open:
            raise BadText
