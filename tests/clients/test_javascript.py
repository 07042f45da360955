"""The TypeScript client's own tests, by Node.js: those of its parts, and those against running servers."""

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
    try:
        run(
            "node",
            "--enable-source-maps",
            "--test",
            "--test-timeout=60000",
            "--test-reporter=junit",
            f"--test-reporter-destination={report}",
            *(str(BUILT / "test" / f"{file}.js") for file in files),
            environment=environment,
        )
    except AssertionError as error:
        failed = list(failures(report)) if report.exists() else []
        pytest.fail("\n\n".join(failed) or str(error), pytrace=False)


def test_parts(package: Path, tmp_path: Path) -> None:
    run_tests([f"unit/{name}" for name in UNIT_TESTS], tmp_path)


@pytest.mark.parametrize("name", SERVER_TESTS)
def test_with_servers(package: Path, server: ServerProcess, tmp_path: Path, name: str) -> None:
    with Rig(server) as rig:
        run_tests([f"server/{name}"], tmp_path, RTC_TEST_RIG=rig.url)
