"""SECURITY.md: what it names is there."""

import re

import pytest

from serving.processes import ROOT

TEXT = (ROOT / "SECURITY.md").read_text()
NAMED = sorted(set(re.findall(r"`([^`\s]+)`", TEXT)))
MODULES = [name for name in NAMED if name.endswith(".py")]
SECTIONS = ("authorization", "performance", "rate_limiting", "security", "websocket")
SETTINGS = [name for name in NAMED if re.fullmatch(rf"({'|'.join(SECTIONS)})(\.[a-z_]+)+", name)]
REFERENCE = (ROOT / "docs" / "configuration.md").read_text()


def test_it_names_much():
    assert len(MODULES) > 40 and len(SETTINGS) > 10


@pytest.mark.parametrize("name", MODULES)
def test_modules_and_tests_are_there(name):
    folders = ("src/realtime_communication", "tests")
    assert [folder for folder in folders if (ROOT / folder / name).exists()], name


@pytest.mark.parametrize("name", re.findall(r"`(_core/[a-z0-9_/]+)`", TEXT))
def test_modules_of_the_data_plane_are_there(name):
    assert (ROOT / f"{name}.pyx").exists()


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_are_in_the_reference(name):
    section, _, key = name.rpartition(".")
    if f"## `[{name}]`" in REFERENCE:
        return
    _, found, after = REFERENCE.partition(f"## `[{section}]`")
    assert found and f"\n| `{key}`" in after.partition("\n## ")[0], name


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)", TEXT):
        assert (ROOT / target).exists(), target
