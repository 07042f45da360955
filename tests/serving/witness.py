"""Two well-behaved users whose messages must arrive whatever others do to the server."""

import contextlib
import threading
import time
from types import TracebackType
from typing import Any, Self

from serving.peer import Peer, unique, unique_user

INTERVAL_SECS = 0.02


class Witness:
    """Publishes all the time; ``check`` proves that everything so far arrived, in order and once.

    ``store_fails``: what could not be stored is published again, and the topic may begin a new epoch if the
    subscriber is told so; it may lack what was on its way then.
    """

    def __init__(self, url: str, *, store_fails: bool = False) -> None:
        self._url = url
        self._store_fails = store_fails
        self._topic = unique("witness")
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._published = 0
        self._received = 0
        self._offset = 0
        self._lagged = False
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
            if self._store_fails and message["type"] == "Lagged":
                assert (message["missed"], message["recovered"]) == (0, False), message
                self._offset, self._lagged = message["offset"], True
                continue
            assert (message["type"], message["offset"]) == ("Message", self._offset + 1), message
            if self._lagged and message["payload"] > self._received:
                self._received = message["payload"]
            assert message["payload"] == self._received, message
            self._lagged = False
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
                reply = self._broadcast()
                while self._store_fails and reply.get("code") in ("unavailable", "internal"):
                    time.sleep(INTERVAL_SECS)
                    reply = self._broadcast()
                assert reply["type"] == "Ack", reply
                self._published += 1
            except BaseException as error:
                self._failure = error

    def _broadcast(self) -> dict[str, Any]:
        number = self._published
        return self._publisher.request(
            "Broadcast", topic=self._topic, payload=number, idempotency_key=f"number {number}"
        )
