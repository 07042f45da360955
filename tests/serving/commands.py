"""The command line as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serving.processes import ServerProcess
from serving.tokens import token

SCRIPT = Path(sys.executable).with_name("rtc")
COMMAND_SECS = 60.0
_OWN = ("RTC_URL", "RTC_TOKEN", "RTC_API_KEY", "JWT_SECRET", "PORT", "COLUMNS")


def environment(**more: str) -> dict[str, str]:
    """This process's variables without those that the commands read, and these."""
    return {name: value for name, value in os.environ.items() if name not in _OWN} | more


def as_user(server: ServerProcess, user: str = "alice", **claims: Any) -> dict[str, str]:
    """The variables that lead a command to `server`, as `user`."""
    return environment(RTC_URL=server.url, RTC_TOKEN=token(user, **claims))


def rtc(
    *words: str, env: Mapping[str, str] | None = None, stdin: str | bytes | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs `rtc` to its end. A traceback fails the test."""
    data = stdin.encode() if isinstance(stdin, str) else stdin
    done = subprocess.run(
        [SCRIPT, *words],
        env=dict(env) if env is not None else environment(),
        input=data if data is not None else b"",
        cwd=cwd,
        capture_output=True,
        timeout=COMMAND_SECS,
        check=False,
    )
    made = subprocess.CompletedProcess(words, done.returncode, done.stdout.decode(), done.stderr.decode())
    assert "Traceback" not in made.stderr, made.stderr
    return made


def started(*words: str, env: Mapping[str, str], **options: Any) -> subprocess.Popen[str]:
    """`rtc` as a running process with pipes. Use it in a ``with``."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([SCRIPT, *words], env=dict(env), text=True, **pipes | options)


def complaint(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that a command that failed says."""
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: "), line
    return line.removeprefix("Error: ")
