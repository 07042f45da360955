"""HTTP connections whose peers have not authenticated: how many there are, how many of each site, which are the oldest.

The counterpart of `_core/hub/newcomers.pxd` for what the data plane has handed over. Rules: no I/O and no clock. A
connection is a newcomer until one of its requests has brought good credentials, or it is gone. Who means to
authenticate does so with his first request, and who only asks for the health of the server is soon gone; so the oldest
one makes room, of all or of its site.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Generic, TypeVar

Connection = TypeVar("Connection")

OF_ADDRESS: Final = "websocket.max_unauthenticated_per_address is reached"
OF_ALL: Final = "websocket.max_unauthenticated is reached"


class Newcomers(Generic[Connection]):
    """Calls `crowd_out` with a connection that has to end, counted out already, and why. It may not raise."""

    def __init__(self, crowd_out: Callable[[Connection, str], None]) -> None:
        self._crowd_out = crowd_out
        self._all: dict[Connection, str | None] = {}  # with its site, in the order of arrival
        self._sites: dict[str, dict[Connection, None]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def add(self, connection: Connection, site: str | None, most: int, most_of_site: int) -> None:
        """Count a connection in, of which there may be `most`, and `most_of_site` of its site; None: it has none."""
        self._all[connection] = site
        if site is not None:
            line = self._sites.setdefault(site, {})
            line[connection] = None
            if len(line) > most_of_site:
                self._end(next(iter(line)), OF_ADDRESS)
        if len(self._all) > most:
            self.make_room(OF_ALL)

    def remove(self, connection: Connection) -> None:
        """Count it out; nothing for one that is no newcomer."""
        site = self._all.pop(connection, None)
        if site is None:
            return
        line = self._sites[site]
        del line[connection]
        if not line:
            del self._sites[site]

    def make_room(self, reason: str) -> bool:
        """End the oldest. False when there is none."""
        if not self._all:
            return False
        self._end(next(iter(self._all)), reason)
        return True

    def _end(self, connection: Connection, reason: str) -> None:
        self.remove(connection)
        self._crowd_out(connection, reason)
