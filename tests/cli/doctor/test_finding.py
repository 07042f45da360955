"""Findings."""

import msgspec

from realtime_communication.cli.doctor.finding import Level, fail, ok, warn


def test_levels() -> None:
    found = [ok("a", "b"), warn("a", "b", "c"), fail("a", "b", "c")]
    assert [finding.level for finding in found] == list(Level)
    assert msgspec.to_builtins(found[1]) == {"level": "warn", "subject": "a", "text": "b", "mend": "c"}
