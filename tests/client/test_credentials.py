"""What is shown at the door."""

import itertools
import time

import pytest

from realtime_communication.client.credentials import REFUSED_IN_A_ROW, Credentials
from realtime_communication.client.errors import AuthenticationFailed, ConnectionLost
from serving.proxy import scenario


@scenario
async def test_headers_of_each_kind() -> None:
    assert await Credentials("t", None, None, 1).headers() == {"Authorization": "Bearer t"}
    assert await Credentials(None, None, "k", 1).headers() == {"X-API-Key": "k"}
    assert await Credentials(None, None, None, 1).headers() == {}


@scenario
async def test_provider_is_asked_when_it_must_be() -> None:
    numbers = itertools.count()

    async def provider() -> str:
        return f"token {next(numbers)}"

    credentials = Credentials(None, provider, None, 1)
    assert (await credentials.headers())["Authorization"] == "Bearer token 0"
    assert (await credentials.headers())["Authorization"] == "Bearer token 0"
    credentials.accepted(int(time.time()) + 1)
    assert (await credentials.headers())["Authorization"] == "Bearer token 1"
    credentials.accepted(None)
    assert credentials.refused()
    assert (await credentials.headers())["Authorization"] == "Bearer token 2"


def test_fixed_token_is_refused_once() -> None:
    assert not Credentials("t", None, None, 1).refused()


@scenario
async def test_provider_may_be_refused_a_few_times_in_a_row() -> None:
    async def provider() -> str:
        return "t"

    credentials = Credentials(None, provider, None, 1)
    outcomes = [credentials.refused() for _ in range(REFUSED_IN_A_ROW)]
    assert outcomes == [True] * (REFUSED_IN_A_ROW - 1) + [False]
    credentials.accepted(None)
    assert credentials.refused()


@scenario
async def test_what_a_provider_raises() -> None:
    async def away() -> str:
        raise OSError("away")

    async def over() -> str:
        raise AuthenticationFailed("no more")

    with pytest.raises(ConnectionLost):
        await Credentials(None, away, None, 1).headers()
    credentials = Credentials(None, over, None, 1)
    with pytest.raises(AuthenticationFailed):
        await credentials.headers()
    assert not credentials.refused()
