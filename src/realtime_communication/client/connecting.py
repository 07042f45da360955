"""``connect``: a client from a URL, credentials and options.

::

    async with connect("ws://localhost:8081/ws", token=token) as client:
        subscription = await client.subscribe("room:42", history=20)
        await client.publish("room:42", {"text": "hello"})
        async for event in subscription:
            match event:
                case Message(payload=payload): ...
                case Recovered(recovered=False): ...   # reload the state
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping

from realtime_communication.client.backoff import Backoff
from realtime_communication.client.client import Client
from realtime_communication.client.credentials import Credentials, TokenProvider
from realtime_communication.client.delivery import Callback
from realtime_communication.client.encoding import Codec, Compression, Format
from realtime_communication.client.events import ConnectionEvent, InboxEvent
from realtime_communication.client.protocol import MAX_PENDING, MAX_PENDING_BYTES
from realtime_communication.client.transport import Connection, open_connection

__all__ = ["connect"]


def connect(
    url: str,
    *,
    token: str | None = None,
    token_provider: TokenProvider | None = None,
    api_key: str | None = None,
    encoding: Format = "json",
    compression: Compression | None = None,
    request_timeout: float = 10.0,
    open_timeout: float = 10.0,
    reconnect: bool = True,
    retry_open: bool = True,
    backoff: Backoff | None = None,
    queue_size: int = 1000,
    recover_inbox: bool = True,
    on_direct: Callback[InboxEvent] | None = None,
    on_event: Callback[ConnectionEvent] | None = None,
    keepalive_interval: float = 20.0,
    keepalive_timeout: float = 10.0,
    max_message_size: int = 16 * 1024 * 1024,
    max_pending: int = MAX_PENDING,
    max_pending_bytes: int = MAX_PENDING_BYTES,
    headers: Mapping[str, str] | None = None,
    ssl_context: ssl.SSLContext | None = None,
) -> Client:
    """A client for ``url`` (``ws://host:port/ws``); ``async with`` opens and closes it.

    Args:
        token: access token, sent in the ``Authorization`` header. It cannot be renewed: when it is refused, it is over.
        token_provider: asked for a token at the start, when the token is due for renewal and when it was refused.
        api_key: sent in the ``X-API-Key`` header, instead of a token.
        encoding: ``json`` or ``msgpack``; the latter also carries ``bytes``.
        compression: ``zstd``, ``lz4`` or ``gzip`` for messages from 1 KiB, both ways, where the server supports it.
        request_timeout: seconds a request may take, waiting for a connection included.
        open_timeout: seconds for each attempt to connect, and for opening as a whole.
        reconnect: False: the first lost connection is the end.
        retry_open: False: the first attempt that fails is the end; a connection that stood is opened again as ever.
        queue_size: events that may wait in each queue; one more pushes out the oldest and shows as ``Lagged``.
        recover_inbox: read the own inbox's history after a reconnect (needs the ``read`` permission).
        on_direct: gets direct messages; otherwise iterate over ``Client.direct_messages``.
        on_event: gets what happens to the connection; otherwise iterate over ``Client.events``.
        keepalive_interval, keepalive_timeout: seconds of silence before a ping, and for its pong.
        max_message_size: bytes of one message of the server, decompressed.
        max_pending, max_pending_bytes: requests that may wait for their answers, and for a connection; one more raises
            QueueFull.
        headers: further HTTP headers of the upgrade.

    Raises:
        ValueError: contradictory arguments.
    """
    if sum(credential is not None for credential in (token, token_provider, api_key)) > 1:
        raise ValueError("give one of token, token_provider and api_key")
    if max_pending < 1 or max_pending_bytes < 1:
        raise ValueError("max_pending and max_pending_bytes are at least 1")
    credentials = Credentials(token, token_provider, api_key, open_timeout)

    async def dial(factory: Callable[[], Connection], credential_headers: dict[str, str]) -> Connection:
        return await open_connection(
            url,
            factory,
            headers={**(headers or {}), **credential_headers},
            subprotocols=Codec.subprotocols(encoding, compression),
            timeout=open_timeout,
            keepalive_interval=keepalive_interval,
            keepalive_timeout=keepalive_timeout,
            max_message_size=max_message_size,
            ssl_context=ssl_context,
        )

    return Client(
        url,
        credentials=credentials,
        dial=dial,
        format=encoding,
        request_timeout=request_timeout,
        open_timeout=open_timeout,
        reconnect=reconnect,
        retry_open=retry_open,
        backoff=backoff or Backoff(),
        queue_size=queue_size,
        recover_inbox=recover_inbox,
        on_direct=on_direct,
        on_event=on_event,
        max_message_size=max_message_size,
        max_pending=max_pending,
        max_pending_bytes=max_pending_bytes,
    )
