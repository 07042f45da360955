"""The bill of materials: by CycloneDX's own validator, and beside what is installed."""

import json
import subprocess
import sys
from importlib.metadata import requires, version

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from serving.processes import ROOT

SCRIPT = ROOT / "ci" / "sbom"


def run(*arguments):
    return subprocess.run([sys.executable, SCRIPT, *arguments], check=False, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def text():
    done = run()
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def bill(text):
    return json.loads(text)


def test_it_is_cyclonedx(text):
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None


def test_what_the_wheel_asks_for_is_in_it(bill):
    found = {each["name"]: each["version"] for each in bill["components"]}
    for requirement in map(Requirement, requires("realtime_communication")):
        if requirement.marker is None:
            assert found[canonicalize_name(requirement.name)] == version(requirement.name)
    assert "cryptography" in found, "by PyJWT's extra"
    assert "pytest" not in found and "opentelemetry-sdk" not in found


def test_what_is_copied_into_the_wheel_is_in_it(bill):
    (chart,) = [each for each in bill["components"] if each["purl"].startswith("pkg:npm/")]
    assert (chart["name"], chart["licenses"]) == ("uplot", [{"license": {"id": "MIT"}}])
    assert (
        f"uPlot](https://github.com/leeoniya/uPlot) {chart['version']} (MIT)"
        in (ROOT / "docs" / "dashboard.md").read_text()
    )


def test_each_dependency_is_a_component_with_a_licence(bill):
    main = bill["metadata"]["component"]
    known = {each["bom-ref"] for each in (*bill["components"], main)}
    assert {each["ref"] for each in bill["dependencies"]} == known
    assert {onward for each in bill["dependencies"] for onward in each["dependsOn"]} == known - {main["bom-ref"]}
    assert [each["name"] for each in bill["components"] if "licenses" not in each] == []


def test_the_same_input_gives_the_same_bytes_in_a_file_too(text, tmp_path):
    assert run(str(tmp_path / "bill.json")).returncode == 0
    assert (tmp_path / "bill.json").read_text() == text


def test_an_extra_adds_what_it_needs(bill):
    done = run("--extra=tracing")
    names = {each["name"] for each in json.loads(done.stdout)["components"]}
    assert names > {each["name"] for each in bill["components"]} and "opentelemetry-sdk" in names


def test_other_arguments_are_misuse():
    assert run("--everything").returncode == 64
