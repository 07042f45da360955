"""Every fenced block of the documentation does what it shows, or says in a comment why it cannot be tried."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest
import yaml

from realtime_communication.cli.main import cli
from realtime_communication.config import load
from serving.certificates import shared_server
from serving.commands import environment
from serving.documents import Block, all_blocks, blocks
from serving.processes import ROOT, ServerProcess
from serving.programs import found, output_of
from serving.tokens import ADMIN_KEY, SECRET, token

RUN_SECS = 60
SECRETS = {"JWT_SECRET": SECRET, "WEBHOOK_SECRET": "w" * 32, "REDIS_PASSWORD": "secret"}
TUTORIAL = "docs/tutorial.md"

TRIED_ELSEWHERE = {
    (TUTORIAL, "python"): "test_tutorial.py",
    (TUTORIAL, "html"): "test_tutorial.py",
    (TUTORIAL, "bash"): "test_tutorial.py",
    ("docs/howto/oidc.md", "toml"): "test_oidc.py",
    ("docs/python.md", "python"): "test_python.py",
    ("docs/webhooks.md", "python"): "tests/serving/receiver.py",
}
"""Pages whose blocks of a language another test runs, with more to say of what they do."""

NOT_HERE = {
    "docker": "no daemon",
    "kubectl": "no cluster",
    "helm": "no cluster",
    "systemctl": "systemd does not run here",
    "sysctl": "it would change the machine",
    "install": "it would change the machine",
    "ci/serve": "the tests' own server is there",
    "ci/test": "it is what runs this",
    "ci/wheel": "it compiles everything anew",
    "ci/build": "it was run before the tests",
    "promtool": "tests/deploy runs it",
    "npm": "the packages are those of clients/js already",
    "pip": "the package is installed already",
    "rtc serve": "the tests' own server is there; its options are looked at",
    "rtc bench": "it takes many seconds; its options are looked at, and tests/cli runs it",
}
"""Commands that are not run, and why: a shell script with one of them is parsed, and its files must exist."""

MOST: dict[str, dict[str, int]] = {"compiled only": {"python": 3, "bash": 1}, "not run": {}}
"""So many blocks of a language may be marked so."""

MOST_NOT_HERE = 24
"""Shell scripts with a command of `NOT_HERE`."""

LANGUAGES = {
    *("bash", "python", "toml", "json", "yaml", "nginx", "haproxy", "caddy", "html"),
    *("ts", "js"),  # by tests/clients/test_javascript_package.py
    *("text", "http"),  # nothing to run
}
WITHOUT_LANGUAGE = 1
"""One is on the page that benchmarks/report makes."""


def tried(*languages: str) -> list[Any]:
    """The blocks in these languages that are to be tried here, as parameters."""
    return [
        pytest.param(block, id=str(block))
        for block in blocks(*languages)
        if (block.path, block.language) not in TRIED_ELSEWHERE and "not run" not in block.marks
    ]


def test_every_language_is_known() -> None:
    unknown = [str(block) for block in all_blocks() if not block.language]
    assert len(unknown) <= WITHOUT_LANGUAGE, f"say ```text or ```http: {unknown}"
    assert {block.language for block in all_blocks() if block.language} <= LANGUAGES


def test_few_blocks_are_not_run() -> None:
    for mark, bounds in MOST.items():
        counts = Counter(block.language for block in all_blocks() if mark in block.marks)
        over = {language: count for language, count in counts.items() if count > bounds.get(language, 0)}
        assert not over, f"{mark}: {over}, at most {bounds}"
    assert len([block for block in blocks("bash") if kept_back(block.text)]) <= MOST_NOT_HERE


def test_what_another_test_runs_is_there() -> None:
    for path, language in TRIED_ELSEWHERE:
        assert blocks(language, path=path), f"{path} has no {language}"


def localized(text: str, server: ServerProcess, folder: Path) -> str:
    """The block with the addresses of this server, and /etc/rtc in a folder of the test."""
    text = re.sub(r"\b(localhost|127\.0\.0\.1):808[01]\b", f"127.0.0.1:{server.port}", text)
    return text.replace("/etc/rtc", str(folder / "etc"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a block is run: the repository's examples are below it, as from a clone."""
    (tmp_path / "etc").mkdir()
    shutil.copy(ROOT / "deploy" / "systemd" / "config.toml", tmp_path / "etc" / "config.toml")
    shutil.copy(shared_server().cert_file, tmp_path / "authority.pem")
    for name in ("deploy", "docs", "benchmarks", "src"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def run(command: list[str], block: Block, server: ServerProcess, folder: Path) -> str:
    """All that it writes, to its end, or until it has written what its mark says."""
    path = os.pathsep.join([str(Path(sys.executable).parent), "/usr/sbin", os.environ["PATH"]])
    variables = environment(
        PATH=path,
        RTC_URL=server.url,
        RTC_TOKEN=token("alice"),
        RTC_API_KEY=ADMIN_KEY,
        TOKEN=token("alice"),
        KEY=ADMIN_KEY,
        PYTHONUNBUFFERED="1",
        **SECRETS,
    )
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    with process, ended(process):
        awaited = block.marks.get("runs until")
        if awaited is None:
            written, _ = process.communicate(timeout=RUN_SECS)
            assert process.returncode == 0, f"{block} ended with {process.returncode}:\n{written}"
            return written
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if awaited in line:
                return "".join(lines)
    raise AssertionError(f"{block} ended without {awaited!r}:\n{''.join(lines)}")


@contextlib.contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[None]:
    """Ends the process and what it started."""
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)


@pytest.mark.parametrize("block", tried("python"))
def test_python(block: Block, server: ServerProcess, folder: Path) -> None:
    code = compile(block.text, str(block), "exec")
    assert code is not None
    if "compiled only" not in block.marks:
        run([sys.executable, "-c", localized(block.text, server, folder)], block, server, folder)


