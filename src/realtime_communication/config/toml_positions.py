"""Lines of the keys of a TOML document, which the standard parser does not tell.

`key_lines` reads a document that `tomllib` has already accepted, so it need not judge it: it only follows table
headers, keys and the ends of values. Keys inside inline tables have the line of the key that holds them.
"""

from __future__ import annotations

import re

Place = tuple[str | int, ...]
"""Path of a key: names, and an index behind the name of a list of tables."""

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))", re.DOTALL)
_PLAIN_ESCAPES = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r"}


def key_lines(text: str) -> dict[Place, int]:
    """Line, counted from 1, of every table header and key of a valid TOML document."""
    return _Scanner(text).run()


def line_of(lines: dict[Place, int], place: Place) -> int:
    """Line of a place, or of the nearest one above it; 0 when there is none."""
    while place:
        if place in lines:
            return lines[place]
        place = place[:-1]
    return 0


class _Scanner:
    """Walks over the text once; `at` is the index of the next character, `line` its line."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.counted = 0
        self.line = 1
        self.lines: dict[Place, int] = {}
        self.table: Place = ()
        self.sizes: dict[Place, int] = {}

    def run(self) -> dict[Place, int]:
        while self._to_content():
            line = self._line()
            if self.text[self.at] == "[":
                self._header(line)
            else:
                place = self.table + self._key("=")
                self.lines.setdefault(place, line)
                self._skip_value()
        return self.lines

    def _line(self) -> int:
        """Line of `at`."""
        self.line += self.text.count("\n", self.counted, self.at)
        self.counted = self.at
        return self.line

    def _to_content(self) -> bool:
        """Move over white space and comments; False at the end."""
        while self.at < len(self.text):
            character = self.text[self.at]
            if character == "#":
                self._to_line_end()
            elif character in " \t\r\n":
                self.at += 1
            else:
                return True
        return False

    def _to_line_end(self) -> None:
        end = self.text.find("\n", self.at)
        self.at = len(self.text) if end < 0 else end

    def _header(self, line: int) -> None:
        is_list = self.text.startswith("[[", self.at)
        self.at += 2 if is_list else 1
        names = self._key("]")
        self.at += 1 if is_list else 0
        place = (*self._resolve(names[:-1]), names[-1])
        if is_list:
            index = self.sizes.get(place, 0)
            self.sizes[place] = index + 1
            self.lines.setdefault(place, line)
            place += (index,)
        else:
            place = self._resolve(names)
        self.table = place
        self.lines.setdefault(place, line)

    def _resolve(self, names: Place) -> Place:
        """Names of a header with the index of the last table put behind each list of tables."""
        place: Place = ()
        for name in names:
            place += (name,)
            if place in self.sizes:
                place += (self.sizes[place] - 1,)
        return place

    def _key(self, end: str) -> Place:
        """Read a dotted key and move behind `end`."""
        names: list[str | int] = []
        while self.text[self.at] != end:
            character = self.text[self.at]
            if character in " \t.":
                self.at += 1
            elif character in "\"'":
                names.append(self._quoted(character))
            else:
                match = _BARE.match(self.text, self.at)
                assert match is not None, "the document was parsed before"
                names.append(match.group())
                self.at = match.end()
        self.at += 1
        return tuple(names)

    def _quoted(self, quote: str) -> str:
        start = self.at + 1
        self._skip_string(quote)
        inner = self.text[start : self.at - 1]
        return inner if quote == "'" else _ESCAPE.sub(_unescape, inner)

    def _skip_string(self, quote: str) -> None:
        """Move behind the string that begins here."""
        triple = quote * 3
        if not self.text.startswith(triple, self.at):
            self.at = self._string_end(self.at + 1, quote) + 1
            return
        self.at = self._string_end(self.at + 3, triple) + 3
        while self.text.startswith(quote, self.at):  # a multi-line string may end in quotes of its own
            self.at += 1

    def _string_end(self, at: int, quote: str) -> int:
        while not self.text.startswith(quote, at):
            at += 2 if self.text[at] == "\\" and quote[0] == '"' else 1
        return at

    def _skip_value(self) -> None:
        """Move behind the value that begins here: to the end of the line on which its last bracket closes."""
        depth = 0
        while self.at < len(self.text):
            character = self.text[self.at]
            if character in "\"'":
                self._skip_string(character)
                continue
            if character == "#":
                self._to_line_end()
                continue
            if character in "[{":
                depth += 1
            elif character in "]}":
                depth -= 1
            elif character == "\n" and depth == 0:
                return
            self.at += 1


def _unescape(match: re.Match[str]) -> str:
    short, long, plain = match.groups()
    if plain is not None:
        return _PLAIN_ESCAPES.get(plain, plain)
    return chr(int(short or long, 16))
