"""The error tree."""

import builtins

import pytest

import realtime_communication.client as package
from realtime_communication.client import errors


@pytest.mark.parametrize("name", errors.__all__)
def test_exported_and_in_the_tree(name: str) -> None:
    kind = getattr(errors, name)
    assert issubclass(kind, errors.ClientError)
    assert getattr(package, name) is kind
    assert name in str(errors.__doc__)


def test_builtin_relatives() -> None:
    assert issubclass(errors.RequestTimeout, builtins.TimeoutError)
    assert issubclass(errors.ConnectionLost, builtins.ConnectionError)


def test_request_error_keeps_what_the_server_said() -> None:
    error = errors.RequestError("rate_limited", "slow down", retry_after_ms=120, scope="user")
    assert (error.code, error.message, error.retry_after_ms, error.scope) == ("rate_limited", "slow down", 120, "user")
    assert str(error) == "rate_limited: slow down"
