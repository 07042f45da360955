"""The compiled load generator, and servers of the tests' own for it."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from benchmarks import prepare
from benchmarks.generator import Generator


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the freshly built load generator and bare C loop."""
    folder = tmp_path_factory.mktemp("compiled")
    prepare.compiled_parts(folder)
    return folder


@pytest.fixture(scope="session")
def generator(compiled: Path) -> Generator:
    return Generator(compiled / "load")


@contextmanager
def started(script: str, *arguments: str) -> Iterator[int]:
    command = [sys.executable, str(Path(__file__).with_name(script)), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.kill()


@pytest.fixture
def faulty() -> Callable[..., AbstractContextManager[int]]:
    """Starts a script of this folder with arguments, as long as the context lasts; gives the port it prints."""
    return started
