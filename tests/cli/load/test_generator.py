"""The compiled generator as a process: what goes wrong with it."""

from __future__ import annotations

import resource
import socket
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest

from realtime_communication.cli.load import generator
from realtime_communication.cli.load.credentials import Credentials
from realtime_communication.cli.load.generator import Opening, Plan, Running
from realtime_communication.cli.load.target import Target

PLAN = Plan(mode="connect", connections=1)
NOWHERE = Target("127.0.0.1", "localhost", 1, "/ws")


def _stand_in(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / "program"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(generator, "BINARY", program)


def test_it_comes_with_the_package() -> None:
    assert generator.BINARY.is_file()


def test_a_port_where_nobody_listens_is_an_error_of_the_run() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        where = Target("127.0.0.1", "localhost", unused.getsockname()[1], "/ws")
        report = generator.run(PLAN, where, Credentials(), lambda said: None)
    assert report.problems == {"lost": 1, "errors": 1}
    assert report.first_error == "Connection refused"


def test_an_installation_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generator, "BINARY", tmp_path / "program")
    with pytest.raises(click.ClickException, match="no load generator"):
        generator.run(PLAN, NOWHERE, Credentials(), lambda said: None)


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo 'load: no memory' >&2; exit 1", "without a report: load: no memory"),
        ("exit 3", "without a report: 3"),
        ("echo nonsense", "what it never says"),
        ('echo \'{"progress":"flying"}\'', "what it never says"),
    ],
)
def test_a_generator_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, why: str) -> None:
    _stand_in(tmp_path, script, monkeypatch)
    with pytest.raises(click.ClickException, match=why):
        generator.run(PLAN, NOWHERE, Credentials(), lambda said: None)


def test_credentials_are_not_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = f'echo "$@" > {tmp_path}/words\nfor word in "$@"; do case "$word" in --tokens=*) cat "${{word#--tokens=}}"'
    _stand_in(tmp_path, f"{script} > {tmp_path}/tokens;; esac; done", monkeypatch)
    with pytest.raises(click.ClickException):
        generator.run(PLAN, NOWHERE, Credentials(("first", "second"), "X-API-Key"), lambda said: None)
    assert (tmp_path / "tokens").read_text() == "first\nsecond\n"
    words = (tmp_path / "words").read_text()
    assert "first" not in words and "--token-header=X-API-Key" in words


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, []),
        ({"secure": True}, ["--tls"]),
        ({"secure": True, "ca_file": Path("/ca.pem")}, ["--tls", "--ca-file=/ca.pem"]),
        ({"secure": True, "insecure": True}, ["--tls", "--insecure"]),
    ],
)
def test_what_it_is_told_of_tls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], words: list[str]
) -> None:
    _stand_in(tmp_path, f'echo "$@" > {tmp_path}/words', monkeypatch)
    with pytest.raises(click.ClickException):
        generator.run(PLAN, msgspec.structs.replace(NOWHERE, **options), Credentials(), lambda said: None)
    said = (tmp_path / "words").read_text().split()
    assert [word for word in said if word.startswith(("--tls", "--ca-file", "--insecure"))] == words


def test_what_it_tells_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opening = '{"progress":"opening","open":1,"of":2}'
    running = '{"progress":"running","at":0.5,"measuring":true,"deliveries":3,"rate":6.0}'
    _stand_in(tmp_path, f"echo '{opening}'; echo '{running}'", monkeypatch)
    told: list[Opening | Running] = []
    with pytest.raises(click.ClickException):
        generator.run(PLAN, NOWHERE, Credentials(), told.append)
    assert told == [Opening(1, 2), Running(0.5, True, 3, 6.0)]


def test_too_few_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (100, 1000))
    generator.check_descriptors(1000 - generator.OTHER_FILES)
    with pytest.raises(click.UsageError, match=r"--connections=1000 needs 1064 .* limit is 1000: raise .*at most 936"):
        generator.check_descriptors(1000)
