"""What Python sees of the shared buckets; the data plane uses them through `shared_limits.pxd`."""

from realtime_communication._core.base.shared import Shared

class SharedBucket:
    def __init__(
        self,
        shared: Shared,
        user: bytes | None,
        tokens_per_second: float,
        burst: int,
        refill_interval_ms: int,
        precision: float,
        idle_ms: int = 600_000,
    ) -> None: ...
    def change_rate(self, tokens_per_second: float, burst: int, refill_interval_ms: int, precision: float) -> None: ...
    def take(self, now_ms: int) -> int: ...
    def give_back(self) -> None: ...
    def remaining(self, now_ms: int) -> int: ...
    def full_in_ms(self, now_ms: int) -> int: ...
