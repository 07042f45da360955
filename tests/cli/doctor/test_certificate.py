"""What is said of certificates."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from realtime_communication.cli.doctor.certificate import findings
from realtime_communication.cli.doctor.finding import Finding, Level
from realtime_communication.config.protection import Tls
from serving.certificates import DAY, Authority

NOW = datetime.datetime.now(datetime.UTC)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def look(tls: Tls, name: str | None = None) -> dict[str, Finding]:
    return {finding.subject: finding for finding in findings(tls, name, NOW)}


def served(
    authority: Authority, *, mode: int = 0o600, chain: bool = False, ends: datetime.timedelta = 90.5 * DAY
) -> Tls:
    pair = authority.issue(ends=ends)
    pair.key_file.chmod(mode)
    if chain:
        pair.cert_file.write_bytes(pair.cert_file.read_bytes() + authority.ca_file.read_bytes())
    return Tls(enabled=True, cert_file=str(pair.cert_file), key_file=str(pair.key_file))


def test_without_tls() -> None:
    assert {finding.level for finding in look(Tls()).values()} == {Level.OK}


def test_all_is_well(authority: Authority) -> None:
    found = look(served(authority, chain=True), "localhost")
    assert {finding.level for finding in found.values()} == {Level.OK}
    assert found["certificate"].text == "is valid for 90 more days"
    assert "localhost, 127.0.0.1" in look(served(authority))["certificate name"].text


@pytest.mark.parametrize(
    ("ends", "level", "words"),
    [(9.5 * DAY, Level.WARN, "expires in 9 days"), (-DAY / 2, Level.FAIL, "expired on")],
)
def test_expiry(authority: Authority, ends: datetime.timedelta, level: Level, words: str) -> None:
    found = look(served(authority, ends=ends))["certificate"]
    assert found.level is level and words in found.text and "kill -HUP" in found.mend


def test_a_certificate_of_the_future(authority: Authority) -> None:
    pair = authority.issue(starts=DAY, ends=2 * DAY)
    tls = Tls(enabled=True, cert_file=str(pair.cert_file), key_file=str(pair.key_file))
    assert look(tls)["certificate"].level is Level.FAIL


def test_another_name(authority: Authority) -> None:
    found = look(served(authority), "rtc.example.com")["certificate name"]
    assert found.level is Level.FAIL and "not for rtc.example.com" in found.text


def test_an_authority_that_nobody_knows(authority: Authority) -> None:
    found = look(served(authority))["certificate chain"]
    assert found.level is Level.WARN and "--ca-file" in found.mend


def test_a_chain_out_of_order(authority: Authority, tmp_path: Path) -> None:
    tls = served(authority)
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other", "stranger")
    path = Path(tls.cert_file)
    path.write_bytes(path.read_bytes() + stranger.ca_file.read_bytes())
    assert look(tls)["certificate chain"].level is Level.FAIL


@pytest.mark.parametrize(
    ("mode", "level"), [(0o600, Level.OK), (0o640, Level.OK), (0o644, Level.FAIL), (0o660, Level.FAIL)]
)
def test_who_can_read_the_key(authority: Authority, mode: int, level: Level) -> None:
    found = look(served(authority, mode=mode))["private key"]
    assert found.level is level and (level is Level.OK or "chmod 600" in found.mend)


def test_files_that_are_none(tmp_path: Path) -> None:
    found = look(Tls(enabled=True, cert_file=str(tmp_path / "none"), key_file="x"))
    assert found["certificate"].level is Level.FAIL
