"""The asking side of topics that are not at home here."""

from collections.abc import Callable
from typing import Any

class Later:
    settled: bool
    def settle(self, value: Any, error: Exception | None) -> None: ...
    def then(self, callback: Callable[[Any, Exception | None], object]) -> None: ...
