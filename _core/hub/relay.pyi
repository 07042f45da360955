"""The asking side of topics that are not at home here."""

from collections.abc import Callable
from typing import Any

class Later:
    settled: bool
    def then(self, callback: Callable[[Any, Exception | None], object]) -> None: ...
