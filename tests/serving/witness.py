"""Two well-behaved users whose messages must arrive whatever others do to the server."""

import contextlib
import threading
from types import TracebackType
from typing import Self

from serving.peer import Peer, unique, unique_user

INTERVAL_SECS = 0.02


class Witness:
    """Publishes all the time; ``check`` proves that everything so far arrived, in order and once.

    ``epochs_change``: the topic may begin a new epoch, if the subscriber is told so.
    """

    def __init__(self, url: str, *, epochs_change: bool = False) -> None:
        self._url = url
        self._epochs_change = epochs_change
        self._topic = unique("witness")
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._published = 0
        self._received = 0
        self._offset = 0
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
            message = self._subscriber.event()
            if self._epochs_change and message["type"] == "Lagged":
                assert (message["missed"], message["recovered"]) == (0, False), message
                self._offset = message["offset"]
                continue
            assert (message["type"], message["offset"]) == ("Message", self._offset + 1), message
            assert message["payload"] == self._received, message
            self._offset += 1
            self._received += 1

    def _run(self) -> None:
        while not self._stop.wait(INTERVAL_SECS) and self._failure is None:
            self._publish()

    def _publish(self) -> None:
        with self._lock:
            if self._failure is not None:
                return
            try:
                self._publisher.ok("Broadcast", topic=self._topic, payload=self._published)
                self._published += 1
            except BaseException as error:
                self._failure = error
