"""What an HTTP answer to the upgrade means. The rest of the transport is met in test_client.py."""

from http import HTTPStatus

import picows
import pytest

from realtime_communication.client.errors import AuthenticationFailed, ConnectionLost, HandshakeRejected
from realtime_communication.client.transport import TryAgain, _refusal


def answered(status: int, **headers: str) -> picows.WSHandshakeError:
    response = picows.WSUpgradeResponse.create_error_response(
        HTTPStatus(status), extra_headers={name.replace("_", "-"): value for name, value in headers.items()}
    )
    return picows.WSHandshakeError("refused", response=response)


@pytest.mark.parametrize("status", [400, 403, 404, 405, 426, 431])
def test_lasting(status: int) -> None:
    error = _refusal(answered(status))
    assert isinstance(error, HandshakeRejected) and error.status == status


def test_unauthorized() -> None:
    assert isinstance(_refusal(answered(401)), AuthenticationFailed)


@pytest.mark.parametrize("status", [429, 503])
def test_passing_with_the_servers_delay(status: int) -> None:
    error = _refusal(answered(status, Retry_After="7"))
    assert isinstance(error, TryAgain) and error.after_secs == 7
    without = _refusal(answered(status, Retry_After="soon"))
    assert isinstance(without, TryAgain) and without.after_secs == 0


@pytest.mark.parametrize("status", [500, 502, 504])
def test_passing(status: int) -> None:
    error = _refusal(answered(status))
    assert isinstance(error, ConnectionLost)
    assert not isinstance(error, (HandshakeRejected, TryAgain))


def test_no_answer_at_all() -> None:
    assert type(_refusal(picows.WSHandshakeError("nothing"))) is ConnectionLost
