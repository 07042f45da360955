"""Two well-behaved users whose messages must arrive whatever others do to the server."""

import contextlib
import threading
import time
from types import TracebackType
from typing import Any, Self

from serving.peer import Peer, unique, unique_user

INTERVAL_SECS = 0.02
HELD_UP_SECS = 5.0  # at most, whatever is done to the server
STORE_SECS = 10.0  # for what the store holds up


class Witness:
    """Publishes all the time; ``check`` proves that everything so far arrived, in order and once.

    With ``store`` there is a store behind the server that comes and goes: its epochs may end, told by `Lagged`, and
    what is refused as unavailable is published again under its key.
    """

    def __init__(self, url: str, *, store: bool = False) -> None:
        self._url = url
        self._store = store
        self._topic = unique("witness")
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._published = 0
        self._received = 0
        self._told = False  # that something may be missing
        self._failure: BaseException | None = None
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._publisher = self._open.enter_context(Peer(self._url, unique_user("publisher")))
        self._subscriber = self._open.enter_context(Peer(self._url, unique_user("subscriber")))
        self._subscriber.ok("Subscribe", topic=self._topic)
        self._thread = threading.Thread(target=self._run, name="witness")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._open.close()

    def check(self) -> None:
        """Raises AssertionError when a message is missing, doubled or out of order."""
        self._publish()
        assert self._failure is None, f"the publisher was hurt: {self._failure!r}"
        with self._lock:
            published = self._published
        while self._received < published:
            message = self._subscriber.event(STORE_SECS if self._store else HELD_UP_SECS)
            if self._store:
                self._take(message)
                continue
            assert (message["type"], message["offset"]) == ("Message", self._received + 1), message
            self._received += 1

    def _take(self, message: dict[str, Any]) -> None:
        """What comes in an epoch after the other: nothing is missing that nobody told of."""
        if message["type"] == "Lagged":
            assert not message["recovered"], message
            self._told = True
            return
        number = message["payload"]
        assert number <= self._received or self._told, f"{number} after {self._received}, nobody told"
        self._received, self._told = max(self._received, number + 1), False

    def _run(self) -> None:
        while not self._stop.wait(INTERVAL_SECS) and self._failure is None:
            self._publish()

    def _publish(self) -> None:
        with self._lock:
            if self._failure is not None:
                return
            try:
                self._publish_one()
                self._published += 1
            except BaseException as error:
                self._failure = error

    def _publish_one(self) -> None:
        number = self._published
        fields = {"topic": self._topic, "payload": number, "idempotency_key": str(number)}
        while (reply := self._publisher.request("Broadcast", **fields))["type"] == "Error":
            assert self._store and reply["code"] == "unavailable", reply
            time.sleep(INTERVAL_SECS)
