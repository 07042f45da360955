"""Each code that the code of the server sends is in a table, and each row of the tables is sent from somewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator

from realtime_communication.errors import (
    CLOSE_CODES,
    ERROR_CODES,
    HTTP_ERROR_CODES,
    UNSENT_CLOSE_CODES,
    UNSENT_ERROR_CODES,
)
from serving.processes import ROOT

CORE, CONTROL = ROOT / "_core", ROOT / "src" / "realtime_communication"
LISTS_ONLY = {CORE / "wire" / "envelope.pxd", CONTROL / "errors.py"}

NAMED = re.compile(
    r"""(?:reject(?:_upgrade)?\(\w+,\ (?:\d+|status),|error_response\(\d+,|_refuse\(\d+,|RequestRefused\(|
    RequestError\(|refuse\(\d+,|return\ \d+,|code\[0\]\ =|Refusal\ =\ \(\d+,|code\ =|code:\ str\ =)\ ?b?"([a-z_]+)"
    """,
    re.VERBOSE,
)
BY_NUMBER = re.compile(r"\bERROR_([A-Z_]+)\b")
CLOSING = re.compile(
    r"""(?:close\([\w.]+,\ |return\ |failure\[0\]\ =\ |frame_failed\(\w+,\ \w+,\ |Farewell\(|
    code(?::\ int)?\ ?=\ ?)((?:1[0-9]|4[0-9])[0-9]{2})\b
    """,
    re.VERBOSE,
)
OF_THE_PROCESS = {"error", "misuse", "configuration", "environment", "peer", "closed", "control"}
"""Codes of exceptions that no peer is told."""


def texts() -> Iterator[str]:
    """Every module of the server that may send something, without what it imports."""
    for folder, pattern in ((CORE, "*.pyx"), (CONTROL, "*.py")):
        for path in sorted(folder.rglob(pattern)):
            if path not in LISTS_ONLY and "client" not in path.relative_to(folder).parts[:1]:
                text = re.sub(r"^from \S+ c?import (\([^)]*\)|.*)$", "", path.read_text(), flags=re.MULTILINE)
                yield re.sub(r"^ERROR_NAMES\[:\] = \[[^]]*\]$", "", text, flags=re.MULTILINE)


def codes_in(pattern: re.Pattern[str]) -> set[str]:
    """What the pattern's group holds, wherever it matches."""
    return {found for text in texts() for found in pattern.findall(text)}


ROWS = {row.name for row in (*ERROR_CODES, *HTTP_ERROR_CODES)}


def test_every_error_that_is_named_is_in_a_table() -> None:
    named = codes_in(NAMED) - OF_THE_PROCESS
    assert {"bad_request", "too_large", "unsupported", "unavailable"} <= named, "the patterns find them"
    assert named <= ROWS
    numbered = {name.lower() for name in codes_in(BY_NUMBER)} - {"none", "codes", "names", "code_by_name"}
    assert {"forbidden", "topic_invalid"} <= numbered and numbered <= ROWS


def test_every_row_is_sent_from_somewhere() -> None:
    words = {word for text in texts() for word in re.findall(r'"([a-z_]+)"', text)}
    numbered = {name.lower() for name in codes_in(BY_NUMBER)}
    of_http = {row.name for row in HTTP_ERROR_CODES}  # by their statuses: `http/answers.py`
    assert ROWS - words - numbered - of_http == UNSENT_ERROR_CODES


def test_every_close_code_that_is_sent_is_in_the_table_and_the_other_way_round() -> None:
    sent = {int(code) for code in codes_in(CLOSING)} - {1005}  # stands for a close frame without a code
    echoed = {1000}  # a client's own code comes back to it
    assert sent | echoed == {row.number for row in CLOSE_CODES} - UNSENT_CLOSE_CODES
