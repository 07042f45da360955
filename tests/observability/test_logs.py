"""Lines of the log: form, levels, and writing that never blocks or fails."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from realtime_communication.observability import logs
from realtime_communication.observability.logs import LineWriter, trace_id
from realtime_communication.observability.redaction import MAX_VALUE_LENGTH, REDACTED

Lines = Callable[[], list[str]]
NAME = "realtime_communication.auth.jwt"


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    """A file the logs go to; the loggers are as before afterwards."""
    root = logging.getLogger()
    handlers, level, raising = root.handlers[:], root.level, logging.raiseExceptions
    yield tmp_path / "log"
    logs.set_level("warn")
    logs.shutdown()
    for logger in list(logging.Logger.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger):
            logger.setLevel(logging.NOTSET)
    root.handlers[:], root.level, logging.raiseExceptions = handlers, level, raising


@pytest.fixture
def start(target: Path) -> Iterator[Callable[..., Lines]]:
    opened: list[int] = []

    def start_it(level: str = "info", style: Any = "json") -> Lines:
        opened.append(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_APPEND))
        logs.configure(level, style, opened[-1])

        def lines() -> list[str]:
            assert logs.flush(5)
            return target.read_text().splitlines()

        return lines

    yield start_it
    logs.shutdown()
    for descriptor in opened:
        os.close(descriptor)


class TestJson:
    def test_one_object_a_line(self, start: Callable[..., Lines]) -> None:
        lines = start()
        logs.get_logger(NAME).info("token refused", user_id="alice", attempts=3, ratio=0.5, ok=False, nothing=None)
        (entry,) = map(json.loads, lines())
        assert entry.pop("time")[-1] == "Z"
        assert entry == {
            "level": "info",
            "event": "token refused",
            "target": NAME,
            "user_id": "alice",
            "attempts": 3,
            "ratio": 0.5,
            "ok": False,
            "nothing": None,
        }

    def test_nothing_ends_the_line_or_moves_a_cursor(self, start: Callable[..., Lines]) -> None:
        lines = start()
        evil = 'a\r\n{"level":"info"}\x1b[2J\x9b2J\u2028\u202e\ud800"'
        logs.get_logger(NAME).warning(evil, field=evil, **{evil: 1})
        (line,) = lines()
        assert line.isascii() and line.isprintable()
        entry = json.loads(line)
        assert entry["event"] == entry["field"] == evil

    def test_long_values_are_cut(self, start: Callable[..., Lines]) -> None:
        lines = start()
        logs.get_logger(NAME).info("x" * (1 << 20), path="y" * (1 << 20), data=b"\xff" * (1 << 20), number=10**4000)
        (line,) = lines()
        assert len(line) < 10 * MAX_VALUE_LENGTH and "more)" in line

    def test_many_fields_are_cut(self, start: Callable[..., Lines]) -> None:
        lines = start()
        logs.get_logger(NAME).info("wide", **{f"field{number}": number for number in range(1000)})
        assert len(json.loads(lines()[0])) < 100

    def test_no_secrets(self, start: Callable[..., Lines]) -> None:
        lines = start()
        logs.get_logger(NAME).info("GET /ws?token=hush", token="hush", headers={"Authorization": "Bearer hush"})
        logging.getLogger("aiohttp.server").warning("refused %s", "api_key=hush")
        text = "\n".join(lines())
        assert "hush" not in text and text.count(REDACTED) >= 4

    def test_a_field_cannot_replace_what_every_line_has(self, start: Callable[..., Lines]) -> None:
        lines = start()
        logs.get_logger(NAME).info("real", level="fake", time="fake", target="fake")
        entry = json.loads(lines()[0])
        assert (entry["level"], entry["target"], entry["level_"]) == ("info", NAME, "fake")

    def test_trace_id(self, start: Callable[..., Lines]) -> None:
        lines = start()
        token = trace_id.set("4bf92f3577b34da6")
        logs.get_logger(NAME).info("traced")
        trace_id.reset(token)
        logs.get_logger(NAME).info("not traced")
        traced, other = map(json.loads, lines())
        assert traced["trace_id"] == "4bf92f3577b34da6" and "trace_id" not in other

    def test_exceptions(self, start: Callable[..., Lines]) -> None:
        lines = start()
        try:
            raise ValueError("bad token=hush\n")
        except ValueError:
            logs.get_logger(NAME).exception("failed", user_id="alice")
        (entry,) = map(json.loads, lines())
        assert entry["error"].startswith("ValueError: bad token=") and "hush" not in entry["error"]
        assert any("test_exceptions" in frame for frame in entry["stack"]) and entry["level"] == "error"

    def test_records_of_other_libraries(self, start: Callable[..., Lines]) -> None:
        lines = start()
        logging.getLogger("library").warning("took %d ms", 5)
        logging.getLogger("library").warning("wrong %d format", "x")
        first, second = map(json.loads, lines())
        assert first["event"] == "took 5 ms" and second["event"] == "wrong %d format"

    def test_values_that_cannot_be_shown(self, start: Callable[..., Lines]) -> None:
        class Bad:
            def __str__(self) -> str:
                raise RuntimeError

        lines = start()
        logs.get_logger(NAME).info("lost", value=Bad())
        logs.get_logger(NAME).info("odd", value=float("nan"), other=float("inf"))
        entries = [json.loads(line) for line in lines()]
        assert entries[0]["value"] == "a Bad that cannot be shown"
        assert (entries[1]["value"], entries[1]["other"]) == ("nan", "inf")


class TestPretty:
    def test_a_line_for_people(self, start: Callable[..., Lines]) -> None:
        lines = start(style="pretty")
        logs.get_logger(NAME).warning("token refused", user_id="alice", reason="too old")
        (line,) = lines()
        assert line.endswith('warn  jwt: token refused  user_id=alice reason="too old"')

    def test_escapes(self, start: Callable[..., Lines]) -> None:
        lines = start(style="pretty")
        logs.get_logger(NAME).info("a\r\nb\x1b[31m", topic="x\ny\x9b", **{"k\n": "v"})
        (line,) = lines()
        assert line.isprintable() and "a\\r\\nb\\x1b[31m" in line

    def test_exceptions_stay_on_the_line(self, start: Callable[..., Lines]) -> None:
        lines = start(style="pretty")
        try:
            raise ValueError("line one\nline two")
        except ValueError:
            logs.get_logger(NAME).exception("failed")
        (line,) = lines()
        assert "ValueError: line one\\nline two" in line and "test_exceptions_stay" in line


class TestLevels:
    def _log_all(self) -> None:
        for name in (NAME, "realtime_communication.http.app"):
            log = logs.get_logger(name)
            for method in (log.trace, log.debug, log.info, log.warning, log.error):
                method("x")

    @pytest.mark.parametrize(
        ("level", "count"), [("trace", 10), ("debug", 8), ("info", 6), ("warn", 4), ("error", 2), ("off", 0)]
    )
    def test_general(self, start: Callable[..., Lines], level: str, count: int) -> None:
        lines = start(level)
        self._log_all()
        assert len(lines()) == count

    def test_targets(self, start: Callable[..., Lines]) -> None:
        lines = start("warn,realtime_communication::auth=debug,realtime_communication::http=off")
        self._log_all()
        entries = [json.loads(line) for line in lines()]
        assert [entry["level"] for entry in entries] == ["debug", "info", "warn", "error"]
        assert {entry["target"] for entry in entries} == {NAME}

    def test_change_at_run_time(self, start: Callable[..., Lines]) -> None:
        lines = start("off,realtime_communication::auth=trace")
        logs.set_level("error")
        self._log_all()
        assert len(lines()) == 2
        logs.set_level("realtime_communication.http=trace,off")
        self._log_all()
        assert len(lines()) == 7

    def test_a_bad_filter_changes_nothing(self, start: Callable[..., Lines]) -> None:
        lines = start("info")
        with pytest.raises(ValueError, match="level"):
            logs.set_level("loud")
        self._log_all()
        assert len(lines()) == 6

    def test_enabled_for(self, start: Callable[..., Lines]) -> None:
        start("info")
        assert logs.get_logger(NAME).enabled_for(logging.INFO)
        assert not logs.get_logger(NAME).enabled_for(logs.TRACE)

    def test_libraries_are_quiet_unless_named(self, start: Callable[..., Lines]) -> None:
        lines = start("debug")
        logging.getLogger("asyncio").debug("selector")
        logging.getLogger("opentelemetry.sdk").error("every batch anew")
        assert lines() == []
        logs.set_level("info,asyncio=debug")
        logging.getLogger("asyncio").debug("selector")
        assert len(lines()) == 1
        logs.set_level("info,opentelemetry=warn")
        logging.getLogger("opentelemetry.sdk").error("every batch anew")
        assert len(lines()) == 2


class TestFormat:
    def test_change_at_run_time(self, start: Callable[..., Lines]) -> None:
        lines = start()
        log = logs.get_logger(NAME)
        log.info("first", number=1)
        logs.set_format("pretty")
        log.info("second", number=2)
        logs.set_format("json")
        log.info("third", number=3)
        first, second, third = lines()
        assert (json.loads(first)["event"], json.loads(third)["event"]) == ("first", "third")
        assert second.endswith("info  jwt: second  number=2")

    def test_an_unknown_form_changes_nothing(self, start: Callable[..., Lines]) -> None:
        lines = start()
        with pytest.raises(ValueError, match="json, pretty"):
            logs.set_format("xml")  # type: ignore[arg-type]
        logs.get_logger(NAME).info("x")
        assert json.loads(lines()[0])["event"] == "x"

    def test_before_anything_is_configured(self, target: Path) -> None:
        logs.set_format("pretty")

    def test_no_line_is_lost_or_torn_while_it_changes(self, start: Callable[..., Lines]) -> None:
        lines = start("info,realtime_communication::auth=debug")
        log = logs.get_logger(NAME)
        filters = ("info,realtime_communication::auth=debug", "debug", "warn,realtime_communication::auth=trace")

        def write(writer: int) -> None:
            for number in range(500):
                log.debug("numbered", writer=writer, number=number)

        writers = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
        for writer in writers:
            writer.start()
        turns = 0
        while any(writer.is_alive() for writer in writers) or turns < 100:
            logs.set_format("pretty" if turns % 2 else "json")
            logs.set_level(filters[turns % 3])
            turns += 1
            time.sleep(0.001)  # a thread that changes them without a pause keeps the interpreter from the writers
        for writer in writers:
            writer.join()
        seen: list[tuple[int, int]] = []
        for line in lines():
            if line.startswith("{"):
                entry = json.loads(line)
                seen.append((entry["writer"], entry["number"]))
            else:
                found = re.fullmatch(r"[0-9:.]{12} debug jwt: numbered  writer=(\d) number=(\d+)", line)
                assert found is not None, line
                seen.append((int(found[1]), int(found[2])))
        assert sorted(seen) == [(writer, number) for writer in range(4) for number in range(500)]


class TestWriter:
    def test_a_stuck_reader_blocks_nobody_and_loses_are_counted(self) -> None:
        reading, writing = os.pipe()
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
        writer = LineWriter(writing, max_queued_bytes=10_000)
        for number in range(1000):
            writer.put(f"line {number:04} " + "x" * 90)
        received: list[bytes] = []
        reader = threading.Thread(target=lambda: received.extend(iter(lambda: os.read(reading, 1 << 16), b"")))
        reader.start()
        assert writer.flush(10)
        writer.put("after")
        assert writer.flush(10)
        writer.close()
        os.close(writing)
        reader.join(10)
        os.close(reading)
        lines = b"".join(received).decode().splitlines()
        dropped = sum(json.loads(line)["count"] for line in lines if "lines dropped" in line)
        assert dropped > 500
        assert "after" in lines and lines[0].startswith("line 0000")
        assert len([line for line in lines if line.startswith("line")]) + dropped == 1000

    def test_no_reader(self) -> None:
        reading, writing = os.pipe()
        os.close(reading)
        writer = LineWriter(writing)
        writer.put("lost")
        assert writer.flush(10)
        assert writer.dropped == 1
        writer.close()
        os.close(writing)

    def test_closed_descriptor(self) -> None:
        reading, writing = os.pipe()
        os.close(reading)
        os.close(writing)
        writer = LineWriter(writing)
        writer.put("lost")
        assert writer.flush(10) and writer.dropped == 1
        writer.close()

    def test_full_disk(self) -> None:
        descriptor = os.open("/dev/full", os.O_WRONLY)
        writer = LineWriter(descriptor)
        writer.put("lost")
        assert writer.flush(10) and writer.dropped == 1
        writer.close()
        os.close(descriptor)

    def test_a_descriptor_that_does_not_block(self) -> None:
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        writer = LineWriter(writing)
        total = 300_000
        for _ in range(total // 100):
            writer.put("x" * 99)
        received = b""
        while len(received) < total:
            received += os.read(reading, 1 << 16)
        assert writer.flush(10) and writer.dropped == 0
        writer.close()
        os.close(reading)
        os.close(writing)

    def test_after_closing_lines_are_only_counted(self) -> None:
        writer = LineWriter(2)
        writer.close()
        writer.put("late")
        assert writer.dropped == 1


SCRIPT = """
import os, sys
from realtime_communication.observability import logs
logs.configure("info", "json")
log = logs.get_logger("realtime_communication.test")
for number in range(3):
    log.info("event", number=number)
