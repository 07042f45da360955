"""Figures of this process, against other ways to get them."""

from __future__ import annotations

import os
import resource
import threading
import time

import pytest

from realtime_communication.observability import process
from realtime_communication.observability.process import read_process, resident_bytes, start_time


def test_what_the_system_says() -> None:
    found = read_process()
    assert found.resident_bytes > 1 << 20
    assert found.virtual_bytes is not None and found.virtual_bytes >= found.resident_bytes
    assert 0 < found.cpu_secs <= time.process_time()
    assert found.threads is not None and found.threads >= threading.active_count()
    assert found.max_files in (None, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def test_open_files_are_counted() -> None:
    before = read_process().open_files
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(10)]
    try:
        after = read_process().open_files
    finally:
        for descriptor in opened:
            os.close(descriptor)
    assert before is not None and after == before + 10


def test_the_process_began_before_now_and_after_the_machine() -> None:
    began = start_time()
    assert began is not None
    assert time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) - 1 < began <= time.time()


def test_a_system_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(process, "open", missing, raising=False)
    monkeypatch.setattr(process, "_FILES", "/nowhere")
    found = read_process()
    assert (found.virtual_bytes, found.threads, found.open_files) == (None, None, None)
    assert found.resident_bytes == resident_bytes() > 0
    assert start_time() is None
