"""The pinned versions that ci/build installs, beside pyproject.toml."""

import importlib.machinery
import importlib.util
import json
import shutil
import sys
from pathlib import Path

import pytest

from serving.processes import ROOT

SCRIPT = ROOT / "ci" / "lock"


@pytest.fixture(scope="module")
def lock():
    loader = importlib.machinery.SourceFileLoader("ci_lock", str(SCRIPT))
    spec = importlib.util.spec_from_loader("ci_lock", loader)
    module = importlib.util.module_from_spec(spec)
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return module


@pytest.fixture
def copy(tmp_path):
    (tmp_path / "ci").mkdir()
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "ci" / "requirements", tmp_path / "ci" / "requirements")
    return tmp_path


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


class TestFiles:
    def test_they_fit_what_pyproject_asks_for(self, lock):
        assert lock.misfits(ROOT) == []

    def test_all_of_them_are_known(self, lock):
        names = {path.name for path in (ROOT / "ci" / "requirements").iterdir()}
        assert names == {f"{use}.txt" for use in (*lock.USES, "node")}

    def test_none_says_where_packages_come_from(self):
        for path in (ROOT / "ci" / "requirements").iterdir():
            assert "://" not in path.read_text() and "--index" not in path.read_text()

    def test_what_the_scripts_install_is_what_is_pinned(self, lock):
        assert f"ci/install node '{lock.NODE}'" in (ROOT / "ci" / "node").read_text()
        tools = " ".join(lock.BUILDING)
        assert f'ci/install build "${{build_tools[@]}}" {tools}\n' in (ROOT / "ci" / "build").read_text()


class TestMisfits:
    def test_a_dependency_that_is_not_pinned(self, lock, copy):
        change(copy / "pyproject.toml", '    "lz4>=4.3",\n', '    "lz4>=4.3",\n    "nobody-pinned>=1",\n')
        assert "build.txt: nobody-pinned>=1 is missing" in lock.misfits(copy)

    def test_a_version_that_is_not_allowed_any_more(self, lock, copy):
        change(copy / "pyproject.toml", '"ruff>=0.8"', '"ruff>=99"')
        (wrong,) = lock.misfits(copy)
        assert wrong.startswith("dev.txt: ruff>=99 does not allow ")

    def test_two_versions_of_one_package(self, lock, copy):
        path = copy / "ci" / "requirements" / "docs.txt"
        version = lock.pinned(path.read_text())["click"]
        change(path, f"click=={version}", "click==8.999")
        assert any(line.endswith("in another file") and "click" in line for line in lock.misfits(copy))

    @pytest.mark.parametrize(
        "line", ["click>=8.2", "click==8.3", "--extra-index x"], ids=["range", "no hash", "option"]
    )
    def test_a_line_that_pins_nothing(self, lock, copy, line):
        path = copy / "ci" / "requirements" / "node.txt"
        path.write_text(path.read_text() + line + "\n")
        count = len(path.read_text().splitlines())
        assert lock.misfits(copy) == [f"node.txt: line {count}: not a version with its hashes"]


class TestHashes:
    def wheel(self, tag, digit):
        return {"url": f"x/example-1.0-{tag}.whl", "hashes": {"sha256": digit * 64}}

    def package(self, *wheels):
        return {"name": "example", "version": "1.0", "wheels": list(wheels)}

    def test_wheels_of_other_systems_are_left_out(self, lock):
        package = self.package(
            self.wheel("cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64", "1"),
            self.wheel("cp39-abi3-manylinux_2_28_x86_64", "2"),
            self.wheel("py3-none-any", "3"),
            self.wheel("cp312-cp312-manylinux_2_17_x86_64", "4"),
            self.wheel("cp311-cp311-manylinux_2_17_aarch64", "5"),
            self.wheel("cp311-cp311-musllinux_1_2_x86_64", "6"),
        )
        assert lock.hashes(package, lock.tags()) == ["1" * 64, "2" * 64, "3" * 64]

    def test_a_package_without_a_wheel_is_an_error(self, lock):
        pylock = '[[packages]]\nname = "example"\nversion = "1.0"\n'
        with pytest.raises(ValueError, match=r"example 1\.0 has no wheel"):
            lock.lines_of(pylock)

    def test_what_is_written_is_read_again(self, lock):
        wheels = json.dumps([self.wheel("py3-none-any", "a")["hashes"]["sha256"]])
        pylock = f"""[[packages]]
name = "example"
version = "1.0"
wheels = [{{url = "x/example-1.0-py3-none-any.whl", hashes = {{sha256 = {wheels[1:-1]}}}}}]
"""
        assert lock.pinned("# a head\n" + lock.lines_of(pylock)) == {"example": "1.0"}
