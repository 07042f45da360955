"""The configuration of all workers of a node: it changes in all of them or in none.

Theory of operation. Each worker first prepares: it does everything that can fail, such as reading a certificate, and
holds the result. When all could, all are told to put it into force; when one could not, all forget it. A worker that is
gone meanwhile does not count: its successor begins with what is in force then. One that prepared and then does not put
it into force is killed, for the same reason.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from realtime_communication.config import LoadedConfig
from realtime_communication.config.changes import Merged, changed
from realtime_communication.errors import ConfigurationError, ConfigurationProblem, ControlClosed
from realtime_communication.observability import logs
from realtime_communication.server.live import reloaded, told_changes
from realtime_communication.server.place import packed
from realtime_communication.server.worker_handle import WorkerHandle

PREPARE_SECS: Final = 10.0
COMMIT_SECS: Final = 10.0

_log = logs.get_logger(__name__)


class NodeConfiguration:
    """`loaded` is in force; `workers` gives those that have begun with it. `lock` is held while it changes."""

    def __init__(self, loaded: LoadedConfig, workers: Callable[[], Sequence[WorkerHandle]]) -> None:
        self.loaded = loaded
        self.lock = asyncio.Lock()
        self._workers = workers
        self._versions = itertools.count(1)

    async def reload(self) -> bool:
        """Read the files again and put into force what can change. Never raises; False when all stays as it was."""

        async def apply(merged: Merged) -> None:
            await self._apply(merged, reload=True, told={})

        async with self.lock:
            worked = await reloaded(self.loaded, apply)
            for worker in self._workers():
                worker.channel.notify("note_reload", {"worked": worked, "at": time.time()})
        return worked

    async def change(self, changes: Mapping[str, object], who: str) -> None:
        """Put other values of some keys into force, by dotted path, until the next reload.

        Raises ConfigurationError, which names the keys at fault, with everything as it was.
        """
        async with self.lock:
            await self._apply(changed(self.loaded, changes, who), reload=False, told={"by": who})

    async def _apply(self, merged: Merged, *, reload: bool, told: Mapping[str, str]) -> None:
        workers, version = self._workers(), next(self._versions)
        params = {"version": version, "loaded": packed(merged.loaded), "reload": reload}
        answers = await _ask_all(workers, "prepare", params, PREPARE_SECS)
        problems = {
            problem: None
            for worker, answer in zip(workers, answers, strict=True)
            for problem in _problems(worker, answer)
        }
        if problems:
            for worker in workers:
                worker.channel.notify("abort", {"version": version})
            raise ConfigurationError(list(problems))
        with told_changes(merged, told):
            self._follow(merged.loaded)
        answers = await _ask_all(workers, "commit", {"version": version}, COMMIT_SECS)
        for worker, answer in zip(workers, answers, strict=True):
            if isinstance(answer, Exception) and not isinstance(answer, ControlClosed):
                _log.error("a worker did not put a configuration into force", worker=worker.slot, reason=str(answer))
                worker.kill("it did not put a configuration into force that it had prepared")

    def _follow(self, loaded: LoadedConfig) -> None:
        """Put into force what concerns this process."""
        before, self.loaded = self.loaded.config.logging, loaded
        if before.level != loaded.config.logging.level:
            logs.set_level(loaded.config.logging.level)
        if before.format != loaded.config.logging.format:
            logs.set_format(loaded.config.logging.format)


async def _ask_all(workers: Sequence[WorkerHandle], method: str, params: dict[str, Any], secs: float) -> list[Any]:
    """What each of them answers, or the exception that came of asking."""
    calls = (worker.channel.call(method, params, secs) for worker in workers)
    return await asyncio.gather(*calls, return_exceptions=True)


def _problems(worker: WorkerHandle, answer: Any) -> list[ConfigurationProblem]:
    if isinstance(answer, ControlClosed):
        return []
    if isinstance(answer, TimeoutError):
        return [ConfigurationProblem("", "", "", f"worker {worker.slot} did not answer within {PREPARE_SECS:g} s")]
    if isinstance(answer, Exception):
        return [ConfigurationProblem("", "", "", f"worker {worker.slot} could not prepare for it: {answer}")]
    return [ConfigurationProblem(*row) for row in answer]
