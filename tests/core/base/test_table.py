"""The hash table against a dict, and SipHash against the interpreter's own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime_communication._core.base.table import ByteTable, siphash

thorough = settings(max_examples=200, deadline=None, derandomize=True)

keys = st.one_of(st.binary(max_size=3), st.integers(0, 300).map(lambda n: b"room:%d" % n))
numbered = st.tuples(st.integers(0, 2000), st.integers(0, 600)).map(
    lambda run: [b"%d" % number for number in range(run[0], run[0] + run[1])]
)
# Runs of one kind, so that tables grow and shrink by several sizes.
steps = st.tuples(st.sampled_from(["add", "remove"]), st.one_of(st.lists(keys, max_size=80), numbered))


def apply(table: ByteTable, model: dict[bytes, int], step: str, argument: list[bytes]) -> None:
    for key in argument:
        if step == "add" and key not in model:
            table.add(key, len(model))
            model[key] = len(model)
        elif step == "remove" and key in model:
            table.remove(key)
            del model[key]


def test_a_key_out_of_reach() -> None:
    table = ByteTable()
    with pytest.raises(MemoryError):
        table.add(bytes(65_536), 1)
    table.add(bytes(65_535), 2)
    assert (len(table), table.find(bytes(65_535)), table.find(bytes(65_536))) == (1, 2, None)


@thorough
@given(st.lists(steps, max_size=12))
def test_holds_what_a_dict_holds(program: list[tuple[str, list[bytes]]]) -> None:
    table = ByteTable()
    model: dict[bytes, int] = {}
    for step, argument in program:
        apply(table, model, step, argument)
        assert len(table) == len(model)
        assert sorted(table) == sorted(model)
        assert all(table.find(key) == model.get(key) for key in argument)
        assert all(table.find(key) == value for key, value in model.items())


@thorough
@given(st.lists(steps, max_size=6), st.integers(1, 40), st.lists(steps, min_size=1, max_size=30))
def test_iteration_survives_any_change(
    before: list[tuple[str, list[bytes]]], pause: int, during: list[tuple[str, list[bytes]]]
) -> None:
    table = ByteTable()
    model: dict[bytes, int] = {}
    for number in range(200):
        table.add(b"%d" % number, number)
        model[b"%d" % number] = number
    for step, argument in before:
        apply(table, model, step, argument)
    always = set(model)
    seen: list[bytes] = []
    program = iter(during)
    for key in table:
        assert key in model
        seen.append(key)
        if len(seen) % pause == 0:
            for step, argument in [next(program, ("add", []))]:
                apply(table, model, step, argument)
                always &= set(model)
    assert always <= set(seen)
    # Seen twice only what was taken out and put back, which does not stay in `always`.
    assert len([key for key in seen if key in always]) == len(always)


def test_each_entry_may_be_removed_when_it_is_returned() -> None:
    table = ByteTable()
    for number in range(10_000):
        table.add(b"%d" % number, number)
    seen = []
    for key in table:
        seen.append(key)
        table.remove(key)
    assert len(seen) == len(set(seen)) == 10_000
    assert len(table) == table.buckets == 0


def test_iterations_nest() -> None:
    table = ByteTable()
    for number in range(20):
        table.add(b"%d" % number, number)
    pairs = [(one, other) for one in table for other in table]
    assert len(pairs) == len(set(pairs)) == 400


def test_grows_by_a_few_buckets_a_call_and_gives_memory_back() -> None:
    table = ByteTable()
    resizing = 0
    for number in range(50_000):
        table.add(b"%d" % number, number)
        resizing += table.resizing
    assert 50_000 / 2 <= table.buckets <= 50_000 * 4
    # A resize that was done in one call would never be seen from outside.
    assert resizing > 10_000
    assert table.longest_chain < 16
    for number in range(49_990):
        table.remove(b"%d" % number)
    assert table.buckets <= 1024
    for number in range(49_990, 50_000):
        assert table.find(b"%d" % number) == number
        table.remove(b"%d" % number)
    assert table.buckets == 0


def test_keys_are_bytes_of_any_kind() -> None:
    table = ByteTable()
    for key in (b"", b"\0", b"\0\0", b"a" * 60_000, bytes(range(256))):
        table.add(key, len(key))
        with pytest.raises(KeyError):
            table.add(key, 0)
    assert [table.find(key) for key in (b"", b"\0", b"\0\0", b"a" * 60_000)] == [0, 1, 2, 60_000]
    assert table.find(b"\0\0\0") is None
    with pytest.raises(KeyError):
        table.remove(b"absent")


def test_the_hash_is_siphash_1_3() -> None:
    # CPython hashes bytes with SipHash-1-3; with PYTHONHASHSEED=0 under a key of zeros.
    program = (
        "import sys; assert sys.hash_info.algorithm == 'siphash13', sys.hash_info\n"
        "for n in range(1, 70): print(hash(bytes(range(n))) & (1 << 64) - 1)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONHASHSEED": "0"}, capture_output=True, check=True
    )
    expected = [int(line) for line in ran.stdout.split()]
    assert [siphash(bytes(range(n)), bytes(16)) for n in range(1, 70)] == expected
    # Vectors of Rust's siphasher crate, key 00 to 0f.
    assert siphash(b"", bytes(range(16))) == 0xABAC0158050FC4DC


def test_the_key_differs_from_process_to_process() -> None:
    program = "from realtime_communication._core.base.table import siphash; print(siphash(b'room:1'))"
    outputs = {
        subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout for _ in range(2)
    }
    assert len(outputs | {b"%d\n" % siphash(b"room:1")}) == 3
    with pytest.raises(ValueError, match="16"):
        siphash(b"", b"short")
