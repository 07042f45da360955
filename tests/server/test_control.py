"""Calls between the supervisor and a worker, over a real pair of sockets."""

import asyncio
import contextlib
import socket
import struct

import pytest

from realtime_communication.errors import ControlClosed, ControlError
from realtime_communication.server import control
from realtime_communication.server.control import ControlChannel


@contextlib.asynccontextmanager
async def pair():
    """Both ends, running; nothing is left of them."""
    ends = [ControlChannel(sock) for sock in socket.socketpair()]
    running = [asyncio.create_task(end.run()) for end in ends]
    try:
        yield ends
    finally:
        for end in ends:
            end.close()
        await asyncio.wait_for(asyncio.gather(*running), 10)
        assert [end.closed for end in ends] == [True, True]


def run(test):
    asyncio.run(asyncio.wait_for(test(), 30))


def test_both_ends_call_each_other():
    async def test():
        async with pair() as (left, right):
            left.on("double", lambda params: params["n"] * 2)

            async def slow(params):
                await asyncio.sleep(0)
                return {"seen": params, "bytes": b"\0\xff", "none": None}

            right.on("slow", slow)
            assert await right.call("double", {"n": 21}) == 42
            assert await left.call("slow") == {"seen": {}, "bytes": b"\0\xff", "none": None}
            assert await left.call("slow", {"by_slot": {0: 1}}) == {
                "seen": {"by_slot": {0: 1}},
                "bytes": b"\0\xff",
                "none": None,
            }

    run(test)


def test_answers_find_their_callers_whatever_their_order():
    async def test():
        async with pair() as (left, right):
            gates = [asyncio.Event() for _ in range(3)]

            async def wait(params):
                await gates[params["n"]].wait()
                return params["n"]

            right.on("wait", wait)
            calls = [asyncio.create_task(left.call("wait", {"n": n})) for n in range(3)]
            for n in (2, 0, 1):
                gates[n].set()
                assert await calls[n] == n

    run(test)


def test_notes_arrive_in_order_before_a_later_call():
    async def test():
        async with pair() as (left, right):
            seen = []
            right.on("note", lambda params: seen.append(params["n"]))
            right.on("seen", lambda params: seen)
            for n in range(100):
                left.notify("note", {"n": n})
            assert await left.call("seen") == list(range(100))

    run(test)


def test_what_is_sent_before_it_runs_arrives():
    async def test():
        left, right = (ControlChannel(sock) for sock in socket.socketpair())
        seen = asyncio.Queue()
        right.on("note", seen.put_nowait)
        left.notify("note", {"n": 1})
        running = [asyncio.create_task(end.run()) for end in (left, right)]
        assert await seen.get() == {"n": 1}
        left.close()
        await asyncio.gather(*running)

    run(test)


def test_what_a_handler_raises_is_an_error_answer_that_names_it():
    async def test():
        async with pair() as (left, right):

            def fail(params):
                raise ValueError("no such slot")

            async def fail_later(params):
                raise KeyError("slot")

            right.on("fail", fail)
            right.on("fail_later", fail_later)
            right.on("cannot_travel", lambda params: object())
            for method, kind, text in (
                ("fail", "ValueError", "fail: no such slot"),
                ("fail_later", "KeyError", "fail_later: 'slot'"),
                ("cannot_travel", "TypeError", "cannot_travel: "),
                ("unknown", "ControlError", "unknown: no such method"),
            ):
                with pytest.raises(ControlError) as caught:
                    await left.call(method)
                assert caught.value.kind == kind and text in str(caught.value)

    run(test)


