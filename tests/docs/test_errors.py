"""docs/errors.md has every code, with what the server's own tables say of it."""

from __future__ import annotations

import re

from realtime_communication.errors import (
    CLOSE_CODES,
    ERROR_CODES,
    EXIT_CONFIG,
    EXIT_OS,
    EXIT_SOFTWARE,
    HTTP_ERROR_CODES,
    UNSENT_CLOSE_CODES,
    UNSENT_ERROR_CODES,
    MisuseError,
)
from serving.processes import ROOT

TEXT = (ROOT / "docs" / "errors.md").read_text()


def rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading."""
    section = TEXT.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    headings = {at - 1 for at, line in enumerate(lines) if line.startswith("|---")}
    table = [line for at, line in enumerate(lines) if at not in headings and at - 1 not in headings]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table]


def test_every_error_code() -> None:
    found = {row[0].strip("`"): row for row in rows("Error codes")}
    codes = (*ERROR_CODES, *HTTP_ERROR_CODES)
    assert list(found) == [code.name for code in codes]
    assert {name: int(row[1]) for name, row in found.items()} == {code.name: code.status for code in codes}
    assert all(len(row) == 4 and row[2] and row[3] for row in found.values())
    assert {name for name, row in found.items() if "this server never sends it" in row[2]} == UNSENT_ERROR_CODES


def test_every_close_code() -> None:
    found = {int(row[0]): row for row in rows("Close codes")}
    assert list(found) == [code.number for code in CLOSE_CODES]
    assert {number for number, row in found.items() if "This server never sends it" in row[1]} == UNSENT_CLOSE_CODES


def test_every_exit_status() -> None:
    statuses = [int(number) for row in rows("Exit status of the command") for number in re.findall(r"\d+", row[0])]
    assert {EXIT_CONFIG, EXIT_OS, EXIT_SOFTWARE, MisuseError.exit_status} <= set(statuses)
