from collections.abc import Callable
from typing import Any

from realtime_communication._core.base.shared import Shared
from realtime_communication._core.hub.control import Control
from realtime_communication._core.hub.outcome import RequestError as RequestError

class Hub(Control):
    def __init__(self, node_id: str) -> None: ...
    def configure(self, settings: object) -> None: ...
    def use_shared(self, shared: Shared, slot: int) -> None: ...
    def set_callbacks(
        self,
        authenticate_upgrade: Callable[[list[tuple[bytes, bytes]], bytes, str, bool], Any] | None,
        authenticate_message: Callable[[str | None, str | None, str], Any] | None,
    ) -> None: ...
    def set_echo_callback(
        self, admit_echo: Callable[[list[tuple[bytes, bytes]], bytes, str, bool], Any] | None
    ) -> None: ...
    def report_faults(self, told: Callable[[str, int, str, int], None] | None) -> None: ...
