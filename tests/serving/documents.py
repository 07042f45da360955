"""The fenced blocks of the documentation, each with what an invisible comment before it says of how it is tried.

A comment stands on a line of its own right before the fence, several may follow each other::

    <!-- file: chat.py -->            later blocks of the page find it in a file of that name
    <!-- runs until: listening -->    it does not end by itself; it has done its work when it has written that
    <!-- compiled only: WHY -->       it is well-formed, but cannot be run here
    <!-- not run: WHY -->             nothing can be said of it
"""

from __future__ import annotations

import functools
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from serving.processes import ROOT

MARKS = ("file", "runs until", "compiled only", "not run")
_MARK = re.compile(rf"^<!-- ({'|'.join(MARKS)}): (.+) -->$")
_FENCE = re.compile(r"^( *)(`{3,})([\w+-]*)$")


class Block(NamedTuple):
    """One fenced block. `path` is below the repository's root, `line` that of the fence, `marks` the comments."""

    path: str
    line: int
    language: str
    text: str
    marks: dict[str, str]

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


def documents() -> list[Path]:
    """The pages whose blocks are tried."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "clients" / "js" / "README.md"]


@functools.cache
def all_blocks() -> tuple[Block, ...]:
    """The blocks of all pages."""
    return tuple(block for path in documents() for block in blocks_of(path.read_text(), str(path.relative_to(ROOT))))


def blocks(*languages: str, path: str = "") -> list[Block]:
    """Those in one of the languages, of all pages or of one."""
    return [block for block in all_blocks() if block.language in languages and path in ("", block.path)]


def blocks_of(text: str, path: str) -> Iterator[Block]:
    """The blocks of a page's text."""
    marks: dict[str, str] = {}
    lines = iter(enumerate(text.splitlines(), 1))
    for number, line in lines:
        if mark := _MARK.match(line.strip()):
            marks[mark[1]] = mark[2]
        elif fence := _FENCE.match(line):
            inside = []
            for _, inner in lines:
                if inner.strip() == fence[2]:
                    break
                inside.append(inner)
            else:
                raise AssertionError(f"{path}:{number}: the block has no end")
            yield Block(path, number, fence[3], textwrap.dedent("\n".join(inside)) + "\n", marks)
            marks = {}
        elif line.strip():
            assert not marks, f"{path}:{number}: a mark with no block behind it"
