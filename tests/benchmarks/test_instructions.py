"""Instructions per operation: those that are stored still hold, and how a difference is judged and told."""

import pytest

from benchmarks import instruction_counts
from benchmarks.core_operations import OPERATIONS
from benchmarks.instruction_counts import TOLERANCE, WIDE_TOLERANCE, Stored, Toolchain, Unavailable

HERE = Toolchain(machine="m", processor_flags=("avx2",), compiler="GCC 12", python="3.11.2", libc="l", valgrind="v")
OTHER = Toolchain(machine="m", processor_flags=("avx2",), compiler="GCC 14", python="3.13.1", libc="l", valgrind="v")
STORED = Stored(HERE, {"ping": 1000, "direct message": 2000})


def test_an_operation_takes_as_many_as_stored(tmp_path):
    here = instruction_counts.toolchain()
    measured = instruction_counts.measure(list(OPERATIONS), tmp_path)
    sound, report = instruction_counts.judge(instruction_counts.read(), here, measured)
    assert sound, "\n" + report


class TestJudge:
    @pytest.mark.parametrize("count", [901, 1000, 1099])
    def test_a_small_difference_is_none(self, count):
        sound, report = instruction_counts.judge(STORED, HERE, {"ping": count})
        assert sound
        assert "--update" not in report

    @pytest.mark.parametrize(("count", "change"), [(1110, "+11.0%"), (890, "-11.0%")])
    def test_more_and_less_are_told_with_how_to_accept_them(self, count, change):
        sound, report = instruction_counts.judge(STORED, HERE, {"ping": count, "direct message": 2000})
        assert not sound
        (marked,) = [line for line in report.splitlines() if line.endswith("<")]
        assert marked.split() == ["ping", "1000", str(count), change, "<"]
        assert "benchmarks/instructions --update" in report

    def test_an_operation_that_is_not_stored_fails(self):
        sound, report = instruction_counts.judge(STORED, HERE, {"echo, 100 bytes": 5})
        assert not sound
        assert " - " in report

    def test_another_toolchain_is_named_and_judged_less_strictly(self):
        sound, report = instruction_counts.judge(STORED, OTHER, {"ping": 1400})
        assert sound
        assert "compiler: stored with GCC 12, here GCC 14" in report
        assert "python: stored with 3.11.2, here 3.13.1" in report
        assert "libc" not in report
        assert not instruction_counts.judge(STORED, OTHER, {"ping": 1600})[0]
        assert TOLERANCE < 0.4 < WIDE_TOLERANCE


class TestUpdate:
    def test_what_was_not_measured_stays_and_unknown_names_go(self):
        stored = Stored(HERE, {"gone": 1, "ping": 1000, "direct message": 2000})
        made = instruction_counts.updated(stored, HERE, {"ping": 900})
        assert made.instructions == {"ping": 900, "direct message": 2000}

    def test_counts_of_two_toolchains_are_not_mixed(self):
        with pytest.raises(ValueError, match="another toolchain"):
            instruction_counts.updated(STORED, OTHER, {"ping": 900})
        assert instruction_counts.updated(STORED, OTHER, {"ping": 1, "direct message": 2}).toolchain == OTHER

    def test_the_file_holds_every_operation(self, tmp_path):
        stored = instruction_counts.read()
        assert list(stored.instructions) == list(OPERATIONS)
        instruction_counts.write(stored, tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == instruction_counts.FILE.read_bytes()


class TestCommand:
    def test_unknown_operations_are_refused(self, capsys):
        assert instruction_counts.main(["--only=no such thing"]) == 2
        assert "no such thing" in capsys.readouterr().err

    def test_without_valgrind_it_says_what_is_missing(self, monkeypatch, tmp_path):
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(Unavailable, match="valgrind: No such file or directory; ci/packages"):
            instruction_counts.toolchain()

    def test_operations_that_fail_are_told(self, tmp_path):
        with pytest.raises(Unavailable, match="KeyError: 'no such operation'"):
            instruction_counts.measure(["no such operation"], tmp_path)
