"""An issuer whose keys are real, and the tokens it signs."""

import asyncio
import contextlib

import pytest

from realtime_communication.auth.discovery import IssuerClient
from realtime_communication.auth.issuer_keys import IssuerKeys
from serving.oidc_issuer import OidcIssuer


@pytest.fixture(scope="module")
def issuer():
    """An issuer's process, for the tests of a module; one that makes it misbehave must make it well again."""
    with OidcIssuer() as running:
        yield running


@contextlib.asynccontextmanager
async def fetching(keys):
    """Runs the service of `keys`."""
    task = asyncio.get_running_loop().create_task(keys.run())
    try:
        yield keys
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
def keys_of():
    """An issuer's keys, whose service runs: ``async with keys_of(issuer) as keys``."""

    def make(issuer, *, request_secs=0.5, **options):
        return fetching(IssuerKeys(issuer.url, IssuerClient(issuer.url, request_secs=request_secs).fetch, **options))

    return make