print("done", file=sys.stdout)
"""


class TestProcess:
    def test_lines_are_out_before_the_process_ends(self) -> None:
        done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=True)
        assert [json.loads(line)["number"] for line in done.stderr.splitlines()] == [0, 1, 2]

    def test_closed_standard_error(self) -> None:
        done = subprocess.run(
            ["/bin/sh", "-c", 'exec "$0" -c "$1" 2>&-', sys.executable, SCRIPT],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert done.stdout == "done\n"

    def test_a_reader_that_never_reads_does_not_keep_the_process(self) -> None:
        reading, writing = os.pipe()
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
        script = SCRIPT.replace("range(3)", "range(5000)")
        done = subprocess.run(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=writing, text=True, timeout=60, check=True
        )
        os.close(writing)
        os.close(reading)
        assert done.stdout == "done\n"


class TestManyProcesses:
    def test_fields_of_the_process_are_in_every_line(self, start: Callable[..., Lines]) -> None:
        lines = start()
        try:
            logs.set_fields(worker=3)
            logs.get_logger(NAME).info("one", worker="its own")
        finally:
            logs.set_fields()
        logs.get_logger(NAME).info("two")
        first, second = (json.loads(line) for line in lines())
        assert (first["worker"], first["worker_"]) == (3, "its own") and "worker" not in second

    def test_a_line_of_another_process_is_written_as_it_is(self, start: Callable[..., Lines]) -> None:
        lines = start()
        logs.put_line('{"event":"elsewhere"}')
        assert lines() == ['{"event":"elsewhere"}']
        logs.shutdown()
        logs.put_line("nobody writes it")
