"""The configuration in force, and how it changes while the server runs.

A change is prepared by every part first, and made only when all of them can: a broken file, a certificate that does not
match or a key that is malformed leaves everything as it was. `Part` is one such part: given the new configuration it
returns the function that puts it into force, or raises ValueError, OSError or RealtimeError and has changed nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from realtime_communication.config import Config, LoadedConfig, load
from realtime_communication.config.changes import Difference, Merged, changed, merge
from realtime_communication.config.reference import as_object
from realtime_communication.errors import ConfigurationError, ConfigurationProblem, RealtimeError
from realtime_communication.observability.logs import get_logger

Part = Callable[[Config], Callable[[], None]]
MAX_PROBLEM_LINES = 50

_log = get_logger(__name__)


class LiveConfiguration:
    """Holds the configuration; `parts` are told of every change, in order.

    `last_reload` says whether the last reload worked, and when it was (seconds since the epoch).
    """

    def __init__(self, loaded: LoadedConfig, parts: Sequence[Part] = ()) -> None:
        self.loaded = loaded
        self.last_reload: tuple[bool, float] | None = None
        self._parts = list(parts)
        self._at_reload: list[Part] = []
        self._reloading = asyncio.Lock()

    @property
    def config(self) -> Config:
        """The values in force."""
        return self.loaded.config

    def add(self, part: Part, *, only_at_reload: bool = False) -> None:
        """Tell one more part of changes; `only_at_reload`: one that reads files, which an administrator's do not
        concern."""
        (self._at_reload if only_at_reload else self._parts).append(part)

    def effective(self) -> dict[str, object]:
        """Profile, files, and each key with its value and origin, secrets redacted."""
        return as_object(self.loaded)

    async def reload(self) -> bool:
        """Read the files again and put into force what can change. Never raises; False when all stays as it was."""
        async with self._reloading:
            worked = await self._reload()
        self.last_reload = (worked, time.time())
        return worked

    async def _reload(self) -> bool:
        current = self.loaded
        secret = current.config.auth.jwt_secret if current.secret_made else None
        try:
            # Files may lie on a disk that takes its time.
            fresh = await asyncio.to_thread(load, current.words, None, current.directory or Path(), made_secret=secret)
            merged = merge(self.loaded, fresh)
            self._apply(merged, [*self._parts, *self._at_reload])
        except ConfigurationError as error:
            for problem in error.problems[:MAX_PROBLEM_LINES]:
                _log.error("the configuration was not reloaded: all stays as it was", problem=str(problem))
            return False
        except Exception:
            _log.exception("the configuration was not reloaded: all stays as it was")
            return False
        for difference in merged.restart:
            _log.warning("this setting needs a restart", **_shown(difference))
        for warning in self.loaded.warnings:
            _log.warning(warning)
        _log.info("configuration reloaded", changed=len(merged.live), files=", ".join(map(str, self.loaded.files)))
        return True

    def change(self, changes: Mapping[str, object], who: str) -> None:
        """Put other values of some keys into force, by dotted path, until the next reload.

        All or nothing: raises ConfigurationError, which names the keys at fault, with everything as it was.
        """
        self.prepare(changes, who)()

    def prepare(self, changes: Mapping[str, object], who: str) -> Callable[[], None]:
        """As `change`, but calling what is returned puts the values into force; nothing else may change meanwhile."""
        return self._prepared(changed(self.loaded, changes, who), self._parts)

    def _apply(self, merged: Merged, parts: Sequence[Part]) -> None:
        self._prepared(merged, parts)()

    def _prepared(self, merged: Merged, parts: Sequence[Part]) -> Callable[[], None]:
        config = merged.loaded.config
        try:
            commits = [part(config) for part in parts]
        except ConfigurationError:
            raise
        except (ValueError, OSError, RealtimeError) as error:
            raise ConfigurationError([ConfigurationProblem("", "", "", str(error))]) from None

        def put_into_force() -> None:
            for difference in merged.live:  # before it is made: a level that is lowered must not hide this line
                _log.warning("setting changed", **_shown(difference))
            for commit in commits:
                commit()
            self.loaded = merged.loaded

        return put_into_force


def _shown(difference: Difference) -> dict[str, str]:
    return {"key": difference.path, "before": difference.before, "after": difference.after}
