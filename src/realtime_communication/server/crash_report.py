"""What is told of a worker that ended and should not have."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Final

import msgspec

from realtime_communication.errors import EXIT_CONFIG, EXIT_OS, EXIT_SOFTWARE
from realtime_communication.observability.logs import get_logger

MAX_OUTPUT_LINES: Final = 60  # of what it wrote last, kept for the report
MAX_OUTPUT: Final = 1000  # characters of them in the report

_STATUSES: Final = {
    EXIT_CONFIG: "its configuration cannot be used",
    EXIT_OS: "the machine refuses what is configured",
    EXIT_SOFTWARE: "a fault of its own",
}
_OUT_OF_MEMORY: Final = "if nobody sent it: the kernel ran out of memory, see its log (dmesg) and memory.events"
_COMPILED: Final = "a fault in compiled code; `output` has the stack of its thread"
_HINTS: Final = {
    signal.SIGKILL: _OUT_OF_MEMORY,
    signal.SIGSEGV: _COMPILED,
    signal.SIGBUS: _COMPILED,
    signal.SIGFPE: _COMPILED,
    signal.SIGILL: _COMPILED,
    signal.SIGABRT: _COMPILED,
    signal.SIGXCPU: "its limit of processor time is used up (ulimit -t)",
}

_log = get_logger(__name__)


class CrashReport(msgspec.Struct, frozen=True, kw_only=True):
    """One worker's end.

    `cause` says how, `hint` where to look further; `output` is what it wrote to standard error last, such as
    a traceback, its log not included; `restarts` counts those of this slot before.
    """

    slot: int
    pid: int | None
    incarnation: int
    cause: str
    hint: str
    uptime_secs: float
    restarts: int
    output: tuple[str, ...] = ()


def cause_of(status: int | None, said: Sequence[str] = (), put_down: str = "") -> tuple[str, str]:
    """The cause of an end, and a hint (empty when there is nothing to add).

    `status` is the process's as `subprocess` gives it, negative for a signal, None when it could not be started;
    `said` is what the worker told of its end itself, `put_down` why the supervisor killed it.
    """
    text = "; ".join(said)
    if put_down:
        return put_down, "`output` ends with the stacks of its threads, when it could still write them"
    if status is None:
        return f"it could not be started: {text}", ""
    if status < 0:
        try:
            number = signal.Signals(-status)
        except ValueError:
            return f"ended by signal {-status}", ""
        return f"ended by {number.name}", _HINTS.get(number, "")
    meaning = text or _STATUSES.get(status, "it ended by itself" if status == 0 else "")
    return f"exit status {status}" + (f": {meaning}" if meaning else ""), ""


def tell(report: CrashReport, restarted: Sequence[int]) -> None:
    """One line in the log; `restarted` are the slots that are started again because of it."""
    fields: dict[str, object] = {"cause": report.cause}
    if report.hint:
        fields["hint"] = report.hint
    _log.error(
        "a worker crashed",
        worker=report.slot,
        pid=report.pid,
        incarnation=report.incarnation,
        **fields,
        uptime_secs=round(report.uptime_secs, 3),
        restarts=report.restarts,
        restarted=", ".join(map(str, restarted)) or "none",
        output=excerpt(report.output),
    )


def excerpt(output: Sequence[str]) -> str:
    """What says most within MAX_OUTPUT characters: a fatal error and the stack of its thread, else the end."""
    fatal = next((line for line in output if line.startswith("Fatal Python error")), "")
    for index, line in enumerate(output):
        if line.startswith("Current thread"):
            return "\n".join([fatal, *output[index:]]).lstrip("\n")[:MAX_OUTPUT]
    return "\n".join(output)[-MAX_OUTPUT:]
