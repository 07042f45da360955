"""How ``connect`` opens: once or with patience, with which credentials."""

from __future__ import annotations

import pytest

from realtime_communication.client import AuthenticationFailed, Backoff, ConnectionLost, Recovered, connect
from serving.peer import unique, unique_user
from serving.processes import ServerProcess, free_port
from serving.proxy import Proxy, scenario
from serving.tokens import token


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
