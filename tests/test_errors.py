"""The error tree and the tables of wire codes."""

from __future__ import annotations

import re

import pytest

from realtime_communication import errors
from realtime_communication.errors import (
    CLOSE_CODES,
    ERROR_CODES,
    AuthenticationFailed,
    ConfigurationError,
    ConfigurationProblem,
    ConnectionClosed,
    EnvironmentFault,
    RateLimited,
    RealtimeError,
    RequestRefused,
    Retry,
)

# rtc.v1 fixes these names and numbers; the tables may only grow.
WIRE_ERROR_CODES = {
    "bad_request",
    "unauthorized",
    "forbidden",
    "token_expired",
    "topic_invalid",
    "not_subscribed",
    "rate_limited",
    "backpressure",
    "too_many_targets",
    "too_large",
    "unsupported",
    "unavailable",
    "internal",
}
WIRE_CLOSE_CODES = {1000, 1001, 1002, 1003, 1007, 1009, 1011, 1012, 1013, 4401, 4403, 4408, 4429, 4490}


def _tree() -> list[type[RealtimeError]]:
    found, pending = [], [RealtimeError]
    while pending:
        error = pending.pop()
        found.append(error)
        pending += error.__subclasses__()
    return [error for error in found if error.__module__ == errors.__name__]


def test_tables_hold_every_code_of_the_wire() -> None:
    assert {row.name for row in ERROR_CODES} >= WIRE_ERROR_CODES
    assert {row.number for row in CLOSE_CODES} >= WIRE_CLOSE_CODES


def test_numbers_and_names_are_unique_and_in_order() -> None:
    assert [row.number for row in ERROR_CODES] == list(range(1, len(ERROR_CODES) + 1))
    assert len({row.name for row in ERROR_CODES}) == len(ERROR_CODES)
    numbers = [row.number for row in CLOSE_CODES]
    assert numbers == sorted(set(numbers))
    assert len({row.name for row in CLOSE_CODES}) == len(CLOSE_CODES)


def test_close_codes_may_travel_in_a_close_frame() -> None:
    # RFC 6455 section 7.4: 1005, 1006 and 1015 never do, and 5000 and above do not exist.
    for row in CLOSE_CODES:
        assert row.number in range(1000, 1015) or row.number in range(3000, 5000)
        assert row.number not in (1004, 1005, 1006)


def test_docstring_draws_the_whole_tree() -> None:
    drawn = set(re.findall(r"([A-Z]\w+)\s+code", errors.__doc__ or ""))
    assert drawn == {error.__name__ for error in _tree()}


def test_docstring_tells_the_codes() -> None:
    drawn = dict(re.findall(r'([A-Z]\w+)\s+code "(\w+)"', errors.__doc__ or ""))
    for error in _tree():
        if error.__name__ in drawn and not issubclass(error, RequestRefused):
            assert error.code == drawn[error.__name__]
    assert AuthenticationFailed("no").code == drawn["AuthenticationFailed"]
    assert RateLimited("slow down").code == drawn["RateLimited"]


@pytest.mark.parametrize("row", ERROR_CODES, ids=lambda row: row.name)
def test_request_refused_knows_what_to_do_next(row: errors.ErrorCode) -> None:
    refused = RequestRefused(row.name, "because")
    assert refused.retry is row.retry
    assert str(refused) == "because"


@pytest.mark.parametrize("row", CLOSE_CODES, ids=lambda row: str(row.number))
def test_connection_closed_knows_what_to_do_next(row: errors.CloseCode) -> None:
    assert ConnectionClosed(row.number).retry is row.retry


def test_unknown_codes_of_a_newer_server() -> None:
    assert RequestRefused("brand_new", "").retry is Retry.NEVER
    assert ConnectionClosed(4999, "who knows").retry is Retry.RECONNECT
    assert "4999" in str(ConnectionClosed(4999)) and "who knows" in str(ConnectionClosed(4999, "who knows"))


def test_rate_limited_carries_wait_and_scope() -> None:
    error = RateLimited("slow down", retry_after_ms=120, scope="user")
    assert (error.code, error.retry_after_ms, error.scope) == ("rate_limited", 120, "user")


def test_expired_token_is_an_authentication_failure() -> None:
    assert AuthenticationFailed("over", code="token_expired").retry is Retry.AUTHENTICATE


def test_configuration_error_lists_all_problems() -> None:
    problems = [
        ConfigurationProblem("server.port", "0", "config.toml:3", "must be an integer from 1 to 65535"),
        ConfigurationProblem("", "", "config.toml", "cannot be read"),
    ]
    error = ConfigurationError(problems)
    assert str(error) == (
        "config.toml:3: server.port = 0: must be an integer from 1 to 65535\nconfig.toml: cannot be read"
    )
    assert error.exit_status == 78


def test_exit_statuses() -> None:
    assert EnvironmentFault("port in use").exit_status == 71
    assert RealtimeError().exit_status == 70
