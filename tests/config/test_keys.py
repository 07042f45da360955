"""Reading keys out of annotated structs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import pytest

from realtime_communication.config.keys import REDACTED, REQUIRED, Kind, Section, Spec, keys_of, kind_of


class Inner(Section, frozen=True, kw_only=True, rename={"global_": "global"}):
    """A section."""

    global_: Annotated[int, Spec("Counts.", minimum=1, maximum=9, variables=("INNER_GLOBAL",))] = 4
    word: Annotated[str, Spec("Hides.", secret=True)] = "hush"


class Row(Section, frozen=True, kw_only=True):
    """A table of a list."""

    name: Annotated[str, Spec("Names.")]


class Outer(Section, frozen=True, kw_only=True):
    """A section around another."""

    inner: Inner = msgspec.field(default_factory=Inner)
    rows: Annotated[tuple[Row, ...], Spec("Rows.")] = ()


def test_paths_follow_the_sections() -> None:
    assert [key.path for key in keys_of(Outer)] == ["inner.global", "inner.word", "rows"]


def test_a_key_has_what_its_spec_says() -> None:
    key = next(keys_of(Outer))
    assert (key.kind, key.default, key.minimum, key.maximum) == (Kind.INTEGER, 4, 1, 9)
    assert key.options == ("--inner-global",)


def test_tables_know_their_keys() -> None:
    rows = list(keys_of(Outer))[-1]
    assert rows.shape is Row
    assert [(key.path, key.default) for key in rows.element] == [("name", REQUIRED)]


def test_representation_hides_secrets() -> None:
    assert "hush" not in repr(Outer())
    assert REDACTED in repr(Outer())
    assert "global_=4" in repr(Inner())


def test_a_field_without_spec_is_a_fault_of_the_declaration() -> None:
    class Bad(Section, frozen=True, kw_only=True):
        """Undeclared."""

        loose: int = 1

    with pytest.raises(TypeError, match="loose"):
        list(keys_of(Bad))


@pytest.mark.parametrize(
    ("python_type", "kind"),
    [
        (bool, Kind.BOOLEAN),
        (int, Kind.INTEGER),
        (float, Kind.NUMBER),
        (str, Kind.STRING),
        (Literal["a", "b"], Kind.CHOICE),
        (tuple[str, ...], Kind.STRINGS),
        (tuple[float, ...], Kind.NUMBERS),
        (dict[str, str], Kind.STRING_MAP),
        (tuple[Row, ...], Kind.TABLES),
        (tuple[str, ...] | None, Kind.STRINGS),
    ],
)
def test_kinds(python_type: Any, kind: Kind) -> None:
    assert kind_of(python_type)[0] is kind


@pytest.mark.parametrize("python_type", [bytes, list[int], tuple[int, ...], tuple[str, str], dict[str, int]])
def test_other_types_are_no_configuration(python_type: Any) -> None:
    with pytest.raises(TypeError):
        kind_of(python_type)
