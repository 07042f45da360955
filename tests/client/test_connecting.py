"""How ``connect`` opens: once or with patience, with which credentials."""

from __future__ import annotations

import subprocess
import sys

import pytest

import realtime_communication.client
from realtime_communication.client import AuthenticationFailed, Backoff, ConnectionLost, Recovered, connect
from serving.peer import unique, unique_user
from serving.processes import ServerProcess, free_port
from serving.proxy import Proxy, scenario
from serving.tokens import token


def test_every_name_can_be_loaded() -> None:
    assert all(
        getattr(realtime_communication.client, name) is not None for name in realtime_communication.client.__all__
    )
    assert set(realtime_communication.client.__all__) <= set(dir(realtime_communication.client))
    with pytest.raises(AttributeError):
        _ = realtime_communication.client.nothing


def test_the_blocking_client_loads_neither_asyncio_nor_websockets() -> None:
    script = "import sys, realtime_communication.client.http; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not {"asyncio", "picows", "zstandard"} & set(loaded)


def test_one_kind_of_credentials() -> None:
    with pytest.raises(ValueError, match="one of"):
        connect("ws://localhost/ws", token="a", api_key="b")


@scenario
async def test_without_patience_the_first_refusal_is_the_end() -> None:
    with pytest.raises(ConnectionLost) as caught:
        async with connect(f"ws://127.0.0.1:{free_port()}/ws", token="t", retry_open=False, open_timeout=60):
            pass
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


@scenario
async def test_nor_is_a_token_refused_twice(server: ServerProcess) -> None:
    with pytest.raises(AuthenticationFailed):
        async with connect(server.url, token="wrong", retry_open=False):
            pass


@scenario
async def test_what_stood_is_opened_again_all_the_same(server: ServerProcess) -> None:
    topic = unique()
    async with Proxy(server.port) as proxy:
        options = {"token": token(unique_user()), "backoff": Backoff(0.01, 0.05)}
        async with connect(proxy.url, retry_open=False, **options) as client:  # type: ignore[arg-type]
            events = aiter(await client.subscribe(topic))
            proxy.cut()
            assert await anext(events) == Recovered(topic, True, 0)
