"""Lines of keys, against documents written by hand and documents made at random."""

from __future__ import annotations

import tomllib

from hypothesis import given, settings
from hypothesis import strategies as st

from realtime_communication.config.reference import toml
from realtime_communication.config.toml_positions import Place, key_lines, line_of

DOCUMENT = '''\
# comment [not.a.table]
top = 1
"quoted key" = "a # no comment"

[server]   # [comment]
host = "unix:/tmp/a\\"b]"
port = 8081
dotted.inner . deep = true

[[auth.providers]]
name = 'lit"eral'
keys = [
    { key = "x", user = "]" },  # ] in a comment
    { key = "y" },
]
type = "api_key"

[[auth.providers]]
text = """
[fake]
not_a_key = 1
ends in quotes"""""
after = 2

[[auth.providers.keys]]
key = \'\'\'
raw \\
[fake]\'\'\'
user = "z"

[ "odd \\u0041.name" . b ]
last = 1979-05-27T07:32:00Z'''

EXPECTED: dict[Place, int] = {
    ("top",): 2,
    ("quoted key",): 3,
    ("server",): 5,
    ("server", "host"): 6,
    ("server", "port"): 7,
    ("server", "dotted", "inner", "deep"): 8,
    ("auth", "providers"): 10,
    ("auth", "providers", 0): 10,
    ("auth", "providers", 0, "name"): 11,
    ("auth", "providers", 0, "keys"): 12,
    ("auth", "providers", 0, "type"): 16,
    ("auth", "providers", 1): 18,
    ("auth", "providers", 1, "text"): 19,
    ("auth", "providers", 1, "after"): 23,
    ("auth", "providers", 1, "keys"): 25,
    ("auth", "providers", 1, "keys", 0): 25,
    ("auth", "providers", 1, "keys", 0, "key"): 26,
    ("auth", "providers", 1, "keys", 0, "user"): 29,
    ("odd A.name", "b"): 31,
    ("odd A.name", "b", "last"): 32,
}


def test_a_document_with_every_form() -> None:
    tomllib.loads(DOCUMENT)
    assert key_lines(DOCUMENT) == EXPECTED


def test_nearest_line_above() -> None:
    lines = key_lines(DOCUMENT)
    assert line_of(lines, ("auth", "providers", 0, "keys", 1, "user")) == 12
    assert line_of(lines, ("server", "unknown")) == 5
    assert line_of(lines, ("nowhere",)) == 0


def test_empty_document() -> None:
    assert key_lines("") == {}
    assert key_lines("# only a comment") == {}


_names = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=8)
_values = st.one_of(
    st.integers(-(2**60), 2**60).map(str),
    st.booleans().map(lambda value: str(value).lower()),
    st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=12).map(toml),
    st.lists(st.sampled_from(["1", '"]"', '"[x]"', "'#'"]), max_size=4).map(
        lambda items: "[\n  " + ",  # ]\n  ".join(items) + ("\n" if items else "") + "]"
    ),
    st.just('"""\n[no]\nkey = 1\n"""'),
    st.just("{ a = 1, 'b' = [2, 3] }"),
)


@st.composite
def _documents(draw: st.DrawFn) -> tuple[str, dict[Place, int]]:
    text, lines = "", {}
    tables = draw(st.lists(_names, unique=True, max_size=4))
    for table in ["", *tables]:
        place: Place = (table,) if table else ()
        if table:
            text += f"[{toml(table)}]\n"
            lines[place] = text.count("\n")
        for name in draw(st.lists(_names, unique=True, max_size=4)):
            if not table and name in tables:
                continue
            lines[(*place, name)] = text.count("\n") + 1
            text += f"{toml(name)} = {draw(_values)}" + draw(st.sampled_from(["\n", " # c\n"]))
            text += draw(st.sampled_from(["", "\n", "# [c]\n"]))
    return text, lines


@settings(max_examples=200, deadline=None, derandomize=True)
@given(_documents())
def test_documents_made_at_random(document: tuple[str, dict[Place, int]]) -> None:
    text, lines = document
    tomllib.loads(text)
    assert key_lines(text) == lines