WORD = r"(?:^|[|;&(]\s*|\$\(\s*|\bsudo\s+|\bexec\s+)(?:[A-Z_]+=\S+\s+)*"


def kept_back(text: str) -> list[str]:
    """Commands in a script that are not run here."""
    return [name for name in NOT_HERE if re.search(WORD + r"(?:\S*/)?" + re.escape(name) + r"\b", text, re.MULTILINE)]


@pytest.mark.parametrize("block", tried("bash"))
def test_bash(block: Block, server: ServerProcess, folder: Path) -> None:
    script = localized(block.text, server, folder)
    output_of("bash", "-n", "-c", script)
    with contextlib.chdir(folder):
        for words in commands(script):
            look_at(words, folder)
    if "compiled only" not in block.marks and not kept_back(block.text):
        run(["bash", "-euo", "pipefail", "-c", script], block, server, folder)
    else:
        assert_files_exist(block.text)


def commands(script: str) -> Iterator[list[str]]:
    """The words of each call of `rtc` in a script."""
    for line in script.replace("\\\n", " ").splitlines():
        for call in re.findall(r"(?:^|[|;&(] ?|\$\()(rtc [^|;&)#>]*)", line):
            yield shlex.split(re.sub(r'"?\$\([^)]*$', "x", call))


def look_at(words: list[str], folder: Path) -> None:
    """Whether `rtc` takes these words, without doing what they say."""
    _, name, *rest = words
    if name == "serve":
        load(rest, environ=SECRETS | {"REDIS_URL": "redis://127.0.0.1"}, directory=folder)
        return
    command = cli.get_command(click.Context(cli), name)
    while isinstance(command, click.Group):
        name, *rest = rest
        command = command.get_command(click.Context(command), name)
    assert command is not None, words
    command.make_context(name, rest)


def assert_files_exist(script: str) -> None:
    """The files of the repository that a script names are there."""
    at = ROOT
    for line in script.replace("\\\n", " ").splitlines():
        if moved := re.match(r"cd (\S+)", line):
            at = ROOT / moved[1]
            assert at.is_dir(), line
        for word in re.findall(r"(?<![\w/])((?:deploy|ci|docs|clients|benchmarks|src)/[\w./-]+)", line):
            assert (ROOT / word).exists(), f"there is no {word}"


@pytest.mark.parametrize("block", tried("toml"))
def test_toml(block: Block, tmp_path: Path) -> None:
    """The server takes it for its configuration."""
    certificate = shared_server()
    text = block.text.replace("/etc/rtc/tls/server.crt", str(certificate.cert_file))
    path = tmp_path / "config.toml"
    path.write_text(text.replace("/etc/rtc/tls/server.key", str(certificate.key_file)))
    environ = SECRETS | {name: "s" * 32 for name in re.findall(r"\$\{(\w+)\}", text) if name not in SECRETS}
    loaded = load([f"--config={path}"], environ=environ, directory=tmp_path)
    assert list(loaded.files) == [path]


MESSAGES = json.loads((ROOT / "docs" / "asyncapi.json").read_text())["components"]


@pytest.mark.parametrize("block", tried("json"))
def test_json(block: Block) -> None:
    """Each value is JSON, and an envelope is one of the protocol."""
    text, decoder = block.text.strip(), json.JSONDecoder()
    while text:
        value, end = decoder.raw_decode(text)
        text = text[end:].strip()
        if isinstance(value, dict) and "type" in value:
            fitting = [
                message["payload"] for message in MESSAGES["messages"].values() if message["name"] == value["type"]
            ]
            assert fitting, value["type"]
            schema = {"anyOf": fitting, "components": MESSAGES}
            jsonschema.validate(value, schema)


@pytest.mark.parametrize("block", tried("yaml"))
def test_yaml(block: Block) -> None:
    assert all(isinstance(document, dict) for document in yaml.safe_load_all(block.text))


NGINX = """
pid {folder}/pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    {text}
}}
"""


@pytest.mark.parametrize("block", tried("nginx"))
def test_nginx(block: Block, tmp_path: Path) -> None:
    """nginx takes it: whole servers, or what belongs into one."""
    whole = re.search(r"^(server|upstream|map) ", block.text, re.MULTILINE)
    certificate = shared_server()
    text = block.text if whole else f"server {{ listen 127.0.0.1:1; location / {{ {block.text} }} }}"
    text = re.sub(r"\S+\.crt;", f"{certificate.cert_file};", text)
    text = re.sub(r"\S+\.key;", f"{certificate.key_file};", text)
    path = tmp_path / "nginx.conf"
    path.write_text(NGINX.format(folder=tmp_path, text=text))
    output_of("nginx", "-t", "-q", "-c", path, "-p", tmp_path)


@pytest.mark.parametrize("block", tried("haproxy"))
def test_haproxy(block: Block, tmp_path: Path) -> None:
    certificate = shared_server()
    pem = tmp_path / "rtc.pem"
    pem.write_text(Path(certificate.cert_file).read_text() + Path(certificate.key_file).read_text())
    path = tmp_path / "haproxy.cfg"
    path.write_text(re.sub(r"crt \S+", f"crt {pem}", block.text))
    output_of("haproxy", "-c", "-f", path)


@pytest.mark.parametrize("block", tried("caddy"))
def test_caddy(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "Caddyfile"
    path.write_text(block.text)
    home = os.environ | {"XDG_DATA_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    output_of("caddy", "adapt", "--adapter", "caddyfile", "--validate", "--config", path, environment=home)


def test_the_programs_are_there() -> None:
    assert all(found(name) for name in ("bash", "nginx", "haproxy", "caddy"))
