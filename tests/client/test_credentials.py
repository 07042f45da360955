"""What is shown at the door."""

import itertools
import math
import time

import pytest

from realtime_communication.client.credentials import REFUSED_IN_A_ROW, Credentials, lifetime
from realtime_communication.client.errors import AuthenticationFailed, ConnectionLost
from serving.proxy import scenario
from serving.tokens import token as signed


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
    credentials.accepted()
    assert (await credentials.headers())["Authorization"] == "Bearer token 0"
    assert credentials.refused()
    assert (await credentials.headers())["Authorization"] == "Bearer token 1"


@pytest.mark.parametrize("ahead", [-86_400, 0, 86_400])
@pytest.mark.parametrize(("lasts", "asked"), [(4, 2), (600, 1)])
@scenario
async def test_how_old_a_token_is_goes_by_when_it_came(ahead: int, lasts: int, asked: int) -> None:
    """Whatever the difference between the issuer's clock and ours."""
    made = itertools.count(1)

    async def provider() -> str:
        next(made)
        now = int(time.time()) + ahead
        return signed(iat=now, exp=now + lasts, nbf=None)

    credentials = Credentials(None, provider, None, 1)
    await credentials.headers()
    await credentials.headers()
    assert next(made) == asked + 1
    assert credentials.remaining <= lasts


def test_how_long_tokens_last() -> None:
    assert lifetime(signed(iat=1000, exp=1600)) == 600
    for text in ("opaque", "a.b.c", "a..c", "a.e30.c", "a.!!.c", "a.eyJpYXQiOiJ4IiwiZXhwIjoxfQ.c", ""):
        assert lifetime(text) == math.inf, text


def test_fixed_token_is_refused_once() -> None:
    assert not Credentials("t", None, None, 1).refused()


@scenario
async def test_provider_may_be_refused_a_few_times_in_a_row() -> None:
    async def provider() -> str:
        return "t"

    credentials = Credentials(None, provider, None, 1)
    outcomes = [credentials.refused() for _ in range(REFUSED_IN_A_ROW)]
    assert outcomes == [True] * (REFUSED_IN_A_ROW - 1) + [False]
    credentials.accepted()
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
