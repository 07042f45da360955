"""Files, and the expansion of variables in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from realtime_communication.config.sources import (
    MAX_FILE_BYTES,
    UnreadableFileError,
    UnsetVariableError,
    expand,
    read_toml,
)


class TestExpansion:
    @pytest.mark.parametrize(
        ("text", "expanded"),
        [
            ("plain $HOME $", "plain $HOME $"),
            ("${A}", "one"),
            ("<${A}-${B}>", "<one-two>"),
            ("${MISSING:-fallback}", "fallback"),
            ("${EMPTY:-fallback}", "fallback"),
            ("${A:-fallback}", "one"),
            ("${MISSING:-}", ""),
            ("${EMPTY}", ""),
            ("${MISSING:-redis://host:6379/0?a=b}", "redis://host:6379/0?a=b"),
            ("$${A}", "${A}"),
            ("${TRICKY}", "${A}"),
        ],
    )
    def test_strings(self, text: str, expanded: str) -> None:
        environ = {"A": "one", "B": "two", "EMPTY": "", "TRICKY": "${A}"}
        assert expand(text, environ) == expanded

    def test_everywhere_in_a_value(self) -> None:
        value = {"a": ["${A}", 1], "b": {"c": "${A}"}, "d": True}
        assert expand(value, {"A": "x"}) == {"a": ["x", 1], "b": {"c": "x"}, "d": True}

    @pytest.mark.parametrize("text", ["${MISSING}", "a ${A} ${MISSING} b", "${", "${A", "${1}", "${A-x}", "${}"])
    def test_what_cannot_be_expanded(self, text: str) -> None:
        with pytest.raises(UnsetVariableError):
            expand(text, {"A": "one"})

    def test_the_missing_variable_is_named(self) -> None:
        with pytest.raises(UnsetVariableError, match="NOT_THERE"):
            expand("${NOT_THERE}", {})


class TestFiles:
    def test_content_and_lines(self, tmp_path: Path) -> None:
        path = tmp_path / "config.toml"
        path.write_bytes(b"[server]\r\nport = 1\r\n")
        file = read_toml(path)
        assert file.content == {"server": {"port": 1}}
        assert file.line(("server", "port")) == 2

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(UnreadableFileError, match="No such file"):
            read_toml(tmp_path / "none.toml")

    def test_directory(self, tmp_path: Path) -> None:
        with pytest.raises(UnreadableFileError, match="directory"):
            read_toml(tmp_path)

    def test_impossible_name(self) -> None:
        with pytest.raises(UnreadableFileError):
            read_toml(Path("a\0b"))

    def test_endless_file(self) -> None:
        with pytest.raises(UnreadableFileError, match="larger"):
            read_toml(Path("/dev/zero"))

    def test_too_large(self, tmp_path: Path) -> None:
        path = tmp_path / "config.toml"
        path.write_bytes(b"#" * (MAX_FILE_BYTES + 1))
        with pytest.raises(UnreadableFileError, match="larger"):
            read_toml(path)

    def test_not_utf8_names_the_line(self, tmp_path: Path) -> None:
        path = tmp_path / "config.toml"
        path.write_bytes(b'a = 1\nb = "\xff"\n')
        with pytest.raises(UnreadableFileError, match="line 2"):
            read_toml(path)

    @pytest.mark.parametrize("text", ["a = 1\na = 2\n", "a = 1\n[a]\n", "x = 1\nb =\n", "ok = 1\n= 2\n"])
    def test_syntax_error_names_the_line(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "config.toml"
        path.write_text(text)
        with pytest.raises(UnreadableFileError, match=r"TOML.*line 2"):
            read_toml(path)

    def test_a_number_of_too_many_digits(self, tmp_path: Path) -> None:
        path = tmp_path / "config.toml"
        path.write_text("a = " + "1" * 100_000)
        with pytest.raises(UnreadableFileError, match="TOML"):
            read_toml(path)

    def test_deep_nesting(self, tmp_path: Path) -> None:
        path = tmp_path / "config.toml"
        path.write_text("a = " + "[" * 100_000 + "]" * 100_000)
        with pytest.raises(UnreadableFileError):
            read_toml(path)
