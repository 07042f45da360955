"""The TypeScript client's own tests, by Node.js: those of its parts, and those against running servers."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from serving.node_package import BUILT, PACKAGE, failures, run
from serving.processes import ServerProcess
from serving.rig import Rig

UNIT_TESTS = sorted(path.stem for path in (PACKAGE / "test" / "unit").glob("*.test.ts"))
SERVER_TESTS = sorted(path.stem for path in (PACKAGE / "test" / "server").glob("*.test.ts"))


def run_tests(files: list[str], folder: Path, **environment: str) -> None:
    """Run tests of node:test; what failed, each with what it said, is the failure of this one."""
    report = folder / "report.xml"
    problem = failed(
        "node",
        "--enable-source-maps",
        "--test",
        "--test-timeout=60000",
        "--test-reporter=junit",
        f"--test-reporter-destination={report}",
        *(str(BUILT / "test" / f"{file}.js") for file in files),
        environment=environment,
    )
    if problem is not None:
        told = list(failures(report)) if report.exists() else []
        pytest.fail("\n\n".join(told) or problem, pytrace=False)


def failed(*command: str, environment: Mapping[str, str]) -> str | None:
    """What a command said that failed, None when it did not."""
    try:
        run(*command, environment=environment)
    except AssertionError as error:
        return str(error)
    return None


def test_parts(package: Path, tmp_path: Path) -> None:
    run_tests([f"unit/{name}" for name in UNIT_TESTS], tmp_path)


@pytest.mark.parametrize("name", SERVER_TESTS)
def test_with_servers(package: Path, server: ServerProcess, tmp_path: Path, name: str) -> None:
    with Rig(server) as rig:
        run_tests([f"server/{name}"], tmp_path, RTC_TEST_RIG=rig.url)
