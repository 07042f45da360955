"""The hooks of the documentation's site: what becomes of the navigation and of links out of docs/."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from serving.processes import ROOT


@pytest.fixture(scope="module")
def hooks() -> Any:
    spec = importlib.util.spec_from_file_location("docs_hooks", ROOT / "ci" / "docs_hooks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("docs/index.md", "docs/more/README.md", "docs/more/a.md", "deploy/nginx.conf"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    return tmp_path


def test_the_navigation_has_what_is_there(hooks: Any, tree: Path) -> None:
    nav = [{"Home": "index.md"}, {"Not yet": "later.md"}, {"All": [{"Gone": "gone.md"}]}, {"More": "more/"}]
    config = SimpleNamespace(docs_dir=str(tree / "docs"), nav=nav)
    assert hooks.on_config(config).nav == [{"Home": "index.md"}, {"More": ["more/README.md", "more/a.md"]}]


@pytest.mark.parametrize(
    ("page", "text", "wanted"),
    [
        ("index.md", "see [the file](../deploy/nginx.conf).", "see the file."),
        ("more/a.md", "see [the file](../../deploy/nginx.conf#L1).", "see the file."),
        ("index.md", "see [a](more/a.md) and [b](#b)", "see [a](more/a.md) and [b](#b)"),
        ("more/a.md", "see [home](../index.md)", "see [home](../index.md)"),
        ("index.md", "[far](https://example.org/x)", "[far](https://example.org/x)"),
        ("index.md", "```text\n[x](../y)\n```\n", "```text\n[x](../y)\n```\n"),
    ],
)
def test_links_out_of_the_site(
    hooks: Any, tree: Path, page: str, text: str, wanted: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = SimpleNamespace(docs_dir=str(tree / "docs"), repo_url="")
    made = hooks.on_page_markdown(text, SimpleNamespace(file=SimpleNamespace(src_uri=page)), config, None)
    assert (made, caplog.records) == (wanted, [])


def test_a_file_that_is_not_there_is_a_warning(hooks: Any, tree: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = SimpleNamespace(docs_dir=str(tree / "docs"), repo_url="https://example.org/project")
    page = SimpleNamespace(file=SimpleNamespace(src_uri="index.md"))
    made = hooks.on_page_markdown("[a](../deploy/nginx.conf) [b](../nowhere)", page, config, None)
    assert made.startswith("[a](https://example.org/project/blob/HEAD/deploy/nginx.conf)")
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
