"""What is made for the peers that a machine may do without."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import prepare


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, ...]]:
    """Every command that would have been run, in an empty cache."""
    seen: list[tuple[str, ...]] = []
    monkeypatch.setattr(prepare, "run", lambda *command, **_: seen.append(command))
    monkeypatch.setattr(prepare, "CACHE", tmp_path)
    monkeypatch.setattr(prepare, "NODE_MODULES", tmp_path / "node" / "node_modules")
    monkeypatch.setattr(prepare, "CENTRIFUGO", tmp_path / "go" / "centrifugo")
    monkeypatch.setattr(prepare, "nats_server", lambda: str(tmp_path / "go" / "nats-server"))
    return seen


def only(*there: str) -> Callable[[str], str | None]:
    """A `which` that knows these commands."""
    return lambda command: f"/usr/bin/{command}" if command in there else None


@pytest.mark.parametrize("problem", [OSError("no such file"), subprocess.CalledProcessError(1, "npm")])
def test_a_peer_that_cannot_be_made_stops_nothing(problem: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> None:
        raise problem

    prepare.optional(broken)
    assert capsys.readouterr().err == f"broken: {problem}\n"


def test_without_npm_and_go_nothing_is_run(commands: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare.shutil, "which", only())
    for peer in (prepare.node_packages, prepare.centrifugo, prepare.nats):
        peer()
    assert commands == []


def test_node_packages_are_installed_when_their_list_has_changed(
    commands: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare.shutil, "which", only("npm"))
    prepare.node_packages()
    assert [command[:2] for command in commands] == [("npm", "install")]
    assert (prepare.NODE_MODULES.parent / "package.json").read_bytes() == prepare.PACKAGES.read_bytes()
    prepare.NODE_MODULES.mkdir()
    prepare.node_packages()
    assert len(commands) == 1
    (prepare.CACHE / "node.sha256").write_text("of another list")
    prepare.node_packages()
    assert len(commands) == 2


def test_centrifugo_is_built_once(commands: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare.shutil, "which", only("go"))
    prepare.centrifugo()
    assert commands == [("go", "install", prepare.CENTRIFUGO_MODULE)]
    prepare.CENTRIFUGO.parent.mkdir()
    prepare.CENTRIFUGO.touch()
    prepare.centrifugo()
    assert len(commands) == 1


def test_nats_is_debians_package_where_there_is_one(
    commands: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(prepare.shutil, "which", only("apt-get", "go"))
    (tmp_path / "debian").mkdir()
    package = tmp_path / "debian" / "nats-server_2.9.10_amd64.deb"
    package.touch()
    prepare.nats()
    assert [command[0] for command in commands] == ["apt-get", "dpkg-deb"]
    assert str(package) in commands[1]


def test_nats_is_built_where_debian_has_none(commands: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*command: str, **_: object) -> None:
        commands.append(command)
        if command[0] == "apt-get":
            raise subprocess.CalledProcessError(100, command)

    monkeypatch.setattr(prepare, "run", run)
    monkeypatch.setattr(prepare.shutil, "which", only("apt-get", "go"))
    prepare.nats()
    assert commands[1:] == [("go", "install", prepare.NATS_MODULE)]


def test_nothing_is_made_where_nats_is_there(
    commands: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    there = tmp_path / "nats-server"
    there.touch()
    monkeypatch.setattr(prepare, "nats_server", lambda: str(there))
    prepare.nats()
    assert commands == []
