"""The TypeScript client as others get it: its types, its files, and what its documentation shows."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from serving.documents import Block, blocks
from serving.node_package import BUILT, PACKAGE, run
from serving.processes import ServerProcess
from serving.tokens import token

GUIDE = "docs/javascript.md"

KNOWN_TO_ALL = """
import type * as sdk from "realtime-communication-client";
declare global {
  const client: sdk.Client;
  const room: sdk.Subscription<{ text: string }>;
  const token: string;
}
"""
"""What a block may use without saying where it is from: it was made further up in the text."""

KNOWN_TO_PAGES = """
declare const token: string;
declare function reload(topic: string): void;
declare module "socket.io-client";
declare module "pusher-js";
declare module "centrifuge";
"""
"""What plain JavaScript in the documents may use: parts of the page around it, and what others' packages are called."""

OPTIONS: dict[str, Any] = {
    "extends": "../../tsconfig.base.json",
    "compilerOptions": {
        "types": ["node"],
        "rootDir": ".",
        "outDir": "made",
        "noUnusedLocals": False,
        "noPropertyAccessFromIndexSignature": False,
        "exactOptionalPropertyTypes": False,
    },
    "include": ["."],
}


def name_of(block: Block) -> str:
    """That of the file that it is checked as."""
    return re.sub(r"\W", "_", str(block))


def checked(name: str, language: str, known: str, server: ServerProcess, **options: Any) -> Path:
    """Every block in the language of all documents is of the right types. The folder with what was made of them."""
    folder = BUILT / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    settings = OPTIONS | {"compilerOptions": OPTIONS["compilerOptions"] | options}
    (folder / "tsconfig.json").write_text(json.dumps(settings))
    (folder / "globals.d.ts").write_text(known)
    for block in blocks(language):
        address = block.text.replace("ws://localhost:8081/ws", server.url)
        (folder / f"{name_of(block)}.{language}").write_text(f"{address}\nexport {{}};\n")
    run("tsc", "-p", str(folder))
    return folder


def test_plain_javascript_in_the_documentation(package: Path, server: ServerProcess) -> None:
    checked("docs-js", "js", KNOWN_TO_PAGES, server, allowJs=True, checkJs=True, strict=False, noImplicitAny=False)


def test_the_documentation(package: Path, server: ServerProcess) -> None:
    """Every block is of the right types; the guide's first is run."""
    folder = checked("docs", "ts", KNOWN_TO_ALL, server)
    first = (folder / "made" / f"{name_of(blocks('ts', path=GUIDE)[0])}.js").read_text()
    (folder / "made" / "first.mjs").write_text(f"{first}\nawait client.ping(); await client.close();\n")
    wrote = run("node", str(folder / "made" / "first.mjs"), environment={"TOKEN": token("alice")})
    assert wrote == "alice hello from Node\n"


def test_the_examples(package: Path) -> None:
    run("tsc", "-p", "examples/tsconfig.json")


def test_the_types_hide_nothing(package: Path) -> None:
    declarations = sorted((package / "dist").glob("*.d.ts"))
    assert declarations
    for path in declarations:
        code = re.sub(r"/\*.*?\*/|//.*", "", path.read_text(), flags=re.DOTALL)
        assert not re.search(r"\bany\b", code), path


def test_the_package_has_what_its_map_names(package: Path) -> None:
    packed = json.loads(run("npm", "pack", "--dry-run", "--ignore-scripts", "--json"))
    files = {f"./{file['path']}" for file in packed[0]["files"]}
    manifest = json.loads((package / "package.json").read_text())
    entries = [[entry] if isinstance(entry, str) else entry.values() for entry in manifest["exports"].values()]
    wanted = {path for paths in entries for path in paths}
    assert wanted <= files
    assert not [name for name in files if name.startswith(("./test", "./.build", "./node_modules"))]


@pytest.mark.parametrize("name", ["package.json", "package-lock.json"])
def test_no_place_to_download_from_is_named(name: str) -> None:
    assert not re.search(r'"resolved"|registry', (PACKAGE / name).read_text())
