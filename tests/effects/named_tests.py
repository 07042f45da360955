"""Tests that a table names by their place, `folder/file.py::Class::test`, and rows that two such tables share."""

import ast
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]


def assert_exists(place: str) -> None:
    """There is a test of that name in that file."""
    path, *names = place.split("::")
    body = ast.parse((TESTS / path).read_text()).body
    for name in names:
        found = [node for node in body if getattr(node, "name", None) == name]
        assert found, f"{path} has no {name}"
        body = getattr(found[0], "body", [])


def each_bucket(path: str) -> dict[str, str]:
    """The rows of the limits of each scope, which the class `TestEachBucket` of a file tests."""
    return {
        f"rate_limiting.{scope}.{key}": f"{path}::TestEachBucket::{test}"
        for scope in ("connection", "user", "global")
        for key, test in (
            ("requests_per_second", "test_rate"),
            ("burst_size", "test_burst"),
            ("window_size_secs", "test_window"),
        )
    }
