"""A child process as its supervisor sees it; the child here is a few lines of Python."""

import asyncio
import gc
import os
import signal
import sys

import pytest

from realtime_communication.server import worker_handle
from realtime_communication.server.worker_handle import WorkerHandle

CHILD = """
import asyncio, os, signal, socket, sys
from realtime_communication.server.control import ControlChannel

async def main():
    channel = ControlChannel(socket.socket(fileno=int(sys.argv[1])))
    stopped = asyncio.Event()
    channel.on("stop", lambda params: stopped.set())
    channel.on("ping", lambda params: None)
    running = asyncio.create_task(channel.run())
    what = await channel.call("hello", {"pid": os.getpid()})
    os.write(int(sys.argv[2]), b'a line of the log\\nhalf a ')
    os.write(int(sys.argv[2]), b'line')
    print("to standard error", file=sys.stderr, flush=True)
    if what == "fail":
        await channel.call("failed", {"fault": {"status": 71, "lines": ["no address"]}})
        sys.exit(71)
    if what == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if what != "never ready":
        channel.notify("ready")
    if what == "stuck":
        import time
        while True:
            time.sleep(1)
    if what == "lingering":
        channel.close()
        await running
        signal.pause()
    await stopped.wait()
    sys.exit(3)

asyncio.run(main())
"""


@pytest.fixture
def child(tmp_path, monkeypatch):
    """Runs a coroutine function with a handle whose child was told what to do: ``child(test, what)``."""
    (tmp_path / "child_of_test.py").write_text(CHILD)
    monkeypatch.setattr(worker_handle, "MODULE", "child_of_test")
    monkeypatch.syspath_prepend(str(tmp_path))
    lines = []
    monkeypatch.setattr(worker_handle.logs, "put_line", lines.append)

    def run(test, what):
        async def main():
            gc.collect()  # what other tests have left in circles would be closed in the middle of this one
            before = sorted(os.listdir("/proc/self/fd"))
            handle = WorkerHandle(1, 9, {"hello": lambda handle, params: what})
            handle.lines = lines
            handle.start([])
            try:
                await test(handle)
            finally:
                handle.kill("")
                await handle.ended.wait()
                await asyncio.sleep(0.01)
            assert sorted(os.listdir("/proc/self/fd")) == before  # nothing is left open

        asyncio.run(asyncio.wait_for(main(), 60))

    return run


def test_from_its_start_to_its_end(child, caplog):
    async def test(handle):
        assert not handle.serving
        assert await handle.wait_ready()
        assert handle.serving and handle.pid is not None
        handle.stop()
        assert not handle.serving
        await handle.end_within(20, "too slow")
        assert (handle.status, handle.put_down, handle.fault) == (3, "", None)
        assert handle.lines == ["a line of the log", "half a line"]
        assert list(handle.output) == ["to standard error"]
        assert handle.channel.closed and not await handle.wait_ready()

    child(test, "serve")
    assert [record.event_fields["line"] for record in caplog.records] == ["to standard error"]


def test_one_that_cannot_start_says_why(child):
    async def test(handle):
        assert not await handle.wait_ready()
        assert handle.status == 71 and handle.fault.lines == ("no address",)

    child(test, "fail")


def test_one_that_crashes(child):
    async def test(handle):
        await handle.ended.wait()
        assert handle.status == -signal.SIGSEGV and "to standard error" in handle.output

    child(test, "crash")


def test_one_that_is_stuck_is_killed_and_the_reason_kept(child, monkeypatch, caplog):
    for name, secs in (("PING_SECS", 0.05), ("ANSWER_SECS", 0.2), ("LAST_CHANCE_SECS", 0.1), ("DUMP_SECS", 0.1)):
        monkeypatch.setattr(worker_handle, name, secs)

    async def test(handle):
        assert await handle.wait_ready()
        await handle.ended.wait()
        assert handle.put_down.startswith("it did not answer for 0.3")

    child(test, "stuck")
    assert "a worker is stuck and will be killed" in [record.message for record in caplog.records]


@pytest.mark.parametrize(("secs", "reason"), [(60, ""), (0.2, "it did not end 0.2 s after its event loop")])
def test_one_whose_loop_is_over_has_time_to_end(child, monkeypatch, secs, reason):
    monkeypatch.setattr(worker_handle, "PING_SECS", 0.01)
    monkeypatch.setattr(worker_handle, "CLOSED_SECS", secs)

    async def test(handle):
        assert await handle.wait_ready()
        while not handle.channel.closed:
            await asyncio.sleep(0.01)
        if not reason:
            await asyncio.sleep(0.1)  # it is left alone
            os.kill(handle.pid, signal.SIGTERM)
        await handle.ended.wait()
        assert handle.put_down == reason

    child(test, "lingering")


def test_one_that_never_gets_ready_is_killed(child, monkeypatch):
    monkeypatch.setattr(worker_handle, "START_SECS", 1.0)
    monkeypatch.setattr(worker_handle, "DUMP_SECS", 0.01)

    async def test(handle):
        assert not await handle.wait_ready()
        assert handle.put_down == "it was not ready within 1 s"

    child(test, "never ready")


def test_one_that_does_not_end_in_time_is_killed(child):
    async def test(handle):
        await handle.wait_ready()
        await handle.end_within(0.01, "it did not drain")
        assert (handle.status, handle.put_down) == (-signal.SIGKILL, "it did not drain")

    child(test, "serve")


def test_asking_one_to_end_that_does_not_serve_kills_it(child):
    async def test(handle):
        handle.stop()
        await handle.ended.wait()
        assert handle.status == -signal.SIGKILL

    child(test, "never ready")


def test_an_interpreter_that_is_gone_is_an_end_like_any_other(child, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/no/such/python")

    async def test(handle):
        assert not await handle.wait_ready()
        assert handle.status is None and handle.pid is None
        assert "No such file" in handle.fault.lines[0]

    child(test, "serve")


def test_lines_are_cut_at_their_bound(monkeypatch):
    monkeypatch.setattr(worker_handle, "MAX_LINE_BYTES", 10)

    async def main():
        reader, writer = os.pipe()
        lines = []
        pipe = worker_handle._Pipe(asyncio.get_running_loop(), reader, lines.append)
        os.write(writer, b"short\n" + b"x" * 30)
        await asyncio.sleep(0.01)
        os.write(writer, b"\xff end\n")
        os.close(writer)
        pipe.finish()
        assert lines == ["short", "x" * 30, "\\xff end"]

    asyncio.run(main())
