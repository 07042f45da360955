"""What people see of a run."""

from __future__ import annotations

import io
import sys

import pytest

from realtime_communication.cli.load.display import Display, table
from realtime_communication.cli.load.generator import Opening, Plan, Running
from serving.bench_runs import outcome

PLAN = Plan(mode="fanout", connections=10, seconds=2.0)
NOW = Running(1.0, True, 500, 500.0, 90.0, 1500.0)


class Terminal(io.StringIO):
    """Standard error on a terminal."""

    def isatty(self) -> bool:
        return True


def test_plain_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Display(PLAN, "deliveries", quiet=False) as shown:
        shown.tell(Opening(3, 10))
        shown.tell(NOW)  # within the same second
    assert capsys.readouterr().err == "fanout: opening connections, 3 of 10\n"


def test_a_line_of_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    with Display(PLAN, "deliveries", quiet=False) as shown:
        shown.tell(Running(1.0, False, 500, 500.0, 90.0, 1500.0))
    assert capsys.readouterr().err == "fanout: 1.0 s, 500 deliveries/s, median 90 µs, 99 % 1.50 ms (warming up)\n"


def test_a_line_of_connections_that_are_held(capsys: pytest.CaptureFixture[str]) -> None:
    with Display(PLAN, "connections", quiet=False) as shown:
        shown.tell(NOW)
    assert capsys.readouterr().err == "fanout: 1.0 s, 500 connections\n"


def test_nothing_when_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    with Display(PLAN, "deliveries", quiet=True) as shown:
        shown.tell(NOW)
    assert capsys.readouterr().err == ""


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Display(PLAN, "deliveries", quiet=False) as shown:
        for said in (Opening(3, 10), NOW, Running(9.0, True, 500, 0.0)):
            shown.tell(said)
    text = terminal.getvalue()
    assert "50%" in text and "100%" in text and "500 deliveries/s, median 90 µs" in text


def test_the_table() -> None:
    lines = table(outcome()).splitlines()
    assert lines[0] == "rtc bench fanout  ws://localhost:8080/ws"
    assert any(line.split() == ["deliveries", "2,000"] for line in lines)
    assert lines[-1].startswith("sound:")
    assert table(outcome(lost=2)).splitlines()[-1] == "unsound, the figures do not count: lost 2"
