"""What ci/audit says of the answers of pip-audit, of which a stand-in gives them."""

import json
import os
import subprocess

import pytest

from serving.processes import ROOT


@pytest.fixture
def audit(tmp_path):
    def run(answer, status=0):
        (tmp_path / "answer").write_text(answer)
        command = tmp_path / "pip-audit"
        script = (
            f'echo "$@" >{tmp_path}/asked; cat {tmp_path}/answer; echo "no route to the service" >&2; exit {status}'
        )
        command.write_text(f"#!/bin/sh\n{script}\n")
        command.chmod(0o755)
        environment = os.environ | {"PIP_AUDIT": str(command)}
        return subprocess.run(
            [ROOT / "ci" / "audit"], check=False, capture_output=True, text=True, timeout=60, env=environment
        )

    return run


def answer(*packages):
    return json.dumps({"dependencies": packages, "fixes": []})


GOOD = {"name": "good", "version": "1.0", "vulns": []}
BAD = {"name": "bad", "version": "1.0", "vulns": [{"id": "CVE-1", "fix_versions": ["1.1"], "aliases": []}]}


def test_nothing_is_known(audit, tmp_path):
    done = audit(answer(GOOD))
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "ci/audit: 0 known vulnerabilities in 1 packages\n"
    asked = (tmp_path / "asked").read_text()
    for path in (ROOT / "ci" / "requirements").iterdir():
        assert f"--requirement ci/requirements/{path.name}" in asked


def test_a_vulnerability_is_listed(audit):
    done = audit(answer(GOOD, BAD, BAD), 1)
    assert (done.returncode, done.stdout) == (1, "bad 1.0: CVE-1, fixed in: 1.1\n")


@pytest.mark.parametrize("said", ["", "Traceback", "[]", answer(), answer(GOOD, {"name": "x", "skip_reason": "?"})])
def test_without_an_answer_nothing_is_said_to_be_good(audit, said):
    done = audit(said, 1)
    assert done.returncode == 3
    assert "NOT CHECKED" in done.stderr and "no route to the service" in done.stderr