def test_a_note_that_cannot_be_taken_is_logged_and_the_channel_goes_on(caplog):
    async def test():
        async with pair() as (left, right):
            right.on("fail", lambda params: 1 // 0)
            right.on("ping", lambda params: "pong")
            left.notify("fail")
            assert await left.call("ping") == "pong"

    run(test)
    (record,) = caplog.records
    assert record.exc_info[0] is ZeroDivisionError and record.event_fields == {"method": "fail"}


def test_a_late_answer_is_a_timeout_for_its_caller_alone():
    async def test():
        async with pair() as (left, right):
            gate = asyncio.Event()

            async def wait(params):
                await gate.wait()

            right.on("wait", wait)
            right.on("ping", lambda params: "pong")
            with pytest.raises(TimeoutError):
                await left.call("wait", timeout_secs=0.01)
            gate.set()
            assert await left.call("ping") == "pong"

    run(test)


def test_the_end_of_the_peer_ends_calls_and_what_is_being_answered():
    async def test():
        async with pair() as (left, right):
            begun, cancelled = asyncio.Event(), asyncio.Event()

            async def wait(params):
                begun.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    cancelled.set()

            right.on("wait", wait)
            call = asyncio.create_task(left.call("wait"))
            await begun.wait()
            left.close()
            with pytest.raises(ControlClosed):
                await call
            await cancelled.wait()
            with pytest.raises(ControlClosed):
                await left.call("wait")
            left.notify("wait")  # nobody hears it

    run(test)


def test_a_peer_that_went_before_it_ran_is_an_end_like_any_other():
    async def test():
        mine, other = socket.socketpair()
        other.close()
        channel = ControlChannel(mine)
        await channel.run()
        assert channel.closed

    run(test)


def test_large_frames_cross_and_too_large_ones_are_refused(monkeypatch):
    monkeypatch.setattr(control, "MAX_FRAME_BYTES", 4 << 20)

    async def test():
        async with pair() as (left, right):
            right.on("echo", lambda params: params)
            body = {"body": b"x" * (3 << 20)}
            assert await left.call("echo", body) == body
            with pytest.raises(ControlError, match="over the bound"):
                await left.call("echo", {"body": b"x" * (5 << 20)})
            right.on("much", lambda params: b"x" * (5 << 20))
            with pytest.raises(ControlError, match="over the bound"):
                await left.call("much")
            assert await left.call("echo") == {}

    run(test)


def test_calls_have_a_bound_on_either_side(monkeypatch):
    monkeypatch.setattr(control, "MAX_CALLS", 2)

    async def test():
        async with pair() as (left, right):
            gate = asyncio.Event()

            async def wait(params):
                await gate.wait()

            right.on("wait", wait)
            calls = [asyncio.create_task(left.call("wait")) for _ in range(2)]
            await asyncio.sleep(0)
            with pytest.raises(ControlError, match="2 calls wait"):
                await left.call("wait")
            gate.set()
            await asyncio.gather(*calls)

    run(test)


def test_a_peer_that_does_not_read_is_cut_off(monkeypatch):
    monkeypatch.setattr(control, "MAX_UNSENT_BYTES", 1 << 20)

    async def test():
        mine, silent = socket.socketpair()
        channel = ControlChannel(mine)
        running = asyncio.create_task(channel.run())
        for _ in range(100):
            channel.notify("note", {"body": b"x" * 100_000})
            await asyncio.sleep(0)
        await running
        assert channel.closed
        silent.close()

    run(test)


@pytest.mark.parametrize(
    "sent",
    [
        struct.pack("<I", 0xFFFFFFFF),
        struct.pack("<I", 1) + b"\xc1",
        struct.pack("<I", 1) + b"\x90",
        struct.pack("<I", 3) + b"\x92\x09\x00",
        struct.pack("<I", 3) + b"\x92\x00\x00",
    ],
)
def test_what_is_no_frame_cuts_the_peer_off(sent, caplog):
    async def test():
        mine, other = socket.socketpair()
        with other:
            channel = ControlChannel(mine)
            other.sendall(sent)
            await channel.run()
            assert channel.closed

    run(test)
    assert [record.message for record in caplog.records] == ["another process sent what is no frame: it is cut off"]


def test_frames_cut_at_every_byte_are_the_same_frames():
    async def test():
        mine, other = socket.socketpair()
        with other:
            channel = ControlChannel(mine)
            seen = asyncio.Queue()
            channel.on("n", seen.put_nowait)
            running = asyncio.create_task(channel.run())
            body = control._encode([control.NOTE, 0, "n", {"k": 1}])
            for byte in (struct.pack("<I", len(body)) + body) * 3:
                other.sendall(bytes([byte]))
                await asyncio.sleep(0)
            assert [await seen.get() for _ in range(3)] == [{"k": 1}] * 3
            channel.close()
            await running

    run(test)
