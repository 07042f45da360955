"""What holds for all tests: which come first, and what a test may say at the end of the run."""

import gc
from collections.abc import Generator
from typing import Any

import pytest

import model.profiles  # noqa: F401  (registers the profile that --hypothesis-profile may name)
from serving import leaks

LONGEST = "tests/autobahn/"
"""Takes minutes: begun last, it would keep one process busy after the others have done."""

CLOSING = "closing"
"""The name under which a test records a property (pytest's `record_property`) that is shown when all have run."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))  # stable: the others stay as they are


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """What was collected stays until the end: no collection of garbage, of which tests ask for many, walks it again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown() -> Generator[None, Any, Any]:
    """What a test's fixtures leave behind, those of a module or of the whole run with the last test that has them."""
    result = yield
    leaks.raise_found()
    return result


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for name, value in report.user_properties:
                if name == CLOSING:
                    terminalreporter.write_line(str(value))
