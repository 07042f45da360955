"""The latest warnings."""

import logging

import pytest

from realtime_communication.observability import recent_troubles
from realtime_communication.observability.logs import get_logger
from realtime_communication.observability.recent_troubles import MAX_CHARACTERS, MAX_FIELDS, MAX_KEPT, RecentTroubles


@pytest.fixture
def troubles():
    root, made = logging.getLogger(), RecentTroubles()
    root.addHandler(made)
    yield made
    root.removeHandler(made)


log = get_logger("realtime_communication.tests")


def test_the_newest_come_first_and_the_oldest_make_room(troubles):
    for number in range(MAX_KEPT + 5):
        log.warning("something happened", number=number)
    numbers = [row["fields"]["number"] for row in troubles.newest(1000)]
    assert numbers == list(range(MAX_KEPT + 4, 4, -1))
    assert [row["fields"]["number"] for row in troubles.newest(2)] == [MAX_KEPT + 4, MAX_KEPT + 3]


def test_what_is_less_than_a_warning_is_left_out(troubles):
    log.info("all is well")
    log.error("all is lost")
    (row,) = troubles.newest(10)
    assert (row["level"], row["event"], row["target"]) == ("error", "all is lost", "realtime_communication.tests")
    assert row["at"] > 1_600_000_000_000


def test_no_secrets(troubles):
    log.warning("token=abcdefgh", token="abcdefgh", header="Authorization: Bearer abcdefgh")
    assert "abcdefgh" not in str(troubles.newest(1))


def test_a_line_has_a_bound(troubles):
    log.warning("e" * 1000, **{f"field{number}": "x" * 1000 for number in range(50)})
    (row,) = troubles.newest(1)
    assert len(row["fields"]) == MAX_FIELDS
    assert max(len(text) for text in [row["event"], *row["fields"].values()]) == MAX_CHARACTERS


def test_where_an_error_came_from(troubles):
    try:
        1 / 0  # noqa: B018
    except ZeroDivisionError:
        log.exception("it failed")
    (row,) = troubles.newest(1)
    assert row["fields"]["error"].startswith("ZeroDivisionError")
    assert "test_recent_troubles.py" in row["stack"][-1]


def test_there_is_one_of_a_process():
    one = recent_troubles.attach()
    assert one is recent_troubles.attach()
    assert logging.getLogger().handlers.count(one) == 1
