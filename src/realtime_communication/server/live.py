"""The configuration in force, and how it changes while the server runs.

A change is prepared by every part first, and made only when all of them can: a broken file, a certificate that does not
match or a key that is malformed leaves everything as it was. `Part` is one such part: given the new configuration it
returns the function that puts it into force, or raises ValueError, OSError or RealtimeError and has changed nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
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

        async def apply(merged: Merged) -> None:
            self._apply(merged, reload=True, told={})

        async with self._reloading:
            worked = await reloaded(self.loaded, apply)
        self.last_reload = (worked, time.time())
        return worked

    def change(self, changes: Mapping[str, object], who: str) -> None:
        """Put other values of some keys into force, by dotted path, until the next reload.

        `who` is told in the log with each. All or nothing: raises ConfigurationError, which names the keys at fault,
        with everything as it was.
        """
        self._apply(changed(self.loaded, changes, who), reload=False, told={"by": who})

    def prepare(self, loaded: LoadedConfig, *, reload: bool) -> Callable[[], None]:
        """Let every part prepare for `loaded`; calling what this returns puts it into force.

        `reload`: files may have changed too. Raises ConfigurationError, with everything as it was.
        """
        parts = [*self._parts, *self._at_reload] if reload else self._parts
        try:
            commits = [part(loaded.config) for part in parts]
        except ConfigurationError:
            raise
        except (ValueError, OSError, RealtimeError) as error:
            raise ConfigurationError([ConfigurationProblem("", "", "", str(error))]) from None

        def commit() -> None:
            for each in commits:
                each()
            self.loaded = loaded

        return commit

    def _apply(self, merged: Merged, *, reload: bool, told: Mapping[str, str]) -> None:
        commit = self.prepare(merged.loaded, reload=reload)
        with told_changes(merged, told):
            commit()


async def reloaded(current: LoadedConfig, apply: Callable[[Merged], Awaitable[None]]) -> bool:
    """Read again the files of `current`, let `apply` put into force what can change, and tell of it in the log.

    `apply` raises ConfigurationError when it cannot be, with everything as it was. Never raises; False when all stays
    as it was.
    """
    secret = current.config.auth.jwt_secret if current.secret_made else None
    try:
        # Files may lie on a disk that takes its time.
        fresh = await asyncio.to_thread(load, current.words, None, current.directory or Path(), made_secret=secret)
        merged = merge(current, fresh)
        await apply(merged)
    except ConfigurationError as error:
        for problem in error.problems[:MAX_PROBLEM_LINES]:
            _log.error("the configuration was not reloaded: all stays as it was", problem=str(problem))
        return False
    except Exception:
        _log.exception("the configuration was not reloaded: all stays as it was")
        return False
    for difference in merged.restart:
        _log.warning("this setting needs a restart", **_shown(difference))
    for warning in merged.loaded.warnings:
        _log.warning(warning)
    _log.info("configuration reloaded", changed=len(merged.live), files=", ".join(map(str, merged.loaded.files)))
    return True


@contextlib.contextmanager
def told_changes(merged: Merged, told: Mapping[str, str]) -> Iterator[None]:
    """Log what changes, each with the fields `told`, before or after it does: while warnings are logged at all.

    A level that is lowered must not hide these lines.
    """
    # Warnings, so that the level of the prod profile shows them.
    heard = _log.enabled_for(logging.WARNING)
    if not heard:
        yield
    for difference in merged.live:
        _log.warning("setting changed", **_shown(difference), **told)
    if heard:
        yield


def _shown(difference: Difference) -> dict[str, str]:
    return {"key": difference.path, "before": difference.before, "after": difference.after}
