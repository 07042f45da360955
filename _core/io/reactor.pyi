import asyncio
import socket
from collections.abc import Callable
from typing import Any

from realtime_communication._core.hub.driver import Driver
from realtime_communication._core.hub.hub import Hub

class Reactor(Driver):
    def __init__(
        self,
        hub: Hub,
        loop: asyncio.AbstractEventLoop,
        authenticate_upgrade: Callable[[list[tuple[bytes, bytes]], bytes, str, bool], Any] | None,
        authenticate_message: Callable[[str | None, str | None, str], Any] | None,
        hand_over: Callable[[int, bytes, str], None],
    ) -> None: ...
    def listen(self, sock: socket.socket) -> None: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
    def stop_accepting(self) -> None: ...
    def turn(self) -> None: ...
