"""RFC 8259 held against Python's own reader; the rows of hostile JSON; strings there and back."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model import json_text
from realtime_communication._core.wire import json_scan

attack = settings(max_examples=200, deadline=None, derandomize=True)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=5)
    ),
    max_leaves=12,
)
TOKENS = [
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    " ",
    "\n",
    "0",
    "-",
    "1",
    "12",
    ".",
    "e",
    "E",
    "+",
    "1.5",
    "1e5",
    '"',
    '"a"',
    "\\",
    "u",
    "\\u0041",
    '"\\ud83d\\ude00"',
    "\\ud800",
    "true",
    "false",
    "null",
    "nul",
    "NaN",
    "\t",
    "\x00",
    "\x1f",
    "é",
    "\ufeff",
    "e400",
    "e308",
    "1e-400",
    '"k":',
]


def accepts(data: bytes) -> bool:
    try:
        json_scan.validate(data)
    except ValueError:
        return False
    return True


def model_accepts(text: str) -> bool:
    try:
        json_text.read(text)
    except json_text.NotAccepted:
        return False
    return True


class TestGrammar:
    @attack
    @given(values, st.sampled_from([None, 0, 1]), st.booleans())
    def test_whatever_python_writes_is_accepted(self, value: object, indent: int | None, ascii_only: bool) -> None:
        json_scan.validate(json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode())

    @settings(attack, max_examples=1000)
    @given(st.lists(st.sampled_from(TOKENS), max_size=8).map("".join))
    def test_same_verdict_as_the_model(self, text: str) -> None:
        assert accepts(text.encode()) is model_accepts(text)

    @attack
    @given(values, st.data())
    def test_same_verdict_on_mutants(self, value: object, data: st.DataObject) -> None:
        text = json.dumps(value)
        at = data.draw(st.integers(0, len(text)))
        text = text[:at] + data.draw(st.sampled_from(["", *TOKENS])) + text[at + data.draw(st.integers(0, 2)) :]
        assert accepts(text.encode()) is model_accepts(text)

    @attack
    @given(values)
    def test_every_cut_is_refused(self, value: object) -> None:
        text = json.dumps([value]).encode()
        assert [at for at in range(len(text)) if accepts(text[:at])] == []

    @pytest.mark.parametrize("space", [" ", "\t", "\r", "\n", " \r\n\t "])
    def test_space_around_everything(self, space: str) -> None:
        tokens = [
            "{",
            '"a"',
            ":",
            "[",
            "1",
            ",",
            "true",
            "]",
            ",",
            '"b"',
            ":",
            "{",
            "}",
            ",",
            '"c"',
            ":",
            "[",
            "]",
            "}",
        ]
        json_scan.validate(space.join(["", *tokens, ""]).encode())

    @pytest.mark.parametrize("space", ["\v", "\f", "\xa0", "\u2028", "\ufeff"])
    def test_other_space_is_none(self, space: str) -> None:
        assert not accepts(f"{space}1".encode())


class TestNumbers:
    LARGEST = 2**1024 - 2**970 - 1

    @pytest.mark.parametrize(
        "text",
        [str(LARGEST), f"-{LARGEST}", f"{LARGEST}.9999", "0e99999999999999999999", "1e-99999999999999999999", "-0",
         "0." + "0" * 1000 + "1e1300", "1" + "0" * 308, "1" + "0" * 1000 + "e-700", "0.1e309",
         str(LARGEST)[0] + "." + str(LARGEST)[1:] + "e308"],
    )  # fmt: skip
    def test_in_the_range_of_a_double(self, text: str) -> None:
        json_scan.validate(text.encode())

    @pytest.mark.parametrize(
        "text",
        [str(LARGEST + 1), f"-{LARGEST + 1}", "1e400", "-1e400", "1e309", "10e308", "0.1e310", "1" * 310,
         "1e99999999999999999999", "0." + "0" * 1000 + "1e1310", "1" + "0" * 309, "9" * 100_000,
         str(LARGEST + 1)[0] + "." + str(LARGEST + 1)[1:] + "e308"],
        ids=lambda text: text[:20],
    )  # fmt: skip
    def test_beyond_it(self, text: str) -> None:
        with pytest.raises(ValueError, match="range"):
            json_scan.validate(text.encode())

    @pytest.mark.parametrize(
        "text", ["01", "-", "+1", ".5", "1.", "1.e5", "1e", "1e+", "--1", "0x10", "1_0", "- 1", "-a", "\u0661"]
    )
    def test_not_numbers(self, text: str) -> None:
        assert not accepts(text.encode())

    @attack
    @given(st.integers(0, 10**30), st.integers(0, 40), st.integers(290, 330))
    def test_verdict_near_the_border(self, digits: int, point: int, exponent: int) -> None:
        text = str(digits)
        text = (text[:point] + "." + text[point:]) if 0 < point < len(text) else text
        assert accepts(f"{text}e{exponent}".encode()) is model_accepts(f"{text}e{exponent}")


class TestDepth:
    @pytest.mark.parametrize(("start", "end"), [("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")])
    def test_bound(self, start: str, end: str) -> None:
        levels = 128 // (len(end))
        json_scan.validate((start * levels + "1" + end * levels).encode())
        with pytest.raises(ValueError, match="deep"):
            json_scan.validate((start * levels + "[1]" + end * levels).encode())

    def test_empty_containers_count(self) -> None:
        json_scan.validate(b"[" * 128 + b"]" * 128)
        assert not accepts(b"[" * 129 + b"]" * 129)

    def test_far_too_deep(self) -> None:
        assert not accepts(b"[" * 100_000)
        assert not accepts(b'{"a":' * 100_000)

    def test_width_is_no_depth(self) -> None:
        json_scan.validate(b"[" + b"[]," * 10_000 + b"{}]")


class TestStrings:
    @attack
    @given(st.text(st.characters(exclude_categories=["Cs"])))
    def test_quote_is_read_back_by_python(self, text: str) -> None:
        assert json.loads(json_scan.quote(text.encode())) == text

    @attack
    @given(st.text(st.characters(exclude_categories=["Cs"])), st.booleans())
    def test_unescape_reads_what_python_writes(self, text: str, ascii_only: bool) -> None:
        content = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
        assert json_scan.unescape(content.encode()).decode() == text

    @pytest.mark.parametrize("length", range(40))
    def test_specials_at_every_place(self, length: int) -> None:
        for special in ['"', "\\", "\x00", "\x1f", "\x7f", "\x80", "\u2028", " ", "!", "#", "[", "]"]:
            text = "x" * length + special + "y" * (20 - length % 20)
            quoted = json_scan.quote(text.encode())
            assert json.loads(quoted) == text
            json_scan.validate(quoted)
            assert accepts(b'"' + text.encode() + b'"') is model_accepts('"' + text + '"')

    def test_short_forms(self) -> None:
        assert json_scan.quote(b'\b\t\n\f\r"\\/\x01\x7f') == b'"\\b\\t\\n\\f\\r\\"\\\\/\\u0001\x7f"'

    @pytest.mark.parametrize(
        "content",
        ["\\ud800", "\\udc00", "\\ud800\\ud800", "\\ud800x", "\\ud800\\n", "\\ud800\\u0041", "\\udfff\\ud800", "\\u12",
         "\\u12g4", "\\x41", "\\", "\\'", "\\0", "\\U0041", "a\nb", "\x00"],
    )  # fmt: skip
    def test_refused(self, content: str) -> None:
        assert not accepts(f'"{content}"'.encode())
