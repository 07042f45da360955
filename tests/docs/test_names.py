"""What the documentation names is there: keys of the configuration, their defaults, paths of the HTTP API."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from realtime_communication.config.catalogue import KEYS, SECTIONS, resolve
from serving.asking import ask
from serving.documents import documents
from serving.processes import ROOT, ServerProcess

NO_KEYS = {"circuit_breaker.state_change", "websocket.connect"}  # an event, a span
PAGES = documents()
BOUNDS = re.compile(r"^\| `([a-z_.]+)` \| ([\d,]+) (?:messages|s) \|", re.MULTILINE)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_keys_of_the_configuration(path: Path) -> None:
    named = set(re.findall(r"`([a-z_]+(?:\.[a-z_]+)+)(?: = [^`]*)?`", path.read_text()))
    tops = {key.partition(".")[0] for key in KEYS}
    unknown = {
        name
        for name in named
        if name.partition(".")[0] in tops and name not in SECTIONS and name not in NO_KEYS and resolve(name) is None
    }
    assert not unknown


def test_defaults_in_the_explanation_of_memory() -> None:
    stated = BOUNDS.findall((ROOT / "docs" / "explanation" / "memory.md").read_text())
    assert {key: int(number.replace(",", "")) for key, number in stated} == {
        key: KEYS[key].default for key, _ in stated
    }
    assert len(stated) == 2


def test_paths_of_the_http_api(server: ServerProcess) -> None:
    described = ask(server.port, "GET", "/openapi.json").json["paths"]
    known = {f"{method.upper()} {path}" for path, methods in described.items() for method in methods}
    for path in PAGES:
        named = set(re.findall(r"\b(?:GET|POST|PUT) /(?:api|auth|admin)/[\w/-]+(?![\w{…/*-])", path.read_text()))
        assert named <= known, path
