"""What mkdocs does not do by itself for this documentation.

* The navigation may name pages and folders; a page that is not there is left out, a folder stands for all its pages.
* Pages link files of the repository outside docs/, for readers of the clone. Those are none of the site: the link
  becomes its text, or leads into `repo_url` where mkdocs.yml has one. A file that is not there is a warning.
"""

from __future__ import annotations

import logging
import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

_log = logging.getLogger("mkdocs.hooks.docs")
_LINK = re.compile(r"\[((?:[^\[\]]|\[[^\]]*\])+)\]\(([^()\s]+)\)")
_FENCED = re.compile(r"^( *```).*?^\1", re.MULTILINE | re.DOTALL)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Writes the pages of folders into the navigation, and takes those out that are not there."""
    docs = Path(config.docs_dir)
    config.nav = [entry for each in config.nav or [] if (entry := _there(each, docs))]
    return config


def _there(entry: Any, docs: Path) -> Any:
    ((title, target),) = entry.items()
    if isinstance(target, list):
        inside = [found for each in target if (found := _there(each, docs))]
        return {title: inside} if inside else None
    if target.endswith("/"):
        pages = sorted((docs / target).glob("*.md"), key=lambda path: (path.name != "README.md", path.name))
        return {title: [str(path.relative_to(docs)) for path in pages]}
    return entry if (docs / target).exists() else None


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Takes links to files outside docs/ away, but for those in blocks."""
    root = Path(config.docs_dir).parent
    folder = posixpath.dirname(f"docs/{page.file.src_uri}")

    def outside(match: re.Match[str]) -> str:
        text, target = match[1], match[2].partition("#")[0]
        if not target or ":" in target:
            return match[0]
        path = posixpath.normpath(posixpath.join(folder, target))
        if path == "docs" or path.startswith("docs/"):
            return match[0]
        if path.startswith("..") or not (root / path).exists():
            _log.warning("%s links %s, which is not there", page.file.src_uri, target)
        return f"[{text}]({config.repo_url.rstrip('/')}/blob/HEAD/{path})" if config.repo_url else text

    done, at = [], 0
    for block in _FENCED.finditer(markdown):
        done += [_LINK.sub(outside, markdown[at : block.start()]), block[0]]
        at = block.end()
    return "".join([*done, _LINK.sub(outside, markdown[at:])])
