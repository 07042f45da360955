"""What is told of a worker that ended."""

import signal

import pytest

from realtime_communication.server.crash_report import MAX_OUTPUT, CrashReport, cause_of, excerpt, tell


@pytest.mark.parametrize(
    ("status", "said", "put_down", "cause", "hint"),
    [
        (-signal.SIGKILL, (), "", "ended by SIGKILL", "out of memory"),
        (-signal.SIGSEGV, (), "", "ended by SIGSEGV", "compiled code"),
        (-signal.SIGTERM, (), "", "ended by SIGTERM", ""),
        (-99, (), "", "ended by signal 99", ""),
        (0, (), "", "exit status 0: it ended by itself", ""),
        (1, (), "", "exit status 1", ""),
        (78, (), "", "exit status 78: its configuration cannot be used", ""),
        (70, ("Redis crashed",), "", "exit status 70: Redis crashed", ""),
        (None, ("no memory",), "", "it could not be started: no memory", ""),
        (-signal.SIGKILL, (), "it did not answer", "it did not answer", "stacks"),
    ],
)
def test_cause_and_hint(status, said, put_down, cause, hint):
    found = cause_of(status, said, put_down)
    assert found[0] == cause
    assert hint in found[1] and bool(hint) == bool(found[1])


def test_the_report_is_one_line_with_all_of_it(caplog):
    report = CrashReport(
        slot=1,
        pid=42,
        incarnation=3,
        cause="ended by SIGKILL",
        hint="h",
        uptime_secs=1.23456,
        restarts=2,
        output=("a", "b"),
    )
    tell(report, range(1, 3))
    tell(report, ())
    first, second = (record.event_fields for record in caplog.records)
    assert first == {
        "worker": 1,
        "pid": 42,
        "incarnation": 3,
        "cause": "ended by SIGKILL",
        "hint": "h",
        "uptime_secs": 1.235,
        "restarts": 2,
        "restarted": "1, 2",
        "output": "a\nb",
    }
    assert second["restarted"] == "none"


def test_the_excerpt_is_the_fault_and_the_stack_of_its_thread_else_the_end():
    many = [f"line {number}" for number in range(1000)]
    fatal, thread = "Fatal Python error: Segmentation fault", "Current thread 2 (most recent call first):"
    assert excerpt(["noise", fatal, *many, thread, "  File x"]) == f"{fatal}\n{thread}\n  File x"
    assert excerpt(["Thread 1", "  File y", thread, "  File x"]) == f"{thread}\n  File x"
    assert excerpt(many).endswith("line 999") and len(excerpt(many)) == MAX_OUTPUT
