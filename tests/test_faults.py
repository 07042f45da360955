"""Every fault and every attack has a test: `FAULTS.md` beside this file names them."""

import re
from pathlib import Path

import pytest

from effects.named_tests import assert_exists

TABLE = Path(__file__).with_name("FAULTS.md")
ROWS = [line for line in TABLE.read_text().splitlines() if line.startswith("| ") and "`" in line.rpartition(" | ")[2]]
HEADS = ("| fault | tests |", "| attack | tests |")


def test_each_row_names_one() -> None:
    lines = [line for line in TABLE.read_text().splitlines() if line.startswith("| ") and line not in HEADS]
    assert lines == ROWS
    assert len(ROWS) > 100


@pytest.mark.parametrize("number", range(len(ROWS)))
def test_they_exist(number: int) -> None:
    row = ROWS[number].removesuffix(" |")
    named = re.findall(r"`([a-z0-9_/]+\.py::[^`]+)`", row.rpartition(" | ")[2])
    assert named, row
    for place in named:
        assert_exists(place)
