"""Completion, by the shells themselves."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from serving.commands import SCRIPT, environment, rtc


def completed(line: str) -> set[str]:
    """What bash offers at the end of a line."""
    words = line.split(" ")
    script = f"""
eval "$(rtc completion bash)"
COMP_WORDS=({" ".join(f"'{word}'" for word in words)})
COMP_CWORD={len(words) - 1}
COMP_LINE='{line}'
COMP_POINT={len(line)}
function=$(complete -p rtc | sed 's/.*-F \\([^ ]*\\).*/\\1/')
$function rtc "${{COMP_WORDS[COMP_CWORD]}}"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        env=environment(PATH=f"{SCRIPT.parent}:{os.environ['PATH']}"),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == ""
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("rtc ", {"serve", "pub", "sub", "keys", "completion"}),
        ("rtc comp", {"completion"}),
        ("rtc keys ", {"secret", "pair", "api-key"}),
        ("rtc sub --his", {"--history"}),
        ("rtc completion ", {"bash", "zsh", "fish"}),
        ("rtc serve --max-conn", {"--max-connections"}),
    ],
)
def test_bash(line: str, offered: set[str]) -> None:
    found = completed(line)
    assert offered <= found
    assert not any("Traceback" in word for word in found)


@pytest.mark.parametrize(("shell", "word"), [("bash", "complete"), ("zsh", "compdef"), ("fish", "complete")])
def test_scripts(shell: str, word: str, tmp_path: Path) -> None:
    done = rtc("completion", shell)
    assert done.returncode == 0 and word in done.stdout and "_RTC_COMPLETE" in done.stdout


def test_another_shell() -> None:
    done = rtc("completion", "tcsh")
    assert done.returncode == 2 and "bash" in done.stderr
