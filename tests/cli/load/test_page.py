"""The report as a page."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from realtime_communication.cli.load.page import page, plot
from serving.bench_runs import outcome

VOID = frozenset({"meta", "br", "line", "polyline"})


class Tree(HTMLParser):
    """Checks that what is opened is closed, and keeps the text and the attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("mode", ["fanout", "latency", "echo", "direct"])
def test_a_page_has_its_plots_and_tables(mode: str) -> None:
    tree = Tree(page(outcome(mode)))
    assert tree.seen.count("svg") == 3
    assert "Sound" in tree.text and "1,000" in tree.text and "1.50 ms" in tree.text


def test_nothing_comes_from_elsewhere() -> None:
    text = page(outcome())
    names = {name for name, _ in Tree(text).attributes}
    assert not names & {"src", "href", "srcset", "action"}
    assert "url(" not in text and "@import" not in text and "<script" not in text
    assert "prefers-color-scheme: dark" in text


def test_what_a_server_said_is_text() -> None:
    text = page(outcome(errors=1, first_error="<script>alert(1)</script>"))
    assert "<script" not in text and "&lt;script&gt;" in text and "&lt;topic&gt;" in text


@pytest.mark.parametrize("mode", ["connect", "idle"])
def test_a_run_with_nothing_to_plot(mode: str) -> None:
    tree = Tree(page(outcome(mode, series=False, buckets=[])))
    assert "svg" not in tree.seen and "opened a second" in tree.text


def test_points_lie_inside_and_long_lines_are_thinned() -> None:
    text = plot({"rate": [(float(x), float(x % 7)) for x in range(10_000)]}, "seconds", str, str)
    (points,) = re.findall(r'points="([^"]+)"', text)
    places = [tuple(map(float, pair.split(","))) for pair in points.split()]
    assert len(places) <= 2000
    assert all(0 <= x <= 720 and 0 <= y <= 240 for x, y in places)


def test_a_line_of_zeros_at_one_moment() -> None:
    assert "nan" not in plot({"rate": [(1.0, 0.0), (1.0, 0.0)]}, "seconds", str, str)
