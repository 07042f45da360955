"""The Autobahn suite against the real server's echo endpoint: every case, none failed, none non-strict."""

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from autobahn import client
from serving.processes import ServerProcess, free_port

# The cases of 9 send up to 16 MiB, whole and in fragments.
SETTINGS = {
    "websocket": {"max_frame_size": 67_108_864, "max_message_size": 67_108_864},
    "rate_limiting": {"enabled": False},
    "development": {"enable_debug_endpoints": True},
}
FINE = ("OK", "INFORMATIONAL")


@pytest.mark.timeout(2 * client.GROUP_SECS)
def test_every_case_is_strict(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    python = client.find_python()
    if python is None:
        pytest.fail(client.NO_PYTHON, pytrace=False)
    site = client.install(python)
    server = ServerProcess("product", free_port(), SETTINGS, None)
    try:
        server.start()
        results = client.run(python, site, f"ws://127.0.0.1:{server.port}/debug/echo", tmp_path / "reports")
        server.stop()
    finally:
        server.dispose()

    counts = Counter(result.behavior for result in results)
    closes = Counter(result.close for result in results)
    told = f"Autobahn, {len(results)} cases: {listing(counts)}; closing handshakes: {listing(closes)}"
    record_property("closing", told)
    bad = [result for result in results if result.behavior not in FINE or result.close not in FINE]
    kept = keep_reports(bad)
    assert not bad, "\n".join(f"{result.case}: {result.behavior}, close {result.close}: {kept}" for result in bad)
    assert len({result.case for result in results}) == client.CASES


def listing(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())


def keep_reports(bad: list[client.Result]) -> Path:
    """Copy the suite's reports of ``bad`` to a folder that outlives the test."""
    kept = client.CACHE / "reports"
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    for result in bad:
        for report in result.report.parent.glob(f"{result.report.stem}.*"):
            shutil.copy(report, kept)
    return kept
