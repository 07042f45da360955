import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any

from realtime_communication._core.hub.hub import Hub
from realtime_communication._core.io.bus import Bus
from realtime_communication._core.io.socket_driver import SocketDriver
from realtime_communication._core.io.tls_connection import TlsStream

class Reactor(SocketDriver):
    def __init__(
        self,
        hub: Hub,
        loop: asyncio.AbstractEventLoop,
        authenticate_upgrade: Callable[[list[tuple[bytes, bytes]], bytes, str, bool], Any] | None,
        authenticate_message: Callable[[str | None, str | None, str], Any] | None,
        hand_over: Callable[[int, bytes, str, TlsStream | None], None],
        on_tls_failure: Callable[[str, str], None] | None = None,
    ) -> None: ...
    def listen(self, sock: socket.socket, context: ssl.SSLContext | None = None) -> None: ...
    def set_context(self, context: ssl.SSLContext) -> None: ...
    def attach_bus(self, bus: Bus) -> None: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
    def stop_accepting(self) -> None: ...
    def turn(self) -> None: ...
