"""A clock that stands still until the test moves it."""


class HandClock:
    """Seconds, as a test sets `now`."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
