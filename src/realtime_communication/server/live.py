"""The configuration in force, and how it changes while the server runs.

A change is prepared by every part first, and made only when all of them can: a broken file, a certificate that does not
match or a key that is malformed leaves everything as it was. `Part` is one such part: given the new configuration it
returns the function that puts it into force, or raises ValueError or OSError and has changed nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from realtime_communication.config import Config, LoadedConfig, load
from realtime_communication.config.changes import Difference, Merged, changed, merge
from realtime_communication.config.reference import as_object
from realtime_communication.errors import ConfigurationError, ConfigurationProblem
from realtime_communication.observability.logs import get_logger

Part = Callable[[Config], Callable[[], None]]

_log = get_logger(__name__)


class LiveConfiguration:
    """Holds the configuration; `parts` are told of every change, in order.

    `problems` counts the reloads that failed since the last one that worked.
    """

    def __init__(self, loaded: LoadedConfig, parts: Sequence[Part] = ()) -> None:
        self.loaded = loaded
        self.problems = 0
        self.reloads = 0
        self._parts = list(parts)

    @property
    def config(self) -> Config:
        """The values in force."""
        return self.loaded.config

    def add(self, part: Part) -> None:
        """Tell one more part of changes."""
        self._parts.append(part)

    def effective(self) -> dict[str, object]:
        """Profile, files, and each key with its value and origin, secrets redacted."""
        return as_object(self.loaded)

    def reload(self) -> bool:
        """Read the files again and put into force what can change. Never raises; False when all stays as it was."""
        current = self.loaded
        secret = current.config.auth.jwt_secret if current.secret_made else None
        try:
            fresh = load(current.words, None, current.directory or Path(), made_secret=secret)
            merged = merge(current, fresh)
            self._apply(merged)
        except ConfigurationError as error:
            self.problems += 1
            for problem in error.problems:
                _log.error("the configuration was not reloaded: all stays as it was", problem=str(problem))
            return False
        self.problems = 0
        self.reloads += 1
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
        self._apply(changed(self.loaded, changes, who))

    def _apply(self, merged: Merged) -> None:
        config = merged.loaded.config
        try:
            commits = [part(config) for part in self._parts]
        except (ValueError, OSError) as error:
            raise ConfigurationError([ConfigurationProblem("", "", "", str(error))]) from None
        for difference in merged.live:  # before it is made: a level that is lowered must not hide this line
            _log.warning("setting changed", **_shown(difference))
        for commit in commits:
            commit()
        self.loaded = merged.loaded


def _shown(difference: Difference) -> dict[str, str]:
    return {"key": difference.path, "before": difference.before, "after": difference.after}
