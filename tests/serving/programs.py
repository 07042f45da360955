"""Commands of other programs, found and run to their end."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

COMMAND_SECS = 60.0


def found(command: str) -> str:
    """Its path, among the commands of this Python and of administrators too."""
    folders = (str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/sbin", "/sbin")
    path = shutil.which(command, path=os.pathsep.join(folders))
    assert path is not None, f"no {command} here; ci/packages and ci/build test install it"
    return path


def output_of(
    command: str | Path,
    *arguments: str | Path,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
    status: int = 0,
) -> str:
    """All it writes; it has to end with that status. A name is looked for, a path is taken as it is."""
    done = subprocess.run(
        [found(command) if isinstance(command, str) else command, *arguments],
        check=False,
        env=environment,
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=COMMAND_SECS,
    )
    assert done.returncode == status, f"{command} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout
